"""Codes for kept values: entropy-coded byte planes, exact or at lower precision.

The bytes of a float differ in predictability: sign and exponent are compressible, the low mantissa
is not. Each byte plane is coded separately, so that exact values are compressed too.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from lth_jax.coding import bits as bits_
from lth_jax.coding import symbols
from lth_jax.coding.errors import TicketError
from lth_jax.coding.quantize import Precision, quantize

_BYTE = 256
_NAMES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
    *("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "float8_e4m3fnuz"),
    *("float8_e5m2fnuz", "float8_e3m4", "float8_e4m3", "float8_e8m0fnu", "float4_e2m1fn"),
    *("int2", "int4", "uint2", "uint4"),
)
# JAX registers the names of its small floats and integers with numpy.
DTYPES: dict[str, np.dtype] = {name: np.dtype(name).newbyteorder("<") for name in _NAMES}
"""The dtypes that a leaf can have, by name; all little-endian."""


class Coded(NamedTuple):
    """The code of a leaf's kept values, and the decoded values."""

    code: bytes
    kept: np.ndarray


def _encode_planes(kept: np.ndarray) -> bytes:
    planes = np.frombuffer(kept.tobytes(), np.uint8).reshape(-1, kept.itemsize).T
    codes = [symbols.encode(np.ascontiguousarray(plane), _BYTE) for plane in planes]
    return b"".join(bits_.varint(len(code)) + code for code in codes)


def _decode_planes(code: bytes, count: int, dtype: np.dtype) -> np.ndarray:
    reader = bits_.Reader(code)
    planes = np.empty((count, dtype.itemsize), np.uint8)
    for i in range(dtype.itemsize):
        planes[:, i] = symbols.decode(reader.take(reader.varint()), count, _BYTE)
    reader.end()
    return np.frombuffer(planes.tobytes(), dtype)


def _scales(shape: tuple[int, ...], precision: Precision) -> tuple[int, ...]:
    """The shape of the scales of a leaf of this shape."""
    axis = precision.channel_axis
    if axis is None:
        return (1,) * len(shape)
    return tuple(n if i == axis % len(shape) else 1 for i, n in enumerate(shape))


def _multiply(codes: np.ndarray, scale: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Kept codes times their scales: a single float32 rounding, the same on any machine."""
    return codes.astype("<f4") * np.broadcast_to(scale, mask.shape)[mask]


def _encode_integers(leaf: np.ndarray, mask: np.ndarray, precision: Precision) -> Coded:
    values = jnp.asarray(np.where(mask, leaf, np.zeros((), leaf.dtype)).astype(np.float32))
    found = quantize(values, precision.bits, channel_axis=precision.channel_axis)
    codes, scale = np.asarray(found.codes)[mask], np.asarray(found.scale, "<f4")
    largest = 2 ** (precision.bits - 1) - 1
    code = scale.tobytes() + symbols.encode(codes.astype(np.int64) + largest, 2 * largest + 1)
    return Coded(code, _multiply(codes, scale, mask).astype(leaf.dtype))


def _decode_integers(
    code: bytes, mask: np.ndarray, dtype: np.dtype, precision: Precision
) -> np.ndarray:
    reader = bits_.Reader(code)
    shape = _scales(mask.shape, precision)
    scale = np.frombuffer(reader.take(4 * int(np.prod(shape))), "<f4").reshape(shape)
    if not np.isfinite(scale).all():
        raise TicketError("a scale is not finite")
    largest = 2 ** (precision.bits - 1) - 1
    count = int(np.count_nonzero(mask))
    codes = symbols.decode(reader.rest(), count, 2 * largest + 1) - largest
    return _multiply(codes, scale, mask).astype(dtype)


def encode(leaf: np.ndarray, mask: np.ndarray, precision: Precision) -> Coded:
    """Codes the values of a leaf that its mask keeps.

    Args:
      leaf: an array whose dtype is one of `DTYPES`; finite unless `precision` is exact.
      mask: bool, shaped like `leaf`.
      precision: precision of the values.

    Returns:
      The code, and the decoded kept values in the order of the leaf.

    >>> leaf = np.array([0.5, 3.0, -0.25], np.float32)
    >>> encode(leaf, leaf < 1, Precision("exact")).kept.tolist()
    [0.5, -0.25]
    """
    if precision.kind == "integers":
        return _encode_integers(leaf, mask, precision)
    kept = leaf[mask]
    if precision.kind == "bfloat16":
        rounded = kept.astype(DTYPES["bfloat16"])
        return Coded(_encode_planes(rounded), rounded.astype(leaf.dtype))
    return Coded(_encode_planes(kept), kept)


@np.errstate(over="ignore", invalid="ignore")  # overflow in a forged file fails the hash check
def decode(code: bytes, mask: np.ndarray, dtype: np.dtype, precision: Precision) -> np.ndarray:
    """The inverse of `encode`: the kept values, one axis.

    Raises:
      TicketError: if the code is not one that `encode` writes for such a leaf.
    """
    if precision.kind == "integers":
        return _decode_integers(code, mask, dtype, precision)
    written = DTYPES["bfloat16"] if precision.kind == "bfloat16" else dtype
    return _decode_planes(code, int(np.count_nonzero(mask)), written).astype(dtype)
