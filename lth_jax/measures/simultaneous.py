"""Simultaneous intervals for the cells of a map."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lth_jax.measures.intervals import Interval

BLOCK = 2_000_000
"""Numbers of one block of resamples."""


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

    Simulated coverage of nominal 95 % intervals, for 6 and 48 correlated cells: 93–98 % for normal
    and exponential values at 16 to 48 seeds, where random sign flips of the seeds have 92–95 % and
    86–92 %. Where a cell fails in a tenth of the seeds it is 88–98 %, with sign flips 52–87 %: no
    interval covers failures that have not occurred.

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
      cells: one value per seed, the same seeds in each.
      confidence: the simultaneous coverage.
    """
    table = np.stack([np.asarray(values) for values in cells.values()], axis=1)
    found = simultaneous(table, rng=np.random.default_rng(0), confidence=confidence)
    return dict(zip(cells, found, strict=True))
