"""Bit arrays: packed integers, variable-length integers, and a checked reader."""

import numpy as np

from lth_jax.coding.errors import TicketError


def pack(values: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Concatenates integers of given bit widths, low bit first.

    Args:
      values: int64, `0 <= values[i] < 2**widths[i]`.
      widths: int64 in [0, 32], one per value.

    Returns:
      The bits, a uint8 array of zeros and ones of length `sum(widths)`.

    >>> pack(np.array([1, 2]), np.array([1, 3])).tolist()
    [1, 0, 1, 0]
    """
    ends = np.cumsum(widths, dtype=np.int64)
    total = int(ends[-1]) if ends.size else 0
    if total == 0:
        return np.zeros(0, np.uint8)
    starts = ends - widths
    words = starts >> 5
    shifted = values << (starts & 31)  # below 2**63
    # Values occupy disjoint bits, so those that begin in one 32-bit word combine by "or"; overflow
    # bits belong to the next word. Every word has a value, since widths are at most 32.
    first = np.flatnonzero(np.concatenate([np.ones(1, bool), words[1:] != words[:-1]]))
    combined = np.bitwise_or.reduceat(shifted, first)
    out = np.zeros(words[-1] + 2, "<u4")
    out[words[first]] = combined & 0xFFFFFFFF
    out[words[first] + 1] |= (combined >> 32).astype(np.uint32)
    return np.unpackbits(out.view(np.uint8), count=total, bitorder="little")


def pack_fixed(values: np.ndarray, width: int) -> np.ndarray:
    """`pack` with one width for all values.

    >>> pack_fixed(np.array([3, 4]), 3).tolist()
    [1, 1, 0, 0, 0, 1]
    """
    return pack(values, np.full(values.size, width, np.int64))


def unpack_fixed(bits: np.ndarray, width: int) -> np.ndarray:
    """The inverse of `pack_fixed`: int64 values from `len(bits) / width` groups (width > 0).

    >>> unpack_fixed(np.array([1, 1, 0, 0, 0, 1], np.uint8), 3).tolist()
    [3, 4]
    """
    groups = bits.reshape(-1, width)
    values = np.zeros(len(groups), np.int64)
    for i in range(width):
        values |= groups[:, i].astype(np.int64) << i
    return values


def unpack(bits: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The inverse of `pack`: int64 values; `len(bits)` must be `sum(widths)`.

    >>> unpack(np.array([1, 0, 1, 0], np.uint8), np.array([1, 3])).tolist()
    [1, 2]
    """
    starts = np.cumsum(widths, dtype=np.int64) - widths
    padded = np.append(bits, np.uint8(0))
    values = np.zeros(len(widths), np.int64)
    for i in range(int(widths.max(initial=0))):
        here = i < widths
        values |= np.where(here, padded[np.where(here, starts + i, -1)], 0).astype(np.int64) << i
    return values


def to_bytes(bits: np.ndarray) -> bytes:
    r"""Packs eight bits into each byte, low bit first; the last byte is padded with zeros.

    >>> to_bytes(np.array([1, 0, 1], np.uint8))
    b'\x05'
    """
    return np.packbits(bits, bitorder="little").tobytes()


def varint(value: int) -> bytes:
    r"""Encodes a non-negative integer seven bits per byte, low bits first; the top bit continues.

    >>> varint(300)
    b'\xac\x02'
    """
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


class Reader:
    """Reads a blob from its beginning; reading past its end raises `TicketError`.

    >>> reader = Reader(varint(300) + b"rest")
    >>> reader.varint(), reader.rest()
    (300, b'rest')
    """

    def __init__(self, blob: bytes):
        self._blob = blob
        self._at = 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > len(self._blob) - self._at:
            raise TicketError(
                f"a code ends after {len(self._blob)} bytes where {self._at + count} are needed"
            )
        self._at += count
        return self._blob[self._at - count : self._at]

    def bits(self, count: int) -> np.ndarray:
        """The next `count` bits, from a whole number of bytes; the padding must be zero."""
        packed = np.frombuffer(self.take(-(-count // 8)), np.uint8)
        bits = np.unpackbits(packed, bitorder="little")
        if bits[count:].any():
            raise TicketError("a code has ones where zeros pad its last byte")
        return bits[:count]

    def varint(self, limit: int = 2**31 - 1) -> int:
        """The next variable-length integer, at most `limit`."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        if value > limit:
            raise TicketError(f"a code has a count of {value}; at most {limit} is allowed")
        return value

    def rest(self) -> bytes:
        """The remaining bytes."""
        return self.take(len(self._blob) - self._at)

    def end(self) -> None:
        """Raises `TicketError` unless all bytes were read."""
        left = len(self._blob) - self._at
        if left:
            raise TicketError(f"a code has {left} bytes after its end")
