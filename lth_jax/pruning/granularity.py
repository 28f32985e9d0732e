"""Granularities: what is removed together.

A granularity maps leaf scores to unit scores, and a mask of units back to a mask of leaves.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from lth_jax.types import Mask, Prunable, Scores


class Units(NamedTuple):
    """What competes: trees of one structure.

    Attributes:
      scores: the score of each unit; leaves that are not prunable as they came.
      mask: which units are alive.
      sizes: the number of weights in a unit of the leaf, or of each unit.
      prunable: static Python booleans.
    """

    scores: Scores
    mask: Mask
    sizes: Any
    prunable: Prunable


class Granularity(NamedTuple):
    """A pair of pure functions, both vmappable.

    Attributes:
      to_units: `(scores, mask, *, prunable) -> Units`.
      to_leaves: `(unit_mask, mask, *, prunable) -> mask`; never keeps what `mask` does not.
    """

    to_units: Callable[..., Units]
    to_leaves: Callable[..., Mask]


def _weights_to_units(scores: Scores, mask: Mask, *, prunable: Prunable) -> Units:
    return Units(scores, mask, jax.tree.map(lambda _: 1, mask), prunable)


def _weights_to_leaves(unit_mask: Mask, mask: Mask, *, prunable: Prunable) -> Mask:
    del mask, prunable
    return unit_mask


weights = Granularity(_weights_to_units, _weights_to_leaves)
"""Every weight is a unit of its own."""
