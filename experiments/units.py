"""Pruning of whole units by a config: scopes, controls, and the choice of groups."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments import scoring
from experiments.messages import user_errors
from lth_jax import structure as st
from lth_jax.cli.programs import UserError
from lth_jax.lottery import CONTROLS, STRUCTURED_CONTROLS
from lth_jax.lottery.controls import Control
from lth_jax.pruning import granularity as g
from lth_jax.pruning.scopes import Scope

UNITS = "units"
REDUCTIONS: dict[str, g.Reduction] = {"sum": jnp.sum, "mean": jnp.mean, "max": jnp.max, "l2": g.l2}
UNIT_SCOPES: dict[str, Callable[..., Scope]] = {
    "layerwise": st.by_group,
    "globally": st.across_groups,
}


def control_names(granularity: str) -> tuple[str, ...]:
    """The controls that tickets of a granularity can have."""
    further = (name for name, c in STRUCTURED_CONTROLS.items() if c.granularity == granularity)
    return (*CONTROLS, *further)


def check(options: ConfigDict) -> None:
    """Raises `UserError` for pruning options that do not fit the granularity."""
    if options.granularity != UNITS:
        if "structure" in scoring.takes(options.criterion):
            raise UserError(
                f"`prune.criterion={options.criterion}` needs `prune.granularity=units`."
            )
        if options.budget:
            raise UserError(f"`prune.budget={options.budget}` needs `prune.granularity=units`.")
        return
    if options.scope not in UNIT_SCOPES:
        raise UserError(f"`prune.scope` is '{options.scope}'; units have {sorted(UNIT_SCOPES)}.")
    if options.budget and (options.scope, options.rounds) != ("globally", 1):
        raise UserError(
            f"`prune.budget={options.budget}` needs `prune.scope=globally` and `prune.rounds=1`: "
            "all units compete by score per cost."
        )
    if options.layer_rates or options.minimum or options.biases:
        raise UserError(
            "`prune.layer_rates`, `prune.minimum` and `prune.biases` apply to weights; units "
            "include their biases, and no group is emptied."
        )


def scope(options: ConfigDict, found: st.Structure) -> Scope:
    """The scope of units of a config."""
    multiple = options.unit_multiple
    if not options.budget:
        return UNIT_SCOPES[options.scope](found, multiple=multiple)
    with user_errors(names={"cost": "prune.budget"}):
        return st.by_budget(found, options.budget, multiple=multiple)


def check_multiple(multiple: int, found: st.Structure) -> None:
    """Raises `UserError` if `multiple` exceeds the number of units of every group."""
    largest = max(group.units for group in found.groups)
    if multiple > largest:
        raise UserError(
            f"`prune.unit_multiple` is {multiple}; the largest group of units has {largest}."
        )


def make_controls(structure: st.Structure | None, module: Any) -> dict[str, Control]:
    """All controls by name; without the network's units, those that do not need them."""
    fan = st.fan_of(module)
    usable = (c for c in STRUCTURED_CONTROLS.items() if structure or not c[1].needs_units)
    return CONTROLS | {name: control.build(structure, fan) for name, control in usable}
