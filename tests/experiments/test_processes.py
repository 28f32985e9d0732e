"""Two processes as one `jax.distributed` job on this machine, and what becomes of a lost one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pyarrow import csv

from tests.thinning import sampled

ROOT = Path(__file__).resolve().parents[2]
SEGMENTS = 3 * (1 + 2 + 2)  # of three levels, of which the dense networks fill one chunk
DEVICES = 4


def start(workdir, data, *more, devices, program="run", config="tiny", env=None):
    machine = {"workdir": workdir, "data_dir": data, "chunk": 4}
    more = ["--config.machine.save_seconds=0.0", *more]
    flags = [f"--config.machine.{name}={value}" for name, value in machine.items()]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", f"experiments.{program}"),
            f"--config=tests/experiments/{config}.py",
            *flags,
            *more,
        ],
        cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)} | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def start_job(workdir, data, *more, odd=(), patience=60, coming=(0, 1), **how):
    """Two processes with two devices each; the second is given `odd` arguments too."""
    job = {"coordinator": f"localhost:{free_port()}", "processes": 2, "init_timeout_s": patience}
    flags = [f"--config.machine.{name}={value}" for name, value in job.items()]
    flags += [f"--config.machine.devices={DEVICES}", *more]
    own = [[f"--config.machine.process={i}", *(odd if i else ())] for i in coming]
    return [start(workdir, data, *flags, *mine, devices=2, **how) for mine in own]


def start_slurm_job(workdir, data):
    """The same, which find each other by what Slurm would set."""
    job = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    job["JAX_COORDINATOR_PORT"] = str(free_port())
    flags = {"coordinator": "auto", "init_timeout_s": 60, "devices": DEVICES}
    more = [f"--config.machine.{name}={value}" for name, value in flags.items()]
    own = [{"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in (0, 1)]
    return [start(workdir, data, *more, devices=2, env=job | mine) for mine in own]


def finish(process, code=0):
    out, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    return out, errors


def folder_of(workdir):
    [folder] = [path.parent for path in Path(workdir).glob("*/config.json")]
    return folder


def table(workdir):
    """Every network's results."""
    [path] = Path(workdir).glob("*/report/data/seeds.csv")
    found = csv.read_csv(path).to_pylist()
    return {tuple(v for k, v in row.items() if k != "value"): row["value"] for row in found}


def segments(workdir):
    return sum(path.read_text().count("\n") for path in Path(workdir).glob("*/metrics.jsonl"))


def wait_for_segments(workdir, process, enough):
    deadline = time.monotonic() + 240
    while not (found := segments(workdir)) or not enough(found):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)


def sentence(errors):
    """The last line of a program, after any messages of JAX."""
    [line] = [line for line in errors.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The ladder by one process with as many devices."""
    data, workdir = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("alone")
    finish(start(workdir, data, f"--config.machine.devices={DEVICES}", devices=DEVICES))
    assert segments(workdir) == SEGMENTS
    return data, workdir


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path, alone):
    data, reference = alone
    (first, _), (second, _) = map(finish, start_job(tmp_path, data))
    assert "page: " in first and "page: " not in second
    assert segments(tmp_path) == SEGMENTS
    assert table(tmp_path) == pytest.approx(table(reference), abs=1e-5, nan_ok=True)
    made = [sorted(p.name for p in w.glob("nodes/*/*")) for w in (tmp_path, reference)]
    assert made[0] == made[1]
    assert json.loads((folder_of(tmp_path) / "status.json").read_text())["status"] == "finished"


@pytest.mark.slow
def test_one_process_goes_on_where_one_of_two_was_killed(tmp_path, alone):
    data, reference = alone
    first, second = start_job(tmp_path, data, "--config.machine.data_placement=host")
    wait_for_segments(tmp_path, first, lambda n: n % 3 == 2)  # a chunk is partly trained
    second.kill()
    second.communicate()
    _, errors = finish(first, code=2)
    assert "process 0 of 2 stops because another process was lost or failed" in sentence(errors)
    done = segments(tmp_path)
    assert list(tmp_path.glob("partial/*/*/arrays/ocdbt.process_1"))  # each wrote its parts
    _, errors = finish(start(tmp_path, data, devices=2))
    assert "has 4 devices; here its members train on 2, 1 at once" in " ".join(errors.split())
    assert segments(tmp_path) <= SEGMENTS + 1 and done < SEGMENTS
    assert table(tmp_path) == pytest.approx(table(reference), abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("begin", sampled([start_slurm_job, start_job], 2))
def test_the_loss_of_process_0_is_a_sentence_and_an_interrupted_run(tmp_path, alone, begin):
    data, reference = alone
    first, second = begin(tmp_path, data)
    wait_for_segments(tmp_path, second, lambda n: n > 4)
    first.kill()
    first.communicate()
    _, errors = finish(second, code=2)
    assert "process 1 of 2 stops because another process was lost" in sentence(errors)
    assert [line for line in errors.splitlines() if not line.startswith("[Gloo]")] == [
        sentence(errors)
    ]
    assert json.loads((folder_of(tmp_path) / "status.json").read_text())["status"] == "interrupted"
    finish(start(tmp_path, data, devices=2))
    assert table(tmp_path) == pytest.approx(table(reference), abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("victim", sampled([0, 1], 2))
def test_a_signal_to_one_process_stops_both_in_order(tmp_path, alone, victim):
    data, _ = alone
    job = start_job(tmp_path, data, "--config.machine.save_seconds=1000.0")
    wait_for_segments(tmp_path, job[0], lambda n: n % 3 == 2)
    job[victim].send_signal(signal.SIGTERM)
    for process in job:
        _, errors = finish(process, code=143)
        assert "Stopped by SIGTERM; the same command continues." in errors
    done = segments(tmp_path)
    for process in start_job(tmp_path, data):
        finish(process)
    assert segments(tmp_path) == SEGMENTS and done < SEGMENTS  # nothing was trained twice


@pytest.mark.slow
def test_a_sweep_by_two_processes(tmp_path, alone):
    data, _ = alone
    (first, _), _ = map(finish, start_job(tmp_path, data, program="sweep", config="swept"))
    assert "2 cells, 0 finished" in first
    states = [json.loads(p.read_text())["status"] for p in tmp_path.glob("*/status.json")]
    assert states == ["finished"] * 2


@pytest.mark.parametrize("program", sampled(["sweep", "run"], 2))
def test_processes_with_different_configs_train_nothing(tmp_path, alone, program):
    data, _ = alone
    config = {"run": "tiny", "sweep": "swept"}[program]
    odd = ["--config.experiment.replicates=3"]
    job = start_job(tmp_path, data, odd=odd, program=program, config=config)
    what = {"run": "config", "sweep": "cells"}[program]
    for process in job:
        line = sentence(finish(process, code=2)[1])
        assert f"process 1 of 2 differs from process 0 in its {what}" in line
    assert not list(tmp_path.glob("nodes"))


@pytest.mark.slow
def test_a_process_that_cannot_begin_ends_all(tmp_path, alone):
    data, _ = alone
    job = start_job(tmp_path, data, odd=["--config.experiment.data.validation=99999"])
    first, second = (sentence(finish(process, code=2)[1]) for process in job)
    assert (
        "process 1 of 2 cannot begin: `data.validation` and `data.unlabelled` must leave" in first
    )
    assert second.startswith("error: `data.validation` and `data.unlabelled` must leave")


@pytest.mark.slow
def test_a_process_that_does_not_come_is_not_waited_for_forever(tmp_path):
    [only] = start_job(tmp_path, tmp_path, patience=3, coming=[1])
    _, errors = finish(only, code=2)
    assert "not all processes of the job connected to localhost:" in sentence(errors)
    assert not list(tmp_path.iterdir())


TRAINING = """
import hashlib, sys
import jax, numpy as np, optax
from flax import linen as nn
from lth_jax import distributed, population

processes, process, port = map(int, sys.argv[1:])
if processes > 1:
    distributed.join(f"localhost:{port}", processes, process)
x = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
task = population.Task(nn.Dense(2), (x, np.arange(100) % 2), optimizer=optax.adam(0.1),
                       batch_size=4, steps=20)
plan = population.Plan(4, devices=2)
members, history = population.train(task, population.initial(task, 6), plan=plan)
print(population.measure(task, members)["loss"].tolist())
for leaf in [*jax.tree.leaves(members.params), *map(history.get, sorted(history))]:
    print(hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_a_population_trains_over_two_processes_as_in_one():
    port = str(free_port())

    def job(processes):
        command = [sys.executable, "-c", TRAINING, str(processes)]
        env = os.environ | {"JAX_NUM_CPU_DEVICES": str(2 // processes), "PYTHONPATH": str(ROOT)}
        options = {"env": env, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started = [subprocess.Popen([*command, str(i), port], **options) for i in range(processes)]
        ended = [(one, *one.communicate(timeout=240)) for one in started]
        assert not any(one.returncode for one, _, _ in ended), ended
        return [[line for line in out.splitlines() if "[Gloo]" not in line] for _, out, _ in ended]

    [alone], [first, second] = job(1), job(2)
    assert alone == first == second and len(alone) > 4
