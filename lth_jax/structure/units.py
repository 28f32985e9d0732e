"""Scores of units, choices among them, and their way to leaf masks and back."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.pruning import scopes
from lth_jax.pruning.granularity import Granularity, Reduction
from lth_jax.pruning.granularity import groups as grouped
from lth_jax.structure.compact import UnitMask
from lth_jax.structure.groups import Group, Slot, Structure
from lth_jax.types import Mask, Prunable, Scores

UnitScores = dict[str, jax.Array]
"""For each group by name, float `[units]`; higher = keep."""


def expand(structure: Structure, units: UnitMask) -> Mask:
    """The leaf mask of a unit mask: an entry is kept if all units that own it are.

    Pure, so it can be vmapped over the unit masks of a population.

    Args:
      structure: from `find_groups`.
      units: for each group by name, bool `[units]`; absent groups are kept whole.

    Returns:
      A tree of bools shaped like the parameters. All leaves of a removed unit lose its slices,
      biases and BatchNorm's too: `prunable` names the leaves concerned.

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
    """Bool along the slot's axis: the flag of the unit that each index belongs to."""
    owner = _owners(structure, [(slot, 0)])
    return jnp.append(jnp.asarray(flags), True)[owner]


def _owners(structure: Structure, slots: Iterable[tuple[Slot, int]]) -> np.ndarray:
    """Int `[n]`: along an axis, the number of the unit of each index (from an offset), or -1."""
    pairs = list(slots)
    leaf, axis = pairs[0][0].leaf, pairs[0][0].axis
    owner = np.full(structure.shapes[leaf][axis], -1)
    for slot, offset in pairs:
        owner[slot.indices] = offset + np.arange(len(slot.indices))[:, None]
    return owner


def units_of(structure: Structure, mask: Mask) -> dict[str, np.ndarray]:
    """The unit mask of a leaf mask (on the host): a unit is kept unless one of its slices is empty.

    The inverse of `expand` wherever no layer is empty.

    Args:
      structure: from `find_groups`.
      mask: bool leaves shaped like the parameters.
    """
    leaves = dict(zip(trees.names(mask), map(np.asarray, jax.tree.leaves(mask)), strict=True))

    def alive(slot: Slot) -> np.ndarray:
        rows = np.moveaxis(leaves[slot.leaf], slot.axis, 0)
        return rows[slot.indices].any(axis=tuple(range(1, rows.ndim + 1)))

    return {g.name: np.all([alive(slot) for slot in g.slots], axis=0) for g in structure.groups}


def prunable(structure: Structure) -> Prunable:
    """The leaves that lose entries when units go: True if some axis is wholly made of units.

    The leaves for which a mask at the granularity of units is defined; pass it as `prunable` to
    the pruner, so that biases go with their units.

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
    """Leaf name → axis → the number of the unit of each index, −1 for none.

    Units are numbered through all groups in their order.
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
    """Units as a granularity of the pruner: whole channels, heads, hidden units compete.

    Masks are those of ordinary leaves, so structured tickets go through the same ladder, controls
    and populations. Use it with the leaves of `prunable(structure)`.

    Args:
      structure: from `find_groups`.
      reduction: `(scores, axis, keepdims)` over each slice of a unit, as `jnp.sum` or `l2`; the
        slices' values are added.
    """
    return grouped(members(structure), reduction)


def score_units(
    structure: Structure, scores: Scores, reduce: Callable[..., jax.Array] = jnp.sum
) -> UnitScores:
    """Scores of units from scores of weights, each weight of a unit counted once.

    With `jnp.sum` of squared weights this is the group magnitude of DepGraph (Fang et al., 2023);
    with `jnp.mean` units of different sizes become comparable; with a tree that is zero except
    for BatchNorm's scales it is network slimming (Liu et al., 2017); with activations' norms
    written on the kernels (Wanda) it is activation-based.

    Args:
      structure: from `find_groups`.
      scores: float leaves shaped like the parameters, as every criterion returns them.
      reduce: called as `reduce(entries, axis=-1, where=counted)` with entries
        float `[units, entries]`.

    Returns:
      For each group by name, float `[units]`.

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
    """Bool `[units, k, ...]`: entries of a slot's slices that no earlier slot of the unit holds."""
    new = np.ones(shape, bool)
    for other in earlier:
        # In `rows` the slot's own axis comes first, after the axis of units.
        place = other.axis + 1 if other.axis > slot.axis else other.axis + 2
        mine = (np.arange(shape[place])[None, :, None] == other.indices[:, None, :]).any(-1)
        spread = [shape[0] if d == 0 else shape[place] if d == place else 1
                  for d in range(len(shape))]  # fmt: skip
        new &= ~mine.reshape(spread)
    return new


def unit_counts(
    structure: Structure, density: float | Mapping[str, float], *, multiple: int = 1
) -> dict[str, np.int32]:
    """How many units each group keeps, on the host: rounded to a multiple, never none.

    `multiple · max(1, round(density · units / multiple))`, and never more than there are.

    Args:
      structure: from `find_groups`.
      density: the fraction of units kept, in (0, 1]; one for all groups or one for each by name
        (absent groups are kept whole).
      multiple: what hardware likes: 8, 16, 128.

    Raises:
      ValueError: if a density or the multiple is out of range, or a name is no group's.

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.ones((20, 1)), "w": jnp.ones((3, 20))}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    >>> {k: int(n) for k, n in unit_counts(found, 0.3, multiple=8).items()}
    {'v:0': 8}
    """
    if multiple < 1:
        raise ValueError(f"`multiple` must be at least 1, but it is {multiple}")
    names = [group.name for group in structure.groups]
    each = density if isinstance(density, Mapping) else dict.fromkeys(names, density)
    for name, value in each.items():
        if name not in names:
            raise ValueError(f"`density` names '{name}', which is no group; there are {names}")
        if not 0 < value <= 1:
            raise ValueError(f"`density` at '{name}' must be in (0, 1], but it is {value}")
    return {g.name: _rounded(each.get(g.name, 1.0) * g.units, multiple, g.units)
            for g in structure.groups}  # fmt: skip


def _rounded(amount: float, multiple: int, units: int) -> np.int32:
    """Half rounds up."""
    return np.int32(min(units, multiple * max(1, int(np.floor(amount / multiple + 0.5)))))


def keep_best(scores: UnitScores, counts: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The unit mask that keeps in each group the best units, exactly so many.

    Pure: counts may be traced and differ between the members of a population. Ties go to the
    earlier unit.

    Args:
      scores: for each group by name, float `[units]`.
      counts: for each group by name, how many to keep (`unit_counts`).

    >>> {k: v.tolist() for k, v in keep_best({"a": jnp.array([1.0, 3.0, 2.0])}, {"a": 2}).items()}
    {'a': [False, True, True]}
    """
    alive = {name: jnp.ones(s.shape, bool) for name, s in scores.items()}
    every = dict.fromkeys(scores, True)
    return scopes.layerwise().select(scores, alive, dict(counts), prunable=every)


def global_counts(scores: UnitScores, density: float, *, multiple: int = 1) -> dict[str, np.int32]:
    """How many units each group keeps if all units compete, on the host.

    The best `density` of all units are counted by group; each count is then rounded to the
    multiple, and no group is emptied.

    Args:
      scores: for each group by name, float `[units]`, comparable between groups.
      density: the fraction of all units, in (0, 1].
      multiple: what the counts are multiples of, wherever a group has that many units.

    Raises:
      ValueError: if `density` or `multiple` is out of range.

    >>> scores = {"a": jnp.array([1.0, 9.0]), "b": jnp.array([8.0, 7.0])}
    >>> {name: int(n) for name, n in global_counts(scores, 0.75).items()}
    {'a': 1, 'b': 2}
    """
    if multiple < 1:
        raise ValueError(f"`multiple` must be at least 1, but it is {multiple}")
    scope, every = scopes.globally(), dict.fromkeys(scores, True)
    alive = {name: jnp.ones(s.shape, bool) for name, s in scores.items()}
    count = scope.counts(scores, density, prunable=every)
    best = scope.select(scores, alive, count, prunable=every)
    return {n: _rounded(float(m.sum()), multiple, m.size) for n, m in best.items()}
