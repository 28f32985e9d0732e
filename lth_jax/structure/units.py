"""Conversion between unit masks and leaf masks, and scores of units."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.pruning.granularity import Granularity, Reduction
from lth_jax.pruning.granularity import groups as grouped
from lth_jax.structure.compact import UnitMask
from lth_jax.structure.groups import Group, Slot, Structure, compiled_with
from lth_jax.types import Mask, Prunable, Scores

UnitScores = dict[str, jax.Array]
"""Group name → float `[units]`; higher = keep."""


@compiled_with
def expand(structure: Structure, units: UnitMask) -> Mask:
    """The leaf mask of a unit mask: an entry is kept if all units that contain it are kept.

    Pure, so it can be vmapped over the unit masks of a population.

    Args:
      structure: from `find_groups`.
      units: for each group by name, bool `[units]`; absent groups are kept whole.

    Returns:
      A tree of bools shaped like the parameters. All leaves of a removed unit lose its slices,
      including biases and BatchNorm; `prunable` gives these leaves.

    Raises:
      KeyError: a name is not that of a group.

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.ones((2, 1)), "w": jnp.ones((3, 2))}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    >>> expand(found, {"v:0": jnp.array([True, False])})["v"].tolist()
    [[True], [False]]
    """
    kept: dict[str, list[tuple[int, jax.Array]]] = {}
    for name, flags in units.items():
        for slot in structure[name].slots:
            kept.setdefault(slot.leaf, []).append((slot.axis, _spread(structure, slot, flags)))

    def mask(name: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        full = jnp.ones(leaf.shape, bool)
        for axis, flags in kept.get(name, []):
            full &= jnp.expand_dims(flags, [d for d in range(len(leaf.shape)) if d != axis])
        return full

    return trees.map_named(mask, structure.params)


def _spread(structure: Structure, slot: Slot, flags: Any) -> jax.Array:
    """Bool along the slot's axis: the flag of each index's unit."""
    owner = _owners(structure, [(slot, 0)])
    return jnp.append(jnp.asarray(flags), True)[owner]


def _owners(structure: Structure, slots: Iterable[tuple[Slot, int]]) -> np.ndarray:
    """Int `[n]`: the unit number of each index of an axis (plus an offset), or -1."""
    pairs = list(slots)
    leaf, axis = pairs[0][0].leaf, pairs[0][0].axis
    owner = np.full(structure.shapes[leaf][axis], -1)
    for slot, offset in pairs:
        owner[slot.indices] = offset + np.arange(len(slot.indices))[:, None]
    return owner


@compiled_with
def units_of(structure: Structure, mask: Mask) -> dict[str, jax.Array]:
    """The unit mask of a leaf mask: a unit is kept unless one of its slices is empty.

    The inverse of `expand` if no layer is empty. Pure, so it can be vmapped.

    Args:
      structure: from `find_groups`.
      mask: bool leaves shaped like the parameters.

    Returns:
      Group name → bool `[units]`, True = kept, as `expand` takes it.

    Raises:
      ValueError: `mask` does not fit the analysed parameters.

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.ones((2, 1)), "w": jnp.ones((3, 2))}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    >>> mask = {"v": jnp.array([[True], [False]]), "w": jnp.ones((3, 2), bool)}
    >>> units_of(found, mask)["v:0"].tolist()
    [True, False]
    """
    trees.check_same_structure("mask", mask, "the analysed parameters", structure.params)
    leaves = trees.to_named(mask)

    def alive(slot: Slot) -> jax.Array:
        rows = jnp.moveaxis(leaves[slot.leaf], slot.axis, 0)[slot.indices]
        return rows.any(axis=tuple(range(1, rows.ndim)))

    return {
        group.name: jnp.all(jnp.stack([alive(slot) for slot in group.slots]), axis=0)
        for group in structure.groups
    }


def prunable(structure: Structure) -> Prunable:
    """The leaves with an axis whose indices all belong to units.

    Pass it as `prunable` to a pruner of units, so that biases are removed with their units.

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"b": jnp.ones(1), "v": jnp.ones((2, 1)), "w": jnp.ones((3, 2))}
    >>> apply = lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"] + p["b"]
    >>> prunable(find_groups(apply, params, jnp.ones((1, 3))))
    {'b': False, 'v': True, 'w': True}
    """
    whole = {leaf: any((ids >= 0).all() for ids in axes.values())
             for leaf, axes in members(structure).items()}  # fmt: skip
    return trees.map_named(lambda name, _: whole.get(name, False), structure.params)


def members(structure: Structure) -> dict[str, dict[int, np.ndarray]]:
    """Leaf name → axis → unit number of each index, or −1.

    Units are numbered consecutively over all groups.

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.ones((2, 1)), "w": jnp.ones((3, 2))}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    >>> members(found)
    {'v': {0: array([0, 1])}, 'w': {1: array([0, 1])}}
    """
    slots: dict[str, dict[int, list[tuple[Slot, int]]]] = {}
    offset = 0
    for group in structure.groups:
        for slot in group.slots:
            slots.setdefault(slot.leaf, {}).setdefault(slot.axis, []).append((slot, offset))
        offset += group.units
    return {
        leaf: {axis: _owners(structure, pairs) for axis, pairs in axes.items()}
        for leaf, axes in slots.items()
    }


def granularity(structure: Structure, reduction: Reduction = jnp.sum) -> Granularity:
    """A granularity of units for pruners: whole channels, heads or hidden units.

    Masks have the shapes of the leaves, so ladders, controls and populations work as for single
    weights. Use it with `prunable(structure)` and a scope of units: `by_group`, `across_groups` or
    `by_budget`.

    Args:
      structure: from `find_groups`.
      reduction: `(scores, axis, keepdims)` over each slice of a unit, such as `jnp.sum`, `jnp.mean`
        or `lth_jax.pruning.granularity.l2`; the results for slices are added.

    Returns:
      A granularity whose units are one vector `[units]` over all groups, in their order. The size
      of a unit is the number of its weights.

    Raises:
      ValueError: the structure has no groups; from `to_units`, the mask does not fit the analysed
        parameters, a prunable leaf has no axis whose indices all belong to units, or `prunable` has
        another structure or no True leaf.
      TypeError: from `to_units`, a leaf of `prunable` is not a Python boolean.

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.array([[1.0], [2.0]]), "w": jnp.array([[3.0, 4.0]])}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 1)))
    >>> mask, by_unit = jax.tree.map(lambda p: p > 0, params), granularity(found)
    >>> by_unit.to_units(params, mask, prunable=prunable(found)).scores.tolist()
    [4.0, 6.0]
    """
    return grouped(members(structure), reduction)


def score_units(
    structure: Structure, scores: Scores, reduce: Callable[..., jax.Array] = jnp.sum
) -> UnitScores:
    """Scores of units from scores of weights, each weight of a unit counted once.

    With `jnp.sum` of squared weights this is the group magnitude of DepGraph (Fang et al., 2023);
    with `jnp.mean` units of different sizes become comparable.

    Args:
      structure: from `find_groups`.
      scores: float leaves shaped like the parameters, from a criterion.
      reduce: called as `reduce(entries, axis=-1, where=counted)` with entries
        float `[units, entries]`.

    Returns:
      For each group by name, float `[units]`.

    Raises:
      ValueError: `scores` does not fit the structure.

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.ones((2, 1)), "w": jnp.ones((3, 2))}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    >>> score_units(found, params)["v:0"].tolist()
    [4.0, 4.0]
    """
    trees.check_same_structure("scores", scores, "the analysed parameters", structure.params)
    leaves = dict(zip(trees.names(scores), jax.tree.leaves(scores), strict=True))
    return {g.name: _score_group(g, leaves, reduce) for g in structure.groups}


def _score_group(
    group: Group, leaves: Mapping[str, jax.Array], reduce: Callable[..., jax.Array]
) -> jax.Array:
    entries, counted = [], []
    for k, slot in enumerate(group.slots):
        rows = jnp.moveaxis(leaves[slot.leaf], slot.axis, 0)[slot.indices]
        earlier = [s for s in group.slots[:k] if s.leaf == slot.leaf]
        new = _not_in(earlier, slot, rows.shape)
        entries.append(rows.reshape(group.units, -1))
        counted.append(new.reshape(group.units, -1))
    return reduce(jnp.concatenate(entries, 1), axis=-1, where=np.concatenate(counted, 1))


def _not_in(earlier: list[Slot], slot: Slot, shape: tuple[int, ...]) -> np.ndarray:
    """Bool `[units, k, ...]`: entries of a slot's slices in no earlier slot of the unit."""
    new = np.ones(shape, bool)
    for other in earlier:
        # In `rows` the slot's axis comes first, after the axis of units.
        place = other.axis + 1 if other.axis > slot.axis else other.axis + 2
        mine = (np.arange(shape[place])[None, :, None] == other.indices[:, None, :]).any(-1)
        spread = [shape[0] if d == 0 else shape[place] if d == place else 1
                  for d in range(len(shape))]  # fmt: skip
        new &= ~mine.reshape(spread)
    return new
