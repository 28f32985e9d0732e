"""Probabilities of lotteries: a given ticket is drawn, some ticket wins, a family survives.

Counts of subnetworks exceed the range of floats, so logarithms are used; float64 on the host.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def log10_choose(n: int, k: int) -> float:
    """log₁₀ C(n, k): the number of masks that keep `k` of `n` weights.

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
    """log₁₀ of the probability that `k` random weights of `n` include `s` given ones.

    It is C(n−s, k−s) / C(n, k), about (k/n)ˢ where `s` is small (hypergeometric).

    Args:
      n: weights of the network.
      k: number of kept weights.
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
    """The probability that at least one of `draws` independent tickets wins: `1 − (1 − p)^draws`.

    Computed as `−expm1(draws · log1p(−p))`, exact for tiny `p` and huge `draws`.

    Args:
      p: probability that one of them wins, in [0, 1].
      draws: number of tickets, at least 0.

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
    """The probability that a family of clones survives the next environment.

    All clones have the type of the last environment. The environment stays with probability r, else
    a random one of M types survives: `r + (1 − r)/M`, for any number of clones (after Williams,
    1975).

    Args:
      types: M.
      repeats: r, in [0, 1].

    >>> clones_survive(1000, 0.0).item()
    0.001
    """
    types, repeats = np.asarray(types, np.float64), np.asarray(repeats, np.float64)
    return repeats + (1 - repeats) / types


def varied_survive(types: ArrayLike, offspring: ArrayLike) -> NDArray[np.float64]:
    """The same for offspring with independent random types: `1 − (1 − 1/M)ᵏ`.

    Args:
      types: M.
      offspring: k; half the number of clones, for the twofold cost of sex.

    >>> varied_survive(1000, 500).round(3).item()
    0.394
    """
    return at_least_one(1 / np.asarray(types, np.float64), offspring)


def subset_sum_gaps(values: ArrayLike, target: float) -> NDArray[np.float64]:
    """The distance of the nearest subset sum to a target, as numbers are added one by one.

    A few random numbers approximate any target by the sum of some of them (Lueker, 1998), so a wide
    random network contains a subnetwork close to any small one (Pensia et al., 2020). All 2ⁿ
    subsets are enumerated.

    Args:
      values: `[n]`, at most 24 of them.
      target: the target sum.

    Returns:
      `[n]`: entry i is the smallest `|Σ subset − target|` over the subsets of the first i + 1.

    Raises:
      ValueError: there are more than 24 values.

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
