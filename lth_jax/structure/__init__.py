"""Structured tickets: the removable units of any JAX function, removed exactly."""

from lth_jax.structure import control, moves, sums  # noqa: F401  (they register their rules)
from lth_jax.structure.compact import compact, take
from lth_jax.structure.groups import Group, Slot, Structure, find_groups
from lth_jax.structure.links import major, minor
from lth_jax.structure.rules import register

__all__ = [
    "Group",
    "Slot",
    "Structure",
    "compact",
    "find_groups",
    "major",
    "minor",
    "register",
    "take",
]
