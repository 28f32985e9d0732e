"""Quantisation of kept values: symmetric integers with scales, and bfloat16.

Codes are symmetric around 0, so a pruned weight is code 0 and decodes to exactly 0.
"""

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Precision(NamedTuple):
    """The precision of stored values; made by `exact`, `bfloat16` and `integers`.

    Attributes:
      kind: "exact", "bfloat16" or "integers".
      bits: the bits of an integer code; 0 for the other kinds.
      channel_axis: the axis with one scale per index; None for a single scale.
    """

    kind: str
    bits: int = 0
    channel_axis: int | None = None


class Quantized(NamedTuple):
    """Integer codes and scales.

    Attributes:
      codes: int8, |code| ≤ 2**(bits−1) − 1.
      scale: float32 of the shape of `codes`, 1 along every axis that shares a scale.
    """

    codes: jax.Array
    scale: jax.Array


def exact() -> Precision:
    """Stores every value unchanged, bit for bit.

    >>> exact().kind
    'exact'
    """
    return Precision("exact")


def bfloat16() -> Precision:
    """Rounds every value to the nearest bfloat16, ties to even.

    >>> bfloat16().kind
    'bfloat16'
    """
    return Precision("bfloat16")


def integers(bits: int, channel_axis: int | None = None) -> Precision:
    """Symmetric integer codes: see `quantize`.

    Args:
      bits: 2 to 8.
      channel_axis: the axis with one scale per index (-1: the last, a kernel's outputs in Flax); a
        single scale by default.

    Raises:
      ValueError: if `bits` is not 2 to 8.
      TypeError: if `bits` or `channel_axis` is not an integer.

    >>> integers(4, channel_axis=-1)
    Precision(kind='integers', bits=4, channel_axis=-1)
    """
    if _index("bits", bits) not in range(2, 9):
        raise ValueError(f"`bits` is {bits}; 2 to 8 are allowed.")
    axis = None if channel_axis is None else _index("channel_axis", channel_axis)
    return Precision("integers", _index("bits", bits), axis)


def _index(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"`{name}` is {value!r}; an integer is needed.") from None


def quantize(x: jax.Array, bits: int, *, channel_axis: int | None = None) -> Quantized:
    """Rounds to symmetric integer codes: scale = max|x| / (2**(bits−1) − 1), code = round(x/scale).

    Pure and traceable; computed in float32. Zeros have code 0 at any scale, so pruned weights stay
    0 and do not affect the scale.

    Args:
      x: finite floats.
      bits: 2 to 8.
      channel_axis: the axis with one scale per index; a single scale by default.

    Returns:
      Codes and scale, with |x − code·scale| ≤ scale/2 up to float32 rounding. A channel that is all
      zero (or subnormal) has scale 1.

    Raises:
      ValueError: if `bits` is not 2 to 8, or `x` has no axis `channel_axis`.

    >>> q = quantize(jnp.array([0.0, -1.0, 0.5]), 8)
    >>> q.codes.tolist()
    [0, -127, 64]
    """
    integers(bits, channel_axis)
    if channel_axis is not None and channel_axis not in range(-x.ndim, x.ndim):
        raise ValueError(f"`channel_axis` is {channel_axis}, but `x` has {x.ndim} axes.")
    shared = (a for a in range(x.ndim) if channel_axis is None or a != channel_axis % x.ndim)
    return quantize_along(x, bits, tuple(shared))


def quantize_along(x: jax.Array, bits: int, shared: tuple[int, ...]) -> Quantized:
    """`quantize` with one scale for all indices of the axes in `shared`.

    >>> quantize_along(jnp.array([[1.0, 0.5], [3.0, 127.0]]), 8, (1,)).codes.tolist()
    [[127, 64], [3, 127]]
    """
    x = x.astype(jnp.float32)
    largest = 2 ** (bits - 1) - 1
    scale = jnp.max(jnp.abs(x), axis=shared, keepdims=True, initial=0.0) / jnp.float32(largest)
    scale = jnp.where(scale >= jnp.finfo(jnp.float32).tiny, scale, jnp.float32(1))
    codes = jnp.clip(jnp.round(x / scale), -largest, largest)
    return Quantized(codes.astype(jnp.int8), scale)


def dequantize(quantized: Quantized) -> jax.Array:
    """The product code · scale in float32: one rounding, so the same result on any machine.

    >>> dequantize(Quantized(jnp.array([2], jnp.int8), jnp.array([0.5]))).tolist()
    [1.0]
    """
    return quantized.codes.astype(jnp.float32) * quantized.scale
