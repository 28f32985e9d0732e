import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lth_jax
from lth_jax import cli, coding
from lth_jax.cli import arguments
from tests.report import synthetic


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    synthetic.write(folder, nodes=synthetic.ladder(levels=2, diverged=[(1, "random", 0)]))
    synthetic.write(folder, nodes=[], config={"another": 1}, finish=False)
    return str(folder)


@pytest.fixture
def lth(capsys, root):
    """Runs a command on the root and returns its exit code, stdout and stderr."""

    def run(*words, root=root):
        code = cli.main([*words, "--root", str(root)])
        return code, *capsys.readouterr()

    return run


def names(root):
    return [Path(path).parent.name for path in sorted(Path(root).glob("*/config.json"))]


def finished(lth):
    _, out, _ = lth("ls", "--json")
    return next(run for run in json.loads(out)["runs"] if run["status"] == "finished")


def test_ls_lists_every_run(lth, root):
    code, out, err = lth("ls")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()[1:]]
    assert sorted(row[0] for row in rows) == names(root)
    assert sorted(row[1] for row in rows) == ["finished", "interrupted"]


def test_ls_for_machines(lth, root):
    code, out, _ = lth("ls", "--json")
    runs = json.loads(out)["runs"]
    assert code == 0 and sorted(run["run"] for run in runs) == names(root)
    for run in runs:
        assert list(run) == ["run", "name", "status", "config_hash", "created", "path", "summary"]
        assert Path(run["path"], "config.json").is_file()


def test_show_for_machines(lth):
    run = finished(lth)
    code, out, _ = lth("show", run["run"], "--json")
    shown = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert code == 0
    assert (shown["run"], shown["config_hash"]) == (run["run"], run["config_hash"])
    row = next(r for r in shown["rows"] if r["arm"] == "random" and r["level"] == 1)
    assert row["values"][0] is None and row["replicates"] == 4


def test_show_for_people(lth):
    run = finished(lth)["run"]
    code, out, _ = lth("show", run)
    assert code == 0
    assert out.startswith(f"{run}: finished")
    assert "(4/5)" in out and "ticket minus control" in out


def test_a_run_is_found_by_path_from_anywhere(lth, tmp_path):
    run = finished(lth)
    code, out, _ = lth("show", run["path"], "--json", root=tmp_path)
    assert code == 0 and json.loads(out)["run"] == run["run"]


def test_show_of_an_unfinished_run_shows_what_is_there(lth, root):
    run = next(name for name in names(root) if name != finished(lth)["run"])
    Path(root, run, "metrics.jsonl").write_text('{"step": 1}\n{"st')
    code, out, _ = lth("show", run)
    assert code == 0 and "interrupted" in out and "No level is finished yet" in out
    code, out, _ = lth("show", run, "--json")
    assert code == 0 and json.loads(out)["rows"] == []


def test_report_prints_the_path_of_the_page(lth, root):
    run = next(name for name in names(root) if name != finished(lth)["run"])
    code, out, _ = lth("report", run)
    assert code == 0 and Path(out.strip()).read_text().startswith("<!DOCTYPE html>")


def test_size_of_a_run_for_machines(lth):
    run = finished(lth)
    code, out, _ = lth("size", run["run"], "--json")
    shown = json.loads(out)
    assert code == 0 and shown["config_hash"] == run["config_hash"]
    assert {row["level"] for row in shown["rows"]} == {0, 1, 2}
    assert list(shown["rows"][0]) == [
        *("arm", "level", "density", "metric", "mean", "low", "high", "replicates", "values")
    ]


def test_size_of_a_run_for_people(lth):
    run = finished(lth)["run"]
    code, out, _ = lth("size", run)
    assert code == 0 and out.startswith(f"{run}: finished")
    for words in ("log2 C", "bfloat16", "Whole files", "dense at 32 bits"):
        assert words in out
    levels = [line.split()[0] for line in out.splitlines() if line[:1].isspace()]
    assert levels.count("0") == levels.count("2") == 3  # a line in each of three tables


def test_size_of_an_unfinished_run(lth, root):
    run = next(name for name in names(root) if name != finished(lth)["run"])
    code, out, _ = lth("size", run)
    assert code == 0 and "No level is finished yet." in out


@pytest.fixture
def ticket(lth, tmp_path):
    path = tmp_path / "one.ticket"
    place = ("--level", "2", "--replicate", "1", "--precision", "int4")
    code, out, err = lth("export", finished(lth)["run"], str(path), *place)
    assert (code, err) == (0, "") and out.startswith(f"{path}: ")
    return path


def test_an_exported_ticket_knows_where_it_is_from(lth, ticket):
    run, about = finished(lth), coding.inspect(ticket).manifest.provenance
    assert (about["run"], about["config_hash"]) == (run["run"], run["config_hash"])
    assert [about[name] for name in ("arm", "level", "replicate")] == ["ticket", 2, 1]


def test_a_state_that_is_left_out_is_spoken_of(lth, tmp_path):
    [dense] = synthetic.ladder(levels=0, replicates=1)
    end = dense.points["end"]
    state = {"batch_stats/mean": np.zeros((1, 3), np.float32)}
    dense.points["end"] = end._replace(state=state)
    run = synthetic.write(tmp_path, nodes=[dense]).run
    place = ("--arm", "dense", "--level", "0", "--replicate", "0")
    code, _, err = lth("export", run, str(tmp_path / "x.ticket"), *place, root=tmp_path)
    assert code == 0 and "the model's state (1 arrays) is left out" in err


def test_size_of_a_file(lth, ticket):
    code, out, _ = lth("size", str(ticket))
    assert code == 0 and "Dense_0/kernel" in out and '"replicate": 1' in out
    code, out, _ = lth("size", str(ticket), "--json")
    shown = json.loads(out)
    assert code == 0 and shown["total"]["file"] == ticket.stat().st_size
    assert {leaf["name"] for leaf in shown["leaves"]} >= {"Dense_0/kernel", "Dense_0/bias"}
    assert shown["provenance"]["level"] == 2


def test_a_damaged_ticket_is_one_sentence(lth, ticket):
    data = bytearray(ticket.read_bytes())
    data[-1] ^= 1
    ticket.write_bytes(data)
    code, out, err = lth("size", str(ticket))
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "one.ticket' is not a readable ticket: at leaf 'Dense_2/kernel'" in err


def test_what_a_ticket_says_is_printed_not_obeyed(lth, tmp_path):
    path = tmp_path / "odd.ticket"
    mask, provenance = {"[/red]": np.eye(3, dtype=bool)}, {"note": "[/bold]\x1b[2J"}
    coding.save(path, mask, prunable={"[/red]": True}, provenance=provenance)
    code, out, err = lth("size", str(path))
    assert (code, err) == (0, "") and "[/red]" in out
    assert "[/bold]\\u001b[2J" in out and "\x1b" not in out


EXPORT = ["export", "RUN", "FILE", "--replicate", "0"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["size", "nothing.ticket"], "nothing.ticket"),
        (["size", "laddr"], "unknown run 'laddr'"),
        (
            ["export", "RUN", "FILE", "--level", "9", "--replicate", "0"],
            "unknown level 9: 'ticket' of RUN has the levels 1, 2.",
        ),
        (
            ["export", "RUN", "FILE", "--level", "1", "--replicate", "9"],
            "unknown replicate 9: 'ticket' of RUN has the replicates 0, 1, 2, 3, 4 at",
        ),
        (
            [*EXPORT, "--level", "1", "--arm", "twin"],
            "unknown arm 'twin': the arms of RUN are dense, ",
        ),
        (
            [*EXPORT, "--level", "1", "--arm", "random"],
            "diverged at step 300",
        ),
        (["export", "RUN", "/nowhere/x", "--level", "1", "--replicate", "0"], "cannot be written"),
    ],
)
def test_what_cannot_be_weighed_or_saved_is_one_sentence(lth, tmp_path, words, message):
    real = {"RUN": finished(lth)["run"], "FILE": str(tmp_path / "x.ticket")}
    code, out, err = lth(*(real.get(word, word) for word in words))
    assert (code, out) == (2, "") and err.startswith("lth: ") and err.count("\n") == 1
    assert message.replace("RUN", real["RUN"]) in err and not list(tmp_path.iterdir())


def test_an_empty_root_has_no_runs(lth, tmp_path):
    assert lth("ls", root=tmp_path) == (0, "", "")
    _, out, _ = lth("ls", "--json", root=tmp_path)
    assert json.loads(out) == {"runs": [], "sweeps": [], "jobs": []}


@pytest.mark.parametrize("command", ["show", "report"])
def test_an_unknown_run_is_answered_with_the_names_there_are(lth, root, command):
    code, out, err = lth(command, "laddr")
    assert (code, out) == (2, "")
    assert err.startswith("lth: ") and err.count("\n") == 1
    assert all(name in err for name in names(root))


def test_an_ambiguous_name_is_not_guessed(lth, root):
    code, _, err = lth("show", "ladder")
    assert code == 2 and all(name in err for name in names(root))


def test_a_missing_root_is_named(lth, tmp_path):
    code, out, err = lth("ls", root=tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert "`--root`" in err and "nowhere" in err and err.count("\n") == 1


def test_a_damaged_node_is_one_sentence(lth, tmp_path):
    info = synthetic.write(tmp_path, nodes=synthetic.ladder(levels=1))
    next((tmp_path / "nodes").rglob("meta.json")).write_text("{}")
    code, out, err = lth("show", info.run, root=tmp_path)
    assert (code, out) == (2, "")
    assert "damaged" in err and err.count("\n") == 1


def test_no_command_is_bad_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def lth_process(*words, **options):
    command = [sys.executable, "-c", "import sys; from lth_jax.cli import main; sys.exit(main())"]
    return subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True, **options)


def test_a_reader_that_leaves_is_no_error(root):
    receiver, sender = os.pipe()
    os.close(receiver)
    process = lth_process("ls", "--json", "--root", root, stdout=sender)
    os.close(sender)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (cli.BROKEN_PIPE, "")


def test_a_terminal_without_the_letters_gets_question_marks(root, lth):
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    process = lth_process(
        "show", finished(lth)["run"], "--root", root, stdout=subprocess.PIPE, env=env
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "?" in out


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom lth_jax import cli\n"
        "heavy = ('matplotlib', 'pyarrow', 'rich', 'orbax')\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: print([name for name in heavy if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.endswith("[]\n")


def test_the_versions_are_printed_without_an_import():
    code = (
        "import sys; from lth_jax.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit as stop: print(stop.code, 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version = re.escape(lth_jax.__version__)
    line = rf"lth_jax {version} \(jax \d\S+, flax \d\S+, optax \d\S+\)\n0 False\n"
    assert re.fullmatch(line, done.stdout)


COMMANDS = dict.fromkeys(("ls", "watch", "verify", "gc", "du"), 0) | {
    **dict.fromkeys(("show", "report", "spectrum", "size", "rm"), 1),
    "compare": 2,
}
"""Commands that read a store, and how many runs each takes."""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_ends_any_command_with_one_sentence(lth, monkeypatch, command, signum):
    before = signal.getsignal(signum)
    for name in ("folder", "find"):
        monkeypatch.setattr(arguments, name, lambda *_: signal.raise_signal(signum))
    code, out, err = lth(command, *["x"] * COMMANDS[command])
    assert (code, out, err) == (128 + signum, "", f"lth: stopped by {signum.name}.\n")
    assert signal.getsignal(signum) is before


def test_a_signal_during_the_imports_ends_with_one_sentence():
    code = """
import signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "lth_jax.store":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from lth_jax.cli import main
sys.exit(main(["ls"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "lth: stopped by SIGINT.\n")


def test_the_command_starts_without_jax():
    code = "import sys, lth_jax.cli; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
