"""Coverage of intervals on data like the given ones, and the choice of a method that covers.

The sign-flip interval is exact for symmetric values. For skewed values it covers too rarely, for
example where a few seeds fail with a large loss: at nominal 95 %, 79–91 % of the time for 24 to 48
seeds of which 5–10 % fail. `coverage` simulates this on resamples of the values, and
`choose_interval` takes the first method that covers, or raises the confidence of the last until it
does (calibration; Loh, 1987, "Calibrating confidence coefficients").

Caveat: no method covers for failures that are absent from the values. If a share q of all seeds
fails, n seeds show no failure with probability `(1 − q)ⁿ`, and every interval then ignores them;
with one failure among the given values, at most `1 − e⁻¹ = 63 %` of the resamples can be covered.
A rare failure is better reported as a share, for which `intervals.clopper_pearson` is exact.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from lth_jax.measures.intervals import Interval, sign_flip_interval, student_t

Values = NDArray[np.float64]
SIGN_FLIP, LIKELIHOOD, TRANSFORMED = "sign-flip", "empirical likelihood", "transformed t"
CALIBRATED = "calibrated t"
HALVINGS = 6
"""The most halvings of the nominal error of `CALIBRATED`."""
STANDARD, STRICT = 0.95, 0.9975
"""Confidence of displayed intervals and of verdicts, at which coverage is simulated."""

_BISECTIONS = 30


class Chosen(NamedTuple):
    """An interval with its method.

    Attributes:
      method: `"sign-flip"`, `"empirical likelihood"`, `"transformed t"` or `"calibrated t"`.
      interval: interval of the mean of the values.
      coverage: simulated coverage of this method, at the confidence of the interval.
    """

    method: str
    interval: Interval
    coverage: float


def choose_interval(values: ArrayLike, confidence: float, rng: np.random.Generator) -> Chosen:
    """The interval of the first method that covers on resamples of the values.

    The order is sign-flip, empirical likelihood, transformed t. A method covers if it reaches
    `required` at 95 % and at 99.75 %. If none does, the nominal error of the transformed t is
    halved until it covers, at most six times; the returned coverage shows any shortfall. The choice
    depends on the values alone, so the intervals of two confidences have one method.

    Args:
      values: `[seeds]`; values that are not finite are excluded and counted.
      confidence: confidence of the interval, in (0, 1).
      rng: source of the sign vectors of the sign-flip interval.

    Raises:
      ValueError: if `values` is not one-dimensional or `confidence` not in (0, 1).

    >>> rng = np.random.default_rng(0)
    >>> choose_interval(rng.normal(2.0, size=24), 0.95, rng).method
    'sign-flip'
    """
    plain = student_t(values, confidence=confidence)  # checks the arguments
    array = np.asarray(values, np.float64)
    finite = array[np.isfinite(array)]
    if finite.size < 2:
        return Chosen(SIGN_FLIP, plain, np.nan)
    key = tuple(finite.tolist())
    method = next((name for name in METHODS if _covers(name, key)), None)
    used = method or TRANSFORMED
    nominal = confidence if method else _calibrated(key, confidence)
    interval = METHODS[used].interval(finite, nominal, rng)._replace(missing=plain.missing)
    return Chosen(method or CALIBRATED, interval, _coverage(key, used, nominal))


def _calibrated(values: tuple[float, ...], confidence: float) -> float:
    """The nominal confidence at which the transformed t covers as `confidence` requires."""
    nominal = confidence
    for _ in range(HALVINGS):
        if _coverage(values, TRANSFORMED, nominal) >= required(confidence):
            break
        nominal = (1 + nominal) / 2
    return nominal


def required(confidence: float) -> float:
    """The smallest coverage of a method that `choose_interval` accepts.

    At most 1.4 times the nominal misses. Misses of 1 % are always allowed: 2,000 simulations do not
    resolve less.

    >>> round(required(0.95), 4), required(0.9975)
    (0.93, 0.99)
    """
    return 1 - max(1.4 * (1 - confidence), 0.01)


def coverage(
    values: ArrayLike, method: str, confidence: float = STANDARD, *, simulations: int = 2000
) -> float:
    """The share of resamples whose interval contains the mean of the values.

    Resamples have as many values as given, drawn with replacement, so the mean of the given values
    is the truth.

    Args:
      values: `[seeds]`, finite, at least two.
      method: a key of `METHODS`.
      confidence: the nominal coverage.
      simulations: number of resamples.

    >>> coverage(np.arange(24.0), "sign-flip") > 0.93
    True
    """
    given = np.asarray(values, np.float64)
    rng = np.random.default_rng(0)
    away = rng.choice(given - given.mean(), size=(simulations, given.size))
    same = np.abs(away).max(axis=1) <= 1e-12 * np.abs(given).max()  # all values equal the mean
    return float(np.mean(same | METHODS[method].covers(away, confidence, rng)))


@functools.lru_cache(maxsize=256)  # the intervals of two confidences share their simulations
def _coverage(values: tuple[float, ...], method: str, confidence: float) -> float:
    return coverage(values, method, confidence)


def _covers(method: str, values: tuple[float, ...]) -> bool:
    levels = (STANDARD, STRICT)
    return all(_coverage(values, method, level) >= required(level) for level in levels)


def likelihood_interval(values: Values, confidence: float) -> Interval:
    """The mean with the interval of the empirical likelihood (Owen, 1988).

    It contains the means μ with `2 Σ log(1 + λ (xᵢ − μ)) ≤ F₁,₍ₙ₋₁₎`, where λ solves
    `Σ (xᵢ − μ) / (1 + λ (xᵢ − μ)) = 0`. It extends further to the side of a long tail, and stays
    within the range of the values.

    Args:
      values: `[n]`, finite.
      confidence: in (0, 1).

    >>> mean, low, high, *_ = likelihood_interval(np.array([0.0] * 20 + [9.0, 10.0]), 0.95)
    >>> mean - low < high - mean
    True
    """
    mean = values.mean()
    inside, outside = np.full(2, mean), np.array([values.min(), values.max()])
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        covered = _by_likelihood(values - middle[:, None], confidence)
        inside, outside = np.where(covered, middle, inside), np.where(covered, outside, middle)
    low, high = map(float, inside)
    return Interval(float(mean), low, high, values.size, 0)


def transformed_t(values: Values, confidence: float) -> Interval:
    """The mean with Student's interval after the cubic transformation of Hall (1992).

    `T = √n (x̄ − μ)/s` is transformed to `T + aT²/3 + a²T³/27 + a/6` with `a = γ/√n` and the
    skewness γ, which is monotone and removes the skewness to order 1/n.

    Args:
      values: `[n]`, finite.
      confidence: in (0, 1).

    >>> mean, low, high, *_ = transformed_t(np.array([0.0] * 20 + [9.0, 10.0]), 0.95)
    >>> mean - low < high - mean
    True
    """
    n, mean, spread = values.size, values.mean(), values.std(ddof=1)
    error, a = spread / np.sqrt(n), float(_skewness(values)) / np.sqrt(n)
    ends = _quantile(n, confidence) * np.array([1, -1])
    t = 3 / a * (np.cbrt(1 + a * (ends - a / 6)) - 1) if abs(a) > 1e-6 else ends
    low, high = mean - t * error
    return Interval(float(mean), float(low), float(high), n, 0)


def _by_signs(away: Values, confidence: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which rows of deviations from the truth `sign_flip_test` does not reject.

    All rows share their sign vectors, so that one matrix product computes all sums.
    """
    n = away.shape[1]
    if n <= 11:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    else:
        signs = np.concatenate([np.ones((1, n)), rng.choice((-1, 1), size=(1999, n))])
    sums = np.abs(away.astype(np.float32) @ signs.T.astype(np.float32))
    slack = 1e-5 * np.abs(away).sum(axis=1, keepdims=True)
    p: Values = np.mean(sums >= sums[:, :1] - slack, axis=1)
    return p > 1 - confidence


def _by_likelihood(away: Values, confidence: float) -> NDArray[np.bool_]:
    """Which rows of deviations from a mean do not reject it by empirical likelihood."""
    n = away.shape[1]
    least, most = away.min(axis=1), away.max(axis=1)
    between = (least < 0) & (most > 0)
    low, high = (
        (1 / n - 1) / np.where(between, end, sign) for end, sign in ((most, 1.0), (least, -1.0))
    )
    z = np.where(between[:, None], away, 0.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        more = (z / (1 + middle[:, None] * z)).sum(axis=1) > 0
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    ratio = 2 * np.log1p((low + high)[:, None] / 2 * z).sum(axis=1)
    limit = scipy.special.fdtri(1, n - 1, confidence)
    return between & (ratio <= limit)


def _by_transformed(away: Values, confidence: float) -> NDArray[np.bool_]:
    """Which rows of deviations from the truth `transformed_t` covers."""
    n = away.shape[1]
    error = away.std(axis=1, ddof=1) / np.sqrt(n)
    far = np.full(error.shape, 1e50)  # equal values cover only their own value
    t = np.divide(away.mean(axis=1), error, out=far, where=np.ptp(away, axis=1) > 0)
    a = _skewness(away) / np.sqrt(n)
    transformed: Values = t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6
    return np.abs(transformed) <= _quantile(n, confidence)


def _skewness(values: Values) -> Values:
    centred = values - values.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=-1))
    found: Values = (centred**3).mean(axis=-1) / np.where(spread > 0, spread, 1) ** 3
    return found


def _quantile(n: int, confidence: float) -> float:
    return float(scipy.special.stdtrit(n - 1, (1 + confidence) / 2))


class _Method(NamedTuple):
    """An interval, and a test of the truth for many resamples that it inverts."""

    interval: Callable[[Values, float, np.random.Generator], Interval]
    covers: Callable[[Values, float, np.random.Generator], NDArray[np.bool_]]


METHODS: Mapping[str, _Method] = {
    SIGN_FLIP: _Method(lambda x, c, rng: sign_flip_interval(x, confidence=c, rng=rng), _by_signs),
    LIKELIHOOD: _Method(
        lambda x, c, rng: likelihood_interval(x, c), lambda d, c, rng: _by_likelihood(d, c)
    ),
    TRANSFORMED: _Method(
        lambda x, c, rng: transformed_t(x, c), lambda d, c, rng: _by_transformed(d, c)
    ),
}
