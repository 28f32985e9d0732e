"""`lth watch`, on folders as runs and sweeps leave them while they are trained."""

import time
from types import SimpleNamespace

import pytest

from lth_jax import cli, store
from lth_jax.cli import watch as watching
from lth_jax.report.progress import standing
from lth_jax.store import locks
from tests.report import synthetic

HALF = {"level": 1, "levels": 2, "done": 500, "work": 1000, "speed": 10.0, "step": 5}


@pytest.fixture
def watch(capsys):
    def run(root, *words):
        code = cli.main(["watch", *words, "--root", str(root)])
        return code, *capsys.readouterr()

    return run


def test_a_run_that_is_trained(tmp_path, watch):
    with store.open_run(tmp_path, name="demo", config={}, env={}) as run:
        _, out, _ = watch(tmp_path, "--once")
        assert "demo-" in out and "running" in out and "left" not in out
        run.log(HALF)
        code, out, err = watch(tmp_path, "demo", "--once")
        assert (code, err) == (0, "")
        for words in ("running, 0:50 left", "1/2", "50 %", "500 of 1,000", "10"):
            assert words in out
    code, out, _ = watch(tmp_path, "demo")  # ends, since no process trains it
    assert code == 0 and "interrupted" in out


def test_a_long_log_is_read_from_its_end(tmp_path):
    with store.open_run(tmp_path, name="demo", config={}, env={}) as run:
        for step in range(50):
            run.log(HALF | {"done": step, "text": "x" * 5000 * (step % 3)})
        (run.path / "metrics.jsonl").open("a").write('{"done": 99')  # a torn line
        [part] = standing(run.path).parts
    assert (part.done, part.work) == (49, 1000)


def test_a_finished_run_is_all_done(tmp_path, watch):
    with store.open_run(tmp_path, name="demo", config={}, env={}) as run:
        run.log(HALF)
        run.finish()
    code, out, _ = watch(tmp_path, "demo")
    assert code == 0 and "100 %" in out and "left" not in out


@pytest.fixture
def sweep(tmp_path):
    """A sweep of three cells, of which one is finished, in two groups."""
    done = synthetic.write(tmp_path, nodes=synthetic.ladder(levels=1), config={"rate": 0.1})
    runs = [done.run, "ladder-22222222", "ladder-33333333"]
    cells = [{"setting": {"rate": i}, "run": run} for i, run in enumerate(runs)]
    found = store.open_sweep(tmp_path, name="demo", config={"cells": cells})
    for name, members in (("old", runs), ("a", runs[:2]), ("b", runs[2:])):
        found.append("groups", {"group": f"group-{name}", "runs": members, "work": 1000})
    found.append("metrics-group-a", HALF)
    return found


def test_a_sweep_that_is_trained(tmp_path, watch, sweep):
    with locks.hold(sweep.path / "locks" / "group-a.lock", what="group"):
        code, out, err = watch(tmp_path, "--once")
        assert (code, err) == (0, "")
        assert "1 of 3 cells finished, 2:30 left" in out  # 500 and 1,000 member-steps, 10 a second
        assert "group-a" in out and "training" in out and "waiting" in out
        assert "group-old" not in out  # its cells belong to later groups


def test_a_sweep_that_nobody_trains(tmp_path, watch, sweep, monkeypatch):
    monkeypatch.setattr(watching, "PATIENCE", 0.0)
    code, out, _ = watch(tmp_path, sweep.path.name)
    assert code == 0 and "1 of 3 cells finished; no process is at work" in out


def test_watching_ends_when_all_is_finished(tmp_path, watch, monkeypatch):
    with store.open_run(tmp_path, name="demo", config={}, env={}) as run:
        run.log(HALF)
        clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: run.finish())
        monkeypatch.setattr(watching, "time", clock)
        code, out, _ = watch(tmp_path)
    assert code == 0 and out.index("50 %") < out.index("100 %")


def test_a_damaged_log_is_one_sentence(tmp_path, watch, sweep):
    path = sweep.path / "metrics-group-a.jsonl"
    path.write_text(path.read_text().replace("500", "501"))
    code, out, err = watch(tmp_path, sweep.path.name, "--once")
    assert (code, out, err.count("\n")) == (2, "", 1) and "does not match its SHA-256" in err
