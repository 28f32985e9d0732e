"""Criteria: what a weight is worth. Each builder returns a pure `Criterion`."""

from lth_jax.pruning.criteria._inputs import Criterion
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

__all__ = [
    "Criterion",
    "lamp",
    "large_final_different_sign",
    "large_final_same_sign",
    "large_init",
    "large_init_large_final",
    "magnitude",
    "magnitude_increase",
    "movement",
    "random",
    "small_final",
    "small_init",
    "small_init_small_final",
]
