"""Units that are equal boxes of a kernel: rows, columns, windows, heads, blocks."""

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lth_jax import trees
from lth_jax.layouts import Layout, Layouts, require, resolve
from lth_jax.pruning.checks import check_prunable
from lth_jax.pruning.compiled import shared
from lth_jax.pruning.granularity.units import GRANULARITIES, Granularity, Reduction, Units
from lth_jax.types import Mask, Prunable, Scores


@shared
def rows(reduction: Reduction = jnp.sum) -> Granularity:
    """One unit for each input: the weights that multiply it.

    Args:
      reduction: computes a unit's score from those of its weights; pruned weights count as 0. The
        default, `jnp.sum`, equals the L1 norm where scores are not negative.

    Raises:
      ValueError: (from `to_units`) a prunable leaf has no layout.

    >>> scores, mask = {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]])}, {"w": jnp.ones((2, 2), bool)}
    >>> rows().to_units(scores, mask, prunable={"w": True}).scores["w"].ravel().tolist()
    [3.0, 7.0]
    """
    return _grouped("rows", lambda leaf: (leaf.matrix, (0, 2)), reduction)


@shared
def columns(reduction: Reduction = jnp.sum) -> Granularity:
    """One unit for each output, a neuron or channel: the weights that produce it.

    Args:
      reduction: as in `rows`.

    Raises:
      ValueError: as in `rows`.

    >>> scores, mask = {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]])}, {"w": jnp.ones((2, 2), bool)}
    >>> columns().to_units(scores, mask, prunable={"w": True}).scores["w"].ravel().tolist()
    [4.0, 6.0]
    """
    return _grouped("columns", lambda leaf: (leaf.matrix, (0, 3)), reduction)


output_channels = columns
"""The filters of a convolution, which are the columns of its kernel; an alias of `columns`."""


@shared
def kernels(reduction: Reduction = jnp.sum) -> Granularity:
    """One unit for each pair of an input and an output channel: the window between them.

    In a dense kernel this is a single weight.

    Args:
      reduction: as in `rows`.

    Raises:
      ValueError: as in `rows`.

    >>> from lth_jax.layouts import conv
    >>> scores, mask = {"w": jnp.ones((3, 3, 4, 8))}, {"w": jnp.ones((3, 3, 4, 8), bool)}
    >>> units = kernels().to_units(scores, mask, prunable={"w": True}, layouts={"w": conv(2)})
    >>> units.scores["w"].shape
    (1, 1, 4, 8)
    """
    return _grouped("kernels", lambda leaf: (leaf.matrix, (0, 2, 3)), reduction)


@shared
def heads(reduction: Reduction = jnp.sum) -> Granularity:
    """The slices of a kernel along its attention heads; for leaves whose layout has heads.

    The heads of query, key, value and output kernels are separate units; `structure.find_groups`
    joins the four slices of a head in one unit.

    Args:
      reduction: as in `rows`.

    Raises:
      ValueError: (from `to_units`) a prunable leaf has no heads.

    >>> query = Layout(inputs=(0,), outputs=(1, 2), heads=(1,))
    >>> scores, mask = {"q": jnp.ones((8, 2, 4))}, {"q": jnp.ones((8, 2, 4), bool)}
    >>> units = heads().to_units(scores, mask, prunable={"q": True}, layouts={"q": query})
    >>> units.scores["q"].ravel().tolist()
    [32.0, 32.0]
    """

    def boxes(leaf: Leaf) -> Boxes:
        layers, window, inputs, outputs = leaf.matrix
        number = math.prod(leaf.shape[axis] for axis in leaf.layout.heads)
        for side, axes in ((2, leaf.layout.inputs), (3, leaf.layout.outputs)):
            if leaf.layout.heads and axes[: len(leaf.layout.heads)] == leaf.layout.heads:
                split = (layers, window, inputs, outputs)
                return (*split[:side], number, split[side] // number, *split[side + 1 :]), (0, side)
        raise ValueError(
            f"`heads` needs kernels whose first input or output axes are heads, but '{leaf.name}' "
            f"has {leaf.layout}; mark it as not prunable."
        )

    return _grouped("heads", boxes, reduction)


@shared
def blocks(height: int, width: int, reduction: Reduction = jnp.sum) -> Granularity:
    """Blocks of `height` inputs × `width` outputs, at each place of a window.

    Args:
      height: the block's extent along the inputs.
      width: its extent along the outputs.
      reduction: as in `rows`.

    Raises:
      ValueError: an extent is not a whole number of at least 1; from `to_units`, if it does not
        divide a prunable leaf's inputs or outputs.

    >>> scores, mask = {"w": jnp.ones((4, 6))}, {"w": jnp.ones((4, 6), bool)}
    >>> blocks(2, 3).to_units(scores, mask, prunable={"w": True}).scores["w"].squeeze().tolist()
    [[6.0, 6.0], [6.0, 6.0]]
    """
    for name, extent in (("height", height), ("width", width)):
        whole = isinstance(extent, numbers.Integral) and not isinstance(extent, bool)
        if not whole or extent < 1:
            raise ValueError(f"`{name}` must be a whole number of at least 1, but is {extent!r}.")

    def boxes(leaf: Leaf) -> Boxes:
        layers, window, inputs, outputs = leaf.matrix
        check_divides(leaf, "inputs", height)
        check_divides(leaf, "outputs", width)
        shape = (layers, window, inputs // height, height, outputs // width, width)
        return shape, (0, 1, 2, 4)

    return _grouped("blocks", boxes, reduction)


class Leaf(NamedTuple):
    """A prunable leaf: its name, its shape, its layout."""

    name: str
    shape: tuple[int, ...]
    layout: Layout

    @property
    def matrix(self) -> tuple[int, int, int, int]:
        """Its shape as (layers, window, inputs, outputs)."""
        return self.layout.matrix_shape(self.shape)


Boxes = tuple[tuple[int, ...], tuple[int, ...]]
"""A shape to which the matrix of a leaf is reshaped, and the axes that index its units."""


def check_divides(leaf: Leaf, side: str, extent: int) -> None:
    """Raises `ValueError` unless `extent` divides a leaf's inputs or outputs."""
    size = leaf.matrix[2 if side == "inputs" else 3]
    if extent < 1 or size % extent:
        raise ValueError(
            f"'{leaf.name}' of shape {leaf.shape} has {size} {side}, which cannot be cut into "
            f"groups of {extent}; choose a divisor of {size}, or mark it as not prunable."
        )


def leaves_of(purpose: str, mask: Mask, prunable: Prunable, layouts: Layouts | None) -> Any:
    """A `Leaf` for each leaf of the mask, None where not prunable.

    Raises:
      ValueError: a prunable leaf has no layout.
    """
    check_prunable(prunable, mask)
    known = resolve(mask, layouts)

    def leaf(name: str, use: bool, m: jax.Array) -> Leaf | None:
        return Leaf(name, m.shape, require(known, name, m.shape, purpose)) if use else None

    return [
        leaf(name, use, m)
        for name, use, m in zip(
            trees.names(mask), jax.tree.leaves(prunable), jax.tree.leaves(mask), strict=True
        )
    ]


def map_leaves(f: Callable[..., Any], leaves: Sequence[Leaf | None], *rest: Any) -> Any:
    """`f(leaf, *arrays)` over trees, with the prunable leaves' descriptions beside them."""
    structure = jax.tree.structure(rest[0])
    columns_ = (jax.tree.leaves(tree) for tree in rest)
    return jax.tree.unflatten(structure, [f(*row) for row in zip(leaves, *columns_, strict=True)])


def _grouped(name: str, boxes: Callable[[Leaf], Boxes], reduction: Reduction) -> Granularity:
    """Units that are equal boxes of a leaf.

    The matrix of a leaf is reshaped to `boxes(leaf)[0]`, and the axes `boxes(leaf)[1]` index its
    units. The other axes are reduced to extent 1, so that the inverse is a broadcast.
    """
    purpose = f"The granularity `{name}`"

    def inner(shape: tuple[int, ...], unit_axes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(axis for axis in range(len(shape)) if axis not in unit_axes)

    def to_units(
        scores: Scores, mask: Mask, *, prunable: Prunable, layouts: Layouts | None = None
    ) -> Units:
        leaves = leaves_of(purpose, mask, prunable, layouts)

        def unit_score(leaf: Leaf | None, s: jax.Array, m: jax.Array) -> jax.Array:
            if leaf is None:
                return s
            shape, axes = boxes(leaf)
            alive = leaf.layout.to_matrix(jnp.where(m, s, jnp.zeros_like(s))).reshape(shape)
            return reduction(alive, axis=inner(shape, axes), keepdims=True)

        def unit_mask(leaf: Leaf | None, m: jax.Array) -> jax.Array:
            if leaf is None:
                return m
            shape, axes = boxes(leaf)
            matrix = leaf.layout.to_matrix(m).reshape(shape)
            return jnp.any(matrix, axis=inner(shape, axes), keepdims=True)

        alive = map_leaves(unit_mask, leaves, mask)
        return Units(
            map_leaves(unit_score, leaves, scores, mask),
            alive,
            jax.tree.map(lambda m, u: m.size // u.size, mask, alive),
            prunable,
            map_leaves(lambda leaf, m: leaf.matrix[0] if leaf else 1, leaves, mask),
        )

    def to_leaves(
        unit_mask: Mask, mask: Mask, *, prunable: Prunable, layouts: Layouts | None = None
    ) -> Mask:
        def leaf_mask(leaf: Leaf | None, u: jax.Array, m: jax.Array) -> jax.Array:
            if leaf is None:
                return m
            matrix = leaf.layout.to_matrix(m)
            kept = (matrix.reshape(boxes(leaf)[0]) & u).reshape(matrix.shape)
            return leaf.layout.from_matrix(kept, m.shape)

        leaves = leaves_of(purpose, mask, prunable, layouts)
        return map_leaves(leaf_mask, leaves, unit_mask, mask)

    return Granularity(to_units, to_leaves, name)


for _granularity in (rows, columns, kernels):
    GRANULARITIES.register(_granularity.__name__, _granularity)
