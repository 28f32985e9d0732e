"""The arms of an experiment: how figures draw them, and what each one tests."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from lth_jax.types import DENSE, TICKET


class Look(NamedTuple):
    """How an arm is drawn, the same in every figure, in the colours of Okabe and Ito (2008).

    Attributes:
      label: its name in legends.
      color: of its lines.
      marker: of its means.
      says: one sentence on what it is; empty for arms that are not built in.
    """

    label: str
    color: Any
    marker: str
    says: str = ""


LOOKS = {
    DENSE: Look("dense", "#000000", "", "The network with all of its weights, trained."),
    TICKET: Look(
        "ticket",
        "#0072B2",
        "o",
        "The weights that pruning kept, rewound to their earlier values and trained again.",
    ),
    "reinit": Look(
        "reinitialised",
        "#E69F00",
        "s",
        "The ticket's mask on newly drawn weights: do the initial weights matter?",
    ),
    "shuffle": Look(
        "shuffled in layers",
        "#009E73",
        "^",
        "The ticket's mask permuted within each layer: do the positions matter?",
    ),
    "random": Look(
        "random mask",
        "#D55E00",
        "D",
        "As many weights drawn at random from the whole network: is the mask better than chance?",
    ),
    "scratch": Look(
        "from scratch",
        "#56B4E9",
        "P",
        "The ticket's shape, initialised as a network of this size: do the initial weights matter?",
    ),
    "random_units": Look(
        "random units",
        "#CC79A7",
        "v",
        "As many units of each group drawn at random: does the choice of units matter?",
    ),
    "refill": Look("refilled", "#CC79A7", "v", "The ticket's mask, filled up to whole units."),
    "refill_reinit": Look(
        "refilled, reinitialised", "#56B4E9", "P", "The refilled mask on newly drawn weights."
    ),
    "refill_scratch": Look(
        "refilled, from scratch",
        "#009E73",
        "^",
        "The refilled shape, initialised as a network of this size.",
    ),
    "refill_random": Look(
        "refilled, random units",
        "#666666",
        "X",
        "As many units as the refilled mask keeps, drawn at random.",
    ),
    "regroup": Look(
        "regrouped", "#CC79A7", "v", "The ticket's mask, rearranged into dense blocks."
    ),
    "regroup_reinit": Look(
        "regrouped, reinitialised", "#56B4E9", "P", "The regrouped mask on newly drawn weights."
    ),
    "regroup_random": Look(
        "regrouped, random blocks",
        "#666666",
        "X",
        "Blocks of the same sizes in other rows and columns.",
    ),
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
    """How each arm is drawn; arms that are not built in get the spare colours, in turn.

    >>> looks(["ticket", "late"])["late"]
    Look(label='late', color='#CC79A7', marker='v', says='')
    """
    unknown = [arm for arm in arms if arm not in LOOKS]
    taken = {LOOKS[arm].color for arm in arms if arm in LOOKS}
    free = [look for look in SPARE if look[0] not in taken] or SPARE
    spare = {arm: Look(arm, *free[i % len(free)]) for i, arm in enumerate(unknown)}
    return {arm: LOOKS.get(arm) or spare[arm] for arm in arms}


def part_look(label: str, index: int) -> Look:
    """How one of many parts of a network (leaves, layers, heads) is drawn."""
    color, marker = (*SPARE[3:], *SPARE[:3])[index % len(SPARE)]
    return Look(label, color, marker if index < len(SPARE) else ".")
