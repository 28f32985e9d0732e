"""Exact selection of the best entries of many arrays at once: no sort, no gather.

Scores become integers that order as they do; the threshold is found digit by digit from the top,
each digit by one pass over the data that counts three candidates at once; entries that tie at the
threshold are taken by position. The cost does not depend on the count, which may be traced, so one
program serves a population whose members differ in density, and arrays may be sharded.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

_DIGIT = 2  # bits found per pass; measured: 1, 2, 4 bits take 0.57, 0.14, 0.15 s on 25M floats
_ROW = 1024  # a long vector is searched as rows of this length


def largest(
    scores: Sequence[jax.Array],
    live: Sequence[jax.Array],
    count: jax.Array,
    sizes: Sequence[jax.Array | int] | None = None,
) -> list[jax.Array]:
    """The fewest best live entries of all arrays together whose sizes sum to `count` or more.

    With sizes of 1 (the default) exactly `min(count, Σ live)` entries are kept. Entries are ordered
    by score; equal scores (−0 and +0 are equal) by position: earlier array first, then row-major.
    Entries that are not live are never kept. A NaN ranks below every number.

    Args:
      scores: float32, float16, bfloat16 or float64 arrays of any shapes.
      live: boolean arrays of the same shapes.
      count: int32 scalar, possibly traced.
      sizes: per array, the positive integer size of each entry: one number or an array of the
        shape of the scores.

    Returns:
      Boolean arrays of the same shapes: True = kept.

    >>> keep = largest([jnp.array([3.0, 1.0, 2.0])], [jnp.array([True, True, True])], jnp.int32(2))
    >>> keep[0].tolist()
    [True, False, True]
    """
    wide = any(s.dtype == jnp.float64 for s in scores)
    keys = [
        _order(s, m, jnp.float64 if wide else jnp.float32)
        for s, m in zip(scores, live, strict=True)
    ]
    units = [jnp.asarray(s, jnp.int32) for s in (sizes or [1] * len(keys))]
    everything = _total(live, units)
    count = jnp.minimum(jnp.asarray(count, jnp.int32), everything)
    threshold = _threshold(keys, units, count)
    need = count - _total([k > threshold for k in keys], units)
    kept = []
    for key, size in zip(keys, units, strict=True):
        weights = jnp.where(key == threshold, size, 0)
        in_ties = jnp.sum(weights, dtype=jnp.int32)
        end = _cut(weights, jnp.clip(need, 0, in_ties))
        position = jnp.arange(key.size, dtype=jnp.int32).reshape(key.shape)
        kept.append((key > threshold) | ((key == threshold) & (position < end)))
        need = need - in_ties
    return kept


def _order(scores: jax.Array, live: jax.Array, dtype) -> jax.Array:
    """Integers that order as the scores do; the smallest integer of all where not live."""
    integer = jnp.int64 if dtype == jnp.float64 else jnp.int32
    lowest, magnitude = jnp.iinfo(integer).min, jnp.iinfo(integer).max
    bits = jax.lax.bitcast_convert_type(scores.astype(dtype), integer)
    # Floats are sign and magnitude; integers are two's complement. This also joins −0 and +0.
    key = jnp.where(bits < 0, -(bits & magnitude), bits)
    key = jnp.where(jnp.isnan(scores), lowest + 1, key)
    return jnp.where(live, key, lowest)


def _total(chosen: Sequence[jax.Array], sizes: Sequence[jax.Array]) -> jax.Array:
    """The sizes of all chosen entries together (int32)."""
    return sum(
        (jnp.sum(jnp.where(c, s, 0), dtype=jnp.int32) for c, s in zip(chosen, sizes, strict=True)),
        start=jnp.int32(0),
    )


def _threshold(
    keys: Sequence[jax.Array], sizes: Sequence[jax.Array], count: jax.Array
) -> jax.Array:
    """The largest integer t with Σ sizes[key ≥ t] ≥ count, `_DIGIT` bits per pass."""
    integer = keys[0].dtype
    width = jnp.iinfo(integer).bits

    def find_digit(i: jax.Array, low: jax.Array) -> jax.Array:
        shift = (width - _DIGIT * (i + 1)).astype(integer)
        steps = [low + (jnp.asarray(d, integer) << shift) for d in range(1, 2**_DIGIT)]
        totals = sum(_totals_from(k, s, steps) for k, s in zip(keys, sizes, strict=True))
        digit = jnp.sum(totals >= count, dtype=integer)
        return low + (digit << shift)

    start = jnp.asarray(jnp.iinfo(integer).min, integer)
    return jax.lax.fori_loop(0, width // _DIGIT, find_digit, start)


def _totals_from(key: jax.Array, size: jax.Array, steps: Sequence[jax.Array]) -> jax.Array:
    """Σ sizes[key ≥ step] for each step, in one pass: one reduction of several operands."""
    operands = tuple(jnp.where(key >= step, size, 0) for step in steps)
    zeros = tuple(jnp.int32(0) for _ in steps)
    axes = tuple(range(key.ndim))
    add = lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True))  # noqa: E731
    return jnp.stack(jax.lax.reduce(operands, zeros, add, axes))


def _cut(weights: jax.Array, need: jax.Array) -> jax.Array:
    """The row-major position before which the weights first reach `need` (0 if `need` is 0).

    Axis by axis: the rows' sums say in which row it lies, and only that row is looked into.
    """
    if weights.ndim == 1 and weights.size > _ROW:
        weights = jnp.pad(weights, (0, -weights.size % _ROW)).reshape(-1, _ROW)
    position = jnp.int32(0)
    while weights.ndim:
        rows = jnp.sum(weights, axis=tuple(range(1, weights.ndim)), dtype=jnp.int32)
        reached = jnp.cumsum(rows)
        row = jnp.sum(reached < need, dtype=jnp.int32)
        need = need - (reached - rows)[row]
        position = position * weights.shape[0] + row
        weights = weights[row]
    return position + (need > 0).astype(jnp.int32)
