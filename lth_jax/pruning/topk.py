"""Exact selection of the best entries of many arrays at once, without sorting.

Scores are mapped to integers of the same order. The threshold is found digit by digit from the top;
one pass over the data per digit counts three candidates. Ties at the threshold are broken by
position. The cost does not depend on the counts, which may be traced, so one program serves a
population whose members differ in density. The arrays are packed as rows of one matrix, so that the
program's size does not grow with their number.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_DIGIT = 2  # bits found per pass; 1, 2 and 4 took 0.57, 0.14 and 0.15 s on 25M floats and two cores
_WIDTH = 1024  # of a row
_SMALL = 2**14  # entries of an array that is packed with its neighbours


def largest(
    scores: Sequence[jax.Array],
    live: Sequence[jax.Array],
    counts: jax.Array | np.ndarray,
    *,
    sizes: Sequence[int | np.ndarray] | None = None,
    pooled: bool = True,
) -> list[jax.Array]:
    """The smallest number of best live entries whose sizes sum to at least the count.

    With sizes of 1 (the default) exactly `min(count, Σ live)` entries are kept. Entries are ordered
    by score; equal scores (−0 and +0 are equal) by position: earlier array first, then row-major.
    Entries that are not live are never kept. A NaN ranks below every number.

    Args:
      scores: float32, float16, bfloat16 or float64 arrays of any shapes.
      live: boolean arrays of the same shapes.
      counts: possibly traced: an int32 scalar if all arrays share a pool, else a vector with one
        count for each array.
      sizes: per array the static, positive, whole size of each entry: one number, or an array of
        the shape of the scores. All sizes together must be below 2³¹.
      pooled: whether the entries of all arrays compete, or those of each array among themselves.

    Returns:
      Boolean arrays of the same shapes: True = kept.

    >>> scores, live = [jnp.array([3.0, 1.0]), jnp.array([2.0, 4.0])], [jnp.ones(2, bool)] * 2
    >>> [keep.tolist() for keep in largest(scores, live, jnp.int32(2))]
    [[True, False], [False, True]]
    >>> [keep.tolist() for keep in largest(scores, live, jnp.array([0, 1]), pooled=False)]
    [[False, False], [False, True]]
    """
    rows = [-(-s.size // _WIDTH) for s in scores]
    pools = np.repeat(np.arange(len(rows)) * (not pooled), rows)
    wide = any(s.dtype == jnp.float64 for s in scores)
    float_type, integer = (jnp.float64, jnp.int64) if wide else (jnp.float32, jnp.int32)
    keys = _pack(
        [_order(s.astype(float_type), m) for s, m in zip(scores, live, strict=True)], integer
    )
    units = _row_sizes(sizes or [1] * len(rows), rows)

    counts = jnp.asarray(counts, jnp.int32).reshape(-1)
    at = _thresholds(keys, units, pools, counts)[pools][:, None]
    above, ties = _row_totals([keys > at, keys == at], units)
    last_row, end = _cut(keys, at, units, ties, pools, counts - _join_rows(above, pools))

    row = jnp.arange(len(pools), dtype=jnp.int32)[:, None]
    column = jnp.arange(_WIDTH, dtype=jnp.int32)
    in_last = (row == last_row[pools][:, None]) & (column < end[pools][:, None])
    before = row < last_row[pools][:, None]
    return _unpack((keys > at) | ((keys == at) & (before | in_last)), scores)


def _pack(arrays: Sequence[jax.Array], integer: Any) -> jax.Array:
    """The arrays below each other as rows of one matrix; each starts a row, gaps are not live."""
    lowest = jnp.iinfo(integer).min
    rows = [-(-array.size // _WIDTH) for array in arrays]
    packed, first = jnp.full(sum(rows) * _WIDTH, lowest, integer), 0
    # Written in place one after the other, since XLA's concatenate is many times slower on CPU;
    # neighbours that are small together, since each write is a kernel to compile.
    for _, block in itertools.groupby(arrays, lambda array: array.size <= _SMALL):
        for part in _joined(list(block), lowest):
            packed = jax.lax.dynamic_update_slice(packed, part, (first,))
            first += -(-part.size // _WIDTH) * _WIDTH
    return packed.reshape(-1, _WIDTH)


def _joined(arrays: Sequence[jax.Array], fill: int) -> list[jax.Array]:
    """Large arrays as they are, flat; small ones filled up to whole rows and joined."""
    flat = [array.reshape(-1) for array in arrays]
    if len(flat) == 1 or flat[0].size > _SMALL:
        return flat
    gaps = [-array.size % _WIDTH for array in flat]
    filled = [
        jnp.pad(array, (0, gap), constant_values=fill)
        for array, gap in zip(flat, gaps, strict=True)
    ]
    return [jnp.concatenate(filled)]


def _unpack(matrix: jax.Array, like: Sequence[jax.Array]) -> list[jax.Array]:
    """The inverse of `_pack`."""
    ends = np.cumsum([-(-array.size // _WIDTH) for array in like])
    parts = jnp.split(matrix, ends[:-1])
    return [
        part.reshape(-1)[: array.size].reshape(array.shape)
        for part, array in zip(parts, like, strict=True)
    ]


def _row_sizes(sizes: Sequence[int | np.ndarray], rows: Sequence[int]) -> np.ndarray:
    """Static sizes (int32) that broadcast to the packed matrix, as small as they allow."""
    if all(np.ndim(size) == 0 for size in sizes):
        return np.repeat(np.array(sizes, np.int32), rows)[:, None]
    full = [
        np.resize(np.asarray(size, np.int32), count * _WIDTH)
        for size, count in zip(sizes, rows, strict=True)
    ]
    return np.concatenate(full).reshape(-1, _WIDTH)


def _order(scores: jax.Array, live: jax.Array) -> jax.Array:
    """Integers that order as the scores do; the smallest integer of all where not live."""
    integer = jnp.int64 if scores.dtype == jnp.float64 else jnp.int32
    lowest, magnitude = jnp.iinfo(integer).min, jnp.iinfo(integer).max
    bits = jax.lax.bitcast_convert_type(scores, integer)
    # Floats are sign and magnitude, integers two's complement. This also joins −0 and +0.
    key = jnp.where(bits < 0, -(bits & magnitude), bits)
    key = jnp.where(jnp.isnan(scores), lowest + 1, key)
    return jnp.where(live, key, lowest)


def _join_rows(totals: jax.Array, pools: np.ndarray) -> jax.Array:
    # Not `segment_sum`: into one segment, with as many members as rows, jit(vmap(segment_sum))
    # loses addends (jax 0.10.2 on CPU).
    in_pool = jnp.asarray(pools)[:, None] == jnp.arange(int(pools[-1]) + 1)
    return jnp.sum(jnp.where(in_pool, totals[:, None], 0), axis=0, dtype=jnp.int32)


def _thresholds(
    keys: jax.Array, units: np.ndarray, pools: np.ndarray, counts: jax.Array
) -> jax.Array:
    """For each pool the largest integer t with Σ units[key ≥ t] ≥ count."""
    integer = keys.dtype
    bits = jnp.iinfo(integer).bits

    def find_digit(i: jax.Array, low: jax.Array) -> jax.Array:
        shift = (bits - _DIGIT * (i + 1)).astype(integer)
        steps = [low + (jnp.asarray(d, integer) << shift) for d in range(1, 2**_DIGIT)]
        totals = _row_totals([keys >= step[pools][:, None] for step in steps], units)
        enough = jnp.stack([_join_rows(total, pools) >= counts for total in totals])
        return low + (jnp.sum(enough, axis=0, dtype=integer) << shift)

    start = jnp.full(counts.shape, jnp.iinfo(integer).min, integer)
    found = jax.lax.fori_loop(0, bits // _DIGIT, find_digit, start)
    return jnp.maximum(found, jnp.iinfo(integer).min + 1)  # pruned entries are never kept


def _row_totals(chosen: Sequence[jax.Array], units: np.ndarray) -> Sequence[jax.Array]:
    """The sizes in each row of the entries of each choice, in one pass over the data."""

    def add(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        return tuple(x + y for x, y in zip(a, b, strict=True))

    operands = tuple(jnp.where(choice, units, 0) for choice in chosen)
    zeros = tuple(jnp.int32(0) for _ in chosen)
    sums: Sequence[jax.Array] = jax.lax.reduce(operands, zeros, add, (1,))
    return sums


def _cut(
    keys: jax.Array,
    at: jax.Array,
    units: np.ndarray,
    totals: jax.Array,
    pools: np.ndarray,
    need: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Where each pool's ties (`totals` of each row) first reach `need`: row, and column after.

    The rows' totals give the row in which it lies; only that row is searched.
    """
    of_pool = _join_rows(totals, pools)
    reached = jnp.cumsum(totals) - (jnp.cumsum(of_pool) - of_pool)[pools]
    first_row = jnp.asarray(np.searchsorted(pools, np.unique(pools)), jnp.int32)
    row = first_row + _join_rows((reached < need[pools]).astype(jnp.int32), pools)
    need = need - (reached - totals)[row]
    inside = jnp.cumsum(jnp.where(keys[row] == at[row], jnp.asarray(units)[row], 0), axis=1)
    full = jnp.sum(inside < need[:, None], axis=1, dtype=jnp.int32)
    return row, full + (need > 0).astype(jnp.int32)
