"""Training segments compiled for TPUs by the TPU compiler; no chip is needed.

    pip install -e ".[tpu]"
    JAX_PLATFORMS=cpu python -m experiments.benchmarks.tpu [--quick] [--tasks mlp,conv]

For each task of the population benchmark and each topology: seconds of compilation, members and
bytes per chip, the bytes that the CPU program of the same members takes (what a plan made on a CPU
assumes), the number of collectives, and FLOP per byte of a training step beside the ratio of the
chip's peak to its bandwidth (below it, memory bounds the step). Bytes count arguments, results and
temporaries, the data set included. The last line is one JSON object.
"""

import argparse
import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import jax

from experiments.benchmarks.report import main
from experiments.benchmarks.tasks import TASKS, Task, population, task
from lth_jax import trees
from lth_jax.analysis.ratios import Row, row
from lth_jax.extras import needed_by
from lth_jax.population import Plan, compile_segment
from lth_jax.population.planning import program_bytes
from lth_jax.population.segment import init_record, train_step, training_batch

TOPOLOGIES = {"v5e:2x2": 4, "v5e:4x4": 16, "v5e:16x16": 256}
PEAK, BANDWIDTH = 197e12, 819e9
"""Of one v5e chip: bfloat16 FLOP/s and bytes/s (Google Cloud documentation, TPU v5e)."""
COLLECTIVES = re.compile(
    r"\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)\b"
)
STEPS = 100


def devices(topology: str) -> Sequence[Any]:
    """The chips of a topology, as the TPU compiler describes them."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # or libtpu 0.0.42 waits for a cloud's server
    with needed_by("`experiments.benchmarks.tpu`", "tpu"):
        import libtpu  # noqa: F401
    from jax.experimental import topologies

    found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    return list(found.devices)


def shapes_of(one: Task, members: int) -> tuple[Any, ...]:
    """The shapes of the arguments of a segment of so many members."""
    chunk = jax.eval_shape(lambda: population(one, members))
    records = jax.eval_shape(jax.vmap(init_record), chunk)
    data = jax.eval_shape(lambda: one.data)
    validation = jax.eval_shape(lambda data: trees.index(data, slice(64)), data)
    step = jax.ShapeDtypeStruct((), "int32")
    return chunk, records, data, validation, one.trainer.constants, step, step


def compiled(one: Task, members: int, chips: Sequence[Any]) -> jax.stages.Compiled:
    """A segment of so many members over these chips."""
    processes = len({chip.process_index for chip in chips})
    with (
        mock.patch.object(jax, "devices", lambda: list(chips)),
        mock.patch.object(jax, "process_count", lambda: processes),
    ):
        segment: Any = compile_segment(one.trainer, Plan(members, devices=len(chips)))
        return segment.lower(*shapes_of(one, members)).compile()


def intensity(one: Task) -> float:
    """FLOP per byte of one member's step, by the analysis of the unoptimised CPU program.

    A loop's body is counted once there, so the step is analysed outside of the segment's loop.
    """
    member = jax.eval_shape(lambda: trees.index(population(one, 1), 0))
    data = jax.eval_shape(lambda: trees.index(one.data, slice(one.batch)))

    def step(member: Any, data: Any) -> Any:
        rows = jax.numpy.arange(one.batch)
        batch = training_batch(one.trainer, member, data, rows, 0)
        return train_step(one.trainer, member, batch, 0)

    cost: Any = jax.jit(step).lower(member, data).compile().cost_analysis()
    return float(cost["flops"] / cost["bytes accessed"])


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """One row for each task and topology."""
    topologies = list(TOPOLOGIES)[: 1 if options.quick else None]
    for name in options.tasks.split(","):
        one = task(name, STEPS)
        here: Any = program_bytes(compiled(one, options.members, jax.devices()[:1]))
        ratio = intensity(one)
        for topology in topologies:
            chips = devices(topology)
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
                collectives=len(COLLECTIVES.findall(program.as_text())),
                flop_per_byte=round(ratio, 2),
                roofline_flop_per_byte=round(PEAK / BANDWIDTH, 1),
                compile_seconds=round(seconds, 1),
            )


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--tasks", default=",".join(TASKS), help="default: %(default)s")
    parser.add_argument("--members", type=int, default=16, help="per chip, default: %(default)s")


if __name__ == "__main__":
    main("tpu", __doc__, measure, add_options)
