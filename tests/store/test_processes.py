"""What only real processes show: races, kills and signals."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lth_jax.store import Partial, Store, StoreError, list_runs, locks, open_run

WORKER = Path(__file__).with_name("worker.py")
sys.path.insert(0, str(WORKER.parent))
import worker  # noqa: E402

from tests.thinning import sampled  # noqa: E402


def start(command, root):
    return subprocess.Popen(
        [sys.executable, WORKER, command, root],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def uninterrupted(tmp_path):
    return worker.orbit(Partial(tmp_path / "uninterrupted"))


def kill_until_done(root, delays):
    """Starts the worker again and again, killing it `delay` seconds after it began to compute."""
    root.mkdir()
    (root / "notes").touch()
    for delay in delays:
        before = (root / "notes").read_text().count("begin")
        process = start("compute", root)
        while (root / "notes").read_text().count("begin") == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(delay)
        process.kill()
        process.communicate()
        for node in (root / "nodes").glob("*/[0-9a-f]*"):
            Store(root).read(node.name)  # whatever is visible is whole
    process = start("compute", root)
    assert process.wait() == 0, process.stderr.read()


def check_notes(lines):
    """Each attempt begins no earlier than the last saved step: at most one step is repeated."""
    saved = 0
    for line in lines:
        word, step = line.split()
        if word == "begin":
            assert int(step) >= saved, lines
        saved = int(step)


def check_kills(tmp_path, delays):
    root = tmp_path / "killed"
    kill_until_done(root, delays)
    node, whole = Store(root).read(worker.KEY), uninterrupted(tmp_path)
    np.testing.assert_array_equal(node.arrays["x"], whole.arrays["x"])
    assert node.arrays["history"]["empty"].shape == (0, 4)
    assert node.meta == whole.meta
    check_notes((root / "notes").read_text().splitlines())
    assert list(root.rglob("*.tmp")) == [] == list((root / "partial").iterdir())


@pytest.mark.slow
def test_killed_and_started_again_gives_the_same_bits(tmp_path):
    check_kills(tmp_path, np.random.default_rng(0).uniform(0, 0.6, 3))


@pytest.mark.parametrize("seed", sampled(range(3), 3))
def test_killed_at_many_moments_gives_the_same_bits(tmp_path, seed):
    check_kills(tmp_path, np.random.default_rng(100 + seed).uniform(0, 0.4, 8))


@pytest.mark.slow
def test_two_processes_share_one_computation(tmp_path):
    processes = [start("race", tmp_path) for _ in range(2)]
    outs, errors = zip(*[process.communicate() for process in processes], strict=True)
    assert [process.returncode for process in processes] == [0, 0], errors
    assert outs == ("[1.0, 1.0, 1.0]\n",) * 2
    assert (tmp_path / "computed").read_text() == "once\n"
    waited = [error for error in errors if "is in use by another process; waiting" in error]
    assert len(waited) == 1


def read_until(process, word):
    while not (line := process.stdout.readline()).startswith(word):
        assert process.poll() is None, process.stderr.read()
    return line


@pytest.mark.slow
def test_a_run_asked_to_stop_stops_and_goes_on_where_it_was(tmp_path):
    process = start("run", tmp_path)
    read_until(process, "saved 3")
    assert [info.status for info in list_runs(tmp_path)] == ["running"]
    with (
        pytest.raises(StoreError, match=r"Run orbit-\w+ is in use by another process"),
        open_run(tmp_path, name="orbit", config={"steps": worker.STEPS}, env={}),
    ):
        pass
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert (process.returncode, err) == (143, "")
    assert [info.status for info in list_runs(tmp_path)] == ["interrupted"]

    last = out.split()[-1] if out else "3"
    again = start("run", tmp_path)
    assert read_until(again, "begin") == f"begin {last}\n"  # nothing that was saved is lost
    assert [info.status for info in list_runs(tmp_path)] == ["running"]
    again.kill()
    again.communicate()
    assert [info.status for info in list_runs(tmp_path)] == ["interrupted"]


def test_a_lock_is_held_by_one(tmp_path):
    with locks.hold(tmp_path / "lock", what="It"):
        assert locks.is_held(tmp_path / "lock")
        with locks.try_hold(tmp_path / "lock") as free:
            assert not free
        with (
            pytest.raises(StoreError, match="It is in use by another process"),
            locks.hold(tmp_path / "lock", what="It", wait=False),
        ):
            pass
    assert not locks.is_held(tmp_path / "lock")


def test_a_stale_lock_is_nobodys(tmp_path):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib; from lth_jax.store import locks\n"
            "with locks.hold(pathlib.Path(sys.argv[1]), what='It'):\n"
            "    print('held', flush=True); sys.stdin.read()",
            str(tmp_path / "lock"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    assert locks.is_held(tmp_path / "lock")
    holder.kill()
    holder.communicate()
    assert (tmp_path / "lock").exists()  # nobody cleared up after it
    assert not locks.is_held(tmp_path / "lock")
    with locks.hold(tmp_path / "lock", what="It", wait=False):
        pass
