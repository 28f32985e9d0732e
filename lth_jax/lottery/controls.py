"""A ticket's twins, each with one thing broken on purpose.

A control is a pure function `control(mask, dense, fresh, *, key, prunable) -> (mask, point)` of its
ticket's mask, the point the ticket starts from before its mask, and a newly drawn network. It sees
the ticket's data order and schedule, keeps the exact number of weights, and is trained beside the
ticket as a further member.
"""

from typing import Any, Protocol

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


def check_controls(names: Any) -> None:
    """Raises `ValueError` if a control is unknown or named twice."""
    for name in names:
        if name not in CONTROLS:
            raise ValueError(f"`controls` holds {name!r}; each must be one of {sorted(CONTROLS)}.")
    if len(set(names)) < len(tuple(names)):
        raise ValueError(f"`controls` is {tuple(names)}; each may be named once.")
