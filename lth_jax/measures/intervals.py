"""Confidence intervals and tests for a handful of replicates, in float64 on the host.

One value per replicate (an independent seed of the whole experiment). Values that are not finite
belong to diverged replicates: they are excluded and counted.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

EXACT_LIMIT = 20
"""Up to this many values all 2ⁿ sign flips are enumerated; beyond, they are drawn."""


class Interval(NamedTuple):
    """An estimate with its confidence interval.

    Attributes:
      estimate: the point estimate; NaN without a single finite value.
      low: lower end; NaN if there are too few values.
      high: upper end; NaN likewise.
      replicates: number of finite values.
      missing: number of values that are NaN or infinite.
    """

    estimate: float
    low: float
    high: float
    replicates: int
    missing: int


def student_t(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """The mean with Student's interval, `x̄ ± t₍n₋₁₎ s/√n` (Student, 1908).

    Exact for independent normal values.

    Args:
      values: one number per replicate, shape `[n]`.
      confidence: coverage, in (0, 1).

    Raises:
      ValueError: if `values` is not one-dimensional or `confidence` not in (0, 1).

    >>> mean, low, high, n, missing = student_t([1.0, 2.0, 3.0, float("nan")])
    >>> f"{mean:.0f} [{low:.3f}, {high:.3f}] from {n}, {missing} missing"
    '2 [-0.484, 4.484] from 3, 1 missing'
    """
    finite, missing = _finite(values)
    alpha = _error_rate(confidence)
    if finite.size < 2:
        return _without_spread(finite, missing)
    mean = finite.mean()
    half = scipy.special.stdtrit(finite.size - 1, 1 - alpha / 2) * _standard_error(finite)
    return Interval(float(mean), float(mean - half), float(mean + half), finite.size, missing)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    interval: Callable[[NDArray[np.float64]], Interval] = student_t,
) -> Interval:
    """The mean of `first − second` over pairs, with the interval of the differences.

    Pairs with a missing value are excluded. Other intervals are passed as functions:
    `interval=lambda d: bootstrap_t(d, rng=rng)`.

    Args:
      first: one number per replicate, shape `[n]`.
      second: the same replicates in the same order, shape `[n]`.
      interval: function from the differences to an interval.

    Raises:
      ValueError: if the two are not one-dimensional and of one length.

    >>> paired_difference([3.0, 4.0, 6.0], [1.0, 1.0, 2.0]).estimate
    3.0
    """
    a, b = _vector(first, "first"), _vector(second, "second")
    if a.size != b.size:
        raise ValueError(
            f"`first` and `second` must hold the same replicates, got {a.size} and {b.size} values."
        )
    both = np.isfinite(a) & np.isfinite(b)
    difference = np.full(a.shape, np.nan)
    np.subtract(a, b, out=difference, where=both)
    return interval(difference)


def welch_difference(first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """The difference of two means, `x̄ − ȳ ± t_ν √(sx²/n + sy²/m)` (Welch, 1947).

    For independent samples; `ν` is the Welch–Satterthwaite number of degrees of freedom. The
    interval's `replicates` counts the finite values of both samples.

    Args:
      first: shape `[n]`.
      second: shape `[m]`.
      confidence: coverage, in (0, 1).

    Raises:
      ValueError: if an argument is not one-dimensional or `confidence` not in (0, 1).

    >>> mean, low, high, n, missing = welch_difference([3.0, 4.0, 5.0], [1.0, 1.5, 2.0, 2.5])
    >>> f"{mean:.2f} [{low:.2f}, {high:.2f}] from {n}"
    '2.25 [0.23, 4.27] from 7'
    """
    (a, missing_a), (b, missing_b) = _finite(first), _finite(second)
    alpha, missing = _error_rate(confidence), missing_a + missing_b
    difference = a.mean() - b.mean() if a.size and b.size else np.nan
    if min(a.size, b.size) < 2:
        return Interval(float(difference), np.nan, np.nan, a.size + b.size, missing)
    errors = np.array([_standard_error(a), _standard_error(b)]) ** 2
    total = errors.sum()
    freedom = total**2 / (errors**2 / (a.size - 1, b.size - 1)).sum() if total else np.inf
    half = scipy.special.stdtrit(freedom, 1 - alpha / 2) * np.sqrt(total) if total else 0.0
    low, high = float(difference - half), float(difference + half)
    return Interval(float(difference), low, high, a.size + b.size, missing)


def bootstrap_t(
    values: ArrayLike, *, rng: np.random.Generator, confidence: float = 0.95, resamples: int = 9999
) -> Interval:
    """The mean with the studentised bootstrap interval (Efron, 1981; Hall, 1988).

    With `t* = (x̄* − x̄) / se*` over resamples drawn with replacement, the interval is `[x̄ −
    t*₍1−α/2₎ se, x̄ − t*₍α/2₎ se]`. A resample without spread counts as an infinite `t*`, so very
    few values can give an infinite interval.

    Args:
      values: one number per replicate, shape `[n]`.
      rng: source of the resamples.
      confidence: coverage, in (0, 1).
      resamples: the number of resamples.

    Raises:
      ValueError: if `values` is not one-dimensional, `confidence` not in (0, 1), or `resamples`
        too few for the tails.

    >>> rng = np.random.default_rng(0)
    >>> mean, low, high, *_ = bootstrap_t(rng.normal(size=30), rng=rng)
    >>> low < mean < high
    True
    """
    finite, missing = _finite(values)
    alpha = _error_rate(confidence)
    if resamples * alpha / 2 < 1:
        raise ValueError(
            f"`resamples` must be at least {int(np.ceil(2 / alpha))} at "
            f"`confidence` {confidence}, got {resamples}."
        )
    if finite.size < 2:
        return _without_spread(finite, missing)
    mean, error = finite.mean(), _standard_error(finite)
    drawn = rng.choice(finite, size=(resamples, finite.size))
    shift, spread = drawn.mean(axis=1) - mean, _standard_error(drawn)
    same = np.abs(shift) <= 1e-12 * np.abs(finite).max()
    flat = np.where(same, 0.0, np.copysign(np.inf, shift))
    t = np.sort(np.divide(shift, spread, out=flat, where=np.ptp(drawn, axis=1) > 0))
    tail = int(resamples * alpha / 2)
    low, high = mean - t[-tail] * error, mean - t[tail - 1] * error
    return Interval(float(mean), float(low), float(high), finite.size, missing)


def sign_flip_test(
    values: ArrayLike,
    *,
    center: float = 0.0,
    rng: np.random.Generator | None = None,
    resamples: int = 99_999,
) -> float:
    """The two-sided p-value of `values` being symmetric around `center` (Fisher, 1935).

    `p` is the fraction of all sign vectors `s` with `|Σ sᵢ(xᵢ − c)| ≥ |Σ (xᵢ − c)|`: exact for up
    to `EXACT_LIMIT` values; beyond, sign vectors are drawn and `p = (1 + hits) / (1 + draws)`.

    Args:
      values: one number (often a paired difference) per replicate, shape `[n]`.
      center: the hypothesis.
      rng: source of the sign vectors, needed beyond `EXACT_LIMIT` values.
      resamples: the number of draws in that case.

    Returns:
      The p-value in (0, 1]; 1 without a single finite value.

    Raises:
      ValueError: if `values` is not one-dimensional, or `rng` is needed and missing.

    >>> sign_flip_test([1.0, 2.0, 3.0, 4.0, 5.0])  # 2 of 32 sign vectors
    0.0625
    """
    finite, _ = _finite(values)
    deviation = finite - center
    sums, _ = _subset_sums(deviation, rng, resamples)
    total = deviation.sum()
    slack = 1e-12 * np.abs(deviation).sum()
    return float(np.mean(np.abs(total - 2 * sums) >= np.abs(total) - slack))


def sign_flip_interval(
    values: ArrayLike,
    *,
    confidence: float = 0.95,
    rng: np.random.Generator | None = None,
    resamples: int = 99_999,
) -> Interval:
    """The mean with the centers that `sign_flip_test` does not reject (Hartigan, 1969).

    Flipping a subset lowers the sum exactly where the subset's mean exceeds the center, so the
    ends are order statistics of the means of all 2ⁿ − 1 subsets: no search. Coverage is exact for
    symmetric values. Below six values nothing can be rejected at 95 %, and the ends are infinite.

    Args:
      values: one number (often a paired difference) per replicate, shape `[n]`.
      confidence: coverage, in (0, 1).
      rng: source of the subsets, needed beyond `EXACT_LIMIT` values.
      resamples: the number of draws in that case.

    Raises:
      ValueError: if `values` is not one-dimensional, `confidence` not in (0, 1), or `rng` is
        needed and missing.

    >>> sign_flip_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    Interval(estimate=3.5, low=1.0, high=6.0, replicates=6, missing=0)
    """
    finite, missing = _finite(values)
    alpha = _error_rate(confidence)
    if finite.size < 2:
        return _without_spread(finite, missing)
    sums, counts = _subset_sums(finite, rng, resamples)
    empty = int(np.count_nonzero(counts == 0))  # flips that change nothing never reject
    means = np.sort(sums[counts > 0] / counts[counts > 0])
    rank = int(np.floor(alpha / 2 * sums.size)) - empty + 1
    low, high = (means[rank - 1], means[-rank]) if rank > 0 else (-np.inf, np.inf)
    return Interval(float(finite.mean()), float(low), float(high), finite.size, missing)


def clopper_pearson(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """A proportion with its exact binomial interval (Clopper & Pearson, 1934).

    The ends are the quantiles `B⁻¹(α/2; k, n−k+1)` and `B⁻¹(1−α/2; k+1, n−k)` of beta
    distributions; coverage is at least `confidence` for every true proportion.

    Args:
      successes: number of successes, 0 to `trials`.
      trials: number of trials, at least 1.
      confidence: coverage, in (0, 1).

    Raises:
      ValueError: if a number is out of its range.

    >>> clopper_pearson(0, 10).high.__round__(4)
    0.3085
    """
    alpha = _error_rate(confidence)
    if trials < 1:
        raise ValueError(f"`trials` must be at least 1, got {trials}.")
    if not 0 <= successes <= trials:
        raise ValueError(f"`successes` must be in [0, {trials}], got {successes}.")
    failures = trials - successes
    low = scipy.special.betaincinv(successes, failures + 1, alpha / 2) if successes else 0.0
    high = scipy.special.betaincinv(successes + 1, failures, 1 - alpha / 2) if failures else 1.0
    return Interval(successes / trials, float(low), float(high), trials, 0)


def paired_shares(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """The difference of the shares of pairs that are won and lost, with guaranteed coverage.

    With the Clopper–Pearson intervals of both shares, each of confidence `1 − α/2`, the ends are
    `low₊ − high₋` and `high₊ − low₋`. By Bonferroni's inequality the coverage is at least `1 − α`
    for every distribution, also where few pairs differ.

    Args:
      values: one per replicate, in percent: 100 for won, 0 for tied, −100 for lost; shape `[n]`.
      confidence: coverage, in (0, 1).

    Raises:
      ValueError: if a finite value is none of these.

    >>> mean, low, high, *_ = paired_shares([100.0] * 20 + [0.0] * 19 + [-100.0])
    >>> f"{mean:.1f} [{low:.0f}, {high:.0f}]"
    '47.5 [17, 68]'
    """
    finite, missing = _finite(values)
    alpha = _error_rate(confidence)
    if not np.isin(finite, (-100.0, 0.0, 100.0)).all():
        raise ValueError(f"`values` must be −100, 0 or 100, got {np.unique(finite).tolist()}.")
    if not finite.size:
        return _without_spread(finite, missing)
    won, lost = (
        clopper_pearson(int((finite == one).sum()), finite.size, confidence=1 - alpha / 2)
        for one in (100.0, -100.0)
    )
    low, high = 100 * (won.low - lost.high), 100 * (won.high - lost.low)
    return Interval(float(finite.mean()), float(low), float(high), finite.size, missing)


def _vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"`{name}` must be one-dimensional, got shape {array.shape}.")
    return array


def _finite(values: ArrayLike) -> tuple[NDArray[np.float64], int]:
    array = _vector(values, "values")
    finite = array[np.isfinite(array)]
    return finite, array.size - finite.size


def _error_rate(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be in (0, 1), got {confidence}.")
    return round(1 - confidence, 12)  # 1 - 0.9975 is 0.002499…, and ranks are rounded down


def _standard_error(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.std(axis=-1, ddof=1) / np.sqrt(values.shape[-1])


def _without_spread(finite: NDArray[np.float64], missing: int) -> Interval:
    estimate = float(finite[0]) if finite.size else np.nan
    return Interval(estimate, np.nan, np.nan, finite.size, missing)


def _subset_sums(
    values: NDArray[np.float64], rng: np.random.Generator | None, resamples: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sums and sizes of all subsets, or of the empty one and `resamples` drawn ones."""
    if values.size > EXACT_LIMIT:
        if rng is None:
            raise ValueError(
                f"`rng` is needed for {values.size} values: "
                f"all sign flips are enumerated only up to {EXACT_LIMIT}."
            )
        chosen = rng.integers(0, 2, size=(resamples + 1, values.size), dtype=np.int8)
        chosen[0] = 0
        return chosen @ values, chosen.sum(axis=1, dtype=np.int64)
    sums, counts = np.zeros(1), np.zeros(1, np.int64)
    for value in values:
        sums = np.concatenate([sums, sums + value])
        counts = np.concatenate([counts, counts + 1])
    return sums, counts
