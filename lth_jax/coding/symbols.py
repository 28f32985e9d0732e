"""Codes for small integers: with their frequencies, or with a fixed width."""

import numpy as np

from lth_jax.coding import bits as bits_
from lth_jax.coding import tans
from lth_jax.coding.errors import TicketError

_PLAIN, _CODED = 0, 1
_OVERHEAD_BITS = 48.0  # form, alphabet, one lane's state, the end mark, whole bytes


def _plain_width(alphabet: int) -> int:
    return (alphabet - 1).bit_length()


def _coded_bits(counts: np.ndarray) -> float:
    """The code length for these counts, including the table of frequencies."""
    table = counts.size * (tans.TABLE_BITS + 1)
    return tans.cost(counts, tans.normalize(counts)) + table + _OVERHEAD_BITS


def estimate(symbols: np.ndarray, alphabet: int) -> float:
    """The number of bits that `encode` takes, to within a few bytes.

    >>> estimate(np.arange(1000) % 4, 4)
    2008.0
    """
    if not symbols.size or alphabet == 1:
        return 8.0
    return min(8.0 + symbols.size * _plain_width(alphabet), _coded_bits(np.bincount(symbols)))


def encode(symbols: np.ndarray, alphabet: int) -> bytes:
    """Writes integers of `range(alphabet)`, alphabet ≤ 256, in the shorter of two forms.

    Args:
      symbols: integers, one axis.
      alphabet: the number of symbols.

    Returns:
      The code; `decode` needs the number of symbols too.

    >>> decode(encode(np.array([3, 1, 2]), 4), 3, 4).tolist()
    [3, 1, 2]
    """
    plain = 8.0 + symbols.size * _plain_width(alphabet)
    if estimate(symbols, alphabet) >= plain:
        return bits_.varint(_PLAIN) + _write_plain(symbols, _plain_width(alphabet))
    frequencies = tans.normalize(np.bincount(symbols))
    table = bits_.to_bytes(bits_.pack_fixed(frequencies, tans.TABLE_BITS + 1))
    head = bits_.varint(_CODED) + bits_.varint(frequencies.size)
    return head + table + tans.encode(symbols, frequencies[None])


def decode(code: bytes, count: int, alphabet: int) -> np.ndarray:
    """The inverse of `encode`: int64[count].

    Raises:
      TicketError: if the code is not one that `encode` writes for so many symbols.
    """
    reader = bits_.Reader(code)
    if reader.varint(_CODED) == _PLAIN:
        symbols = _read_plain(reader, count, _plain_width(alphabet))
        reader.end()
    else:
        symbols, _ = tans.decode(reader, count, _read_table(reader, alphabet)[None])
    if symbols.size and symbols.max() >= alphabet:
        raise TicketError(f"a code holds {symbols.max()} where all must lie below {alphabet}")
    return symbols


def _write_plain(symbols: np.ndarray, width: int) -> bytes:
    if width == 8:  # whole bytes need no packing
        return symbols.astype(np.uint8).tobytes()
    return bits_.to_bytes(bits_.pack_fixed(symbols, width))


def _read_plain(reader: bits_.Reader, count: int, width: int) -> np.ndarray:
    if width == 8:
        return np.frombuffer(reader.take(count), np.uint8).astype(np.int64)
    if width == 0:
        return np.zeros(count, np.int64)
    return bits_.unpack_fixed(reader.bits(count * width), width)


def _read_table(reader: bits_.Reader, alphabet: int) -> np.ndarray:
    size = reader.varint(alphabet)
    width = tans.TABLE_BITS + 1
    frequencies = bits_.unpack_fixed(reader.bits(size * width), width)
    if frequencies.sum() != tans.TABLE_SIZE:
        raise TicketError(
            f"a table's frequencies sum to {frequencies.sum()}, not to {tans.TABLE_SIZE}"
        )
    return frequencies
