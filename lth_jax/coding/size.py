"""The size table of a ticket: actual, theoretical and dense sizes by leaf."""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lth_jax import text
from lth_jax.coding import codecs, entropy, reader, writer
from lth_jax.coding.manifest import Leaf
from lth_jax.coding.quantize import Precision
from lth_jax.types import Mask, Params, Prunable

DENSE_BITS = (32, 16, 8, 4)
"""The bits per value of dense sizes."""


class LeafSize(NamedTuple):
    """One row of the table; all lengths in bytes.

    Attributes:
      name: name of the leaf.
      shape: shape of the leaf.
      dtype: dtype of its values.
      prunable: whether it may be pruned.
      kept: number of kept entries.
      density: kept / size.
      codec: the code of its mask.
      mask: the size of the mask in the file.
      entropy: n·H(k/n).
      enumerative: log2 C(n, k).
      adaptive: the Krichevsky-Trofimov code length, without known counts.
      by_rows: bound with a density per row, side information included.
      by_columns: bound with a density per column, side information included.
      values: the size of the values in the file.
      values_entropy: the empirical entropy of the kept values.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    prunable: bool
    kept: int
    density: float
    codec: str
    mask: int
    entropy: float
    enumerative: float
    adaptive: float
    by_rows: float
    by_columns: float
    values: int
    values_entropy: float


class TotalSize(NamedTuple):
    """The table's last row; all lengths in bytes.

    Attributes:
      kept: entries kept of prunable leaves.
      size: entries of prunable leaves.
      density: kept / size.
      header: the file's header: names, shapes, hashes, provenance.
      mask: all masks.
      values: all values.
      file: the file.
      entropy_global: n·H(k/n) over all prunable entries together.
      entropy_layers: Σ nₗ·H(kₗ/nₗ).
      enumerative: Σ log2 C(nₗ, kₗ).
      adaptive: Σ of the Krichevsky-Trofimov code lengths.
      dense: size by bits per value of all entries of all leaves, without a mask.
      bits_per_value: bits of a kept value in the file; 0 without values.
      break_even_density: density below which mask and values at that precision are smaller than
        dense; None without values.
    """

    kept: int
    size: int
    density: float
    header: int
    mask: int
    values: int
    file: int
    entropy_global: float
    entropy_layers: float
    enumerative: float
    adaptive: float
    dense: dict[int, float]
    bits_per_value: float
    break_even_density: float | None


@text.with_short_repr
class SizeTable(NamedTuple):
    """The sizes of a ticket."""

    leaves: list[LeafSize]
    total: TotalSize


def table(data: bytes | str | Path, *, max_bytes: int = reader.MAX_BYTES) -> SizeTable:
    """The size table of a ticket.

    Args:
      data: a ticket file, or its bytes, as `encode` returns them.
      max_bytes: maximal bytes of decoded masks and values.

    Returns:
      Actual bytes, and the bounds of `entropy`, which are relative to their models. Bounds are for
      the mask only, `dense` for values only.

    Raises:
      TicketError: if the bytes are not a readable ticket.

    >>> mask = {"w": np.arange(4096).reshape(64, 64) % 16 == 0}
    >>> total = table(writer.encode(mask, prunable={"w": True})).total
    >>> round(total.entropy_layers, 1), total.dense[32]
    (172.7, 16384.0)
    """
    if isinstance(data, str | Path):
        data = Path(data).read_bytes()
    contents = reader.open_header(data, len(data), max_bytes)
    read = reader.from_memory(data)
    leaves = [
        _row(leaf, contents, reader.decode_leaf(leaf, contents, read))
        for leaf in contents.manifest.leaves
    ]
    return SizeTable(leaves, _total(leaves, contents))


def _row(leaf: Leaf, contents: reader.Contents, arrays: reader.LeafArrays) -> LeafSize:
    counts = [(leaf.size, leaf.kept)]
    kept = None if arrays.values is None else arrays.values[arrays.mask]
    return LeafSize(
        name=leaf.name,
        shape=leaf.shape,
        dtype=leaf.dtype,
        prunable=leaf.prunable,
        kept=leaf.kept,
        density=leaf.kept / leaf.size if leaf.size else 1.0,
        codec=leaf.codec,
        mask=contents.mask_bytes(leaf.name),
        entropy=entropy.layer_bits(counts) / 8,
        enumerative=entropy.enumerative_bits(counts) / 8,
        adaptive=entropy.kt_bits(counts) / 8,
        by_rows=sum(entropy.conditional_bits(arrays.mask, axis=0)) / 8,
        by_columns=sum(entropy.conditional_bits(arrays.mask, axis=1)) / 8,
        values=contents.value_bytes(leaf.name),
        values_entropy=0.0 if kept is None else entropy.empirical_bits(kept) / 8,
    )


def _total(leaves: list[LeafSize], contents: reader.Contents) -> TotalSize:
    prunable = [(math.prod(row.shape), row.kept) for row in leaves if row.prunable]
    size, kept = sum(n for n, _ in prunable), sum(k for _, k in prunable)
    values, stored = sum(row.values for row in leaves), sum(row.kept for row in leaves)
    entries = sum(math.prod(row.shape) for row in leaves)
    bits = 8 * values / stored if stored else 0.0
    return TotalSize(
        kept=kept,
        size=size,
        density=kept / size if size else 1.0,
        header=contents.header_bytes,
        mask=sum(row.mask for row in leaves),
        values=values,
        file=contents.file_bytes,
        entropy_global=entropy.global_bits(prunable) / 8,
        entropy_layers=entropy.layer_bits(prunable) / 8,
        enumerative=entropy.enumerative_bits(prunable) / 8,
        adaptive=entropy.kt_bits(prunable) / 8,
        dense={b: entries * b / 8 for b in DENSE_BITS},
        bits_per_value=bits,
        break_even_density=entropy.break_even_density(bits) if bits else None,
    )


class RatePoint(NamedTuple):
    """A ticket at one precision: its bytes and decoded parameters.

    Attributes:
      precision: precision of the stored values.
      mask: bytes of all masks.
      values: bytes of all values.
      file: bytes of the file.
      params: the decoded parameters, in the given structure.
    """

    precision: Precision
    mask: int
    values: int
    file: int
    params: Params


def rate_points(
    mask: Mask, params: Params, *, prunable: Prunable, precisions: Iterable[Precision]
) -> list[RatePoint]:
    """The rates of a rate-accuracy frontier: a ticket stored at several precisions.

    For points of the dense network, pass a mask that is all True.

    Args:
      mask: bool leaves.
      params: the values.
      prunable: Python booleans.
      precisions: precisions of the values of prunable leaves.

    Returns:
      A point for each precision, for evaluation by the caller.

    >>> from lth_jax.coding.quantize import exact, integers
    >>> mask, params = {"w": np.ones(9, bool)}, {"w": np.linspace(-1, 1, 9, dtype=np.float32)}
    >>> points = rate_points(
    ...     mask, params, prunable={"w": True}, precisions=[exact(), integers(4)]
    ... )
    >>> [point.values for point in points]
    [36, 10]
    """
    return [_rate_point(mask, params, prunable, precision) for precision in precisions]


def _rate_point(mask: Mask, params: Params, prunable: Prunable, precision: Precision) -> RatePoint:
    data = writer.encode(mask, params, prunable=prunable, precision=precision)
    return RatePoint(precision, *lengths(data), reader.decode(data, like=params).params)


class Lengths(NamedTuple):
    """Bytes of all masks, of all values, and of the file."""

    mask: int
    values: int
    file: int


def lengths(data: bytes) -> Lengths:
    """The bytes of masks, values and file, from the header.

    Raises:
      TicketError: if the bytes are not a readable ticket.

    >>> data = writer.encode({"w": np.eye(3, dtype=bool)}, prunable={"w": True})
    >>> lengths(data)[:2]
    (1, 0)
    """
    contents = reader.open_header(data, len(data), reader.MAX_BYTES)
    names = [leaf.name for leaf in contents.manifest.leaves]
    mask, values = (sum(map(f, names)) for f in (contents.mask_bytes, contents.value_bytes))
    return Lengths(mask, values, len(data))


def frontier(rates: np.ndarray, accuracies: np.ndarray) -> np.ndarray:
    """The Pareto-optimal points: no other one is as small and as accurate, and better in either.

    Args:
      rates: float[n], bytes or bits.
      accuracies: float[n].

    Returns:
      bool[n].

    >>> frontier(np.array([1, 2, 3]), np.array([0.5, 0.4, 0.9])).tolist()
    [True, False, True]
    """
    smaller = rates[:, None] <= rates
    better = accuracies[:, None] >= accuracies
    strictly = (rates[:, None] < rates) | (accuracies[:, None] > accuracies)
    return np.logical_not((smaller & better & strictly).any(axis=0))


def mask_bytes(mask: Mapping[str, ArrayLike]) -> dict[str, int]:
    """The bytes of each leaf's mask in its shortest code, and their sum as `"all layers"`.

    >>> mask_bytes({"a": np.ones((3, 3), bool)})
    {'a': 0, 'all layers': 0}
    """
    found = {name: len(codecs.encode(np.asarray(leaf, bool))[1]) for name, leaf in mask.items()}
    return {**found, "all layers": sum(found.values())}


def within_layer(leaf: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """A random mask with as many kept entries as a leaf's mask.

    >>> within_layer(np.eye(3, dtype=bool), np.random.default_rng(0)).sum().item()
    3
    """
    return rng.permutation(leaf.ravel()).reshape(leaf.shape)


def within_margins(
    leaf: NDArray[np.bool_], rng: np.random.Generator, *, trades: int = 20
) -> NDArray[np.bool_]:
    """A mask of a matrix with the same number of kept entries in each row and each column.

    Two random rows exchange entries at random among the columns that only one of them keeps (the
    curveball algorithm of Strona et al., 2014); in the limit of many trades all such masks are
    equally likely (Carstens, 2015).

    Args:
      leaf: the mask; the last axis indexes the columns, all others the rows.
      rng: source of the trades.
      trades: number of trades per row.

    >>> drawn = within_margins(np.eye(5, dtype=bool), np.random.default_rng(0))
    >>> drawn.sum(axis=0).tolist(), drawn.sum(axis=1).tolist()
    ([1, 1, 1, 1, 1], [1, 1, 1, 1, 1])
    """
    found = leaf.reshape(-1, leaf.shape[-1]).copy()
    for _ in range(trades * len(found) if len(found) > 1 else 0):
        one, other = rng.choice(len(found), 2, replace=False)
        apart = np.flatnonzero(found[one] != found[other])
        found[one, apart] = rng.permutation(found[one, apart])
        found[other, apart] = ~found[one, apart]
    return found.reshape(leaf.shape)


def order_saving(
    mask: Mapping[str, NDArray[np.bool_]],
    rng: np.random.Generator,
    *,
    shuffle: Callable[..., NDArray[np.bool_]] = within_layer,
) -> dict[str, float]:
    """The size saved by each leaf's mask compared with the shuffled mask, in per cent.

    It measures the structure of the mask beyond what the shuffle preserves.

    Args:
      mask: boolean leaves by name.
      rng: source of the shuffles.
      shuffle: `(leaf, rng) -> leaf`; `within_layer` preserves the density, `within_margins` the
        sums of rows and columns.

    Returns:
      By leaf, and `"all layers"` together; 0 for a mask of size 0, such as one that is all True.

    >>> order_saving({"a": np.ones((3, 3), bool)}, np.random.default_rng(0))
    {'a': 0.0, 'all layers': 0.0}
    """
    drawn = {name: shuffle(leaf, rng) for name, leaf in mask.items()}
    own, other = mask_bytes(mask), mask_bytes(drawn)
    return {name: 100 * (1 - own[name] / other[name]) if other[name] else 0.0 for name in own}
