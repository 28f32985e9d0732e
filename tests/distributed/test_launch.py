"""Jobs run a command, record their states, and run it again after a preemption."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from lth_jax.distributed.launch import FAILED, FINISHED, jobs_of, submit

TWICE = """
import pathlib, signal, sys, time
starts = pathlib.Path(sys.argv[1])
starts.write_text(starts.read_text() + "start " if starts.exists() else "start ")
def stop(*_):
    starts.write_text(starts.read_text() + "stop ")
    raise SystemExit(1)
signal.signal(signal.SIGTERM, stop)
while starts.read_text().count("start") == 1:
    time.sleep(0.05)
"""


def states(folder):
    return [job.state for job in jobs_of(folder)]


def run(folder, *argv, workers=1):
    command = [sys.executable, "-c", *argv]
    return submit(command, cluster="local", folder=folder, workers=workers)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.05)


def test_jobs_finish_or_fail_and_keep_their_logs(tmp_path):
    run(tmp_path, "print('hello from a job')", workers=2)
    run(tmp_path, "raise SystemExit(3)")[0].wait()
    until(lambda: sorted(states(tmp_path)) == [FAILED, FINISHED, FINISHED])
    good = next(job for job in jobs_of(tmp_path) if job.state == FINISHED)
    assert "hello from a job" in Path(good.log).read_text()


def test_a_preempted_job_stops_its_command_in_order_and_runs_it_again(tmp_path):
    starts = tmp_path / "starts"
    [job] = run(tmp_path, TWICE, str(starts))
    until(starts.exists)
    [task] = Path(f"/proc/{job.job_id}/task/{job.job_id}/children").read_text().split()
    os.kill(int(task), signal.SIGUSR2)  # as Slurm does before it preempts a job
    job.wait()
    assert starts.read_text().split() == ["start", "stop", "start"]
    assert states(tmp_path) == [FINISHED]


def test_a_cluster_must_be_there():
    with pytest.raises(ValueError, match=r"`cluster` is 'pbs'; it must be one of: local, slurm"):
        submit(["true"], cluster="pbs", folder=".")


def test_slurm_must_be_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="`cluster` is 'slurm', which is not on this machine"):
        submit(["true"], cluster="slurm", folder=tmp_path)
