"""A code for masks whose rows and columns differ in density: block densities.

Trained masks empty whole rows (border pixels, dead units). Rows and columns are divided into at
most eight classes of similar density; each block of a row class and a column class has its own
density, and the classes are stored as side information. Σ nᵦH(kᵦ/nᵦ) ≤ n·H(k/n); the code is
shorter if the difference exceeds the side information.
"""

from typing import NamedTuple

import numpy as np

from lth_jax.coding import bits as bits_
from lth_jax.coding import gaps, symbols
from lth_jax.coding.entropy import binary_entropy
from lth_jax.coding.errors import TicketError

_MAX_CLASSES = 8
_OVERHEAD_BITS = 32.0  # one lane's state, the end mark, lengths of the side information


class Blocks(NamedTuple):
    """Classes of the rows and columns of a matrix.

    Attributes:
      rows: int[m], the class of each row.
      columns: int[n], the class of each column.
      kept: int64[row classes, column classes], the number of kept entries of each block.
    """

    rows: np.ndarray
    columns: np.ndarray
    kept: np.ndarray


class _Axis(NamedTuple):
    """The positions of rows (or columns) sorted by class."""

    members: np.ndarray
    starts: np.ndarray
    counts: np.ndarray


def _axis(classes: np.ndarray, number: int) -> _Axis:
    counts = np.bincount(classes, minlength=number)
    return _Axis(np.argsort(classes, kind="stable"), np.cumsum(counts) - counts, counts)


def _rank(classes: np.ndarray, axis: _Axis) -> np.ndarray:
    """The rank of each row within its class."""
    rank = np.empty(classes.size, np.int64)
    rank[axis.members] = np.arange(classes.size) - np.repeat(axis.starts, axis.counts)
    return rank


def row_counts(matrix: np.ndarray) -> np.ndarray:
    """`matrix.sum(1)` of a boolean matrix, int64, eight entries at a time.

    >>> row_counts(np.eye(3, dtype=bool)).tolist()
    [1, 1, 1]
    """
    return np.bitwise_count(np.packbits(matrix, axis=1)).sum(1, dtype=np.int64)


def column_counts(matrix: np.ndarray) -> np.ndarray:
    """`matrix.sum(0)` of a boolean matrix, int64; up to 255 rows at a time add up in bytes.

    >>> column_counts(np.ones((300, 2), bool)).tolist()
    [300, 300]
    """
    total = np.zeros(matrix.shape[1], np.int64)
    for start in range(0, len(matrix), 255):
        total += np.add.reduce(matrix[start : start + 255].view(np.uint8), axis=0, dtype=np.uint8)
    return total


def _classify(counts: np.ndarray) -> np.ndarray:
    """Classes of similar counts and about equal size; equal counts share a class."""
    edges = np.quantile(counts, np.arange(1, _MAX_CLASSES) / _MAX_CLASSES, method="lower")
    return np.searchsorted(np.unique(edges), counts, side="left")


def _sizes(blocks: Blocks) -> np.ndarray:
    a, b = blocks.kept.shape
    rows = np.bincount(blocks.rows, minlength=a)
    return np.outer(rows, np.bincount(blocks.columns, minlength=b))


def _bits(blocks: Blocks) -> float:
    """The length of the code in bits, side information included."""
    sizes = np.maximum(_sizes(blocks), 1)
    classes = zip(blocks[:2], blocks.kept.shape, strict=True)
    side = sum(symbols.estimate(c, number) for c, number in classes)
    entropy = float((sizes * binary_entropy(blocks.kept / sizes)).sum())
    counts = sum(len(bits_.varint(int(k))) + 1 for k in blocks.kept.ravel())
    return entropy + side + 8.0 * counts + _OVERHEAD_BITS


def _cut(matrix: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> Blocks:
    by_column = [column_counts(matrix[rows == a]) for a in range(int(rows.max()) + 1)]
    kept = [np.bincount(columns, weights=counts) for counts in by_column]
    return Blocks(rows, columns, np.array(kept).astype(np.int64))


def find(matrix: np.ndarray) -> tuple[float, Blocks | None]:
    """The blocks with the shortest code and its bits; `(inf, None)` if one density is better.

    Evaluates rows alone and columns alone by their counts; both together, if one of them is
    shorter.

    >>> matrix = np.repeat([True, False], 64)[:, None] & np.ones(64, bool)
    >>> find(matrix)[1].kept.tolist()
    [[0], [4096]]
    """
    by_rows, by_columns = row_counts(matrix), column_counts(matrix)
    rows, columns = _classify(by_rows), _classify(by_columns)
    plain = matrix.size * float(binary_entropy(by_rows.sum() / matrix.size))
    kept = [np.bincount(c, weights=n) for c, n in ((rows, by_rows), (columns, by_columns))]
    cuts = [
        Blocks(rows, np.zeros_like(columns), kept[0].astype(np.int64)[:, None]),
        Blocks(np.zeros_like(rows), columns, kept[1].astype(np.int64)[None]),
    ]
    if min(map(_bits, cuts)) >= plain:
        return float("inf"), None
    best = min([*cuts, _cut(matrix, rows, columns)], key=_bits)
    return _bits(best), best


def encode(matrix: np.ndarray, blocks: Blocks) -> bytes:
    """Codes a boolean matrix by its blocks.

    >>> matrix = np.eye(8, dtype=bool)
    >>> blocks = Blocks(np.zeros(8, int), np.zeros(8, int), np.array([[8]]))
    >>> bool((decode(encode(matrix, blocks), (8, 8)) == matrix).all())
    True
    """
    a, b = blocks.kept.shape
    rows, columns = _axis(blocks.rows, a), _axis(blocks.columns, b)
    i, j = np.nonzero(matrix)
    sizes = _sizes(blocks).ravel()
    column_class = blocks.columns[j]
    start = (np.cumsum(sizes) - sizes)[blocks.rows[i] * b + column_class]
    row_rank, column_rank = _rank(blocks.rows, rows)[i], _rank(blocks.columns, columns)[j]
    within = row_rank * columns.counts[column_class] + column_rank
    side = [symbols.encode(blocks.rows, a), symbols.encode(blocks.columns, b)]
    numbers = [a, b, *blocks.kept.ravel().tolist(), *map(len, side)]
    code = gaps.encode(np.sort(start + within), sizes, blocks.kept.ravel())
    return b"".join([*map(bits_.varint, numbers), *side, code])


def decode(code: bytes, shape: tuple[int, int]) -> np.ndarray:
    """The inverse of `encode`: a boolean matrix of this shape.

    Raises:
      TicketError: the code is not a result of `encode` for this shape.
    """
    reader = bits_.Reader(code)
    blocks = _read(reader, shape)
    a, b = blocks.kept.shape
    rows, columns = _axis(blocks.rows, a), _axis(blocks.columns, b)
    sizes, kept = _sizes(blocks).ravel(), blocks.kept.ravel()
    if (kept > sizes).any():
        raise TicketError("a mask's code keeps more entries of a block than the block has")
    within = gaps.decode(reader.rest(), sizes, kept) - np.repeat(np.cumsum(sizes) - sizes, kept)
    row_class, column_class = np.divmod(np.repeat(np.arange(a * b), kept), b)
    row_rank, column_rank = np.divmod(within, columns.counts[column_class])
    matrix = np.zeros(shape, bool)
    i = rows.members[rows.starts[row_class] + row_rank]
    matrix[i, columns.members[columns.starts[column_class] + column_rank]] = True
    return matrix


def _read(reader: bits_.Reader, shape: tuple[int, int]) -> Blocks:
    a, b = reader.varint(_MAX_CLASSES), reader.varint(_MAX_CLASSES)
    if not a * b:
        raise TicketError("a mask's code has no row classes or no column classes")
    kept = np.array([reader.varint(shape[0] * shape[1]) for _ in range(a * b)], np.int64)
    lengths = [reader.varint(), reader.varint()]
    rows, columns = (
        symbols.decode(reader.take(length), count, limit)
        for length, count, limit in zip(lengths, shape, (a, b), strict=True)
    )
    return Blocks(rows, columns, kept.reshape(a, b))
