"""Simulation of families in a changing environment: varied offspring and clones.

In each generation one of several types survives. Clones have the type of the last environment;
varied offspring have random types and are half as many, the twofold cost of sex (Williams, 1975,
"Sex and evolution"). `measures.odds` has the chances in closed form.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Winners(NamedTuple):
    """The number of surviving offspring of each family, int64 `[families]`."""

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
      repeats: the probability that the environment does not change.
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
    """The log of the fraction of families with a survivor, varied minus clones."""
    return float(np.log(np.mean(winners.varied > 0)) - np.log(np.mean(winners.clones > 0)))


def log_mean(winners: Winners) -> float:
    """The log mean number of winners, varied minus clones."""
    return float(np.log(np.mean(winners.varied)) - np.log(np.mean(winners.clones)))
