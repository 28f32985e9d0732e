"""Structured tickets: the removable units of any JAX function, removed exactly."""

from lth_jax.structure import control, moves, sums  # noqa: F401  (they register their rules)
from lth_jax.structure.compact import compact, take
from lth_jax.structure.groups import Group, Slot, Structure, find_groups
from lth_jax.structure.links import major, minor
from lth_jax.structure.rules import register
from lth_jax.structure.units import (
    expand,
    global_counts,
    keep_best,
    members,
    prunable,
    score_units,
    unit_counts,
    units,
    units_of,
)

__all__ = [
    "Group",
    "Slot",
    "Structure",
    "compact",
    "expand",
    "find_groups",
    "global_counts",
    "keep_best",
    "major",
    "members",
    "minor",
    "prunable",
    "register",
    "score_units",
    "take",
    "unit_counts",
    "units",
    "units_of",
]
