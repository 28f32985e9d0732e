"""Compiles training segments with libtpu for TPU chips that this machine does not have."""

import os
import re
from collections.abc import Sequence
from typing import Any
from unittest import mock

import jax

from lth_jax import trees
from lth_jax.extras import needed_by
from lth_jax.population import Member, Plan, compile_segment
from lth_jax.population.segment import Trainer, init_records, train_step, training_batch
from lth_jax.types import Batch

TOPOLOGIES = {"v5e:2x2": 4, "v5e:4x4": 16, "v5e:16x16": 256}
"""Names of topologies, with their numbers of chips."""
COLLECTIVES = re.compile(
    r"\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)\b"
)


def devices(topology: str) -> Sequence[Any]:
    """The chips of a topology, as the TPU compiler describes them.

    Raises:
      MissingExtraError: libtpu is not installed.
    """
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # else libtpu 0.0.42 waits for a cloud
    with needed_by("The TPU compiler", "tpu"):
        import libtpu  # noqa: F401
    from jax.experimental import topologies

    found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    return list(found.devices)


def compiled(
    trainer: Trainer, population: Member, data: Batch, chips: Sequence[Any]
) -> jax.stages.Compiled:
    """Compiles a segment of a population for these chips; allocates nothing.

    Args:
      trainer: the static part of the training.
      population: the shapes of all members, with the member axis first.
      data: the shapes of the training data.
      chips: from `devices`, or of this machine.
    """
    members = population.alive.shape[0]
    records = jax.eval_shape(init_records, population)
    validation = jax.eval_shape(lambda data: trees.index(data, slice(64)), data)
    step = jax.ShapeDtypeStruct((), "int32")
    shapes = (population, records, data, validation, trainer.constants, step, step)
    processes = len({chip.process_index for chip in chips})
    with (
        mock.patch.object(jax, "devices", lambda: list(chips)),
        mock.patch.object(jax, "process_count", lambda: processes),
    ):
        segment: Any = compile_segment(trainer, Plan(members, devices=len(chips)))
        program: jax.stages.Compiled = segment.lower(*shapes).compile()
    return program


def step_cost(trainer: Trainer, member: Member, data: Batch, batch: int) -> tuple[float, float]:
    """FLOP and bytes of one member's step, by the analysis of the unoptimised CPU program.

    A loop's body is counted once there, so the step is analysed outside of the segment's loop.

    Args:
      trainer: the static part of the training.
      member: the shapes of one member.
      data: the shapes of the training data.
      batch: examples per step.
    """
    some = jax.eval_shape(lambda: trees.index(data, slice(batch)))

    def step(member: Any, data: Any) -> Any:
        rows = jax.numpy.arange(batch)
        return train_step(trainer, member, training_batch(trainer, member, data, rows, 0), 0)

    cost: Any = jax.jit(step).lower(member, some).compile().cost_analysis()
    return float(cost["flops"]), float(cost["bytes accessed"])
