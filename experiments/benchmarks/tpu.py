"""Training segments compiled for TPUs by the TPU compiler; no chip is needed.

    pip install -e ".[tpu]"
    JAX_PLATFORMS=cpu python -m experiments.benchmarks.tpu [--quick] [--tasks mlp,conv]

For each task of the population benchmark and each topology: seconds of compilation, members and
bytes per chip, the bytes that the CPU program of the same members takes (what a plan made on a CPU
assumes), the number of collectives, and the FLOP of a training step of one member, also per byte,
beside the ratio of the chip's peak to its bandwidth (below it, memory bounds the step). Bytes count
arguments, results and temporaries, the data set included. The last line is one JSON object.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from experiments.benchmarks.report import main
from experiments.benchmarks.tasks import TASKS, Task, population, task
from lth_jax import trees
from lth_jax.analysis import topologies
from lth_jax.analysis.ratios import Row, row
from lth_jax.population.planning import program_bytes

PEAK, BANDWIDTH = 197e12, 819e9
"""Of one v5e chip: bfloat16 FLOP/s and bytes/s (Google Cloud documentation, TPU v5e)."""
STEPS = 100


def compiled(one: Task, members: int, chips: Sequence[Any]) -> jax.stages.Compiled:
    """A segment of so many members of a task over these chips."""
    chunk = jax.eval_shape(lambda: population(one, members))
    data = jax.eval_shape(lambda: one.data)
    return topologies.compiled(one.trainer, chunk, data, chips)


def step_cost(one: Task) -> tuple[float, float]:
    """FLOP and bytes of a step of one member of a task."""
    member = jax.eval_shape(lambda: trees.index(population(one, 1), 0))
    return topologies.step_cost(one.trainer, member, one.data, one.batch)


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """One row for each task and topology."""
    names = list(topologies.TOPOLOGIES)[: 1 if options.quick else None]
    for name in options.tasks.split(","):
        one = task(name, STEPS)
        here: Any = program_bytes(compiled(one, options.members, jax.devices()[:1]))
        flops, moved = step_cost(one)
        for topology in names:
            chips = topologies.devices(topology)
            began = time.perf_counter()
            program: Any = compiled(one, options.members * len(chips), chips)
            seconds = time.perf_counter() - began
            bytes_there: Any = program_bytes(program)
            yield row(
                f"{one.name}, {topology}: MiB per chip beside the CPU program",
                round(bytes_there / 2**20, 2),
                {"CPU": round(here / 2**20, 2)},
                judged=bytes_there / here,
                goal=1.2,
                members_per_chip=options.members,
                chips=len(chips),
                collectives=len(topologies.COLLECTIVES.findall(program.as_text())),
                mflop_per_step=round(flops / 1e6, 1),
                flop_per_byte=round(flops / moved, 2),
                roofline_flop_per_byte=round(PEAK / BANDWIDTH, 1),
                compile_seconds=round(seconds, 1),
            )


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--tasks", default=",".join(TASKS), help="default: %(default)s")
    parser.add_argument("--members", type=int, default=16, help="per chip, default: %(default)s")


if __name__ == "__main__":
    main("tpu", __doc__, measure, add_options)
