"""Pruning criteria. Each builder returns a `Criterion`, a pure function that scores weights.

`CRITERIA` maps names to the builders that need only a network and its loss.
"""

from lth_jax.pruning.criteria._inputs import CRITERIA, Criterion
from lth_jax.pruning.criteria.activations import activation_norms, squared_inputs, wanda
from lth_jax.pruning.criteria.curvature import fisher, obd
from lth_jax.pruning.criteria.flax_inputs import linen_inputs, nnx_inputs
from lth_jax.pruning.criteria.gradients import grasp, saliency, snip
from lth_jax.pruning.criteria.groups import by_group
from lth_jax.pruning.criteria.movements import MovementState, movement_pruning, track_movement
from lth_jax.pruning.criteria.synflow import synflow
from lth_jax.pruning.criteria.weights import (
    lamp,
    large_final_different_sign,
    large_final_same_sign,
    large_init,
    large_init_large_final,
    magnitude,
    magnitude_increase,
    movement,
    random,
    small_final,
    small_init,
    small_init_small_final,
)
from lth_jax.registry import import_modules

import_modules(__name__, __path__)  # every module registers its parts

__all__ = [
    "CRITERIA",
    "Criterion",
    "MovementState",
    "activation_norms",
    "by_group",
    "fisher",
    "grasp",
    "lamp",
    "large_final_different_sign",
    "large_final_same_sign",
    "large_init",
    "large_init_large_final",
    "linen_inputs",
    "magnitude",
    "magnitude_increase",
    "movement",
    "movement_pruning",
    "nnx_inputs",
    "obd",
    "random",
    "saliency",
    "small_final",
    "small_init",
    "small_init_small_final",
    "snip",
    "squared_inputs",
    "synflow",
    "track_movement",
    "wanda",
]
