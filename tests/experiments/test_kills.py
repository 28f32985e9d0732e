"""Real processes, really killed: the numbers are those of a run that nobody disturbed."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = "tests/experiments/tiny.py"
SEGMENTS = 27  # of one whole run of it


def command(workdir, data, *more, program="experiments.run"):
    machine = {"workdir": workdir, "data_dir": data, "save_seconds": 0.0}  # each segment is saved
    flags = [f"--config.machine.{name}={value}" for name, value in machine.items()]
    return [sys.executable, "-m", program, f"--config={TINY}", *flags, *more]


def run(*args, **kwargs):
    return subprocess.run(
        command(*args, **kwargs), cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def start(*args, **kwargs):
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(*args, **kwargs), cwd=ROOT, **piped)


def only_run(workdir):
    [folder] = [path.parent for path in Path(workdir).glob("*/config.json")]
    return folder


def segments(workdir):
    """How many segments the run under `workdir` has logged."""
    return sum(path.read_text().count("\n") for path in Path(workdir).glob("*/metrics.jsonl"))


def wait_for(process, ready):
    deadline = time.monotonic() + 240
    while not ready():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def seed_table(workdir):
    return (only_run(workdir) / "report" / "data" / "seeds.csv").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    data, workdir = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("undisturbed")
    result = run(workdir, data)
    assert result.returncode == 0, result.stderr
    return data, workdir


def kill_and_run_again(tmp_path, undisturbed, after, delay):
    data, reference = undisturbed
    process = start(tmp_path, data)
    wait_for(process, lambda: segments(tmp_path) >= after)
    time.sleep(delay)
    process.kill()
    process.communicate()
    again = run(tmp_path, data)
    assert again.returncode == 0, again.stderr
    assert segments(tmp_path) <= SEGMENTS + 1  # at most one segment is trained twice
    assert seed_table(tmp_path) == seed_table(reference)
    plans = [
        json.loads((only_run(w) / "env.json").read_text())["plan"] for w in (tmp_path, reference)
    ]
    assert plans[0] == plans[1]
    return again


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_numbers(tmp_path, undisturbed):
    kill_and_run_again(tmp_path, undisturbed, after=7, delay=0.01)


@pytest.mark.exhaustive  # the moments differ from run to run
@pytest.mark.parametrize("seed", range(3))
def test_kills_at_random_moments(tmp_path, undisturbed, seed):
    chance = random.Random(seed)
    kill_and_run_again(
        tmp_path, undisturbed, after=chance.randrange(1, SEGMENTS - 1), delay=chance.random() / 5
    )


@pytest.mark.slow
def test_a_stop_on_request_repeats_nothing(tmp_path, undisturbed):
    data, reference = undisturbed
    process = start(tmp_path, data, "--config.machine.save_seconds=1000.0")
    wait_for(process, lambda: segments(tmp_path) >= 2)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "Stopped by SIGTERM; the same command continues." in errors
    folder = only_run(tmp_path)
    assert json.loads((folder / "status.json").read_text())["status"] == "interrupted"
    before = segments(tmp_path)
    assert run(tmp_path, data).returncode == 0
    assert segments(tmp_path) == SEGMENTS and before < SEGMENTS  # nothing was trained twice
    assert seed_table(tmp_path) == seed_table(reference)


def check_ends_by(process, signum):
    """The process ends with one sentence after its own lines."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (128 + signum, -signum), errors  # the latter during its exit
    name = signal.Signals(signum).name
    assert errors.splitlines()[-1] == f"Stopped by {name}; the same command continues."
    assert "Traceback" not in errors and "Exception ignored" not in errors


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads which signals a process handles")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_modules_are_imported_is_one_sentence(tmp_path, signum):
    process = start(tmp_path, tmp_path)
    # The package's first line has run once signals are caught; JAX takes a second longer.
    wait_for(process, lambda: catches(process.pid))
    process.send_signal(signum)
    check_ends_by(process, signum)
    assert not list(tmp_path.iterdir())


def catches(pid):
    """Whether a process handles SIGTERM; SIGINT has a handler of Python's from the start."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = {k: int(v, 16) for k, v in re.findall(r"(Sig\w+):\s+([0-9a-f]{16})", status)}
    return bool(masks["SigCgt"] >> (signal.SIGTERM - 1) & 1)


@pytest.mark.exhaustive  # the moments differ from run to run
@pytest.mark.parametrize("seed", range(8))
def test_signals_at_any_moment_are_one_sentence(tmp_path, undisturbed, seed):
    data, reference = undisturbed
    chance = random.Random(seed)
    signum = chance.choice([signal.SIGINT, signal.SIGTERM])
    process = start(tmp_path, data)
    time.sleep(1 + 5 * chance.random())
    for _ in range(chance.choice([1, 2])):
        process.send_signal(signum)
        time.sleep(0.1 * chance.random())
    if process.wait(120) != 0:  # or it had finished
        check_ends_by(process, signum)
    assert run(tmp_path, data).returncode == 0
    assert seed_table(tmp_path) == seed_table(reference)


@pytest.mark.slow
def test_the_second_of_two_processes_is_refused_and_harms_nothing(tmp_path, undisturbed):
    data, reference = undisturbed
    first = start(tmp_path, data)
    wait_for(first, lambda: segments(tmp_path) >= 1)
    second = run(tmp_path, data)
    assert second.returncode == 2
    [line] = second.stderr.strip().splitlines()
    assert line.startswith("error: ") and only_run(tmp_path).name in line
    _, errors = first.communicate(timeout=240)
    assert first.returncode == 0, errors
    assert seed_table(tmp_path) == seed_table(reference)


def test_a_wrong_command_line_is_one_sentence(tmp_path):
    result = run(tmp_path, tmp_path, "--config.experiment.trian.steps=3")
    assert result.returncode == 2
    [line] = result.stderr.strip().splitlines()
    assert "did you mean 'experiment.train.steps'" in line
    assert not list(tmp_path.iterdir())
