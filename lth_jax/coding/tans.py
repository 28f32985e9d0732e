r"""Table-based asymmetric numeral systems (tANS), vectorised over lanes for numpy.

A symbol with frequency f out of L = 2**13 costs log2(L/f) bits. The coder's state x ∈ [L, 2L)
encodes a symbol by shifting out its low bits until x ∈ [f, 2f), and looking up the next state (Duda
2013, "Asymmetric numeral systems"). The bits form a stack: the decoder pops what the encoder pushed
last, so it reads the symbols in order.

For speed in numpy, symbols are distributed over many lanes that step together. A lane would cost 13
bits for its first state. Here it costs nothing, because the number of lanes grows: the encoder
begins with one lane, and pops the first states of new lanes from the stack once it has enough bits.
The decoder closes those lanes and pushes their states. All arithmetic is on integers, so a stream
decodes to the same symbols on any machine.
"""

from typing import NamedTuple

import numpy as np

from lth_jax.coding import bits as bits_
from lth_jax.coding.errors import TicketError

TABLE_BITS = 13
TABLE_SIZE = 1 << TABLE_BITS
MAX_ALPHABET = 256
# Changing any of these constants except the chunk changes the file format and its version.
_STRIDE = (TABLE_SIZE >> 1) + (TABLE_SIZE >> 3) + 3  # odd: visits every slot once
_WIDENING = 4
_MAX_LANES = 4096
_SYMBOLS_PER_LANE = 64  # a lane takes about 1/20 bit, since its first state is drawn uniformly
_CHUNK = 1 << 17  # symbols per encoding step; intermediates stay in the cache
_MAX_STEPS = 1 << 9
_FLOOR_LOG2 = np.repeat(np.arange(TABLE_BITS + 1), 1 << np.arange(TABLE_BITS + 1))


class Phase(NamedTuple):
    """The number of lanes for the symbols `start:stop`."""

    lanes: int
    start: int
    stop: int


class _Encoder(NamedTuple):
    """Tables of the encoder: width and slot by symbol; next state by slot."""

    to_width: np.ndarray
    to_slot: np.ndarray
    states: np.ndarray


class _Decoder(NamedTuple):
    """Tables of the decoder by slot: symbol, number of bits to pop, and base state."""

    symbol: np.ndarray
    width: np.ndarray
    base: np.ndarray


def normalize(weights: np.ndarray) -> np.ndarray:
    """Integer frequencies with sum 2**13, at least 1 for each positive weight.

    Args:
      weights: int64[alphabet], non-negative, below 2**51, not all zero, at most 256 of them.

    Returns:
      int64[alphabet]: `weights * 2**13 / sum(weights)`, rounded by largest remainders.

    >>> normalize(np.array([3, 0, 1])).tolist()
    [6144, 0, 2048]
    """
    total = int(weights.sum())
    scaled = weights * TABLE_SIZE
    frequencies = np.maximum(scaled // total, weights > 0)
    missing = TABLE_SIZE - int(frequencies.sum())
    if missing > 0:
        frequencies[np.argsort(-(scaled % total), kind="stable")[:missing]] += 1
    for _ in range(-missing):
        frequencies[np.argmax(frequencies)] -= 1
    return frequencies


def cost(counts: np.ndarray, frequencies: np.ndarray) -> float:
    """The code length in bits for these counts: `Σ countₛ log2(2**13 / frequencyₛ)`.

    >>> cost(np.array([4, 4]), np.array([4096, 4096]))
    8.0
    """
    used = counts > 0
    return float(counts[used] @ (TABLE_BITS - np.log2(frequencies[used])))


def _slots(frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The table's slots sorted by symbol, and the symbol in each of these."""
    symbols = np.repeat(np.arange(frequencies.size), frequencies)
    at = np.empty(TABLE_SIZE, np.uint8)  # stable sorting of bytes takes one pass
    at[(np.arange(TABLE_SIZE) * _STRIDE) % TABLE_SIZE] = symbols
    return np.argsort(at, kind="stable"), symbols


def _within(frequencies: np.ndarray, symbols: np.ndarray) -> np.ndarray:
    """For each sorted slot its symbol's small state, counting up from the frequency."""
    starts = np.cumsum(frequencies) - frequencies
    return np.arange(TABLE_SIZE) + (frequencies - starts)[symbols]


def _encode_tables(tables: np.ndarray) -> _Encoder:
    used = np.maximum(tables, 1)
    widest = TABLE_BITS - np.where(used > 1, _FLOOR_LOG2[np.maximum(used - 2, 0)], 0)
    # x + this, shifted right by 16, is `widest` if x >= used << widest, else one less.
    to_width = (widest << 16) - (used << widest)
    starts = np.cumsum(tables, axis=1) - tables
    to_slot = starts - tables + TABLE_SIZE * np.arange(len(tables))[:, None]
    states = np.concatenate([_slots(row)[0] + TABLE_SIZE for row in tables])
    return _Encoder(to_width.ravel(), to_slot.ravel(), states)


def _decode_tables(tables: np.ndarray) -> _Decoder:
    columns = np.empty((3, len(tables), TABLE_SIZE), np.int64)
    for row, frequencies in enumerate(tables):
        order, symbols = _slots(frequencies)
        small = _within(frequencies, symbols)
        widths = TABLE_BITS - _FLOOR_LOG2[small - 1]
        columns[:, row, order] = symbols, widths, (small << widths) - TABLE_SIZE
    return _Decoder(*columns.reshape(3, -1))


def _phases(count: int, steps: int) -> list[Phase]:
    """The phases of `count` symbols, in the decoder's order: most lanes first."""
    lanes, left, phases = 1, count, []
    while left:
        wider = lanes * _WIDENING
        enough = steps * lanes + max(steps, _SYMBOLS_PER_LANE) * wider
        last = wider > _MAX_LANES or left <= enough
        start = 0 if last else left - steps * lanes
        phases.append(Phase(lanes, start, left))
        left, lanes = start, wider
    return phases[::-1]


def _steps(tables: np.ndarray, uses: np.ndarray) -> int:
    """The number of steps after which a phase has pushed enough bits for the new lanes.

    On average a step pushes the entropy of the tables; a quarter more steps are added for
    fluctuations. Logarithms are interpolated linearly between powers of two in units of 1/256, for
    integer arithmetic.
    """
    some = np.maximum(tables, 1)
    floor = _FLOOR_LOG2[some - 1]
    logarithm = (floor << 8) + ((some << 8) >> floor) - 256
    entropies = (tables * ((TABLE_BITS << 8) - logarithm)).sum(axis=1)
    pushed = max(int(entropies @ uses), 1)
    needed = (5 * TABLE_BITS * (_WIDENING - 1) // 4) << (TABLE_BITS + 8)
    return min(needed * int(uses.sum()) // pushed + 2, _MAX_STEPS)


def _uses(tables: np.ndarray, contexts: np.ndarray | None, count: int) -> np.ndarray:
    """The number of symbols of each table."""
    if contexts is None:
        return np.array([count], np.int64)
    return np.bincount(contexts, minlength=len(tables))


def encode(
    symbols: np.ndarray,
    tables: np.ndarray,
    contexts: np.ndarray | None = None,
    raw: np.ndarray | None = None,
) -> bytes:
    """Encodes symbols, each with the table of its context.

    Args:
      symbols: int[n], symbol i has a positive frequency in its table.
      tables: int64[contexts, alphabet], frequencies that sum to 2**13 in every row.
      contexts: int[n], the row of `tables` for each symbol; all 0 by default.
      raw: uint8[m] of zeros and ones that are stored uncoded.

    Returns:
      The stream: about `Σ log2(2**13 / f) + m + 13` bits, in whole bytes.

    >>> table = np.array([[2048, 6144]])
    >>> len(encode(np.array([0, 1, 1, 1] * 100), table))  # 400 · H(1/4) = 325 bits
    43
    """
    alphabet = tables.shape[1]
    index = symbols if contexts is None else symbols + contexts * alphabet
    steps = _steps(tables, _uses(tables, contexts, len(index)))
    coder = _encode_tables(tables)
    stack = np.zeros(0, np.uint8) if raw is None else raw
    x = np.full(min(len(index), 1), TABLE_SIZE, np.int64)
    for phase in reversed(_phases(len(index), steps)):
        x, stack = _open_lanes(x, stack, phase.lanes)
        pushed = _encode_phase(x, index[phase.start : phase.stop], coder)
        stack = np.concatenate([stack, *pushed])
    top = bits_.pack_fixed(x - TABLE_SIZE, TABLE_BITS)
    end = np.ones(1, np.uint8)  # the highest one marks the end of the stack within its last byte
    return bits_.to_bytes(np.concatenate([stack, top, end]))


def _open_lanes(x: np.ndarray, stack: np.ndarray, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pops the first states of new lanes; a short stack is padded with zeros."""
    needed = (lanes - x.size) * TABLE_BITS
    missing = max(needed - stack.size, 0)
    stack = np.concatenate([np.zeros(missing, np.uint8), stack])
    keep = stack.size - needed
    new = bits_.unpack_fixed(stack[keep:], TABLE_BITS) + TABLE_SIZE
    return np.concatenate([x, new]), stack[:keep]


def _encode_phase(x: np.ndarray, index: np.ndarray, coder: _Encoder) -> list[np.ndarray]:
    """Steps all lanes from the last symbol to the first; returns the bits they push."""
    chunk = max(_CHUNK // x.size, 1) * x.size
    starts = range((index.size - 1) // chunk * chunk, -1, -chunk)
    return [_encode_chunk(x, index[start : start + chunk], coder) for start in starts]


def _encode_chunk(x: np.ndarray, index: np.ndarray, coder: _Encoder) -> np.ndarray:
    to_width, to_slot = coder.to_width[index], coder.to_slot[index]
    before = np.empty(index.size, np.int64)
    for start in range((index.size - 1) // x.size * x.size, -1, -x.size):
        now = slice(start, start + x.size)
        old = before[now]
        live = x[: old.size]
        old[:] = live
        width = (old + to_width[now]) >> 16
        coder.states.take((old >> width) + to_slot[now], out=live, mode="clip")
    widths = (before + to_width) >> 16
    return bits_.pack((before & ((1 << widths) - 1))[::-1], widths[::-1])


def decode(
    reader: bits_.Reader,
    count: int,
    tables: np.ndarray,
    contexts: np.ndarray | None = None,
    raw: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `encode`: the symbols, int64[count], and the raw bits, uint8[raw].

    The stream is all that the reader has left.

    Raises:
      TicketError: the stream is not a result of `encode` with these arguments.

    >>> table = np.array([[2048, 6144]])
    >>> stream = bits_.Reader(encode(np.array([0, 1, 1]), table))
    >>> decode(stream, 3, table)[0].tolist()
    [0, 1, 1]
    """
    phases = _phases(count, _steps(tables, _uses(tables, contexts, count)))
    stack = _stack(reader.rest())
    coder = _decode_tables(tables)
    offsets = np.broadcast_to(np.int64(0), (count,)) if contexts is None else contexts * TABLE_SIZE
    x, stack = _pop_states(stack, phases[0].lanes if phases else 0)
    visited = np.empty(count, np.int64)
    for phase in phases:
        x, stack = _close_lanes(x, stack, phase.lanes)
        here = slice(phase.start, phase.stop)
        stack = _decode_phase(x, stack, visited[here], offsets[here], coder)
    below = stack.size - raw
    if below < 0 or stack[:below].any() or x.any():
        raise TicketError("a coded stream does not end where its counts do")
    return coder.symbol[visited], stack[below:]


def _stack(packed: bytes) -> np.ndarray:
    """The bits below the mark."""
    if not packed or not packed[-1]:
        raise TicketError("a coded stream has no end mark")
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")
    return bits[: bits.size - 9 + packed[-1].bit_length()]


def _pop_states(stack: np.ndarray, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    keep = stack.size - lanes * TABLE_BITS
    if keep < 0:
        raise TicketError(f"a coded stream of {stack.size} bits cannot hold {lanes} lanes")
    return bits_.unpack_fixed(stack[keep:], TABLE_BITS), stack[:keep]


def _close_lanes(x: np.ndarray, stack: np.ndarray, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pushes the states of the lanes that end here: the inverse of `_open_lanes`."""
    return x[:lanes].copy(), np.concatenate([stack, bits_.pack_fixed(x[lanes:], TABLE_BITS)])


def _decode_phase(
    x: np.ndarray, stack: np.ndarray, visited: np.ndarray, offsets: np.ndarray, coder: _Decoder
) -> np.ndarray:
    """Steps all lanes from the first symbol to the last; fills `visited` with table slots."""
    packed = np.packbits(stack, bitorder="little").astype(np.int64)
    packed = np.concatenate([packed, np.zeros(3, np.int64)])
    windows = packed[:-2] | packed[1:-1] << 8 | packed[2:] << 16  # 24 bits from every byte
    top = stack.size
    lanes = x.size
    for start in range(0, visited.size, lanes):
        slot = visited[start : start + lanes]
        live = x[: slot.size]
        np.add(live, offsets[start : start + lanes], out=slot)
        widths = coder.width[slot]
        at = top - np.cumsum(widths)
        top = int(at[-1])
        if top < 0:
            raise TicketError("a coded stream ends before its symbols do")
        live[:] = coder.base[slot] + ((windows[at >> 3] >> (at & 7)) & ((1 << widths) - 1))
    return stack[:top]
