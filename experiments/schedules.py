"""Densities of a config's levels: which schedule, over what scores compete, and layers' rates."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from experiments import parts
from lth_jax.pruning import schedules, scopes

SCOPES: dict[str, Callable[[ConfigDict], scopes.Scope]] = {
    "globally": lambda prune: scopes.globally(prune.minimum),
    "layerwise": lambda prune: scopes.layerwise(),
    "erk": lambda prune: scopes.erk(),
}
SCHEDULES: dict[str, Callable[[ConfigDict], schedules.Schedule]] = {
    "geometric": lambda prune: schedules.geometric(prune.rate),
    "linear": lambda prune: schedules.linear(prune.levels, prune.final),
    "cubic": lambda prune: schedules.cubic(prune.levels, prune.final),
    "exponential": lambda prune: schedules.exponential(prune.levels, prune.final),
    "one_shot": lambda prune: schedules.one_shot(prune.final),
}


def density(prune: ConfigDict, level: int) -> float:
    """The density of a level, where layers have no rates of their own."""
    if parts.is_own(prune.schedule):
        return float(parts.load("prune.schedule", prune.schedule)(level))
    return SCHEDULES[prune.schedule](prune)(level)


def densities(experiment: ConfigDict, params: Any) -> list[Any]:
    """The density of each level from 1 on: a number, or a tree where layers have rates."""
    options = experiment.prune
    own = {pattern: schedules.geometric(rate) for pattern, rate in options.layer_rates.items()}
    levels = range(1, options.levels + 1)
    if not own:
        return [density(options, level) for level in levels]
    return [
        scopes.per_leaf(params, density(options, level), {p: f(level) for p, f in own.items()})
        for level in levels
    ]
