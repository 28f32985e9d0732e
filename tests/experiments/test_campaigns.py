"""Campaigns: after kills and full disks at every stage the same command gives the same numbers.

A kill in this process is a copy of the folder before a change (see `disturbed`), which the same
command then continues. What native code adds is in processes of their own.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import flags, machine, runner
from lth_jax import store as stores
from lth_jax.report import figures
from lth_jax.store.nodes import Store
from tests.experiments import disturbed
from tests.experiments.test_damage import config_in, lth, rows
from tests.experiments.test_kills import only_run, run, seed_table, start, undisturbed, wait_for

__all__ = ["undisturbed"]  # a fixture
REPORT = ("figures/test_loss_final.svg", "data/seeds.csv", "index.html")
"""The files of a report that stand for all of their kind."""

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def blank_pictures(monkeypatch):
    monkeypatch.setattr(figures, "image", lambda figure, kind: b"<svg/>")  # which takes the longest


def config(root, **changed):
    config = config_in(root)
    config.machine.update(save_seconds=0.0, **changed)
    return config


def command(config):
    """The exit code of the command, and what it writes to standard error."""
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        try:
            flags.run_main(lambda: runner.run(config, ["python"]))
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
    midst = ("lock", "meta.json", "metrics.jsonl", "_METADATA", "dataset_info.json")
    return n == 0 and (event == "os.rename" or (event == "open" and name.endswith(midst)))


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """An undisturbed run from an empty folder, and copies of the folder on its way."""
    folder = tmp_path_factory.mktemp("killed")
    root = folder / "runs"
    watch, found = disturbed.copies(root, folder / "copies", stands_for_its_kind)
    with pytest.MonkeyPatch.context() as patch, watch:
        patch.setattr(figures, "image", lambda figure, kind: b"<svg/>")
        code, error = command(config(root))
    assert code == 0, error
    return only_run(root), found


def test_kills_before_every_kind_of_change(killed, capsys):
    reference, found = killed
    right = rows(reference, capsys)
    print(*found, sep="\n")
    assert len(found) > 20
    for at, copy in found.items():
        code, error = command(config(copy))
        assert code == 0 and "Traceback" not in error, (at, error)
        assert rows(only_run(copy), capsys) == right, at
        check_whole(only_run(copy), capsys, reference)
        shutil.rmtree(copy)


def test_kills_around_the_choice_of_a_plan(killed, tmp_path, capsys):
    reference, _ = killed
    measured = {"chunk": 0, "driver": "", "data_dir": str(reference.parent / "data")}

    def wanted(event, kind, n):
        return event == "os.rename" and kind.endswith(("env.json", "manifest.json")) and n < 2

    watch, found = disturbed.copies(tmp_path / "runs", tmp_path / "copies", wanted)
    with watch:
        assert command(config(tmp_path / "runs", **measured)) [0] == 0
    first = only_run(tmp_path / "runs")
    plan, right = stores.read_env(first)["plan"], rows(first, capsys)
    assert plan["evidence"] and len(found) == 4
    for (_, kind, n), copy in found.items():
        code, error = command(config(copy, **measured))
        assert code == 0, error
        again = only_run(copy)
        if (kind.rpartition("/")[2], n) == ("manifest.json", 1):  # recorded in the one, not the other
            assert stores.read_env(again)["plan"] == plan
        if stores.read_env(again)["plan"]["chunk"] == plan["chunk"]:
            assert rows(again, capsys) == right
        assert stores.read_manifest(again)["plan"] == stores.read_env(again)["plan"]
        check_whole(again, capsys, reference)


def test_a_disk_that_is_full_at_every_kind_of_change(killed, tmp_path, capsys):
    reference, _ = killed
    right = rows(reference, capsys)
    watch, kinds = disturbed.every_kind(tmp_path / "clean")
    with watch:
        assert command(config(tmp_path / "clean"))[0] == 0
    root = tmp_path / "runs"
    tried = [k for k in kinds if "/report/" not in k or k.partition("/report/")[2] in REPORT]
    print(*tried, sep="\n")
    # One chain of runs: each continues the one before, and comes one kind further.
    for at in tried:
        with disturbed.full_disk(root, at) as full:
            code, error = command(config(root))
        sentences = [line for line in error.splitlines() if line.startswith("error: ")]
        assert code == 2 and len(sentences) == 1 and "Traceback" not in error, (at, error)
        assert str(root) in sentences[0] and "No space left on device" in sentences[0], (at, error)
        if root.exists():
            code, _, error = lth(capsys, "ls", "--root", root)
            assert (code, error) == (0, "")
    assert command(config(root))[0] == 0
    assert rows(only_run(root), capsys) == right
    check_whole(only_run(root), capsys, reference)
