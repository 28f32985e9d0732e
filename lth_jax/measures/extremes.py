"""Extreme values: the upper tail of many draws, and how rare a value is among them.

The tail beyond a high threshold is modelled by a generalised Pareto distribution (Pickands, 1975):
`P(X > x) = ζ (1 + ξ (x − u)/σ)^(−1/ξ)` for `x > u`, with the share ζ of draws above the threshold
u. A shape ξ below 0 has an upper end point, `u − σ/ξ`; ξ = 0 is exponential. Coles (2001), "An
Introduction to Statistical Modeling of Extreme Values", is the standard text.
"""

from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from lth_jax.measures.intervals import Interval

FEWEST = 10
"""The minimum number of draws beyond the threshold for a fit."""


class Tail(NamedTuple):
    """A generalised Pareto tail.

    Attributes:
      threshold: u.
      scale: σ, above 0.
      shape: ξ.
      share: ζ, the share of draws above the threshold.
    """

    threshold: float
    scale: float
    shape: float
    share: float

    @property
    def end(self) -> float:
        """The upper end point; infinite for shapes of 0 and above."""
        return self.threshold - self.scale / self.shape if self.shape < 0 else np.inf

    def chance(self, value: ArrayLike) -> NDArray[np.float64]:
        """P(X > value), for values of at least the threshold; 0 beyond the end point."""
        z = (np.asarray(value, np.float64) - self.threshold) / self.scale
        if self.shape == 0:
            return self.share * np.exp(-z)
        with np.errstate(divide="ignore"):
            return self.share * np.maximum(1 + self.shape * z, 0.0) ** (-1 / self.shape)

    def expected_maximum(self, draws: ArrayLike) -> NDArray[np.float64]:
        """The expected largest of N independent draws, for N well above `1/ζ`.

        `u + σ/ξ (ζ^ξ Γ(1 − ξ) Γ(N + 1)/Γ(N + 1 − ξ) − 1)`, and `u + σ (log ζ + ψ(N + 1) + γ)` for ξ
        = 0: the smallest of N uniform numbers has a beta distribution.
        """
        n, shape = np.asarray(draws, np.float64), self.shape
        if shape == 0:
            return self.threshold + self.scale * (
                np.log(self.share) + scipy.special.digamma(n + 1) + np.euler_gamma
            )
        log_gamma = scipy.special.gammaln
        log = log_gamma(1 - shape) + log_gamma(n + 1) - log_gamma(n + 1 - shape)
        power = np.exp(shape * np.log(self.share) + log)
        return self.threshold + self.scale / shape * (power - 1)


def fit_tail(draws: ArrayLike, share: float = 0.05, *, shape: float | None = None) -> Tail:
    """The tail of a sample, from its k = `share · n` largest draws.

    The threshold is the next smaller draw. Scale and shape are those of the probability-weighted
    moments of the excesses (Hosking & Wallis, 1987): with their mean `a₀` and `a₁ = E[y (1 −
    F(y))]`, `ξ = 2 − a₀/(a₀ − 2a₁)` and `σ = 2a₀a₁/(a₀ − 2a₁)`.

    Args:
      draws: `[n]`, finite.
      share: fraction of the draws beyond the threshold.
      shape: None to estimate it; 0 for an exponential tail, whose scale is the sum of the excesses
        over k − 1, so that 1/σ has no bias.

    Raises:
      ValueError: fewer than 10 draws are beyond the threshold, they are all equal, or `shape` is
        another number.

    >>> sample = np.random.default_rng(0).uniform(size=10_000)
    >>> tail = fit_tail(sample)
    >>> round(tail.shape, 1), round(tail.end, 2)
    (-1.0, 1.0)
    """
    sample = _vector(draws)
    k = round(share * sample.size)
    if not FEWEST <= k < sample.size:
        raise ValueError(
            f"`share` {share} of {sample.size} draws leaves {k} beyond the threshold; at least "
            f"{FEWEST} are needed, and some below it."
        )
    largest = np.sort(np.partition(sample, -k - 1)[-k - 1 :])
    threshold, excess = largest[0], largest[1:] - largest[0]
    if excess[0] == excess[-1]:
        raise ValueError(f"`draws` has {k} equal values beyond its threshold {threshold:g}.")
    if shape is not None and shape != 0:
        raise ValueError(f"`shape` is {shape}; it must be None or 0.")
    if shape == 0:
        return Tail(float(threshold), float(excess.sum() / (k - 1)), 0.0, k / sample.size)
    a0 = excess.mean()
    a1 = (excess * (1 - (np.arange(1, k + 1) - 0.35) / k)).mean()
    spread = a0 - 2 * a1
    return Tail(
        float(threshold), float(2 * a0 * a1 / spread), float(2 - a0 / spread), k / len(sample)
    )


def log10_odds(
    draws: ArrayLike, value: float, share: float = 0.05, *, shape: float | None = None
) -> float:
    """log₁₀ of N, where one in N draws is above a value: its return period.

    Up to the threshold of the tail it is `log₁₀ ((n + 1)/(k + 1))`, with k of n draws at least as
    large as the value; its mean does not exceed the true one. Beyond, it is that of the fitted
    tail, and infinite beyond its end point. With `shape` 0 it is finite, and a lower bound for a
    generalised Pareto tail whose true shape is at most 0, once the value is two mean excesses or
    more above the threshold. The limit for bounded numbers has such a shape; at a finite threshold
    it is a model.

    Args:
      draws: `[n]`.
      value: the value.
      share: see `fit_tail`.
      shape: see `fit_tail`.

    >>> sample = np.random.default_rng(0).exponential(size=200_000)
    >>> round(log10_odds(sample, 5 * np.log(10), shape=0.0), 1)
    5.0
    """
    tail = fit_tail(draws, share, shape=shape)
    if value <= tail.threshold:
        return rank_odds(draws, value)
    with np.errstate(divide="ignore"):
        return float(-np.log10(tail.chance(value)))


def rank_odds(draws: ArrayLike, value: float) -> float:
    """`log₁₀ ((n + 1)/(k + 1))`, with k of n draws at least as large as a value.

    No distribution is assumed. For a true chance p, the mean of `(n + 1)/(k + 1)` is `(1 − (1 −
    p)^(n+1))/p`, at most 1/p, so the mean of the logarithm is at most log₁₀ (1/p). The largest
    possible value is log₁₀ (n + 1).

    >>> rank_odds(range(99), 98.5)
    2.0
    """
    sample = _vector(draws)
    return float(np.log10((sample.size + 1) / (np.count_nonzero(sample >= value) + 1)))


def bootstrap_odds(
    draws: ArrayLike,
    value: float,
    share: float = 0.05,
    *,
    rng: np.random.Generator,
    confidence: float = 0.9,
    resamples: int = 200,
) -> Interval:
    """`log10_odds` with the percentile interval of resampled draws: the uncertainty of the fit.

    The interval of the bootstrap (Efron, 1981): the quantiles `(1 ∓ confidence)/2` of the estimates
    from resamples of n draws with replacement.

    Args:
      draws: `[n]`, finite.
      value: the value.
      share: see `fit_tail`.
      rng: source of the resamples.
      confidence: confidence of the interval, in (0, 1).
      resamples: number of resamples, at least 1.

    Returns:
      log₁₀ of N, where one in N draws is above the value; `replicates` is n. Ends are infinite
      where the value is beyond the end points of the resamples' fits.

    Raises:
      ValueError: `draws` is not one-dimensional and finite, fewer than 10 draws are beyond the
        threshold, or they are all equal, in `draws` or in a resample; `confidence` or `resamples`
        is out of range.

    >>> draws = np.random.default_rng(0).exponential(size=1000)  # one in 1000 is above log(1000)
    >>> found = bootstrap_odds(draws, np.log(1000), rng=np.random.default_rng(1), resamples=50)
    >>> found.low < 3 < found.high
    True
    """
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1, got {confidence}.")
    if resamples < 1:
        raise ValueError(f"`resamples` must be at least 1, got {resamples}.")
    sample = _vector(draws)
    resampled = (sample[rng.integers(0, sample.size, sample.size)] for _ in range(resamples))
    found = np.sort([log10_odds(one, value, share) for one in resampled])
    outside = int(round((1 - confidence) / 2 * resamples, 9))
    estimate = log10_odds(sample, value, share)
    return Interval(estimate, float(found[outside]), float(found[-1 - outside]), sample.size, 0)


def best_of(draws: ArrayLike, count: int) -> NDArray[np.float64]:
    """The expected largest of `count` draws, without a model.

    The mean of the maximum over all subsets of a sample, `Σᵢ C(i−1, m−1)/C(n, m) x₍ᵢ₎`, which has
    no bias (a U-statistic; Hoeffding, 1948).

    Args:
      draws: `[..., n]`.
      count: m, from 1 to n.

    Raises:
      ValueError: `count` is out of its range.

    >>> best_of([1.0, 2.0, 3.0], 2).item()
    2.6666666666666665
    """
    sample = np.sort(np.asarray(draws, np.float64), axis=-1)
    n = sample.shape[-1]
    if not 1 <= count <= n:
        raise ValueError(f"`count` is {count}; it must lie in [1, {n}] for {n} draws.")
    ranks = np.arange(1, n + 1)
    weights = scipy.special.binom(ranks - 1, count - 1) / scipy.special.binom(n, count)
    return np.asarray(sample @ weights)


def median_interval(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """The median with the interval of order statistics; infinite values are allowed.

    `[x₍r₎, x₍n+1−r₎]` with the largest r for which the binomial probability of fewer than r of n
    values below the median is at most `(1 − confidence)/2`; exact for every continuous
    distribution. Infinite values stand for "beyond all", such as return periods beyond an end
    point.

    Args:
      values: `[n]`; NaN are excluded and counted.
      confidence: the minimum coverage, in (0, 1).

    >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0, np.inf])[:3]
    (3.5, 1.0, inf)
    """
    array = np.asarray(values, np.float64)
    kept = np.sort(array[~np.isnan(array)])
    n = kept.size
    if not n:
        return Interval(np.nan, np.nan, np.nan, 0, array.size)
    middle = float(kept[(n - 1) // 2 : n // 2 + 1].mean())
    below = scipy.special.bdtr(np.arange(n // 2), n, 0.5)  # P(B ≤ r − 1) for r = 1, 2, …
    rank = int(np.count_nonzero(below <= (1 - confidence) / 2))
    low, high = (kept[rank - 1], kept[-rank]) if rank else (-np.inf, np.inf)
    return Interval(middle, float(low), float(high), n, array.size - n)


def _vector(draws: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(draws, np.float64)
    if sample.ndim != 1 or not np.isfinite(sample).all():
        raise ValueError(f"`draws` must be one-dimensional and finite, got shape {sample.shape}.")
    return sample
