"""A code for kept positions: entropy-coded geometric gaps.

Where entries are kept independently with probability p, the number of pruned ones before the next
kept one is geometric, and coding the gaps with that law costs n·H(p) bits. Each gap is split. Its
high part is coded with a table that n and k determine, so it is not stored; its low bits are nearly
uniform and stored unchanged. Several blocks of entries with separate densities share one stream.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from lth_jax.coding import bits as bits_
from lth_jax.coding import tans
from lth_jax.coding.errors import TicketError

_ONE = 1 << 32


class _Model(NamedTuple):
    """The model of the gaps; every array has one row per block."""

    tables: np.ndarray
    shifts: np.ndarray
    escapes: np.ndarray


def _geometric(size: int, kept: int) -> tuple[int, list[int]]:
    """The number of uncoded low bits, and the weights of the values of the high part.

    The last weight is that of the escape symbol, which stands for the size of the table and is
    followed by a further symbol of the same gap.
    """
    if kept == 0:
        return 0, [1]
    shift = max((size // (16 * kept)).bit_length() - 1, 0)
    ratio = ((size - kept) << 32) // size
    for _ in range(shift):
        ratio = ratio * ratio >> 32
    tails = [_ONE]
    while tails[-1] > _ONE >> 10 and len(tails) < tans.MAX_ALPHABET:
        tails.append(tails[-1] * ratio >> 32)
    return shift, [a - b for a, b in pairwise(tails)] + tails[-1:]


def _model(sizes: np.ndarray, kept: np.ndarray) -> _Model:
    laws = [_geometric(int(n), int(k)) for n, k in zip(sizes, kept, strict=True)]
    tables = np.zeros((len(laws), max(len(weights) for _, weights in laws)), np.int64)
    for row, (_, weights) in zip(tables, laws, strict=True):
        row[: len(weights)] = tans.normalize(np.array(weights, np.int64))
    return _Model(
        tables,
        shifts=np.array([shift for shift, _ in laws], np.int64),
        escapes=np.array([len(weights) - 1 for _, weights in laws], np.int64),
    )


def _spread(column: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`np.repeat(column, counts)`, without a copy for a single block."""
    if len(column) == 1:
        return np.broadcast_to(column, (int(counts[0]),))
    return np.repeat(column, counts)


def _contexts(counts: np.ndarray) -> np.ndarray | None:
    return None if len(counts) == 1 else np.repeat(np.arange(len(counts)), counts)


def _totals(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The sum of each block's values."""
    run = np.concatenate([np.zeros(1, np.int64), np.cumsum(values)])
    ends = np.cumsum(kept)
    return run[ends] - run[ends - kept]


def encode(positions: np.ndarray, sizes: np.ndarray, kept: np.ndarray) -> bytes:
    """Encodes the kept positions of consecutive blocks.

    Args:
      positions: int64[Σ kept], strictly ascending, counted over all blocks.
      sizes: int64[blocks], the entries of each block.
      kept: int64[blocks], the number of kept entries of each.

    Returns:
      About `Σ sizes·H(kept / sizes)` bits and three bytes, in whole bytes.

    >>> code = encode(np.array([0, 5]), np.array([8]), np.array([2]))
    >>> decode(code, np.array([8]), np.array([2])).tolist()
    [0, 5]
    """
    tables, shifts, escapes = _model(sizes, kept)
    starts, firsts, filled = np.cumsum(sizes) - sizes, np.cumsum(kept) - kept, kept > 0
    previous = np.concatenate([np.full(1, -1), positions])[:-1]
    previous[firsts[filled]] = starts[filled] - 1
    gaps = positions - previous - 1
    shift, escape = _spread(shifts, kept), _spread(escapes, kept)
    high = gaps >> shift
    extra = high // escape
    symbols = np.repeat(escape, extra + 1)
    symbols[np.cumsum(extra + 1) - 1] = high - extra * escape
    extras = _totals(extra, kept)
    head = b"".join(bits_.varint(int(e)) for e in extras)
    raw = bits_.pack(gaps & ((1 << shift) - 1), shift)
    return head + tans.encode(symbols, tables, _contexts(kept + extras), raw)


def decode(code: bytes, sizes: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The inverse of `encode`: positions, int64[Σ kept].

    Raises:
      TicketError: if the code is not one that `encode` writes for these sizes and counts.
    """
    tables, shifts, escapes = _model(sizes, kept)
    reader = bits_.Reader(code)
    # Each escape skips a whole table of entries, so the size of a block bounds their number.
    most = np.where(kept > 0, sizes // (np.maximum(escapes, 1) << shifts), 0)
    counts = kept + np.array([reader.varint(int(limit)) for limit in most], np.int64)
    shift = _spread(shifts, kept)
    symbols, raw = tans.decode(
        reader, int(counts.sum()), tables, _contexts(counts), int((shifts * kept).sum())
    )
    ends = np.flatnonzero(symbols != _spread(escapes, counts))
    if len(ends) != len(shift):
        raise TicketError(f"a mask's code holds {len(ends)} gaps where {len(shift)} are kept")
    high = np.diff(np.cumsum(symbols)[ends], prepend=0)
    return _add_up((high << shift) + bits_.unpack(raw, shift), sizes, kept)


def _add_up(gaps: np.ndarray, sizes: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The positions from gaps; each block counts from its start."""
    reach = _totals(gaps + 1, kept)
    if (reach > sizes).any():
        raise TicketError("a mask's code keeps entries beyond the end of its leaf")
    starts = np.cumsum(sizes) - sizes
    passed = np.cumsum(reach) - reach
    return np.cumsum(gaps + 1) + _spread(starts - passed - 1, kept)
