"""Campaigns: after kills and full disks at every stage the same command gives the same numbers.

A kill in this process is a copy of the folder before a change (see `disturbed`), which the same
command then continues. What native code adds is in processes of their own.
"""

import contextlib
import io
import itertools
import json
import shutil
import subprocess
import sys
import time

import pytest

from experiments import runner, sweep
from lth_jax import grid as h
from lth_jax import store as stores
from lth_jax.cli import programs
from lth_jax.population import read_plan
from lth_jax.report import plotting
from lth_jax.store.nodes import Store
from lth_jax.store.verify import verify_all
from tests.experiments import disturbed, swept
from tests.experiments.test_damage import HARMS, config_in, lth, rows
from tests.experiments.test_kills import only_run, run, seed_table, start, undisturbed, wait_for
from tests.thinning import sampled

__all__ = ["undisturbed"]  # a fixture
REPORT = ("figures/test_loss_final.svg", "data/seeds.csv", "index.html")
"""The files of a report that stand for all of their kind."""

FULL = ("No space left on device", "cannot store the data: Not enough disk space.")
METRICS = ("test_accuracy_final", "test_loss_final", "early_stop_step")


@pytest.fixture(autouse=True)
def blank_pictures(monkeypatch):
    monkeypatch.setattr(
        plotting, "image", lambda figure, kind: b"<svg/>"
    )  # which takes the longest


@pytest.fixture(autouse=True)
def reports_of_this_process(monkeypatch):
    """The command, which ends its process, runs within this one."""
    monkeypatch.setattr(programs, "_silence_late_reports", lambda: None)


def config(root, **changed):
    config = config_in(root)
    config.machine.update(save_seconds=0.0, **changed)
    return config


def command(config):
    """The exit code of the command, and what it writes to standard error."""
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        try:
            programs.run_main(lambda: runner.run(config, ["python"]))
        except SystemExit as stop:
            return stop.code, error.getvalue()
    return 0, error.getvalue()


def report_of(folder):
    found = (folder / "report").rglob("*")
    return sorted(p.relative_to(folder).as_posix() for p in found if p.suffix != ".tmp")


def check_whole(folder, capsys, reference):
    """A run is finished and whole, its report complete, and nothing of a kill is left."""
    root = folder.parent
    assert stores.is_complete(Store(root), folder)
    assert lth(capsys, "verify", "--root", root)[0] == 0
    assert report_of(folder) == report_of(reference)
    assert not list(root.glob("partial/*/*")) and not list(root.glob("nodes/*/.*.tmp"))


def stands_for_its_kind(event, kind, n):
    """Which kills to try: before each file gets its name, and in the midst of folders."""
    name = kind.partition("/")[2]
    if name.startswith("report/"):
        return event == "os.rename" and n == 0 and name.removeprefix("report/") in REPORT
    if event == "os.rename":
        return n == 0
    midst = ("partial/#/#/arrays.orbax-checkpoint-tmp/_METADATA", "nodes/#/#/meta.json")
    logs = ("metrics.jsonl", "dataset_info.json")
    return event == "open" and n == 0 and (kind in midst or name.endswith(logs))


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """An undisturbed run from an empty folder, and copies of the folder on its way."""
    folder = tmp_path_factory.mktemp("killed")
    root = folder / "runs"
    watch, found = disturbed.copies(root, folder / "copies", stands_for_its_kind)
    with pytest.MonkeyPatch.context() as patch, watch:
        patch.setattr(plotting, "image", lambda figure, kind: b"<svg/>")
        code, error = command(config(root))
    assert code == 0, error
    return only_run(root), found


THIRDS = sampled(range(3), 3)
"""Of the long campaigns one case in three is slow, and the others are exhaustive."""


@pytest.mark.parametrize("third", THIRDS)
def test_kills_before_every_kind_of_change(killed, capsys, third):
    reference, found = killed
    right = rows(reference, capsys)
    assert len(found) >= 18
    for at, copy in list(found.items())[third::3]:
        code, error = command(config(copy))
        assert code == 0 and "Traceback" not in error, (at, error)
        assert rows(only_run(copy), capsys) == right, at
        check_whole(only_run(copy), capsys, reference)
        shutil.rmtree(copy)


def same_plan(run, other):
    """Whether two runs have the same plan, so that they have the same bits."""
    return read_plan(stores.read_env(run)["plan"]) == read_plan(stores.read_env(other)["plan"])


@pytest.mark.slow
def test_kills_around_the_choice_of_a_plan(killed, tmp_path, capsys):
    reference, _ = killed
    measured = {"chunk": 0, "driver": "", "data_dir": str(reference.parent / "data")}

    def wanted(event, kind, n):
        return event == "os.rename" and kind.endswith(("env.json", "manifest.json")) and n == 1

    watch, found = disturbed.copies(tmp_path / "runs", tmp_path / "copies", wanted)
    with watch:
        assert command(config(tmp_path / "runs", **measured))[0] == 0
    first = only_run(tmp_path / "runs")
    plan, right = stores.read_env(first)["plan"], rows(first, capsys)
    assert plan["evidence"] and len(found) == 2
    for (_, kind, _), copy in found.items():
        code, error = command(config(copy, **measured))
        assert code == 0, error
        again = only_run(copy)
        if kind.endswith("manifest.json"):  # env.json has the plan already
            assert stores.read_env(again)["plan"] == plan
        if same_plan(again, first):
            assert rows(again, capsys) == right
        assert stores.read_manifest(again)["plan"] == stores.read_env(again)["plan"]
        check_whole(again, capsys, reference)


@pytest.mark.parametrize("third", THIRDS)
def test_a_disk_that_is_full_at_every_kind_of_change(killed, tmp_path, capsys, third):
    reference, _ = killed
    right, digits = rows(reference, capsys), reference.name.rpartition("-")[2]
    watch, kinds = disturbed.every_kind(tmp_path / "clean")
    with watch:
        assert command(config(tmp_path / "clean"))[0] == 0
    root = tmp_path / "runs"
    tried = [k for k, event in kinds.items() if event == "open" or k in (".", "partial", "nodes")]
    tried = [k for k in tried if "/report/" not in k or k.partition("/report/")[2] in REPORT]
    assert len(tried) > 25
    # One chain of runs: each continues the one before, and comes one kind further.
    for at in tried[third::3]:
        with disturbed.full_disk(root, at):
            code, error = command(config(root))
        sentences = [line for line in error.splitlines() if line.startswith("error: ")]
        assert code == 2 and len(sentences) == 1 and "Traceback" not in error, (at, error)
        first, _, rest = at.partition("/")
        named = f"{root.joinpath(first.rstrip('#.'))}" + (
            "" if "#" not in first else f"{digits}/{rest}"
        )
        assert "No space left on device" in sentences[0] and named in sentences[0], (at, error)
        if root.exists():
            code, _, error = lth(capsys, "ls", "--root", root)
            assert (code, error) == (0, "")
    assert command(config(root))[0] == 0
    assert rows(only_run(root), capsys) == right
    check_whole(only_run(root), capsys, reference)


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode != 0,
    reason="a disk of its own needs namespaces",
)
@pytest.mark.slow
def test_a_disk_that_is_really_full(killed, tmp_path, capsys):
    reference, _ = killed
    program = f"{sys.executable} -m tests.experiments.small_disk {tmp_path}"
    mounted = f"mount -t tmpfs -o size=16m none {tmp_path} && exec {program}"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mounted], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    *refused, last = found["ended"]
    assert len(refused) > 5 and last == [0, [], ""], found["ended"]
    for code, sentences, traceback in refused:
        assert code == 2 and len(sentences) == 1 and not traceback, traceback
        assert any(reason in sentences[0] for reason in FULL) and str(tmp_path) in sentences[0]
    wanted = [row for row in rows(reference, capsys) if row["metric"] in METRICS]
    assert [row for row in found["rows"] if row["metric"] in METRICS] == wanted


def kill(process, ready, after=0.0):
    wait_for(process, ready)
    time.sleep(after)
    process.kill()
    process.communicate()


def check_continues(workdir, data, reference, *more):
    again = run(workdir, data, *more)
    assert again.returncode == 0 and "Traceback" not in again.stderr, again.stderr
    assert seed_table(workdir) == seed_table(reference)
    assert report_of(only_run(workdir)) == report_of(only_run(reference))


@pytest.mark.exhaustive
def test_a_kill_while_data_are_prepared(tmp_path, undisturbed):
    _, reference = undisturbed
    data, workdir = tmp_path / "data", tmp_path / "runs"
    kill(start(workdir, data), lambda: list(data.glob("*/*")))
    check_continues(workdir, data, reference)


@pytest.mark.exhaustive
def test_a_kill_while_the_report_is_written(tmp_path, undisturbed):
    data, reference = undisturbed
    # The files follow each other in milliseconds: the kill may come after the last of them.
    kill(start(tmp_path, data), lambda: list(tmp_path.glob("*/report/figures/*")), after=0.0)
    check_continues(tmp_path, data, reference)


@pytest.mark.slow
def test_a_kill_while_plans_are_measured(tmp_path, undisturbed):
    data, reference = undisturbed
    measured = "--config.machine.driver="
    kill(
        start(tmp_path, data, measured),
        lambda: list(tmp_path.glob("*/metrics.jsonl")) or list(tmp_path.glob("*/status.json")),
        after=0.3,
    )
    assert stores.read_env(only_run(tmp_path))["plan"] is None
    again = run(tmp_path, data, measured)
    assert again.returncode == 0, again.stderr
    assert stores.read_env(only_run(tmp_path))["plan"]["evidence"]
    if same_plan(only_run(tmp_path), only_run(reference)):
        assert seed_table(tmp_path) == seed_table(reference)


READERS = ("ls --json", "show {run} --json", "verify", "du")


@pytest.mark.exhaustive
def test_a_crowd_of_writers_and_readers(tmp_path, undisturbed):
    """A run started twice, a sweep that shares its networks, another run, and readers."""
    data, reference = undisturbed
    wait, swept = "--config.machine.wait=True", "--config.experiment.name=swept"
    writers = [
        start(tmp_path, data, wait),
        start(tmp_path, data, wait),
        start(tmp_path, data, "--sweep.experiment.seed=0,2", swept, program="experiments.sweep"),
        start(tmp_path, data, wait, "--config.experiment.seed=1"),
    ]
    name, stop = only_run(reference).name, tmp_path / "stop"
    wait_for(writers[0], (tmp_path / name / "manifest.json").exists)
    readers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.experiments.reader", stop, words, tmp_path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for words in (words.format(run=name) for words in READERS)
    ]
    ended = [(process.communicate(timeout=600)[1], process.returncode) for process in writers]
    stop.touch()
    said = [(*process.communicate(timeout=120), process.returncode) for process in readers]
    for errors, code in ended:
        assert code == 0 and "Traceback" not in errors, errors
    for out, errors, code in said:
        assert code == 0, errors
        assert json.loads(out)["rounds"] > 3 and json.loads(out)["wrong"] == []
    tables = [path.read_bytes() for path in tmp_path.glob("*/report/data/seeds.csv")]
    assert len(tables) == 2 and seed_table(reference) in tables
    assert {info.status for info in stores.list_runs(tmp_path)} == {"finished"}
    assert list(verify_all(Store(tmp_path))) == []


@pytest.mark.slow
def test_a_damaged_report_is_drawn_again(killed, tmp_path):
    reference, _ = killed
    root = tmp_path / "runs"
    folder = root / reference.name
    shutil.copytree(reference.parent, root)
    assert command(config(root)) == (0, "")  # the page names its folder
    whole = {path: path.read_bytes() for path in (folder / "report").rglob("*") if path.is_file()}
    assert {path.suffix for path in whole} == {".html", ".svg", ".png", ".csv", ".parquet"}
    assert len(whole) > 15
    for harm in HARMS:
        for path, other in zip(whole, [*list(whole)[1:], next(iter(whole))], strict=True):
            if harm == "swapped":
                path.write_bytes(whole[other])
            else:
                HARMS[harm](path, root, folder, path.relative_to(root))
        assert command(config(root)) == (0, "")
        assert {path: path.read_bytes() for path in whole} == whole, harm


def sweep_command(root):
    """Runs a sweep of two rates; the sentence that it ends with, if it is refused."""
    base = swept.get_config()
    base.machine.update(workdir=str(root), progress=False)
    base.experiment.train.update(steps=4, eval_every=2)
    grid = h.sweep("learning_rate", [1e-3, 1e-2])
    try:
        sweep.run_sweep(base, list(sweep.cells(base, grid)), ["python"])
    except stores.StoreError as error:
        return str(error)
    return ""


def cells_of(root, capsys):
    return [rows(path.parent, capsys) for path in sorted(root.glob("*/status.json"))]


@pytest.mark.parametrize("state", sampled(["finished", "half"], 2))
def test_every_file_of_a_sweep_in_every_way(tmp_path, capsys, state):
    whole = tmp_path / "whole"
    sweep_command(whole)
    right = cells_of(whole, capsys)
    if state == "half":  # every node but the last, which no cell has finished
        for path in [*whole.glob("*/status.json")]:
            shutil.rmtree(path.parent)
        newest = max(whole.glob("nodes/*/*"), key=lambda path: path.stat().st_mtime)
        shutil.rmtree(newest)
    [folder] = whole.glob("sweeps/*")
    names = [p.relative_to(whole) for p in folder.glob("*.json*")]
    kinds = {name.name.partition("-")[0] for name in names}
    assert kinds == {"config.json", "groups.jsonl", "plan", "metrics"}
    # The files of a finished sweep are not read again, so that all may be damaged at once.
    cases = [names] if state == "finished" else [[name] for name in names]
    refused = 0
    for harm, harmed in itertools.product(HARMS, cases):
        root = tmp_path / "runs"
        shutil.copytree(whole, root)
        for name in harmed:
            if harm == "swapped":
                other = names[names.index(name) - 1]
                (root / name).write_bytes((whole / other).read_bytes())
            else:
                HARMS[harm](root / name, root, folder, name)
        if sentence := sweep_command(root):
            assert str(root / harmed[0]) in sentence and "\n" not in sentence, (harm, sentence)
            assert lth(capsys, "verify", "--all", "--repair", "--root", root)[0] == 1
            assert sweep_command(root) == ""
            refused += 1
        assert cells_of(root, capsys) == right, (harm, harmed)
        shutil.rmtree(root)
    assert (refused > 0) == (state == "half") and refused < len(HARMS) * len(cases) / 2
