"""Densities of the levels of a config."""

from typing import Any

from ml_collections import ConfigDict

from lth_jax.cli import parts
from lth_jax.pruning import schedules, scopes


def density(prune: ConfigDict, level: int) -> float:
    """The density of a level without `prune.layer_rates`."""
    found = parts.choose("prune.schedule", prune.schedule, schedules.SCHEDULES)
    if not parts.is_own(prune.schedule):
        given = {name: prune[name] for name in ("rate", "levels", "final")}
        found = parts.call("prune.schedule", prune.schedule, found, **given)
    return float(found(level))


def densities(experiment: ConfigDict, params: Any) -> list[Any]:
    """The density of each level from 1 on: a number, or a tree with `prune.layer_rates`."""
    options = experiment.prune
    own = {pattern: schedules.geometric(rate) for pattern, rate in options.layer_rates.items()}
    levels = range(1, options.levels + 1)
    if not own:
        return [density(options, level) for level in levels]
    return [
        scopes.per_leaf(params, density(options, level), {p: f(level) for p, f in own.items()})
        for level in levels
    ]
