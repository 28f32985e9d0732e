"""Units that consist of slices of several leaves."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.layouts import Layouts
from lth_jax.pruning.checks import check_prunable
from lth_jax.pruning.compiled import shared
from lth_jax.pruning.granularity.units import Granularity, Reduction, Units
from lth_jax.types import Mask, Prunable, Scores


def groups(
    members: Mapping[str, Mapping[int, np.ndarray]], reduction: Reduction = jnp.sum
) -> Granularity:
    """Units that are groups of slices across leaves, such as the removable units of a network.

    A group consists of slices: the weights at the group's indices on an axis of a leaf. Its score
    is the sum of the reduced scores of its slices. A weight is kept if all groups that contain it
    are kept. The units are one vector, so they compete in a global scope. A group's size is the
    number of weights in its slices. On each leaf only the last axis whose indices all have a group
    is used, so that a weight in two groups is counted once.

    Args:
      members: leaf name → axis → integer array with the group (0, 1, …) of each index along that
        axis, or −1. Each prunable leaf needs an axis whose indices all have a group.
      reduction: `(scores, axis, keepdims)` over the other axes; pruned weights enter as 0.

    Raises:
      ValueError: `members` names no axis, or a group has no members; from `to_units`, a prunable
        leaf has no axis whose indices all have a group, a leaf is unknown, or an array has another
        length than the axis.

    >>> scores = {"a": jnp.array([[1.0, 5.0]]), "b": jnp.array([[2.0], [7.0]])}
    >>> hidden = groups({"a": {1: np.array([0, 1])}, "b": {0: np.array([0, 1])}})
    >>> mask = jax.tree.map(lambda s: s > 0, scores)
    >>> hidden.to_units(scores, mask, prunable={"a": True, "b": True}).scores.tolist()
    [3.0, 12.0]
    """
    axes = [(name, axis, ids) for name, of in members.items() for axis, ids in of.items()]
    if not axes:
        raise ValueError("`members` names no axis; it must name the groups of at least one.")
    return _groups(tuple((n, a, tuple(np.asarray(ids).tolist())) for n, a, ids in axes), reduction)


@shared  # equal groups share their pruners
def _groups(
    axes: tuple[tuple[str, int, tuple[int, ...]], ...], reduction: Reduction
) -> Granularity:
    ids: dict[str, dict[int, np.ndarray]] = {}
    for name, axis, groups_of in axes:
        ids.setdefault(name, {})[axis] = np.array(groups_of, int)
    used = np.unique(np.concatenate([of for found in ids.values() for of in found.values()]))
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
        # The last entry collects the indices without a group.
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

    return Granularity(to_units, to_leaves, f"{number} groups")


def _group_sizes(
    ids: dict[str, dict[int, np.ndarray]], number: int, mask: Mask, prunable: Prunable
) -> np.ndarray:
    """The number of weights that count for each group (host)."""
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
                "`members` must assign every index of at least one axis of the prunable leaf "
                f"'{name}' to a group; add them, or mark the leaf as not prunable."
            )
        slice_size = np.prod(shapes[name]) // shapes[name][wholly[-1]]
        sizes += np.bincount(ids[name][wholly[-1]], minlength=number).astype(np.int32) * slice_size
    return sizes
