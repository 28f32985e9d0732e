"""Units of a config's network: what may be removed together, and how that is chosen."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments import scoring
from experiments.flags import UserError
from lth_jax import models
from lth_jax import structure as st
from lth_jax.layouts import Layout
from lth_jax.lottery import (
    CONTROLS,
    REFILL_CONTROLS,
    REGROUP_CONTROLS,
    UNIT_CONTROLS,
)
from lth_jax.lottery.controls import Control
from lth_jax.models.layers import Initialization
from lth_jax.pruning import granularity as g
from lth_jax.pruning.scopes import Scope

UNITS = "units"
REDUCTIONS: dict[str, g.Reduction] = {"sum": jnp.sum, "mean": jnp.mean, "max": jnp.max, "l2": g.l2}
GRANULARITIES: dict[str, Callable[[g.Reduction], g.Granularity]] = {
    "weights": lambda reduction: g.weights,
    "rows": g.rows,
    "columns": g.columns,
    "kernels": g.kernels,
}
SCOPES: dict[str, Callable[..., Scope]] = {"layerwise": st.by_group, "globally": st.across_groups}
ALIKE = ("class_token", "embeddings", "pos_embedding", "position_embedding", "positions")
"""Leaves that are drawn alike at every size; `embeddings` are Haiku's."""
FANS: dict[Initialization, st.Fan] = {
    models.glorot_normal: st.fan_average,
    models.he_normal: st.fan_in,
    models.fan_in_uniform: st.fan_in,
}


def control_names(granularity: str) -> tuple[str, ...]:
    """The controls that tickets of a granularity can have."""
    further = {UNITS: (*UNIT_CONTROLS,), "weights": (*REFILL_CONTROLS, *REGROUP_CONTROLS)}
    return (*CONTROLS, *further.get(granularity, ()))


def check(options: ConfigDict) -> None:
    """Raises `UserError` for options of pruning that do not go together with its granularity."""
    if options.granularity != UNITS:
        if "structure" in scoring.takes(options.criterion):
            raise UserError(
                f"`prune.criterion={options.criterion}` needs `prune.granularity=units`."
            )
        return
    if options.scope not in SCOPES:
        raise UserError(f"`prune.scope` is '{options.scope}'; units have {sorted(SCOPES)}.")
    if options.layer_rates or options.minimum or options.biases:
        raise UserError(
            "`prune.layer_rates`, `prune.minimum` and `prune.biases` are of weights; units take "
            "their biases along, and no group is emptied."
        )


def check_multiple(multiple: int, found: st.Structure) -> None:
    """Raises `UserError` if no group has as many units as each is to keep a multiple of."""
    largest = max(group.units for group in found.groups)
    if multiple > largest:
        raise UserError(
            f"`prune.unit_multiple` is {multiple}; the largest group of units has {largest}."
        )


def make_controls(structure: st.Structure | None, module: Any) -> dict[str, Control]:
    """All controls by name; without the network's units, those that do without."""
    table = CONTROLS | REGROUP_CONTROLS
    if structure is None:
        return table
    fan = fan_of(module)
    return table | {
        name: make(structure, fan) for name, make in (UNIT_CONTROLS | REFILL_CONTROLS).items()
    }


def fan_of(module: Any) -> st.Fan:
    """What the initial variance of each leaf of a network is inverse to.

    Kernels of a network without `initialization`, so of any framework, count by their inputs: so do
    the default initialisers of Flax, Equinox and Haiku.
    """
    of_kernels = FANS.get(getattr(module, "initialization", None), st.fan_in)  # type: ignore[arg-type]

    def fan(name: str, layout: Layout, sizes: Sequence[Any]) -> Any:
        leaf = name.rpartition("/")[2]
        if leaf in ALIKE:
            return 1
        return sizes[-1] if leaf == "embedding" else of_kernels(name, layout, sizes)

    return fan


def chosen(structure: st.Structure, options: ConfigDict) -> st.Structure:
    """The groups that a config prunes.

    Args:
      structure: from `lottery.structure_of`.
      options: the `prune` part of an experiment.

    Raises:
      ValueError: if a pattern fits no group, no group is left, or one of them cannot be removed
        without changing what the others compute.
    """
    found = structure.only(*options.groups)
    if not found.groups:
        raise ValueError(
            "`prune.granularity` is 'units', but no unit of this network can be removed: "
            f"{found.pinned}."
        )
    for group in found.groups:
        if not group.exact:
            raise ValueError(
                f"`prune.groups` includes '{group.name}', but a network without some of its units "
                f"differs from the masked one: {group.inexact[0]}; leave it out."
            )
    return found
