"""A ticket's twins, each with one thing broken on purpose.

A control is a pure function `control(mask, dense, fresh, *, key, prunable) -> (mask, point)` of its
ticket's mask, the point the ticket starts from before its mask, and a newly drawn network. It sees
the ticket's data order and schedule, keeps the exact number of weights, and is trained beside the
ticket as a further member.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from lth_jax import structure as st
from lth_jax.lottery.rewind import Point
from lth_jax.pruning.masks import shuffle, shuffle_globally
from lth_jax.types import Key, Mask, Prunable


class Control(Protocol):
    """How a control is called; the point it returns is masked by the ladder."""

    def __call__(
        self, mask: Mask, dense: Point, fresh: Point, *, key: Key, prunable: Prunable
    ) -> tuple[Mask, Point]:
        """Returns the control's mask and the point it starts from."""


def reinit(
    mask: Mask, dense: Point, fresh: Point, *, key: Key, prunable: Prunable
) -> tuple[Mask, Point]:
    """The ticket's mask on newly drawn weights: is the initialisation what wins?

    (Frankle and Carbin 2019, "random reinitialisation".)
    """
    del dense, key, prunable
    return mask, fresh


def layerwise_shuffle(
    mask: Mask, dense: Point, fresh: Point, *, key: Key, prunable: Prunable
) -> tuple[Mask, Point]:
    """The ticket's weights with its mask permuted within each layer: is the position what wins?

    Each layer keeps its number of weights (Frankle et al. 2021, "Missing the Mark").
    """
    del fresh
    return shuffle(key, mask, prunable=prunable), dense


def random_mask(
    mask: Mask, dense: Point, fresh: Point, *, key: Key, prunable: Prunable
) -> tuple[Mask, Point]:
    """The ticket's weights under a mask drawn at random over the whole network.

    The total number of weights is kept, the numbers per layer are not: is anything in the mask
    better than chance, its layer proportions included?
    """
    del fresh
    return shuffle_globally(key, mask, prunable=prunable), dense


CONTROLS: dict[str, Control] = {
    "reinit": reinit,
    "shuffle": layerwise_shuffle,
    "random": random_mask,
}
"""Controls of any ticket."""


def random_units(structure: st.Structure) -> Control:
    """The ticket's weights under as many units of each group, drawn at random: the same shape.

    For tickets of whole units: is the choice of the units what wins? (Their `reinit` is the same
    shape from scratch, of which Liu et al. 2019 say that it does as well.)
    """

    def control(
        mask: Mask, dense: Point, fresh: Point, *, key: Key, prunable: Prunable
    ) -> tuple[Mask, Point]:
        del fresh
        return st.random_units(structure, key, mask, prunable), dense

    return control


def refilled(structure: st.Structure, then: Control | None = None) -> Control:
    """The whole units that hold most of the ticket's weights, all their weights given back.

    IMP-Refill (Chen et al. 2022) as a twin of each unstructured ticket: no more weights, but a
    smaller network.

    Args:
      structure: the network's units.
      then: what to break in the refilled ticket: a control of it.
    """

    def control(
        mask: Mask, dense: Point, fresh: Point, *, key: Key, prunable: Prunable
    ) -> tuple[Mask, Point]:
        filled = st.refill(structure, mask, prunable)
        return then(filled, dense, fresh, key=key, prunable=prunable) if then else (filled, dense)

    return control


UNIT_CONTROLS: dict[str, Callable[[st.Structure], Control]] = {"random_units": random_units}
"""Further controls of tickets that are whole units, made from the network's units."""

REFILL_CONTROLS: dict[str, Callable[[st.Structure], Control]] = {
    "refill": refilled,
    "refill_reinit": lambda structure: refilled(structure, reinit),
    "refill_random": lambda structure: refilled(structure, random_units(structure)),
}
"""The refilled twin of unstructured tickets, and the twin's own controls."""


def named(names: Iterable[str], table: Mapping[str, Control] = CONTROLS) -> dict[str, Control]:
    """The controls of these names, in this order.

    Args:
      names: the arms trained beside each ticket.
      table: what there is: `CONTROLS`, and those made from `UNIT_CONTROLS` or `REFILL_CONTROLS`.

    Raises:
      ValueError: if a control is unknown or named twice.

    >>> list(named(["shuffle", "reinit"]))
    ['shuffle', 'reinit']
    """
    names = tuple(names)
    for name in names:
        if name not in table:
            raise ValueError(f"`controls` holds {name!r}; each must be one of {sorted(table)}.")
    if len(set(names)) < len(names):
        raise ValueError(f"`controls` is {names}; each may be named once.")
    return {name: table[name] for name in names}
