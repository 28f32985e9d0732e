"""The survival of families in a changing environment: varied offspring and clones.

In each generation one of M types survives. The environment stays with probability r; else a random
type survives. Clones have the type of the last environment. Varied offspring have random types and
are fewer: n clones cost as much as n/c varied offspring, with c = 2 the twofold cost of sex
(Williams, 1975, "Sex and evolution").
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


def clones_survive(types: ArrayLike, repeats: ArrayLike) -> NDArray[np.float64]:
    """The probability that a family of clones survives: `r + (1 − r)/M`, whatever its size.

    Args:
      types: M.
      repeats: r, in [0, 1].

    >>> clones_survive(1000, 0.0).item()
    0.001
    """
    types, repeats = np.asarray(types, np.float64), np.asarray(repeats, np.float64)
    return repeats + (1 - repeats) / types


def varied_survive(types: ArrayLike, offspring: ArrayLike) -> NDArray[np.float64]:
    """The probability that one of k varied offspring survives: `1 − (1 − 1/M)ᵏ`.

    Args:
      types: M.
      offspring: k.

    >>> varied_survive(1000, 500).round(3).item()
    0.394
    """
    types, offspring = np.asarray(types, np.float64), np.asarray(offspring, np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(offspring * np.log1p(-1 / types)))


def break_even(types: ArrayLike, varied: ArrayLike) -> NDArray[np.float64]:
    """The probability of a repeat at which clones survive as often: `(P − 1/M) / (1 − 1/M)`.

    Varied offspring are safer below it, clones above it.

    Args:
      types: M, at least 2.
      varied: P, the probability that the varied family survives.

    >>> break_even(1000, varied_survive(1000, 500)).round(3).item()
    0.393
    """
    chance = 1 / np.asarray(types, np.float64)
    return np.asarray((np.asarray(varied, np.float64) - chance) / (1 - chance))


class Winners(NamedTuple):
    """The number of surviving offspring of each family, int64 `[families]`."""

    varied: NDArray[np.int64]
    clones: NDArray[np.int64]


def simulate(
    rng: np.random.Generator,
    types: int,
    clones: int,
    repeats: float,
    cost: float = 2.0,
    *,
    families: int,
) -> Winners:
    """One generation of families of both kinds.

    Args:
      rng: source of environments and offspring.
      types: the number of types, M.
      clones: the size of a family of clones, n.
      repeats: the probability that the environment does not change, r.
      cost: c; varied families have ⌊n/c⌋ offspring.
      families: the number of families of each kind.

    >>> winners = simulate(np.random.default_rng(0), 1, 4, 0.0, families=2)
    >>> winners.varied.tolist(), winners.clones.tolist()
    ([2, 2], [4, 4])
    """
    stays = rng.random(families) < repeats
    meets = rng.integers(types, size=families) == 0
    varied = rng.binomial(int(clones / cost), 1 / types, families)
    return Winners(varied, clones * (stays | meets))


def log_survival(winners: Winners) -> float:
    """The log of the fraction of families with a survivor, varied minus clones.

    >>> round(log_survival(Winners(np.array([1, 0]), np.array([2, 2]))), 4)
    -0.6931
    """
    return float(np.log(np.mean(winners.varied > 0)) - np.log(np.mean(winners.clones > 0)))


def log_mean(winners: Winners) -> float:
    """The log mean number of winners, varied minus clones.

    >>> round(log_mean(Winners(np.array([1, 0]), np.array([2, 2]))), 4)
    -1.3863
    """
    return float(np.log(np.mean(winners.varied)) - np.log(np.mean(winners.clones)))
