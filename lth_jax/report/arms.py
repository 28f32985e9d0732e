"""Colours, markers and labels of the arms of an experiment and the parts of a network."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from lth_jax.types import DENSE, TICKET


class Look(NamedTuple):
    """How an arm is drawn, the same in every figure, in the colours of Okabe and Ito (2008).

    Attributes:
      label: name in legends.
      color: colour of lines.
      marker: marker of means.
    """

    label: str
    color: Any
    marker: str


LOOKS = {
    DENSE: Look("dense", "#000000", ""),
    TICKET: Look("ticket", "#0072B2", "o"),
    "reinit": Look("reinitialised", "#E69F00", "s"),
    "shuffle": Look("shuffled in layers", "#009E73", "^"),
    "random": Look("random mask", "#D55E00", "D"),
    "signs": Look("signs only", "#CC79A7", "v"),
    "scratch": Look("from scratch", "#56B4E9", "P"),
    "random_units": Look("random units", "#CC79A7", "v"),
    "refill": Look("refilled", "#CC79A7", "v"),
    "refill_reinit": Look("refilled, reinitialised", "#56B4E9", "P"),
    "refill_scratch": Look("refilled, from scratch", "#009E73", "^"),
    "refill_random": Look("refilled, random units", "#666666", "X"),
    "regroup": Look("regrouped", "#CC79A7", "v"),
    "regroup_reinit": Look("regrouped, reinitialised", "#56B4E9", "P"),
    "regroup_random": Look("regrouped, random blocks", "#666666", "X"),
}
SPARE = (
    ("#CC79A7", "v"),
    ("#56B4E9", "P"),
    ("#666666", "X"),
    ("#0072B2", "o"),
    ("#E69F00", "s"),
    ("#009E73", "^"),
    ("#D55E00", "D"),
)


def looks(arms: Collection[str]) -> dict[str, Look]:
    """The look of each arm; arms of users get the spare colours, in turn.

    >>> looks(["ticket", "late"])["late"]
    Look(label='late', color='#CC79A7', marker='v')
    """
    unknown = [arm for arm in arms if arm not in LOOKS]
    taken = {LOOKS[arm].color for arm in arms if arm in LOOKS}
    free = [look for look in SPARE if look[0] not in taken] or SPARE
    spare = {arm: Look(arm, *free[i % len(free)]) for i, arm in enumerate(unknown)}
    return {arm: LOOKS.get(arm) or spare[arm] for arm in arms}


def part_look(label: str, index: int) -> Look:
    """The look of one of many parts of a network (leaves, layers, heads)."""
    color, marker = (*SPARE[3:], *SPARE[:3])[index % len(SPARE)]
    return Look(label, color, marker if index < len(SPARE) else ".")
