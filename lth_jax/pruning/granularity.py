"""Granularities: what is removed together.

A granularity maps leaf scores to unit scores, and a mask of units back to a mask of leaves. The
scope counts weights at every granularity: it keeps the fewest best units that together hold
`count` weights or more (a unit's pruned weights count like the others), which for single weights is
exactly `count`.

Axes follow Flax: a dense kernel is (inputs, outputs), a convolution's (height, width, inputs,
outputs).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
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
    """

    scores: Scores
    mask: Mask
    sizes: Any
    prunable: Prunable


class Granularity(NamedTuple):
    """A pair of pure functions, both vmappable.

    Attributes:
      to_units: `(scores, mask, *, prunable) -> Units`.
      to_leaves: `(unit_mask, mask, *, prunable) -> mask`; never keeps what `mask` does not.
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


def _weights_to_units(scores: Scores, mask: Mask, *, prunable: Prunable) -> Units:
    return Units(scores, mask, jax.tree.map(lambda _: 1, mask), prunable)


def _weights_to_leaves(unit_mask: Mask, mask: Mask, *, prunable: Prunable) -> Mask:
    del mask, prunable
    return unit_mask


weights = Granularity(_weights_to_units, _weights_to_leaves)
"""Every weight is a unit of its own."""


def rows(reduction: Reduction = jnp.sum) -> Granularity:
    """Everything that reads one input: the slices along the last axis but one.

    Args:
      reduction: how a unit's score comes from its weights'; pruned weights enter as 0. The default,
        `jnp.sum`, is L1 for scores that are never negative and respects the sign of those that are.

    >>> scores, mask = {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]])}, {"w": jnp.ones((2, 2), bool)}
    >>> rows().to_units(scores, mask, prunable={"w": True}).scores["w"].tolist()
    [[3.0], [7.0]]
    """
    return _grouped(_whole, lambda ndim: (ndim - 2,), reduction)


def columns(reduction: Reduction = jnp.sum) -> Granularity:
    """Everything that makes one output, a neuron or a channel: the slices along the last axis.

    Args:
      reduction: as in `rows`.

    >>> scores, mask = {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]])}, {"w": jnp.ones((2, 2), bool)}
    >>> columns().to_units(scores, mask, prunable={"w": True}).scores["w"].tolist()
    [[4.0, 6.0]]
    """
    return _grouped(_whole, lambda ndim: (ndim - 1,), reduction)


output_channels = columns
"""The filters of a convolution: its kernel's columns, by the name the literature uses."""


def kernels(reduction: Reduction = jnp.sum) -> Granularity:
    """The two-dimensional (height, width) kernel between one input and one output channel.

    In a dense kernel such a slice is a single weight.

    Args:
      reduction: as in `rows`.

    >>> scores, mask = {"w": jnp.ones((3, 3, 4, 8))}, {"w": jnp.ones((3, 3, 4, 8), bool)}
    >>> kernels().to_units(scores, mask, prunable={"w": True}).scores["w"].shape
    (1, 1, 4, 8)
    """
    return _grouped(_whole, lambda ndim: (ndim - 2, ndim - 1), reduction)


def blocks(height: int, width: int, reduction: Reduction = jnp.sum) -> Granularity:
    """Blocks of `height` × `width` on the last two axes.

    Args:
      height: the block's extent on the last axis but one.
      width: its extent on the last axis.
      reduction: as in `rows`.

    Raises:
      ValueError: (from `to_units`) an extent does not divide a prunable leaf's axis.

    >>> scores, mask = {"w": jnp.ones((4, 6))}, {"w": jnp.ones((4, 6), bool)}
    >>> blocks(2, 3).to_units(scores, mask, prunable={"w": True}).scores["w"].squeeze().tolist()
    [[6.0, 6.0], [6.0, 6.0]]
    """

    def view(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        high, wide = _whole(name, shape)[-2:]
        _check_divides(name, shape, len(shape) - 2, height)
        _check_divides(name, shape, len(shape) - 1, width)
        return (*shape[:-2], high // height, height, wide // width, width)

    return _grouped(view, lambda ndim: (*range(ndim - 4), ndim - 4, ndim - 2), reduction)


def _whole(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) < 2:
        raise ValueError(
            f"`prunable` includes '{name}' of shape {shape}, but this granularity needs two axes "
            "or more; mark it as not prunable."
        )
    return shape


def _check_divides(name: str, shape: tuple[int, ...], axis: int, extent: int) -> None:
    if extent < 1 or shape[axis] % extent:
        raise ValueError(
            f"'{name}' of shape {shape} cannot be cut into groups of {extent} along axis {axis}; "
            f"choose a divisor of {shape[axis]} or another axis, or mark it as not prunable."
        )


def _grouped(
    view: Callable[[str, tuple[int, ...]], tuple[int, ...]],
    unit_axes: Callable[[int], tuple[int, ...]],
    reduction: Reduction,
) -> Granularity:
    """Units that are equal boxes of a leaf.

    Seen in the shape `view(name, shape)`, a unit is what shares its indices on `unit_axes(ndim)`.
    The other axes are reduced but kept with extent 1, so that the way back is a broadcast.
    """

    def inner_axes(ndim: int) -> tuple[int, ...]:
        return tuple(axis for axis in range(ndim) if axis not in unit_axes(ndim))

    def to_units(scores: Scores, mask: Mask, *, prunable: Prunable) -> Units:
        check_prunable(prunable, mask)

        def unit_score(name: str, use: bool, s: jax.Array, m: jax.Array) -> jax.Array:
            if not use:
                return s
            shape = view(name, s.shape)
            alive = jnp.where(m, s, jnp.zeros_like(s)).reshape(shape)
            return reduction(alive, axis=inner_axes(len(shape)), keepdims=True)

        def unit_mask(name: str, use: bool, m: jax.Array) -> jax.Array:
            shape = view(name, m.shape) if use else m.shape
            axes = inner_axes(len(shape)) if use else ()
            return jnp.any(m.reshape(shape), axis=axes, keepdims=True)

        alive = trees.map_named(unit_mask, prunable, mask)
        return Units(
            trees.map_named(unit_score, prunable, scores, mask),
            alive,
            jax.tree.map(lambda m, u: m.size // u.size, mask, alive),
            prunable,
        )

    def to_leaves(unit_mask: Mask, mask: Mask, *, prunable: Prunable) -> Mask:
        def leaf_mask(name: str, use: bool, u: jax.Array, m: jax.Array) -> jax.Array:
            return (m.reshape(view(name, m.shape)) & u).reshape(m.shape) if use else m

        return trees.map_named(leaf_mask, prunable, unit_mask, mask)

    return Granularity(to_units, to_leaves)


def n_m(n: int, m: int, axis: int = -2) -> Granularity:
    """At most `n` kept of every `m` neighbours along `axis` (2:4, 4:8, …), the best of them.

    The pattern decides first, then the scope keeps `count` of what the pattern leaves: a count of
    n/m of the weights or more gives exactly n:m, a smaller one is sparser than the pattern.

    Args:
      n: kept of each group, 1 ≤ n ≤ m.
      m: size of a group.
      axis: the axis along which neighbours are grouped; by default the inputs, along which sparse
        tensor cores want the pattern (Mishra et al., 2021).

    Raises:
      ValueError: `n` or `m` out of range, or (from `to_units`) `m` does not divide the axis of a
        prunable leaf.

    >>> scores, mask = {"w": jnp.array([[1.0, 4.0, 3.0, 2.0]])}, {"w": jnp.ones((1, 4), bool)}
    >>> n_m(2, 4, axis=-1).to_units(scores, mask, prunable={"w": True}).mask["w"].tolist()
    [[False, True, True, False]]
    """
    if not 1 <= n <= m:
        raise ValueError(f"`n` must lie in [1, `m`], but n:m is {n}:{m}.")

    def best(name: str, use: bool, scores: jax.Array, mask: jax.Array) -> jax.Array:
        if not use:
            return mask
        at = axis % len(_whole(name, scores.shape))
        _check_divides(name, scores.shape, at, m)
        shape = (*scores.shape[:at], scores.shape[at] // m, m, *scores.shape[at + 1 :])
        return _best_of_axis(scores.reshape(shape), mask.reshape(shape), n, at + 1).reshape(
            scores.shape
        )

    def to_units(scores: Scores, mask: Mask, *, prunable: Prunable) -> Units:
        check_prunable(prunable, mask)
        eligible = trees.map_named(best, prunable, scores, mask)
        return _weights_to_units(scores, eligible, prunable=prunable)

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

    def to_units(scores: Scores, mask: Mask, *, prunable: Prunable) -> Units:
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
        return Units(score[:number], alive[:number], sizes, True)

    def to_leaves(unit_mask: Mask, mask: Mask, *, prunable: Prunable) -> Mask:
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
