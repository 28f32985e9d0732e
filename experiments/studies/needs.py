"""What the studies of a size need at least from one accelerator."""

from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import build, estimate, networks
from experiments.studies.common import experiments_of
from lth_jax.machine import in_units

INPUTS = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
"""Shapes of the data sets that a user must provide; a shape needs none of their files."""
HOURS = 8.0
"""The longest bound of a round: programs that reach a third of it end within a day."""


class Chip(NamedTuple):
    """An accelerator.

    Attributes:
      name: for messages.
      memory: bytes.
      flops: float32 operations per second.
      bandwidth: bytes per second between its memory and its cores.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float


A100 = Chip("an A100 of 40 GB", 40 * 2**30, 19.5e12, 1.555e12)
"""NVIDIA A100, float32 without TF32 (data sheet of 2020)."""


class Needs(NamedTuple):
    """Lower bounds of a round of a study.

    Attributes:
      member_steps: training steps of all networks.
      memory: bytes on the device.
      hours: of the accelerator.
    """

    member_steps: float
    memory: float
    hours: float

    def fit(self, chip: Chip) -> bool:
        """Whether an accelerator has the memory, and needs at most `HOURS`."""
        return self.memory <= chip.memory and self.hours <= HOURS

    def described(self, chip: Chip) -> str:
        """The bounds in words."""
        memory, verb = in_units(round(self.memory)), "fits" if self.fit(chip) else "does not fit"
        return (
            f"{self.member_steps:.2g} member-steps, at least {memory} and {self.hours:.2g} hours: "
            f"it {verb} {chip.name}."
        )


def needs(whole: ConfigDict, laptop: ConfigDict, member_steps: float, chip: Chip = A100) -> Needs:
    """The needs of a study, by its shapes and by the training steps of its laptop size.

    A step takes at least the time of its operations (three times those of a forward pass), and at
    least the time in which parameters, gradients and optimizer states pass the memory.

    Args:
      whole: config of the study at the size in question.
      laptop: its config at laptop size.
      member_steps: training steps of a round at laptop size.
      chip: the accelerator.
    """
    costs = [_cost(one, whole.machine, chip) for one in experiments_of(whole)]
    steps = [_steps(one, whole) for one in experiments_of(whole)]
    if not costs:
        return Needs(0.0, 0.0, 0.0)
    before = sum(_steps(one, laptop) for one in experiments_of(laptop))
    scale = member_steps / before
    seconds = sum(n * second for n, (_, second) in zip(steps, costs, strict=True))
    return Needs(scale * sum(steps), max(bytes for bytes, _ in costs), scale * seconds / 3600)


def _steps(experiment: ConfigDict, whole: ConfigDict) -> float:
    """Training steps of a ladder, or of the random tickets of a study that draws them."""
    levels = 1 + experiment.prune.levels
    draws = whole.study.draws if "draws" in whole.study else 1
    return float(experiment.replicates * experiment.train.steps * levels * draws)


def _cost(experiment: ConfigDict, machine: ConfigDict, chip: Chip) -> tuple[float, float]:
    """Bytes on the device at least, and seconds of a member's step at least."""
    config = ConfigDict({"experiment": experiment, "machine": machine})
    network, batch = networks.model(experiment), experiment.train.batch_size
    if shape := INPUTS.get(experiment.data.name):
        example = jax.ShapeDtypeStruct((batch, *shape), np.float32)
    else:
        x = build.dataset(config).train.x
        example = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)
    params, state = jax.eval_shape(network.init, jax.random.key(0), example)
    forward = jax.jit(lambda p, s, x: network.apply(p, s, x, train=False)[0])
    lowered: Any = forward.lower(params, state, example)
    found = networks.Shapes(params, state, jax.eval_shape(forward, params, state, example))
    bounds = estimate.estimate(config, found)
    weights, slots = estimate.size(params), bounds.member - 2 * estimate.size(params)
    moved = 5 * weights + 2 * max(slots, 0)  # read twice, written once; gradients; states
    seconds = max(3 * lowered.cost_analysis()["flops"] / chip.flops, moved / chip.bandwidth)
    return float(bounds.device), float(seconds)
