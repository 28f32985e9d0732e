"""Simultaneous intervals for the cells of a map."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lth_jax.measures.coverage import required
from lth_jax.measures.intervals import Interval

BLOCK = 2_000_000
"""Numbers of one block of resamples."""
HALVINGS = 3
"""The most halvings of the nominal error of `calibrated`."""


def simultaneous(
    values: ArrayLike, *, rng: np.random.Generator, confidence: float = 0.95, resamples: int = 9999
) -> list[Interval]:
    """Simultaneous intervals for the cells of a map (max-T; Westfall & Young, 1993).

    Whole seeds are resampled, which preserves the correlation between cells. With `t*` as in
    `bootstrap_t`, the intervals are `[x̄ − q₁ se, x̄ + q₂ se]`, where `q₁` is the `1 − α/2` quantile
    of the largest `t*` of all cells and `q₂` that of the largest `−t*`: each of the two errors,
    that the mean of any cell is below its lower end or above its upper end, has the probability
    `α/2`. A resample in which a cell has no spread counts as infinite there, so very few seeds can
    give infinite intervals.

    The simulated coverage of nominal 95 % intervals, for 6 and 48 correlated cells, is 93–98 % for
    normal and exponential values at 16 to 48 seeds (random sign flips of the seeds: 92–95 % and
    86–92 %). If a cell fails in a tenth of the seeds, it is 88–98 % (sign flips: 52–87 %): no
    interval covers failures that have not occurred. `calibrated` simulates the coverage on the
    given values.

    Args:
      values: `[seeds, cells]`; seeds with a value that is not finite are excluded.
      rng: source of the resamples.
      confidence: the simultaneous coverage, in (0, 1).
      resamples: number of resamples.

    Raises:
      ValueError: if `values` is not two-dimensional, `confidence` not in (0, 1), or `resamples`
        too few for the tails.

    >>> rng = np.random.default_rng(0)
    >>> both = simultaneous(rng.normal(size=(40, 2)) + [0, 3], rng=rng)
    >>> [bool(one.low <= truth <= one.high) for one, truth in zip(both, [0, 3])]
    [True, True]
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2:
        raise ValueError(f"`values` must be two-dimensional, got shape {table.shape}.")
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be in (0, 1), got {confidence}.")
    tail = (1 - confidence) / 2
    if resamples * tail < 1:
        raise ValueError(
            f"`resamples` must be at least {int(np.ceil(1 / tail))} at `confidence` {confidence}, "
            f"got {resamples}."
        )
    whole = table[np.isfinite(table).all(axis=1)]
    seeds, missing = len(whole), len(table) - len(whole)
    if seeds < 3:
        means = whole.mean(axis=0) if seeds else np.full(table.shape[1], np.nan)
        return [Interval(float(m), np.nan, np.nan, seeds, missing) for m in means]
    mean, spread = whole.mean(axis=0), whole.std(axis=0, ddof=1)
    scaled = (whole - mean)[:, spread > 0] / spread[spread > 0]
    block = max(1, BLOCK // max(whole.shape))
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    extremes = np.concatenate([_extremes(scaled, size, rng) for size in sizes])
    below, above = np.quantile(extremes, 1 - tail, axis=0, method="higher")
    error = spread / np.sqrt(seeds)
    lows, highs = (
        mean + sign * np.multiply(q, error, out=np.zeros_like(error), where=error > 0)
        for sign, q in ((-1, below), (1, above))
    )
    return [
        Interval(float(m), float(low), float(high), seeds, missing)
        for m, low, high in zip(mean, lows, highs, strict=True)
    ]


class Bands(NamedTuple):
    """Simultaneous intervals whose coverage was simulated.

    Attributes:
      intervals: one for each cell.
      nominal: their nominal confidence.
      coverage: the share of simulations in which all cells are covered; NaN for fewer than three
        seeds.
    """

    intervals: list[Interval]
    nominal: float
    coverage: float


def calibrated(
    values: ArrayLike, *, rng: np.random.Generator, confidence: float = 0.95, simulations: int = 400
) -> Bands:
    """`simultaneous` at a nominal confidence at which it covers on resamples of the seeds.

    The nominal error is halved until the simulated coverage reaches `coverage.required`, at most
    three times (calibration; Loh, 1987).

    Args:
      values: `[seeds, cells]`; seeds with a value that is not finite are excluded.
      rng: source of the resamples.
      confidence: the simultaneous coverage, in (0, 1).
      simulations: number of simulated data sets of each step.

    >>> rng = np.random.default_rng(0)
    >>> found = calibrated(rng.normal(size=(24, 3)), rng=rng, simulations=100)
    >>> found.nominal, found.coverage >= 0.93
    (0.95, True)
    """
    nominal, found = confidence, band_coverage(values, confidence, simulations=simulations)
    for _ in range(HALVINGS):
        if not found < required(confidence):  # NaN ends the search, too
            break
        nominal = (1 + nominal) / 2
        found = band_coverage(values, nominal, simulations=simulations)
    resamples = max(9999, _enough(nominal))
    return Bands(
        simultaneous(values, rng=rng, confidence=nominal, resamples=resamples), nominal, found
    )


def band_coverage(values: ArrayLike, confidence: float, *, simulations: int = 400) -> float:
    """The share of resamples of whole seeds whose simultaneous intervals contain all means.

    The means of the given values are the truth.

    Args:
      values: `[seeds, cells]`; seeds with a value that is not finite are excluded.
      confidence: the nominal coverage.
      simulations: number of resamples.

    Returns:
      NaN for fewer than three seeds.
    """
    table, rng = np.asarray(values, np.float64), np.random.default_rng(0)
    whole = table[np.isfinite(table).all(axis=1)]
    if len(whole) < 3:
        return float("nan")
    truth, slack = whole.mean(axis=0), 1e-12 * np.abs(whole).max(axis=0)

    def is_covered() -> bool:
        drawn = whole[rng.integers(0, len(whole), len(whole))]
        found = simultaneous(drawn, rng=rng, confidence=confidence, resamples=_enough(confidence))
        low, high = np.array([one[1:3] for one in found]).T
        return bool(np.all((low - slack <= truth) & (truth <= high + slack)))

    return float(np.mean([is_covered() for _ in range(simulations)]))


def _enough(confidence: float) -> int:
    """Resamples of which eight are beyond each quantile."""
    return int(np.ceil(16 / (1 - confidence)))


def _extremes(
    scaled: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The largest `t*` and the largest `−t*` over the cells, of each of some resamples.

    A resample is a vector of counts `w`, so the sums over it are the products `w·x` and `w·x²`.

    Args:
      scaled: `[seeds, cells]`, with mean 0 and standard deviation 1.
      count: number of resamples.
      rng: source of the resamples.

    Returns:
      float64 `[count, 2]`.
    """
    seeds, cells = scaled.shape
    if not cells:
        return np.zeros((count, 2))
    places = rng.integers(0, seeds, (count, seeds)) + seeds * np.arange(count)[:, None]
    drawn = np.bincount(places.ravel(), minlength=count * seeds).reshape(count, seeds)
    weights = drawn / seeds
    shift, squares = weights @ scaled, weights @ scaled**2
    variance = (squares - shift**2) / (seeds - 1)
    flat = np.where(np.abs(shift) <= 1e-9, 0.0, np.copysign(np.inf, shift))
    positive = variance > 1e-12
    t = np.divide(
        shift, np.sqrt(variance, where=positive, out=flat.copy()), out=flat, where=positive
    )
    return np.stack([t.max(axis=1), -t.min(axis=1)], axis=1)


def by_cell(cells: Mapping[str, ArrayLike], confidence: float = 0.95) -> dict[str, Interval]:
    """`simultaneous` for named cells, with a fixed seed.

    Args:
      cells: for each name one value per seed, `[seeds]`; the same seeds in each.
      confidence: the simultaneous coverage, in (0, 1).

    Returns:
      The interval of each cell by name; its ends are NaN for fewer than three complete seeds.

    Raises:
      ValueError: if there are no cells, their shapes differ or are not `[seeds]`, `confidence` is
        not in (0, 1), or it is too high for 9999 resamples.

    >>> found = by_cell({"a": np.arange(8.0), "b": np.arange(8.0) + 10})
    >>> {name: one.estimate for name, one in found.items()}
    {'a': 3.5, 'b': 13.5}
    >>> found["a"].low < 3.5 < found["a"].high
    True
    """
    table = np.stack([np.asarray(values) for values in cells.values()], axis=1)
    found = simultaneous(table, rng=np.random.default_rng(0), confidence=confidence)
    return dict(zip(cells, found, strict=True))
