"""Weak scaling of a population: as many members on each device, over devices and processes.

    python -m experiments.benchmarks.scaling [--quick] [--members 8] [--commit-results]

LeNet-300-100, one core for each CPU device. Values are member-steps per second of
`population.train` with 1, 2, 4 and 8 devices, in one process and in as many processes, in
alternated rounds; ratios are over the rate of one device times the number of devices. More devices
than cores share them, and are compared with the rate of one device times the number of cores.
Collectives are counted in the compiled program. About five minutes on two cores, most of which 18
processes a round take to start and compile.
"""

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np
import optax

from experiments.benchmarks.report import main
from experiments.benchmarks.tasks import TASKS
from experiments.benchmarks.tasks import task as benchmark_task
from experiments.benchmarks.tpu import compiled
from lth_jax import distributed, machine, population
from lth_jax.analysis.ratios import Row, row
from lth_jax.analysis.topologies import COLLECTIVES

SIZES, STEPS = (1, 2, 4, 8), 100
ROUNDS, TRAININGS = 2, 2
"""Alternated jobs of each kind, and timed trainings in each job."""


def rates_here(members: int, devices: int, steps: int) -> list[float]:
    """Member-steps per second of this process's job, by training; the first one compiles."""
    _, module, shape, batch, _ = TASKS["mlp"]
    rng = np.random.default_rng(0)
    data = rng.normal(size=(2048, *shape)).astype(np.float32), np.arange(2048) % 10
    task = population.Task(
        module,
        data,
        optimizer=lambda hyper: optax.adam(hyper["learning_rate"]),
        hyper={"learning_rate": 1e-3},
        batch_size=batch,
        steps=steps,
        eval_every=steps,
    )
    start = population.initial(task, members * devices)
    plan = population.Plan(members * devices, devices=devices)
    seconds = []
    for _ in range(1 + TRAININGS):
        began = time.perf_counter()
        population.train(task, start, plan=plan)
        seconds.append(time.perf_counter() - began)
    return [members * devices * steps / one for one in seconds[1:]]


def rates_of(options: argparse.Namespace, devices: int, processes: int) -> list[float]:
    """The rates of a job of its own.

    Raises:
      RuntimeError: one of its processes fails.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    own = {"JAX_NUM_CPU_DEVICES": str(devices // processes)}
    command = [sys.executable, "-m", "experiments.benchmarks.scaling", f"--devices={devices}"]
    command += [f"--members={options.members}", f"--processes={processes}", f"--port={port}"]
    command += ["--quick"] * options.quick
    jobs = [
        subprocess.Popen(
            [*command, f"--process={i}"], env=os.environ | own, stdout=subprocess.PIPE, text=True
        )
        for i in range(processes)
    ]
    printed = [job.communicate()[0] for job in jobs]
    if any(job.returncode for job in jobs):
        raise RuntimeError(f"a process of the job with {devices} devices failed; see above.")
    return [float(rate) for rate in printed[0].splitlines()[-1].split()]


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """One row for each number of devices, in one process and in several."""
    sizes, rounds = (SIZES[:2], 1) if options.quick else (SIZES, ROUNDS)
    ways = [(n, 1) for n in sizes] + [(n, n) for n in sizes[1:]]
    rates: dict[tuple[int, int], list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            rates[way] += rates_of(options, *way)
    one = benchmark_task("mlp", STEPS)
    for devices, processes in ways[1:]:
        found = rates[devices, processes]
        fit = min(devices, machine.cores())
        program = compiled(one, options.members * devices, jax.devices()[:devices])
        yield row(
            f"{devices} devices, {'one process' if processes == 1 else 'a process each'}",
            round(float(np.median(found))),
            {"1 device": round(float(np.median(rates[1, 1])))},
            pairs=[a / (fit * b) for a, b in zip(found, rates[1, 1], strict=True)],
            goal=0.9 if devices <= machine.cores() else None,
            most=False,
            cores=machine.cores(),
            collectives=len(COLLECTIVES.findall(str(program.as_text()))),
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--members", type=int, default=8, help="per device, default: %(default)s")
    for name in ("devices", "processes", "process", "port"):
        parser.add_argument(f"--{name}", type=int, default=0, help=argparse.SUPPRESS)


def pin(devices: int, processes: int, process: int) -> None:
    """Confines this process to one core for each of its devices, as far as there are cores.

    XLA:CPU computes the products of one device on all cores of its process (jaxlib 0.10.2).
    """
    cores, each = sorted(os.sched_getaffinity(0)), devices // processes
    mine = {cores[(process * each + i) % len(cores)] for i in range(each)}
    os.sched_setaffinity(0, mine)


def worker() -> None:
    """A process of a job; prints its rates."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    pin(options.devices, options.processes, options.process)
    if options.processes > 1:
        distributed.join(f"localhost:{options.port}", options.processes, options.process)
    steps = 20 if options.quick else STEPS
    print(*rates_here(options.members, options.devices, steps), flush=True)


if __name__ == "__main__":
    if any(argument.startswith("--devices") for argument in sys.argv):
        worker()
    else:
        machine.make_cpu_devices(max(SIZES))
        main("scaling", __doc__, measure, add_options)
