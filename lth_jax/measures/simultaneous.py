"""Simultaneous intervals for the cells of a map."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lth_jax.measures.intervals import Interval


def simultaneous(
    values: ArrayLike, *, rng: np.random.Generator, confidence: float = 0.95, resamples: int = 9999
) -> list[Interval]:
    """Simultaneous intervals for the cells of a map (max-T).

    The half-width of a cell is its standard error times the quantile of `max |t*|` over the cells,
    where `t*` are t-statistics of resampled seeds (Westfall & Young, 1993): whole seeds are
    resampled, which preserves the correlation between cells.

    Args:
      values: `[seeds, cells]`; seeds with a value that is not finite are excluded.
      rng: source of the resamples.
      confidence: the simultaneous coverage.
      resamples: number of resamples.

    Raises:
      ValueError: if `values` is not two-dimensional.

    >>> rng = np.random.default_rng(0)
    >>> both = simultaneous(rng.normal(size=(40, 2)) + [0, 3], rng=rng)
    >>> [bool(one.low <= truth <= one.high) for one, truth in zip(both, [0, 3])]
    [True, True]
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2:
        raise ValueError(f"`values` must be two-dimensional, got shape {table.shape}.")
    whole = table[np.isfinite(table).all(axis=1)]
    seeds, missing = len(whole), len(table) - len(whole)
    if seeds < 3:
        means = whole.mean(axis=0) if seeds else np.full(table.shape[1], np.nan)
        return [Interval(float(m), np.nan, np.nan, seeds, missing) for m in means]
    mean, error = whole.mean(axis=0), _errors(whole)
    largest = np.empty(resamples)
    for i in range(resamples):
        drawn = whole[rng.integers(0, seeds, seeds)]
        spread = _errors(drawn)
        t = np.divide(drawn.mean(axis=0) - mean, spread, out=np.zeros_like(mean), where=spread > 0)
        largest[i] = np.abs(t).max()
    half = np.quantile(largest, confidence) * error
    return [
        Interval(float(m), float(m - h), float(m + h), seeds, missing)
        for m, h in zip(mean, half, strict=True)
    ]


def by_cell(cells: Mapping[str, ArrayLike]) -> dict[str, Interval]:
    """`simultaneous` for named cells, with a fixed seed.

    Args:
      cells: one value per seed, the same seeds in each.
    """
    table = np.stack([np.asarray(values) for values in cells.values()], axis=1)
    return dict(zip(cells, simultaneous(table, rng=np.random.default_rng(0)), strict=True))


def in_words(cells: Mapping[str, ArrayLike]) -> str:
    """`by_cell` as text.

    >>> in_words({"here": np.array([1.0, 2.0, 3.0] * 8), "there": np.zeros(24)})
    'here +2.00 [+1.65, +2.35]; there +0.00 [+0.00, +0.00]'
    """
    return "; ".join(
        f"{cell} {one.estimate:+.2f} [{one.low:+.2f}, {one.high:+.2f}]".replace("-", "−")
        for cell, one in by_cell(cells).items()
    )


def _errors(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))
