"""Chances of lotteries: that one given ticket is drawn, that some ticket wins, that a family lives.

Counts of subnetworks do not fit into floats, so they are logarithms; float64 on the host.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def log10_choose(n: int, k: int) -> float:
    """log₁₀ C(n, k): how many masks keep `k` of `n` weights.

    Raises:
      ValueError: unless `0 ≤ k ≤ n`.

    >>> round(10 ** log10_choose(12, 6))
    924
    """
    if not 0 <= k <= n:
        raise ValueError(f"`k` is {k}; it must lie in [0, {n}] for `n` = {n}.")
    nats = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return nats / math.log(10)


def log10_kept(n: int, k: int, s: int) -> float:
    """log₁₀ of the chance that `k` of `n` weights drawn at random include `s` given ones.

    It is C(n−s, k−s) / C(n, k), about (k/n)ˢ where `s` is small (hypergeometric).

    Args:
      n: weights of the network.
      k: weights that stay.
      s: weights of the subnetwork that must be among them.

    Raises:
      ValueError: unless `0 ≤ s ≤ k ≤ n`.

    >>> round(log10_kept(266_200, 26_620, 1_000))
    -1007
    """
    if not 0 <= s <= k:
        raise ValueError(f"`s` is {s}; it must lie in [0, {k}] for `k` = {k}.")
    return log10_choose(n - s, k - s) - log10_choose(n, k)


def at_least_one(p: ArrayLike, draws: ArrayLike) -> NDArray[np.float64]:
    """The chance that at least one of `draws` independent tickets wins: `1 − (1 − p)^draws`.

    Computed as `−expm1(draws · log1p(−p))`, exact for tiny `p` and huge `draws`.

    Args:
      p: that one of them wins, in [0, 1].
      draws: how many there are, at least 0.

    Raises:
      ValueError: if a number is out of its range.

    >>> at_least_one(1e-12, 1e12).round(4).item()
    0.6321
    """
    chance, count = np.asarray(p, np.float64), np.asarray(draws, np.float64)
    if not (np.all((chance >= 0) & (chance <= 1)) and np.all(count >= 0)):
        raise ValueError(f"`p` is {p!r} and `draws` {draws!r}; they must lie in [0, 1] and [0, ∞).")
    with np.errstate(divide="ignore", invalid="ignore"):
        some = -np.expm1(count * np.log1p(-chance))
    return np.where(count == 0, 0.0, some)


def clones_survive(types: ArrayLike, repeats: ArrayLike) -> NDArray[np.float64]:
    """The chance that a family of clones holds the type that the next environment wants.

    The parent has the type that the last environment wanted, and so have all its offspring. The
    environment stays with probability r, else it wants one of M types at random: `r + (1 − r)/M`,
    however many clones there are (after Williams, 1975).

    Args:
      types: M.
      repeats: r, in [0, 1].

    >>> clones_survive(1000, 0.0).item()
    0.001
    """
    types, repeats = np.asarray(types, np.float64), np.asarray(repeats, np.float64)
    return repeats + (1 - repeats) / types


def varied_survive(types: ArrayLike, offspring: ArrayLike) -> NDArray[np.float64]:
    """The same for offspring that each have a type of their own at random: `1 − (1 − 1/M)ᵏ`.

    Args:
      types: M.
      offspring: k; half as many as there would be clones, where sex costs twofold.

    >>> varied_survive(1000, 500).round(3).item()
    0.394
    """
    return at_least_one(1 / np.asarray(types, np.float64), offspring)


def break_even_repeats(types: ArrayLike, offspring: ArrayLike) -> NDArray[np.float64]:
    """How often the environment must repeat for clones to be as safe: `(P − 1/M)/(1 − 1/M)`.

    Args:
      types: M, above 1.
      offspring: of the varied family, whose chance is P.

    >>> break_even_repeats(1000, 500).round(3).item()
    0.393
    """
    one = 1 / np.asarray(types, np.float64)
    return (varied_survive(types, offspring) - one) / (1 - one)


def subset_sum_gaps(values: ArrayLike, target: float) -> NDArray[np.float64]:
    """How close the sums of subsets come to a target, as numbers are added one by one.

    A few random numbers approximate any target by the sum of some of them (Lueker, 1998), which is
    why a wide random network holds a subnetwork close to any small one (Pensia et al., 2020). All
    2ⁿ subsets are looked at.

    Args:
      values: `[n]`, at most 24 of them.
      target: what is to be met.

    Returns:
      `[n]`: entry i is the smallest `|Σ subset − target|` over the subsets of the first i + 1.

    Raises:
      ValueError: if there are more than 24 values.

    >>> subset_sum_gaps([1.0, 2.0, 4.0], 6.5).tolist()
    [5.5, 3.5, 0.5]
    """
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or numbers.size > 24:
        raise ValueError(f"`values` has shape {numbers.shape}; at most 24 in a row are allowed.")
    sums, gaps = np.zeros(1), []
    for number in numbers:
        sums = np.concatenate([sums, sums + number])
        gaps.append(np.abs(sums - target).min())
    return np.array(gaps)
