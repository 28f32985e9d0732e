"""Families in an environment that may change: varied offspring against clones of one parent.

In each generation one of several types is wanted. Clones have the type that the last environment
wanted; varied offspring have a type at random each, and are half as many, the twofold cost of sex
(Williams, 1975, "Sex and evolution"). `measures.odds` has the chances in closed form.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Winners(NamedTuple):
    """How many offspring of each family have the type that is wanted, int64 `[families]`."""

    varied: NDArray[np.int64]
    clones: NDArray[np.int64]


def simulate(
    rng: np.random.Generator, types: int, clones: int, repeats: float, *, families: int
) -> Winners:
    """One generation of families of both kinds.

    Args:
      rng: source of environments and offspring.
      types: the number of types, M.
      clones: the size of a family of clones; varied families have half of it.
      repeats: the chance that the environment stays as it was.
      families: the number of families of each kind.

    >>> winners = simulate(np.random.default_rng(0), 1, 4, 0.0, families=2)
    >>> winners.varied.tolist(), winners.clones.tolist()
    ([2, 2], [4, 4])
    """
    stays = rng.random(families) < repeats
    meets = rng.integers(types, size=families) == 0
    varied = rng.binomial(clones // 2, 1 / types, families)
    return Winners(varied, clones * (stays | meets))


def log_survival(winners: Winners) -> float:
    """The log share of families with a winner, varied minus clones."""
    return float(np.log(np.mean(winners.varied > 0)) - np.log(np.mean(winners.clones > 0)))


def log_mean(winners: Winners) -> float:
    """The log mean number of winners, varied minus clones."""
    return float(np.log(np.mean(winners.varied)) - np.log(np.mean(winners.clones)))
