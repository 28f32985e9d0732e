"""Codes for masks, and the choice of the shortest.

Every code is a `Codec`: `plan` computes its length and can write it, `decode` reads it. Shape and
number of kept entries are not part of the code; the ticket file stores them. Decoding uses integers
only.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import NamedTuple

import numpy as np

from lth_jax.coding import bits as bits_
from lth_jax.coding import blocks, gaps, tans
from lth_jax.coding.entropy import binary_entropy, enumerative_bits
from lth_jax.coding.errors import TicketError
from lth_jax.registry import Registry

_MAX_ENUMERATED = 1 << 14
_MAX_WORK = 1 << 23  # limit on entries × bits: each entry takes a big-integer operation
_STREAM_BITS = 28.0  # one lane's state, the end mark, a count, whole bytes
_GROUPS = (2, 4, 8)  # the M of N:M masks


class Plan(NamedTuple):
    """The length of a code for one mask, and its writer.

    Attributes:
      bits: the length of the code, to within a few bytes; inf if the code does not apply.
      write: returns the code.
    """

    bits: float
    write: Callable[[], bytes]


class Codec(NamedTuple):
    """One code for masks.

    Attributes:
      plan: `(mask, kept) -> Plan`; `mask` is a boolean array with `kept` entries True.
      decode: `(code, shape, kept) -> mask`; raises `TicketError` for invalid codes.
    """

    plan: Callable[[np.ndarray, int], Plan]
    decode: Callable[[bytes, tuple[int, ...], int], np.ndarray]


def _nothing() -> bytes:
    return b""


_IMPOSSIBLE = Plan(math.inf, _nothing)


def _constant_plan(mask: np.ndarray, kept: int) -> Plan:
    return Plan(0.0, _nothing) if kept in (0, mask.size) else _IMPOSSIBLE


def _constant_decode(code: bytes, shape: tuple[int, ...], kept: int) -> np.ndarray:
    bits_.Reader(code).end()
    return np.full(shape, kept > 0)


def _packbits_plan(mask: np.ndarray, kept: int) -> Plan:
    del kept
    return Plan(8.0 * (-(-mask.size // 8)), lambda: bits_.to_bytes(mask.ravel()))


def _packbits_decode(code: bytes, shape: tuple[int, ...], kept: int) -> np.ndarray:
    del kept
    reader = bits_.Reader(code)
    mask = reader.bits(math.prod(shape)).astype(bool)
    reader.end()
    return mask.reshape(shape)


def _rarer(mask: np.ndarray, kept: int) -> np.ndarray:
    """The positions of the kept entries, or of the pruned ones if these are fewer."""
    flat = mask.ravel()
    return np.flatnonzero(~flat if 2 * kept > mask.size else flat)


def _scatter(positions: np.ndarray, shape: tuple[int, ...], kept: int) -> np.ndarray:
    """The inverse of `_rarer`."""
    size = math.prod(shape)
    invert = 2 * kept > size
    mask = np.full(size, invert)
    mask[positions] = not invert
    return mask.reshape(shape)


def _fewer(size: int, kept: int) -> int:
    return min(kept, size - kept)


def _enumerative_plan(mask: np.ndarray, kept: int) -> Plan:
    """The index of the mask among all with the same number of kept entries (Cover 1973)."""
    few = _fewer(mask.size, kept)
    bits = enumerative_bits([(mask.size, few)])
    if mask.size > _MAX_ENUMERATED or mask.size * bits > _MAX_WORK:
        return _IMPOSSIBLE
    return Plan(
        8.0 * math.ceil(bits / 8), lambda: _enumerative_write(_rarer(mask, kept), mask.size)
    )


def _enumerative_length(size: int, kept: int) -> int:
    return -(-(math.comb(size, kept) - 1).bit_length() // 8)


def _enumerative_write(positions: np.ndarray, size: int) -> bytes:
    rank = _rank(positions.tolist(), size)
    return rank.to_bytes(_enumerative_length(size, positions.size), "little")


def _rank(positions: list[int], size: int) -> int:
    """Σ C(pᵢ, i) over the positions p₁ < p₂ < …: the index of this combination."""
    rank, left = 0, len(positions)
    choices = math.comb(size, left)
    for place in range(size - 1, -1, -1):
        if not left:
            break
        below = choices * (place + 1 - left) // (place + 1)  # C(place, left)
        if positions[left - 1] == place:
            rank, choices, left = rank + below, choices - below, left - 1  # C(place, left - 1)
        else:
            choices = below
    return rank


def _unrank(rank: int, size: int, left: int) -> list[int]:
    """The inverse of `_rank`; the last position comes first."""
    positions = []
    choices = math.comb(size, left)
    for place in range(size - 1, -1, -1):
        if not left:
            break
        below = choices * (place + 1 - left) // (place + 1)
        if rank >= below:
            positions.append(place)
            rank, choices, left = rank - below, choices - below, left - 1
        else:
            choices = below
    return positions


def _enumerative_decode(code: bytes, shape: tuple[int, ...], kept: int) -> np.ndarray:
    size = math.prod(shape)
    few = _fewer(size, kept)
    # Check lengths first: binomials of a forged size would take too long.
    cheap = size <= _MAX_ENUMERATED and 8 * size * (len(code) - 1) <= _MAX_WORK
    if not cheap or few > 8 * len(code) or len(code) != _enumerative_length(size, few):
        raise TicketError(f"{len(code)} bytes cannot code a mask of {size} entries, {kept} kept")
    rank = int.from_bytes(code, "little")
    if rank >= math.comb(size, few):
        raise TicketError("a mask's index is not below the number of masks")
    return _scatter(np.array(_unrank(rank, size, few), np.int64), shape, kept)


def _rice_plan(mask: np.ndarray, kept: int) -> Plan:
    """Golomb-Rice codes of the gaps: the high part in unary, `width` low bits unchanged (1966)."""
    few = _fewer(mask.size, kept)
    if not few:
        return _IMPOSSIBLE
    # Nearly optimal for geometric gaps: 2**width is about ln 2 times the mean gap.
    width = max((7 * mask.size // (10 * few)).bit_length() - 1, 0)
    bits = few * (width + 1.0) + (mask.size - few) / 2**width + 24
    return Plan(bits, lambda: _rice_write(_rarer(mask, kept), width))


def _rice_write(positions: np.ndarray, width: int) -> bytes:
    gaps_ = np.diff(positions, prepend=-1) - 1
    ends = np.cumsum((gaps_ >> width) + 1)
    unary = np.zeros(ends[-1], np.uint8)
    unary[ends - 1] = 1
    low = bits_.pack_fixed(gaps_ & ((1 << width) - 1), width)
    return bits_.varint(width) + bits_.to_bytes(low) + bits_.to_bytes(unary)


def _rice_decode(code: bytes, shape: tuple[int, ...], kept: int) -> np.ndarray:
    size = math.prod(shape)
    few = _fewer(size, kept)
    reader = bits_.Reader(code)
    width = reader.varint(31)
    low = reader.bits(few * width)
    low = bits_.unpack_fixed(low, width) if width else np.zeros(few, np.int64)
    unary = np.unpackbits(np.frombuffer(reader.rest(), np.uint8), bitorder="little")
    ends = np.flatnonzero(unary)
    if len(ends) != few:
        raise TicketError(f"a mask's code holds {len(ends)} gaps where {few} are needed")
    high = np.diff(ends, prepend=-1) - 1
    if (int(high.sum()) << width) > size:
        raise TicketError("a mask's code keeps entries beyond the end of its leaf")
    positions = np.cumsum((high << width) + low + 1) - 1
    if few and positions[-1] >= size:
        raise TicketError("a mask's code keeps entries beyond the end of its leaf")
    return _scatter(positions, shape, kept)


def _gaps_plan(mask: np.ndarray, kept: int) -> Plan:
    """Entropy-coded gaps with one density; see `gaps`."""
    if kept in (0, mask.size):
        return _IMPOSSIBLE
    bits = mask.size * float(binary_entropy(kept / mask.size)) + _STREAM_BITS
    sizes, few = np.array([mask.size]), np.array([_fewer(mask.size, kept)])
    return Plan(bits, lambda: gaps.encode(_rarer(mask, kept), sizes, few))


def _gaps_decode(code: bytes, shape: tuple[int, ...], kept: int) -> np.ndarray:
    size = math.prod(shape)
    return _scatter(
        gaps.decode(code, np.array([size]), np.array([_fewer(size, kept)])), shape, kept
    )


def _matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    columns = shape[-1] if shape else 1
    return math.prod(shape) // max(columns, 1), columns


def _blocks_plan(mask: np.ndarray, kept: int) -> Plan:
    """Rows and columns of different densities: see `blocks`."""
    m, n = _matrix_shape(mask.shape)
    if kept in (0, mask.size) or m * n <= max(m, n):
        return _IMPOSSIBLE
    matrix = mask.reshape(m, n)
    bits, found = blocks.find(matrix)
    return _IMPOSSIBLE if found is None else Plan(bits, partial(blocks.encode, matrix, found))


def _blocks_decode(code: bytes, shape: tuple[int, ...], kept: int) -> np.ndarray:
    del kept
    return blocks.decode(code, _matrix_shape(shape)).reshape(shape)


def _patterns(group: int, kept: int) -> np.ndarray:
    """All patterns of `group` bits with `kept` ones, as ascending integers."""
    return np.sort([sum(1 << i for i in c) for c in combinations(range(group), kept)])


def _uniform(symbols: int) -> np.ndarray:
    return tans.normalize(np.ones(symbols, np.int64))[None]


def _find_groups(mask: np.ndarray, kept: int) -> tuple[int, int, int] | None:
    """(axis, M, N) if along that axis every M neighbours keep exactly N."""
    for axis in range(mask.ndim):
        lines = np.moveaxis(mask, axis, -1)
        for group in _GROUPS:
            if mask.shape[axis] % group or kept * group % mask.size:
                continue
            each = kept * group // mask.size
            # Checking the first groups avoids a full pass for most masks.
            if (lines[..., :group].sum(-1) == each).all() and (
                lines.reshape(-1, group).sum(-1) == each
            ).all():
                return axis, group, each
    return None


def _n_of_m_plan(mask: np.ndarray, kept: int) -> Plan:
    """N of every M neighbours are kept: log2 C(M, N) bits for each group."""
    found = _find_groups(mask, kept) if kept not in (0, mask.size) else None
    if found is None:
        return _IMPOSSIBLE
    _, group, each = found
    bits = mask.size // group * math.log2(math.comb(group, each)) + _STREAM_BITS
    return Plan(bits, lambda: _n_of_m_write(mask, *found))


def _n_of_m_write(mask: np.ndarray, axis: int, group: int, each: int) -> bytes:
    bits = np.moveaxis(mask, axis, -1).reshape(-1).astype(np.uint8)
    patterns = _patterns(group, each)
    symbols = np.searchsorted(patterns, bits_.unpack_fixed(bits, group))
    head = bits_.varint(axis) + bits_.varint(group)
    return head + tans.encode(symbols, _uniform(len(patterns)))


def _n_of_m_decode(code: bytes, shape: tuple[int, ...], kept: int) -> np.ndarray:
    reader = bits_.Reader(code)
    size = math.prod(shape)
    axis, group = reader.varint(len(shape) - 1), reader.varint(max(_GROUPS))
    if group not in _GROUPS or not size or shape[axis] % group or kept * group % size:
        raise TicketError(f"{kept} of {size} entries are not kept evenly by groups of {group}")
    patterns = _patterns(group, kept * group // size)
    symbols, _ = tans.decode(reader, size // group, _uniform(len(patterns)))
    bits = bits_.pack_fixed(patterns[symbols], group).astype(bool)
    moved = (*shape[:axis], *shape[axis + 1 :], shape[axis])
    return np.ascontiguousarray(np.moveaxis(bits.reshape(moved), -1, axis))


CODECS: Registry[Codec] = Registry("codec")
"""All codes for masks by the names that files use. A name keeps its meaning in all versions."""

CODECS.register("constant", Codec(_constant_plan, _constant_decode))
CODECS.register("packbits", Codec(_packbits_plan, _packbits_decode))
CODECS.register("enumerative", Codec(_enumerative_plan, _enumerative_decode))
CODECS.register("rice", Codec(_rice_plan, _rice_decode))
CODECS.register("n_of_m", Codec(_n_of_m_plan, _n_of_m_decode))
CODECS.register("gaps", Codec(_gaps_plan, _gaps_decode))
CODECS.register("blocks", Codec(_blocks_plan, _blocks_decode))


def encode(mask: np.ndarray, codec: str | None = None) -> tuple[str, bytes]:
    """The shortest code for a mask, or a given one.

    Args:
      mask: bool[...].
      codec: a name in `CODECS`; the shortest by `plan` by default.

    Returns:
      (the codec's name, the code).

    Raises:
      TypeError: if `mask` is not boolean.
      ValueError: `codec` is unknown or does not apply to this mask.

    >>> encode(np.ones((3, 3), bool))
    ('constant', b'')
    """
    mask = np.asarray(mask)
    if mask.dtype != bool:
        raise TypeError(f"`mask` has dtype {mask.dtype}; bool is needed.")
    if codec is not None and codec not in CODECS:
        raise ValueError(f"`codec` is {codec!r}; it must be one of {', '.join(sorted(CODECS))}.")
    kept = int(np.count_nonzero(mask))
    plans = {name: CODECS[name].plan(mask, kept) for name in ([codec] if codec else CODECS)}
    best = min(plans, key=lambda name: plans[name].bits)
    if plans[best].bits == math.inf:
        raise ValueError(f"`codec` {best!r} cannot code {kept} kept of {mask.size} entries.")
    return best, plans[best].write()


def decode(codec: str, code: bytes, shape: tuple[int, ...], kept: int) -> np.ndarray:
    """The inverse of `encode`.

    Args:
      codec: the codec's name.
      code: its bytes.
      shape: the mask's shape.
      kept: number of True entries.

    Returns:
      bool[shape].

    Raises:
      TicketError: the bytes are not the code of such a mask.

    >>> decode(*encode(np.array([True, False, True])), shape=(3,), kept=2).tolist()
    [True, False, True]
    """
    if codec not in CODECS:
        raise TicketError(f"a mask is coded by {codec!r}, which is unknown")
    if 0 in shape:  # its code is empty; its other axes may be too long to process
        codec = "constant"
    mask = CODECS[codec].decode(code, shape, kept)
    if np.count_nonzero(mask) != kept:
        raise TicketError(
            f"a mask keeps {np.count_nonzero(mask)} entries; the manifest states {kept}"
        )
    return mask
