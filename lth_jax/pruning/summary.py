"""The weights that a mask keeps, as a table by leaf."""

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lth_jax import text, trees
from lth_jax.pruning.checks import check_mask, check_params, check_prunable
from lth_jax.pruning.compiled import compiled
from lth_jax.pruning.masks import prunable_leaves
from lth_jax.types import Mask, Params, Prunable

SHOWN = 12
"""Leaves that a `repr` shows; `print` shows all."""


class SummaryRow(NamedTuple):
    """One line of a summary.

    Attributes:
      name: name of the leaf.
      shape: shape of the leaf.
      size: its number of weights.
      kept: number of weights that the mask keeps.
      prunable: whether any of them may be pruned.
      bytes: memory of its values, pruned ones included.
    """

    name: str
    shape: tuple[int, ...]
    size: int
    kept: int
    prunable: bool
    bytes: int

    @property
    def density(self) -> float:
        """The fraction kept."""
        return self.kept / self.size


@dataclass(frozen=True)
class Summary:
    """The rows of all leaves, in the order of `jax.tree.leaves`; iterable.

    Attributes:
      rows: one for each leaf.
    """

    rows: tuple[SummaryRow, ...]

    @property
    def total(self) -> SummaryRow:
        """The sum of the prunable leaves, to which densities and counts refer."""
        return self._sum("prunable", [row for row in self.rows if row.prunable])

    def __iter__(self) -> Iterator[SummaryRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        rows = self._cells()
        if len(rows) > SHOWN + 3:
            more = (f"… {len(rows) - SHOWN - 2} more leaves", *[""] * (len(self._HEADER) - 1))
            rows = [*rows[:SHOWN], more, *rows[-2:]]
        return text.table(self._HEADER, rows)

    def __str__(self) -> str:
        return text.table(self._HEADER, self._cells(), limit=len(self.rows) + 2)

    def _repr_html_(self) -> str:
        def line(cells: tuple[str, ...], tag: str) -> str:
            inner = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
            return f"<tr>{inner}</tr>"

        body = "".join(line(cells, "td") for cells in self._cells())
        return f"<table><thead>{line(self._HEADER, 'th')}</thead><tbody>{body}</tbody></table>"

    _HEADER = ("leaf", "shape", "size", "kept", "density", "bytes")

    def _cells(self) -> list[tuple[str, ...]]:
        everything = self._sum("all", list(self.rows))
        return [
            (
                row.name,
                "×".join(map(str, row.shape)),
                f"{row.size:,}",
                f"{row.kept:,}",
                f"{100 * row.density:.4g} %" if row.prunable else "–",
                f"{row.bytes:,}",
            )
            for row in (*self.rows, self.total, everything._replace(prunable=True))
        ]

    @staticmethod
    def _sum(name: str, rows: list[SummaryRow]) -> SummaryRow:
        size, kept, total = (sum(getattr(r, n) for r in rows) for n in ("size", "kept", "bytes"))
        return SummaryRow(name, (), size, kept, any(row.prunable for row in rows), total)


def summary(
    params: Params, mask: Mask | None = None, *, prunable: Prunable | None = None
) -> Summary:
    """A table by leaf: name, shape, size, how many weights the mask keeps, density, and bytes.

    Reads values, so call it outside of `jax.jit`.

    Args:
      params: tree of floating-point arrays, or of `jax.ShapeDtypeStruct`.
      mask: boolean leaves like the parameters; by default all True.
      prunable: static tree of Python booleans; `prunable_leaves(params)` by default.

    Raises:
      ValueError: `mask` or `prunable` has another structure or another shape somewhere.
      TypeError: a leaf of `params` is not floating-point, or one of `mask` not boolean.

    >>> params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    >>> print(summary(params, jax.tree.map(lambda p: p.cumsum().reshape(p.shape) < 4, params)))
    leaf      shape  size  kept  density  bytes
    bias      3         3     3        –     12
    kernel    2×3       6     3     50 %     24
    prunable            6     3     50 %     24
    all                 9     6  66.67 %     36
    """
    check_params(params)
    if mask is not None:
        check_mask(mask, params)
    use = check_prunable(prunable_leaves(params) if prunable is None else prunable, params)
    leaves = jax.tree.leaves(params)
    shapes = [tuple(leaf.shape) for leaf in leaves]
    sizes = [math.prod(shape) for shape in shapes]
    kept = sizes if mask is None else [int(k) for k in _kept(jax.tree.leaves(mask))]
    bytes = [n * leaf.dtype.itemsize for n, leaf in zip(sizes, leaves, strict=True)]
    columns = trees.names(params), shapes, sizes, kept, use, bytes
    return Summary(tuple(map(SummaryRow, *columns)))


@compiled
def _kept(leaves: list[jax.Array]) -> list[jax.Array]:
    return [jnp.sum(leaf, dtype=jnp.int32) for leaf in leaves]
