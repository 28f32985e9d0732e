"""Several real processes on one sweep, and one of them killed: nothing is done twice or lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from pyarrow import csv

from lth_jax.distributed.launch import FAILED, FINISHED, jobs_of

ROOT = Path(__file__).resolve().parents[2]
SEEDS = "--sweep.experiment.seed=0,1,2"
CELLS, SEGMENTS = 6, 3 * (3 + 6)  # 12 dense members and 24 above, 4 at a time, 3 segments each


def start(workdir, data, *more):
    machine = {"workdir": workdir, "data_dir": data, "chunk": 4, "save_seconds": 0}
    flags = [f"--config.machine.{name}={value}" for name, value in machine.items()]
    program = [sys.executable, "-m", "experiments.sweep", "--config=tests/experiments/swept.py"]
    return subprocess.Popen(
        [*program, *flags, SEEDS, *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return out


def trained(workdir):
    """How often each segment of each chunk was logged."""
    lines = [
        json.loads(line)
        for path in Path(workdir).glob("sweeps/*/metrics-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    return Counter((str(line["members"]), line["level"], line["step"]) for line in lines)


def wait_for(process, ready):
    deadline = time.monotonic() + 240
    while not ready():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def table(workdir):
    """Every network's results, whichever worker made them."""
    [path] = Path(workdir).glob("sweeps/*/report/data/seeds.csv")
    found = csv.read_csv(path).to_pylist()
    return sorted(found, key=lambda row: [str(row[name]) for name in row if name != "value"])


def finished_runs(workdir):
    states = [json.loads(p.read_text())["status"] for p in Path(workdir).glob("*/status.json")]
    return states.count("finished")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The sweep by one worker, undisturbed."""
    data, workdir = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("alone")
    finish(start(workdir, data))
    assert sum(trained(workdir).values()) == SEGMENTS and finished_runs(workdir) == CELLS
    return data, workdir


@pytest.mark.slow
def test_two_workers_share_the_work(tmp_path, alone):
    data, reference = alone
    workers = [start(tmp_path, data) for _ in range(2)]
    for worker in workers:
        finish(worker)
    counts = trained(tmp_path)
    assert set(counts.values()) == {1} and sum(counts.values()) == SEGMENTS
    assert finished_runs(tmp_path) == CELLS
    assert table(tmp_path) == table(reference)


@pytest.mark.slow
def test_a_killed_workers_part_is_taken_over(tmp_path, alone):
    data, reference = alone
    victim = start(tmp_path, data)
    wait_for(victim, lambda: trained(tmp_path).total() >= 2)
    heir = start(tmp_path, data)
    wait_for(victim, lambda: trained(tmp_path).total() >= 5)
    victim.kill()
    victim.communicate()
    finish(heir)
    counts = trained(tmp_path)
    assert len(counts) == SEGMENTS and counts.total() <= SEGMENTS + 1
    assert finished_runs(tmp_path) == CELLS
    assert table(tmp_path) == table(reference)


@pytest.mark.exhaustive
def test_a_killed_sweep_continues_at_the_chunk(tmp_path, alone):
    data, reference = alone
    first = start(tmp_path, data)
    wait_for(first, lambda: trained(tmp_path).total() >= 11)
    first.kill()
    first.communicate()
    assert f"{CELLS} cells" in finish(start(tmp_path, data))
    assert trained(tmp_path).total() <= SEGMENTS + 1
    assert table(tmp_path) == table(reference)
    assert f"{CELLS} cells, {CELLS} finished" in finish(start(tmp_path, data))
    assert trained(tmp_path).total() <= SEGMENTS + 1


@pytest.mark.exhaustive
def test_a_polite_stop_loses_nothing(tmp_path, alone):
    data, reference = alone
    process = start(tmp_path, data)
    wait_for(process, lambda: trained(tmp_path).total() >= 4)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "Stopped by SIGTERM; the same command continues." in errors
    finish(start(tmp_path, data))
    assert trained(tmp_path).total() == SEGMENTS
    assert table(tmp_path) == table(reference)


def child(pid):
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@pytest.mark.slow
def test_jobs_share_the_work_though_one_is_killed_and_one_preempted(tmp_path, alone):
    data, reference = alone
    launcher = start(tmp_path, data, "--launch=local", "--workers=3")
    wait_for(launcher, lambda: trained(tmp_path))
    killed, preempted, _ = (job.id for job in jobs_of(tmp_path))
    os.kill(child(child(killed)), signal.SIGKILL)
    os.kill(child(preempted), signal.SIGUSR2)
    _, errors = launcher.communicate(timeout=300)
    assert launcher.returncode == 2 and "1 of 3 jobs failed; the first log is" in errors
    assert [job.state for job in jobs_of(tmp_path)] == [FAILED, FINISHED, FINISHED]
    assert finished_runs(tmp_path) == CELLS and table(tmp_path) == table(reference)
