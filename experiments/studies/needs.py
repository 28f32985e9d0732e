"""What the studies of a size need at least from one accelerator."""

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import build, estimate, networks
from experiments.studies.common import experiments_of
from lth_jax.analysis.roofline import A100, Chip, Needs, step_seconds

INPUTS = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
"""Shapes of the data sets that a user must provide; a shape needs none of their files."""


def needs(whole: ConfigDict, laptop: ConfigDict, member_steps: float, chip: Chip = A100) -> Needs:
    """The needs of a study, by its shapes and by the training steps of its laptop size.

    Args:
      whole: config of the study at the size in question.
      laptop: its config at laptop size.
      member_steps: training steps of a round at laptop size.
      chip: the accelerator.
    """
    parts = experiments_of(whole)
    if not parts:
        return Needs(0.0, 0.0, 0.0)
    memory, seconds = zip(*(_cost(one, whole.machine, chip) for one in parts), strict=True)
    steps = [_steps(one, whole) for one in parts]
    scale = member_steps / sum(_steps(one, laptop) for one in experiments_of(laptop))
    hours = scale * float(np.dot(steps, seconds)) / 3600
    return Needs(scale * sum(steps), max(memory), hours)


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
    found = networks.shapes_on(network, example)
    bounds = estimate.estimate(config, found)
    slots = bounds.member - estimate.size(found.params) - estimate.size(found.state)
    return float(bounds.device), step_seconds(network, example, slots, chip)
