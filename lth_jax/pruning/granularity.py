"""Granularities: what is removed together.

A granularity maps leaf scores to unit scores, and a mask of units back to a mask of leaves. The
scope counts weights at every granularity: it keeps the fewest best units that together hold
`count` weights or more (a unit's pruned weights count like the others), which for single weights is
exactly `count`.

Which axes of a kernel are inputs, outputs, window and stacked layers comes from `layouts`
(`lth_jax.layouts`). Every granularity but `weights` and `groups` sees a kernel as
`(layers, window, inputs, outputs)`: a stack is so many layers, each with units of its own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.layouts import Layout, Layouts, from_layers, require, resolve, to_layers
from lth_jax.pruning.checks import check_prunable
from lth_jax.types import Mask, Prunable, Scores

Reduction = Callable[..., jax.Array]
"""`(scores, axis, keepdims) -> scores`, as `jnp.sum`, `jnp.max`, `l1`, `l2`."""


class Units(NamedTuple):
    """What competes: trees of one structure.

    Attributes:
      scores: the score of each unit; leaves that are not prunable as they came.
      mask: which units are alive.
      sizes: per leaf the number of weights in each unit: one number, or an array like the scores.
      prunable: static Python booleans.
      layers: per leaf the number of stacked layers; above 1, they are the first axis of the scores.
    """

    scores: Scores
    mask: Mask
    sizes: Any
    prunable: Prunable
    layers: Any


class Granularity(NamedTuple):
    """A pair of pure functions, both vmappable.

    Attributes:
      to_units: `(scores, mask, *, prunable, layouts=None) -> Units`.
      to_leaves: `(unit_mask, mask, *, prunable, layouts=None) -> mask`; never keeps what `mask`
        does not.
    """

    to_units: Callable[..., Units]
    to_leaves: Callable[..., Mask]


def l1(scores: jax.Array, axis: Any = None, keepdims: bool = False) -> jax.Array:
    """Σ|s|. For scores that are never negative this is `jnp.sum`.

    >>> l1(jnp.array([3.0, -4.0])).item()
    7.0
    """
    return jnp.sum(jnp.abs(scores), axis=axis, keepdims=keepdims)


def l2(scores: jax.Array, axis: Any = None, keepdims: bool = False) -> jax.Array:
    """The Euclidean norm √Σs².

    >>> l2(jnp.array([3.0, -4.0])).item()
    5.0
    """
    return jnp.sqrt(jnp.sum(jnp.square(scores), axis=axis, keepdims=keepdims))


def _weights_to_units(
    scores: Scores, mask: Mask, *, prunable: Prunable, layouts: Layouts | None = None
) -> Units:
    stacks = _stacks(mask, layouts)
    layers = trees.map_named(
        lambda name, m: stacks[name].layers(m.shape) if name in stacks else 1, mask
    )

    def first(name: str, leaf: jax.Array) -> jax.Array:
        return to_layers(leaf, stacks[name]) if name in stacks else leaf

    sizes = jax.tree.map(lambda _: 1, mask)
    return Units(
        trees.map_named(first, scores), trees.map_named(first, mask), sizes, prunable, layers
    )


def _weights_to_leaves(
    unit_mask: Mask, mask: Mask, *, prunable: Prunable, layouts: Layouts | None = None
) -> Mask:
    del prunable
    stacks = _stacks(mask, layouts)

    def back(name: str, u: jax.Array, m: jax.Array) -> jax.Array:
        return from_layers(u, stacks[name], m.shape) if name in stacks else u

    return trees.map_named(back, unit_mask, mask)


def _stacks(mask: Mask, layouts: Layouts | None) -> dict[str, Layout]:
    """The layouts of the leaves that stack layers."""
    known = resolve(mask, layouts) if layouts else {}
    return {name: layout for name, layout in known.items() if layout.stacked}


weights = Granularity(_weights_to_units, _weights_to_leaves)
"""Every weight is a unit of its own."""


def rows(reduction: Reduction = jnp.sum) -> Granularity:
    """Everything that reads one input: the slices along the inputs.

    Args:
      reduction: how a unit's score comes from its weights'; pruned weights enter as 0. The default,
        `jnp.sum`, is L1 for scores that are never negative and respects the sign of those that are.

    >>> scores, mask = {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]])}, {"w": jnp.ones((2, 2), bool)}
    >>> rows().to_units(scores, mask, prunable={"w": True}).scores["w"].ravel().tolist()
    [3.0, 7.0]
    """
    return _grouped("rows", lambda leaf: (leaf.matrix, (0, 2)), reduction)


def columns(reduction: Reduction = jnp.sum) -> Granularity:
    """Everything that makes one output, a neuron or a channel: the slices along the outputs.

    Args:
      reduction: as in `rows`.

    >>> scores, mask = {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]])}, {"w": jnp.ones((2, 2), bool)}
    >>> columns().to_units(scores, mask, prunable={"w": True}).scores["w"].ravel().tolist()
    [4.0, 6.0]
    """
    return _grouped("columns", lambda leaf: (leaf.matrix, (0, 3)), reduction)


output_channels = columns
"""The filters of a convolution: its kernel's columns, by the name the literature uses."""


def kernels(reduction: Reduction = jnp.sum) -> Granularity:
    """The window between one input and one output channel; in a dense kernel a single weight.

    Args:
      reduction: as in `rows`.

    >>> from lth_jax.layouts import conv
    >>> scores, mask = {"w": jnp.ones((3, 3, 4, 8))}, {"w": jnp.ones((3, 3, 4, 8), bool)}
    >>> units = kernels().to_units(scores, mask, prunable={"w": True}, layouts={"w": conv(2)})
    >>> units.scores["w"].shape
    (1, 1, 4, 8)
    """
    return _grouped("kernels", lambda leaf: (leaf.matrix, (0, 2, 3)), reduction)


def heads(reduction: Reduction = jnp.sum) -> Granularity:
    """The slices of a kernel along its attention heads; for leaves whose layout has heads.

    The heads of query, key, value and output kernels are separate units here;
    `structure.find_groups` finds the heads of all four as one.

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

    def boxes(leaf: _Leaf) -> Boxes:
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


def blocks(height: int, width: int, reduction: Reduction = jnp.sum) -> Granularity:
    """Blocks of `height` inputs × `width` outputs, at each place of a window.

    Args:
      height: the block's extent along the inputs.
      width: its extent along the outputs.
      reduction: as in `rows`.

    Raises:
      ValueError: (from `to_units`) an extent does not divide a prunable leaf's inputs or outputs.

    >>> scores, mask = {"w": jnp.ones((4, 6))}, {"w": jnp.ones((4, 6), bool)}
    >>> blocks(2, 3).to_units(scores, mask, prunable={"w": True}).scores["w"].squeeze().tolist()
    [[6.0, 6.0], [6.0, 6.0]]
    """

    def boxes(leaf: _Leaf) -> Boxes:
        layers, window, inputs, outputs = leaf.matrix
        _check_divides(leaf, "inputs", height)
        _check_divides(leaf, "outputs", width)
        shape = (layers, window, inputs // height, height, outputs // width, width)
        return shape, (0, 1, 2, 4)

    return _grouped("blocks", boxes, reduction)


class _Leaf(NamedTuple):
    """A prunable leaf: its name, its shape, its layout."""

    name: str
    shape: tuple[int, ...]
    layout: Layout

    @property
    def matrix(self) -> tuple[int, int, int, int]:
        """Its shape as (layers, window, inputs, outputs)."""
        return self.layout.matrix_shape(self.shape)


Boxes = tuple[tuple[int, ...], tuple[int, ...]]
"""A shape that the matrix of a leaf is seen in, and the axes on which a unit shares its indices."""


def _check_divides(leaf: _Leaf, side: str, extent: int) -> None:
    size = leaf.matrix[2 if side == "inputs" else 3]
    if extent < 1 or size % extent:
        raise ValueError(
            f"'{leaf.name}' of shape {leaf.shape} has {size} {side}, which cannot be cut into "
            f"groups of {extent}; choose a divisor of {size}, or mark it as not prunable."
        )


def _leaves_of(purpose: str, mask: Mask, prunable: Prunable, layouts: Layouts | None) -> Any:
    """A tree of `_Leaf`, None where not prunable.

    Raises:
      ValueError: a prunable leaf has no layout.
    """
    check_prunable(prunable, mask)
    known = resolve(mask, layouts)

    def leaf(name: str, use: bool, m: jax.Array) -> _Leaf | None:
        return _Leaf(name, m.shape, require(known, name, m.shape, purpose)) if use else None

    return [
        leaf(name, use, m)
        for name, use, m in zip(
            trees.names(mask), jax.tree.leaves(prunable), jax.tree.leaves(mask), strict=True
        )
    ]


def _map_leaves(f: Callable[..., Any], leaves: Sequence[_Leaf | None], *rest: Any) -> Any:
    """`f(leaf, *arrays)` over trees, with the prunable leaves' descriptions beside them."""
    structure = jax.tree.structure(rest[0])
    columns_ = (jax.tree.leaves(tree) for tree in rest)
    return jax.tree.unflatten(structure, [f(*row) for row in zip(leaves, *columns_, strict=True)])


def _grouped(name: str, boxes: Callable[[_Leaf], Boxes], reduction: Reduction) -> Granularity:
    """Units that are equal boxes of a leaf.

    Seen in the shape `boxes(leaf)[0]`, a unit is what shares its indices on the axes
    `boxes(leaf)[1]`. The other axes are reduced but kept with extent 1, so that the way back is a
    broadcast.
    """
    purpose = f"The granularity `{name}`"

    def inner(shape: tuple[int, ...], unit_axes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(axis for axis in range(len(shape)) if axis not in unit_axes)

    def to_units(
        scores: Scores, mask: Mask, *, prunable: Prunable, layouts: Layouts | None = None
    ) -> Units:
        leaves = _leaves_of(purpose, mask, prunable, layouts)

        def unit_score(leaf: _Leaf | None, s: jax.Array, m: jax.Array) -> jax.Array:
            if leaf is None:
                return s
            shape, axes = boxes(leaf)
            alive = leaf.layout.to_matrix(jnp.where(m, s, jnp.zeros_like(s))).reshape(shape)
            return reduction(alive, axis=inner(shape, axes), keepdims=True)

        def unit_mask(leaf: _Leaf | None, m: jax.Array) -> jax.Array:
            if leaf is None:
                return m
            shape, axes = boxes(leaf)
            matrix = leaf.layout.to_matrix(m).reshape(shape)
            return jnp.any(matrix, axis=inner(shape, axes), keepdims=True)

        alive = _map_leaves(unit_mask, leaves, mask)
        return Units(
            _map_leaves(unit_score, leaves, scores, mask),
            alive,
            jax.tree.map(lambda m, u: m.size // u.size, mask, alive),
            prunable,
            _map_leaves(lambda leaf, m: leaf.matrix[0] if leaf else 1, leaves, mask),
        )

    def to_leaves(
        unit_mask: Mask, mask: Mask, *, prunable: Prunable, layouts: Layouts | None = None
    ) -> Mask:
        def leaf_mask(leaf: _Leaf | None, u: jax.Array, m: jax.Array) -> jax.Array:
            if leaf is None:
                return m
            matrix = leaf.layout.to_matrix(m)
            kept = (matrix.reshape(boxes(leaf)[0]) & u).reshape(matrix.shape)
            return leaf.layout.from_matrix(kept, m.shape)

        leaves = _leaves_of(purpose, mask, prunable, layouts)
        return _map_leaves(leaf_mask, leaves, unit_mask, mask)

    return Granularity(to_units, to_leaves)


def n_m(n: int, m: int, along: Literal["inputs", "outputs"] = "inputs") -> Granularity:
    """At most `n` kept of every `m` neighbours (2:4, 4:8, …), the best of them.

    The pattern decides first, then the scope keeps `count` of what the pattern leaves: a count of
    n/m of the weights or more gives exactly n:m, a smaller one is sparser than the pattern.

    Args:
      n: kept of each group, 1 ≤ n ≤ m.
      m: size of a group.
      along: which neighbours form a group; by default the inputs of one output, along which sparse
        tensor cores need the pattern (Mishra et al., 2021).

    Raises:
      ValueError: `n`, `m` or `along` out of range, or (from `to_units`) `m` does not divide the
        inputs (outputs) of a prunable leaf, or their axes are not known.

    >>> scores, mask = {"w": jnp.array([[1.0, 4.0, 3.0, 2.0]])}, {"w": jnp.ones((1, 4), bool)}
    >>> units = n_m(2, 4, along="outputs").to_units(scores, mask, prunable={"w": True})
    >>> units.mask["w"].tolist()
    [[False, True, True, False]]
    """
    if not 1 <= n <= m:
        raise ValueError(f"`n` must lie in [1, `m`], but n:m is {n}:{m}.")
    if along not in ("inputs", "outputs"):
        raise ValueError(f"`along` must be 'inputs' or 'outputs', but is {along!r}.")
    axis = 2 if along == "inputs" else 3

    def best(leaf: _Leaf | None, scores: jax.Array, mask: jax.Array) -> jax.Array:
        if leaf is None:
            return mask
        _check_divides(leaf, along, m)
        layers, window, inputs, outputs = leaf.matrix
        shape = [layers, window, inputs, outputs]
        shape[axis : axis + 1] = [shape[axis] // m, m]
        s, live = (leaf.layout.to_matrix(x).reshape(shape) for x in (scores, mask))
        kept = _best_of_axis(s, live, n, axis + 1)
        return leaf.layout.from_matrix(kept.reshape(leaf.matrix), leaf.shape)

    def to_units(
        scores: Scores, mask: Mask, *, prunable: Prunable, layouts: Layouts | None = None
    ) -> Units:
        leaves = _leaves_of("The granularity `n_m`", mask, prunable, layouts)
        eligible = _map_leaves(best, leaves, scores, mask)
        return _weights_to_units(scores, eligible, prunable=prunable, layouts=layouts)

    return Granularity(to_units, _weights_to_leaves)


def _best_of_axis(scores: jax.Array, live: jax.Array, n: int, axis: int) -> jax.Array:
    """The best `n` live entries along an axis: those that fewer than `n` others beat."""
    position = jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis)
    beaten_by = jnp.zeros(scores.shape, jnp.int32)
    for j in range(scores.shape[axis]):
        other = jax.lax.slice_in_dim(scores, j, j + 1, axis=axis)
        is_live = jax.lax.slice_in_dim(live, j, j + 1, axis=axis)
        beats = (other > scores) | ((other == scores) & (position > j))
        beaten_by += (is_live & beats).astype(jnp.int32)
    return live & (beaten_by < n)


def groups(
    members: Mapping[str, Mapping[int, np.ndarray]], reduction: Reduction = jnp.sum
) -> Granularity:
    """Groups found elsewhere, across leaves: for one, the removable units of a network.

    A group owns slices: all weights whose index on some axis of some leaf is the group's. Its score
    is the sum of its slices' reduced scores; a weight is kept if all groups that own it are. The
    units are one vector, so they compete in a global scope. A group's size is the number of weights
    in its slices, on each leaf only along the last axis that is wholly grouped, so that a weight
    between two groups is counted once.

    Args:
      members: leaf name → axis → integer array: the group (0, 1, …) of each index along that axis,
        −1 for none. Each prunable leaf needs an axis whose indices all have a group.
      reduction: `(scores, axis, keepdims)` over the other axes; pruned weights enter as 0.

    Raises:
      ValueError: a group without members; from `to_units`, a prunable leaf without a wholly grouped
        axis, an unknown leaf, or a length that differs from the leaf's axis.

    >>> scores = {"a": jnp.array([[1.0, 5.0]]), "b": jnp.array([[2.0], [7.0]])}
    >>> hidden = groups({"a": {1: np.array([0, 1])}, "b": {0: np.array([0, 1])}})
    >>> mask = jax.tree.map(lambda s: s > 0, scores)
    >>> hidden.to_units(scores, mask, prunable={"a": True, "b": True}).scores.tolist()
    [3.0, 12.0]
    """
    ids = {name: {a: np.asarray(i) for a, i in axes.items()} for name, axes in members.items()}
    used = np.unique(np.concatenate([i for axes in ids.values() for i in axes.values()]))
    number = int(used.max()) + 1
    if not set(range(number)) <= set(used.tolist()):
        raise ValueError(
            f"`members` must name every group from 0 to {number - 1}, but some are not."
        )

    def to_units(
        scores: Scores, mask: Mask, *, prunable: Prunable, layouts: Layouts | None = None
    ) -> Units:
        del layouts  # `members` names the axes
        sizes = _group_sizes(ids, number, mask, prunable)
        # One slot more than there are groups: for what has none.
        score = jnp.zeros(number + 1, jax.tree.leaves(scores)[0].dtype)
        alive = jnp.zeros(number + 1, bool)
        named = zip(trees.names(mask), jax.tree.leaves(scores), jax.tree.leaves(mask), strict=True)
        for name, s, m in named:
            for axis, of in ids.get(name, {}).items():
                others = tuple(a for a in range(m.ndim) if a != axis)
                slots = np.where(of < 0, number, of)
                kept = reduction(jnp.where(m, s, jnp.zeros_like(s)), axis=others, keepdims=False)
                score = score.at[slots].add(kept.astype(score.dtype))
                alive = alive.at[slots].max(jnp.any(m, axis=others))
        return Units(score[:number], alive[:number], sizes, True, 1)

    def to_leaves(
        unit_mask: Mask, mask: Mask, *, prunable: Prunable, layouts: Layouts | None = None
    ) -> Mask:
        del layouts

        def leaf_mask(name: str, use: bool, m: jax.Array) -> jax.Array:
            for axis, of in ids.get(name, {}).items() if use else ():
                kept = jnp.where(of < 0, True, unit_mask[of])
                m &= jnp.expand_dims(kept, [a for a in range(m.ndim) if a != axis])
            return m

        return trees.map_named(leaf_mask, prunable, mask)

    return Granularity(to_units, to_leaves)


def _group_sizes(ids: dict, number: int, mask: Mask, prunable: Prunable) -> np.ndarray:
    """The number of weights that each group is charged with (host)."""
    chosen = dict(zip(trees.names(mask), check_prunable(prunable, mask), strict=True))
    shapes = {name: m.shape for name, m in zip(chosen, jax.tree.leaves(mask), strict=True)}
    sizes = np.zeros(number, np.int32)
    for name, axes in ids.items():
        for axis, of in axes.items():
            if name not in shapes or of.shape != shapes[name][axis : axis + 1]:
                raise ValueError(
                    f"`members` has {len(of)} indices on axis {axis} of '{name}', "
                    f"whose shape is {shapes.get(name, 'unknown: there is no such leaf')}."
                )
    for name in (name for name, use in chosen.items() if use):
        wholly = [axis for axis, of in sorted(ids.get(name, {}).items()) if (of >= 0).all()]
        if not wholly:
            raise ValueError(
                f"`members` groups no axis of the prunable leaf '{name}' wholly; "
                "group it, or mark it as not prunable."
            )
        slice_size = np.prod(shapes[name]) // shapes[name][wholly[-1]]
        sizes += np.bincount(ids[name][wholly[-1]], minlength=number).astype(np.int32) * slice_size
    return sizes
