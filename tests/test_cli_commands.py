"""Every command of `lth`: examples, bad input, and what `ls`, `show` and `compare` print."""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from lth_jax import cli, report, store
from lth_jax.cli import completion
from lth_jax.report import sinks
from lth_jax.store import locks, sweeps
from tests.report import synthetic

PARSER = cli.make_parser()
[SUBPARSERS] = [a for a in PARSER._actions if isinstance(a, argparse._SubParsersAction)]
COMMANDS = SUBPARSERS.choices


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two runs of the same seeds, one of other seeds, and one that is not finished."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, config in enumerate(
        [{"seed": 1, "rate": 0.1}, {"seed": 1, "rate": 0.2}, {"seed": 2, "prune": {"levels": 3}}]
    ):
        synthetic.write(folder, nodes=synthetic.ladder(levels=2, seed=seed), config=config)
    synthetic.write(folder, nodes=[], config={"other": 1}, finish=False)
    return str(folder)


@pytest.fixture(scope="module")
def names(root):
    found = {info.run: store.read_config(info.path) for info in store.list_runs(root)}
    return {
        key: next(run for run, config in found.items() if config.get(name) == value)
        for key, name, value in [("one", "rate", 0.1), ("two", "rate", 0.2), ("open", "other", 1)]
    } | {"three": next(run for run, config in found.items() if config.get("seed") == 2)}


@pytest.fixture
def lth(capsys, root):
    def run(*words):
        code = cli.main([*words, "--root", root])
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_that_are_right(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    examples = re.findall(r"lth [^&|>)#\n]*", text.partition("examples:")[2])
    assert 1 <= len(examples) <= 3 and all(f"lth {name}" in line for line in examples[:1])
    for line in examples:
        assert PARSER.parse_args(shlex.split(line)[1:]).command


BAD = {
    "ls": (["ls", "--status", "done"], "unknown status 'done': the statuses are running, finished"),
    "ls age": (
        ["ls", "--newer", "2y"],
        "'2y' is not an age; it must be a number followed by m, h, d or w, such as 30m",
    ),
    "ls sort": (["ls", "--sort", "x"], "choose from"),
    "show": (["show", "x"], "unknown run or sweep 'x': the runs and sweeps in"),
    "compare": (["compare", "one", "x"], "unknown run 'x': the runs in"),
    "compare metric": (
        ["compare", "one", "two", "--metric", "x"],
        "`--metric` is 'x'; all runs must",
    ),
    "compare arm": (["compare", "one", "two", "--arm", "x"], " has dense, ticket, reinit, "),
    "compare unfinished": (["compare", "one", "open"], "has no finished level"),
    "compare one": (["compare", "one"], "the following arguments are required: RUN"),
    "report": (["report", "x"], "unknown run or sweep 'x': the runs and sweeps in"),
    "spectrum": (["spectrum", "one"], "has no spectra yet"),
    "size": (["size", "x"], "unknown run 'x': the runs in"),
    "export": (
        ["export", "one", "x.ticket", "--level", "x", "--replicate", "0"],
        "argument --level: invalid int value: 'x'",
    ),
    "export precision": (
        ["export", "one", "x", "--level", "1", "--replicate", "0", "--precision", "int3"],
        "(choose from ",
    ),
    "export no level": (["export", "one", "x"], "`--level` is needed to choose a network of"),
    "export batch": (
        ["export", "one", "x", "--level", "1", "--replicate", "0", "--batch", "2"],
        "`--batch` is an option of the format stablehlo or onnx, not of ticket.",
    ),
    "export pattern": (
        ["export", "one", "x", "--level=1", "--replicate=0", "--format=nm", "--pattern=2"],
        "`--pattern` is '2'; it must be N:M, such as 2:4.",
    ),
    "export option": (
        ["export", "one", "x", "--level", "1", "--replicate", "0", "--masks"],
        "`--masks` is an option of the format safetensors, not of ticket.",
    ),
    "export nm": (
        ["export", "one", "x", "--level", "1", "--replicate", "0", "--format", "nm"],
        "`mask` at 'Dense_0/kernel' is not 2:4: of the inputs ",
    ),
    "import": (["import", "pyproject.toml", "x"], "pyproject.toml' cannot be read: it is not a"),
    "import again": (["import", "x", "pyproject.toml"], "exists; `--overwrite` replaces it."),
    "import nothing": (["import", "x.safetensors", "x"], "No such file or directory"),
    "log": (["log", "x", "--to", "wandb"], "unknown run 'x': the runs in"),
    "log to": (["log", "one", "--to", "x"], "(choose from "),
    "watch": (["watch", "x"], "unknown run or sweep 'x': the runs and sweeps in"),
    "watch nothing": (["watch"], "no run or sweep in"),
    "watch every": (["watch", "one", "--every", "0"], "must be a number of seconds above 0"),
    "verify": (["verify", "x"], "unknown run 'x': the runs in"),
    "export again": (
        ["export", "one", "pyproject.toml", "--level", "1", "--replicate", "0"],
        "pyproject.toml exists; `--overwrite` replaces it.",
    ),
    "rm": (["rm", "x"], "unknown run or sweep 'x': the runs and sweeps in"),
    "gc": (["gc", "--root", "nowhere"], "`--root` must be the folder of all runs"),
    "du": (["du", "--root", "nowhere"], "`--root` must be the folder of all runs"),
    "completion": (["completion", "tcsh"], "choose from"),
}


def test_the_bad_inputs_cover_all_commands():
    assert {case.split()[0] for case in BAD} == set(COMMANDS)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_code_2(case, root, names, capsys):
    words, message = BAD[case]
    where = [] if {"--root", "completion", "import"} & set(words) else ["--root", root]
    try:
        code = cli.main([*(names.get(word, word) for word in words), *where])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err
    if message.startswith("unknown run"):
        assert all(name in err for name in names.values())


def test_ls_shows_accuracy_size_and_age(lth, names):
    _, out, _ = lth("ls")
    header, *rows = out.splitlines()
    assert header.split() == "run status age best kept % last kept % MB".split()
    row = next(row for row in rows if row.startswith(names["one"]))
    _, shown, _ = lth("show", names["one"], "--json")
    means = {
        row["level"]: row["mean"]
        for row in json.loads(shown)["rows"]
        if (row["arm"], row["metric"]) == ("ticket", "test_accuracy_final")
    }
    assert f"{100 * max(means.values()):.1f} %" in row and f"{100 * means[2]:.1f} %" in row
    assert "0 m" in row and re.search(r"\d\.\d\d$", row.rstrip())
    assert names["open"] in out and "interrupted" in out


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--status", "interrupted"], {"open"}),
        (["--status", "finished,failed"], {"one", "two", "three"}),
        (["--name", "ladder-*"], {"one", "two", "three", "open"}),
        (["--name", "lenet*"], set()),
        (["--experiment", "ladder"], {"one", "two", "three", "open"}),
        (["--experiment", "lad"], set()),
        (["--newer", "1h"], {"one", "two", "three", "open"}),
        (["--older", "1h"], set()),
    ],
)
def test_ls_filters(lth, names, words, wanted):
    _, out, _ = lth("ls", *words, "--json")
    assert {run["run"] for run in json.loads(out)["runs"]} == {names[name] for name in wanted}


@pytest.mark.parametrize("by", ["run", "status", "age", "best", "last", "size"])
def test_ls_sorts(lth, by):
    runs = json.loads(lth("ls", "--sort", by, "--json")[1])["runs"]
    again = json.loads(lth("ls", "--sort", by, "--json", "--reverse")[1])["runs"]
    assert again == runs[::-1]
    levels = [run["summary"]["levels"] for run in runs if run["summary"]]
    keys = {
        "run": [run["run"] for run in runs],
        "status": [run["status"] for run in runs],
        "age": [run["created"] for run in runs],
        "best": [-max(one["mean"] for one in found[1:]) for found in levels],
        "last": [-found[-1]["mean"] for found in levels],
        "size": [-run["summary"]["bytes"] for run in runs if run["summary"]],
    }
    assert keys[by] == sorted(keys[by])
    if by in ("best", "last", "size"):
        assert runs[-1]["summary"] is None


def test_a_table_in_a_file_has_all_digits_and_no_empty_column(root, names):
    code = "import sys; from lth_jax.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "show", names["one"], "--root", root],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "40"},
    )
    table = done.stdout.partition("\n")[2].rpartition("\n")[0].rpartition("\n")[0]
    assert "…" not in table and len(re.findall(r"\d+\.\d±\d+\.\d", table)) == 1 + 2 * 4
    assert max(map(len, table.splitlines())) > 60


def test_empty_columns_are_not_printed(tmp_path, capsys):
    nodes = [
        node._replace(results={"test_accuracy_final": node.results["test_accuracy_final"]})
        for node in synthetic.ladder(levels=1)
    ]
    run = synthetic.write(tmp_path, nodes=nodes).run
    assert cli.main(["show", run, "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "ticket" in out and "early stop" not in out


@pytest.fixture
def swept(tmp_path):
    """A sweep with two finished cells and one that has not begun, and its root."""
    made = [
        synthetic.write(tmp_path, nodes=synthetic.ladder(levels=1, seed=i), config={"rate": i})
        for i in range(2)
    ]
    runs = [*(one.run for one in made), "ladder-33333333"]
    cells = [{"setting": {"rate": i}, "run": run} for i, run in enumerate(runs)]
    return store.open_sweep(tmp_path, name="demo", config={"cells": cells}).path, made


def test_sweeps_are_listed_with_their_best_cell(swept, capsys):
    path, made = swept
    root = ["--root", str(path.parents[1])]
    assert cli.main(["ls", *root]) == 0
    header, line = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert header.split() == "sweep status cells age best kept % MB".split()
    best = max(level["mean"] for run in made for level in run.summary["levels"] if level["level"])
    assert line.split()[:3] == [path.name, "interrupted", "2/3"] and f"{100 * best:.1f} %" in line
    with locks.hold(path / "locks" / "group-a.lock", what="group"):
        cli.main(["ls", *root, "--status", "running", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["runs"] == [] and [one["sweep"] for one in found["sweeps"]] == [path.name]
    assert found["sweeps"][0]["finished"] == [run.run for run in made]
    (path / "config.json").write_text("{}")
    cli.main(["ls", *root, "--name", "demo-*"])
    assert "damaged" in capsys.readouterr().out


def test_sweeps_of_pilots_are_listed_with_all_only(tmp_path, capsys):
    run = synthetic.write(tmp_path, nodes=synthetic.ladder(levels=1))
    cells = [{"setting": {}, "run": run.run}]
    path = store.open_sweep(tmp_path, name="demo", config={"cells": cells}).path
    runs = store.list_runs(tmp_path)
    assert [one.sweep for one in sweeps.list_sweeps(tmp_path, runs)] == [path.name]
    assert sweeps.list_sweeps(tmp_path, []) == []  # as `list_runs` leaves pilots out


def test_a_sweep_is_shown_cell_by_cell(swept, capsys):
    path, made = swept
    root = ["--root", str(path.parents[1])]
    assert cli.main(["show", "demo", *root]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{path.name}: 3 cells, 2 finished") and "(not finished)" in out
    assert all(run.run in out for run in made) and out.count("±") == 2 * len(synthetic.ARMS) + 2
    cli.main(["show", "demo", "--json", *root])
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["cells"]) == 3 and {row["run"] for row in shown["rows"]} == {
        run.run for run in made
    }
    assert cli.main(["report", "demo", *root]) == 0
    assert (path / "report" / "index.html").exists()
    assert cli.main(["compare", "demo", made[0].run, *root]) == 2
    assert f"'demo' is a sweep; name one of its runs, such as {made[0].run}" in (
        capsys.readouterr().err
    )


def test_runs_of_other_metrics_are_compared_by_a_metric_of_both(tmp_path, capsys):
    runs = []
    for name in ("test_accuracy_final", "test_error_final"):
        nodes = synthetic.ladder(levels=1)
        for node in nodes:
            node.results[name] = node.results.pop("test_accuracy_final")
        runs.append(synthetic.write(tmp_path, nodes=nodes, config={"metric": name}).run)
    assert cli.main(["compare", *runs, "--root", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "`--metric` is 'test_accuracy_final'; all runs must have it: " in err
    assert f"; {runs[1]} has " in err and "test_error_final" in err
    options = ["--metric", "test_loss_final", "--root", str(tmp_path)]
    assert cli.main(["compare", *runs, *options]) == 0


def test_runs_of_equal_seeds_are_compared_in_pairs(lth, names):
    _, out, _ = lth("compare", names["one"], names["two"], names["three"], "--json")
    found = json.loads(out)
    paired = {(row["run"], row["level"]): row["paired"] for row in found["differences"]}
    assert set(paired) == {(names[n], level) for n in ("two", "three") for level in (0, 1, 2)}
    assert all(is_paired == (run == names["two"]) for (run, _), is_paired in paired.items())
    assert found["fields"] == {
        "seed": [1, 1, 2],
        "rate": [0.1, 0.2, None],
        "prune.levels": [None, None, 3],
    }
    values = {(row["run"], row["level"]): row["values"] for row in found["levels"]}
    one, two = values[names["one"], 1], values[names["two"], 1]
    [row] = [r for r in found["differences"] if (r["run"], r["level"]) == (names["two"], 1)]
    mean = sum(b - a for a, b in zip(one, two, strict=True)) / len(one)
    assert row["mean"] == pytest.approx(mean) and row["low"] < mean < row["high"]


def test_a_comparison_for_people(lth, names):
    code, out, err = lth("compare", names["one"], names["two"], "--arm", "random")
    hashes = [names[name].rpartition("-")[2] for name in ("one", "two")]
    assert (code, err) == (0, "") and "Test accuracy at the end (%), random" in out
    assert f"{hashes[1]} − {hashes[0]} (paired)" in out and "Fields that differ" in out
    assert "The configurations are equal." in lth("compare", names["one"], names["one"])[1]


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_a_shell_gets_its_script(shell, capsys):
    pytest.importorskip("argcomplete")
    assert cli.main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert "lth" in out and "_ARGCOMPLETE" in out


@pytest.mark.parametrize(
    ("line", "wanted"),
    [("lth sh", ["show"]), ("lth ls --st", ["--status"]), ("lth show --root {} ladder-", None)],
)
def test_commands_options_and_names_are_completed(line, wanted, root, names, tmp_path):
    pytest.importorskip("argcomplete")
    line = line.format(root)
    answers = tmp_path / "answers"
    env = os.environ | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answers),
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SHELL": "bash",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    code = "from lth_jax.cli import main; main()"
    subprocess.run([sys.executable, "-c", code], env=env, check=True, cwd=os.getcwd())
    found = [word.strip() for word in answers.read_text().split("\n")]
    assert sorted(found) == sorted(wanted or names.values())


def test_a_list_of_runs_reads_no_node(tmp_path, capsys):
    synthetic.write(tmp_path, nodes=synthetic.ladder(levels=1))
    cli.main(["ls", "--root", str(tmp_path)])
    with_nodes = capsys.readouterr().out
    shutil.rmtree(tmp_path / "nodes")
    cli.main(["ls", "--root", str(tmp_path)])
    assert capsys.readouterr().out == with_nodes and " %" in with_nodes


def events(folder):
    """The scalars in TensorBoard's event files of a folder, by tag and step."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = {}
    for path in folder.glob("events*"):
        data = path.read_bytes()
        while data:  # a record: its length, a checksum, its bytes, a checksum
            length = int.from_bytes(data[:8], "little")
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            found |= {(v.tag, event.step): v.simple_value for v in event.summary.value}
    return found


def test_tensorboard_reads_the_mean_curves(lth, names, root, tmp_path):
    code, out, _ = lth("log", names["one"], "--to", "tensorboard", "--folder", str(tmp_path))
    run = report.read_run(store.Store(root), f"{root}/{names['one']}")
    points = list(sinks.mean_curves(run))
    assert code == 0 and out.startswith(f"{len(points):,} points")
    for arm in run.arms:
        mine = {(f"{p.metric}/level_{p.level}", p.step): p.value for p in points if p.arm == arm}
        assert events(tmp_path / names["one"] / arm) == pytest.approx(mine, rel=1e-6)
    [level] = [level for level in run.levels if level.level == 1]
    curve, tickets = level.curves["train_loss"], [m.arm == "ticket" for m in level.members]
    [last] = [
        p.value
        for p in points
        if p[:3] == ("ticket", 1, "train_loss") and p.step == level.steps[-1]
    ]
    assert last == pytest.approx(curve[-1, tickets].mean())


@pytest.mark.slow
def test_weights_and_biases_takes_the_mean_curves_offline(lth, names, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    code, out, _ = lth("log", names["one"], "--to", "wandb", "--folder", str(tmp_path))
    [written] = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert code == 0 and "points" in out
    assert b"level 1/ticket/train_loss" in written.read_bytes()
