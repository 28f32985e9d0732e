"""Jobs run a command, record their states, and run it again after a preemption."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lth_jax.distributed.launch import FAILED, FINISHED, STOPPED, jobs_of, submit

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


LAUNCHER = """
import sys
from lth_jax.cli.launch import launched
from lth_jax.cli.programs import run_main
run_main(lambda: launched(sys.argv, "waits")[1](sys.argv[1:2], sys.argv[1], "waits"))
"""
WAITS = """
import os, pathlib, signal, sys, time
mine = pathlib.Path(sys.argv[1]) / f"signals-{os.getpid()}"
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: mine.write_text(mine.read_text() + f"{number} "))
mine.write_text("")
while not mine.read_text():
    time.sleep(0.05)
time.sleep(1)  # saves its work
sys.exit(128 + signal.SIGTERM)
"""


@pytest.mark.parametrize("kill", [os.kill, os.killpg])
@pytest.mark.slow
def test_sigint_stops_the_launcher_and_its_jobs_in_order(tmp_path, kill):
    (tmp_path / "waits.py").write_text(WAITS)
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(tmp_path), "--launch=local", "--workers=2"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: len(list(tmp_path.glob("signals-*"))) == 2)
    kill(launcher.pid, signal.SIGINT)
    _, errors = launcher.communicate(timeout=60)
    assert errors == "stopping 2 jobs\nStopped by SIGINT; the same command continues.\n"
    assert launcher.returncode == 130 and states(tmp_path) == [STOPPED, STOPPED]
    assert [path.read_text() for path in tmp_path.glob("signals-*")] == [f"{signal.SIGTERM} "] * 2
    assert not any(Path(f"/proc/{job.id}").exists() for job in jobs_of(tmp_path))
    assert not any("Traceback" in path.read_text() for path in tmp_path.glob("jobs/*/*.err"))


def test_a_cluster_must_be_there():
    with pytest.raises(ValueError, match=r"`cluster` is 'pbs'; it must be one of: local, slurm"):
        submit(["true"], cluster="pbs", folder=".")


def test_slurm_must_be_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ValueError, match="`cluster` is 'slurm', which is not available on this machine"
    ):
        submit(["true"], cluster="slurm", folder=tmp_path)
