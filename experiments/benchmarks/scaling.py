"""Weak scaling of a population: the same number of members per device, over devices and processes.

    python -m experiments.benchmarks.scaling [--quick] [--members 8] [--commit-results]

LeNet-300-100, one core for each CPU device. Values are member-steps per second of
`population.train` with 1, 2, 4 and 8 devices, in one process, in as many processes of one job, and
in as many processes that share nothing, in alternated rounds. The last measure what the machine's
cores allow; their ratio is to the rate of one device times the number of devices, or of cores if
there are fewer. Ratios of jobs are to the processes that share nothing. Collectives are counted in
the compiled program. Takes about eight minutes on two cores, most of it for the start and the
compilation of 32 processes a round.
"""

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

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


def rates_here(
    members: int, devices: int, steps: int, ready: Callable[[], None] = lambda: None
) -> list[float]:
    """Member-steps per second of this process's job, by training.

    Args:
      members: per device.
      devices: of the job.
      steps: of a training.
      ready: called after the first training, which compiles and is not timed.
    """
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
    population.train(task, start, plan=plan)
    ready()
    seconds = []
    for _ in range(TRAININGS):
        began = time.perf_counter()
        population.train(task, start, plan=plan)
        seconds.append(time.perf_counter() - began)
    return [members * devices * steps / one for one in seconds]


class Way(NamedTuple):
    """How devices are divided among processes.

    Attributes:
      devices: number of devices.
      processes: number of processes.
      apart: whether the processes share nothing, else they are one job.
    """

    devices: int
    processes: int = 1
    apart: bool = False

    def __str__(self) -> str:
        if self.apart:
            return f"{self.devices} processes that share nothing"
        where = "a process each" if self.processes > 1 else "one process"
        return f"{self.devices} devices, {where}"


def rates_of(options: argparse.Namespace, way: Way) -> list[float]:
    """The rates of a job of its own, or the summed rates of processes that share nothing.

    Raises:
      RuntimeError: one of its processes fails.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    own = {"JAX_NUM_CPU_DEVICES": str(way.devices // way.processes)}
    job = (1, 1) if way.apart else (way.devices, way.processes)
    command = [sys.executable, "-m", "experiments.benchmarks.scaling", f"--port={port}"]
    command += [f"--devices={job[0]}", f"--processes={job[1]}", f"--members={options.members}"]
    command += ["--quick"] * options.quick + ["--apart"] * way.apart
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    jobs = [
        subprocess.Popen([*command, f"--process={i}"], env=os.environ | own, **pipes)
        for i in range(way.processes)
    ]
    for one in jobs * way.apart:
        assert one.stdout
        one.stdout.readline()  # it has compiled
    for one in jobs * way.apart:
        assert one.stdin
        print("start", file=one.stdin, flush=True)
    printed = [one.communicate()[0] for one in jobs]
    if any(one.returncode for one in jobs):
        raise RuntimeError(f"a process of {way} failed; see above.")
    rates = np.array([text.splitlines()[-1].split() for text in printed], float)
    return list(rates.sum(0) if way.apart else rates[0])


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """One row for each number of devices, apart, in one process and in several."""
    sizes, rounds = (SIZES[:2], 1) if options.quick else (SIZES, ROUNDS)
    alone = Way(1)
    ways = [alone, *(way for n in sizes[1:] for way in (Way(n, n, True), Way(n), Way(n, n)))]
    rates: dict[Way, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            rates[way] += rates_of(options, way)
    one = benchmark_task("mlp", STEPS)
    for way in ways[1:]:
        devices, cores = way.devices, machine.cores()
        beside = alone if way.apart else Way(devices, devices, True)
        times = min(devices, cores) if way.apart else 1
        others = f"{times} × 1 device" if way.apart else "processes that share nothing"
        program = compiled(one, options.members * devices, jax.devices()[:devices])
        yield row(
            str(way),
            round(float(np.median(rates[way]))),
            {others: round(times * float(np.median(rates[beside])))},
            pairs=[a / (times * b) for a, b in zip(rates[way], rates[beside], strict=True)],
            goal=0.9 if devices <= cores and not way.apart else None,
            most=False,
            cores=cores,
            collectives=len(COLLECTIVES.findall(str(program.as_text()))),
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--members", type=int, default=8, help="per device, default: %(default)s")
    for name in ("devices", "processes", "process", "port"):
        parser.add_argument(f"--{name}", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)


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

    def wait() -> None:
        if options.apart:
            print("compiled", flush=True)
            sys.stdin.readline()  # the others have compiled as well

    print(*rates_here(options.members, options.devices, steps, wait), flush=True)


if __name__ == "__main__":
    if any(argument.startswith("--devices") for argument in sys.argv):
        worker()
    else:
        machine.make_cpu_devices(max(SIZES))
        main("scaling", __doc__, measure, add_options)
