"""Unit masks derived from other masks: refilled, and random with the same shape."""

import jax
import jax.numpy as jnp

from lth_jax.pruning.masks import count_kept
from lth_jax.pruning.scopes import layerwise
from lth_jax.structure.compact import UnitMask
from lth_jax.structure.counts import kept_weights, most_within, rounded
from lth_jax.structure.groups import Structure, compiled_with
from lth_jax.structure.units import expand, score_units, units_of
from lth_jax.types import Key, Mask, Prunable

_STEPS = 1024
"""Resolution of the search for the exponent."""


@compiled_with
def refill(structure: Structure, mask: Mask, prunable: Prunable) -> Mask:
    """A mask of whole units from a mask of weights: keeps the units with most kept weights.

    IMP-Refill (Chen et al., 2022, "Coarsening the granularity"): within each group, the units with
    the most kept weights regain all their weights, and the others are removed. A group whose
    weights have density d keeps the fraction d^t of its units, with the same t ∈ [0, 4] for all
    groups, such that as many weights as possible are kept, but no more than in the ticket. No group
    is emptied. If even t = 4 keeps more weights than the ticket, t is 4. Pure, so it can be
    vmapped.

    Args:
      structure: from `find_groups`.
      mask: a ticket's mask of single weights: bool leaves shaped like the parameters.
      prunable: which leaves are counted and masked; the others are all True.

    Returns:
      A mask of whole units: a tree of bools shaped like the parameters.

    Raises:
      ValueError: `mask` does not fit the analysed parameters, or `prunable` has another structure
        or no True leaf.
      TypeError: a leaf of `prunable` is not a Python boolean.

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.ones((2, 1)), "w": jnp.ones((3, 2))}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    >>> mask = {"v": jnp.ones((2, 1), bool), "w": jnp.array([[0, 1], [0, 1], [1, 0]], bool)}
    >>> refill(found, mask, {"v": True, "w": True})["w"].tolist()
    [[False, True], [False, True], [False, True]]
    """
    counted = jax.tree.map(
        lambda m, use: m.astype(jnp.float32) if use else jnp.zeros(m.shape, jnp.float32),
        mask,
        prunable,
    )
    held = score_units(structure, counted)
    whole = score_units(
        structure, jax.tree.map(lambda m, use: jnp.full(m.shape, float(use)), mask, prunable)
    )
    density = {name: held[name].sum() / whole[name].sum() for name in held}

    def counts(step: jax.Array) -> dict[str, jax.Array]:
        # Steps count down from the exponent 4 to 0, so that more of them keep more.
        exponent = 4 * (1 - step / _STEPS)
        return {
            g.name: rounded(density[g.name] ** exponent * g.units, 1, g.units)
            for g in structure.groups
        }

    best = most_within(
        lambda step: kept_weights(structure, counts(step), prunable),
        count_kept(mask, prunable),
        _STEPS,
    )
    every = dict.fromkeys(held, True)
    alive = {name: jnp.ones(score.shape, bool) for name, score in held.items()}
    units = layerwise().select(held, alive, counts(best), prunable=every)
    return as_mask(structure, units, prunable)


@compiled_with
def random_units(structure: Structure, key: Key, mask: Mask, prunable: Prunable) -> Mask:
    """Random units, the same number of each group as in a mask of units.

    The units of each group are permuted uniformly and independently of other groups. Pure, so it
    can be vmapped.

    Args:
      structure: from `find_groups`.
      key: a typed key; the i-th group uses `fold_in(key, i)`.
      mask: a mask of whole units, from a pruner of units or `refill`: bool leaves shaped like the
        parameters.
      prunable: which leaves are masked; the others are all True.

    Returns:
      A mask of whole units: a tree of bools shaped like the parameters.

    Raises:
      ValueError: `mask` or `prunable` does not fit the analysed parameters.
      TypeError: `key` is not a key.

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.ones((4, 1)), "w": jnp.ones((3, 4))}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    >>> mask = expand(found, {"v:0": jnp.array([True, False, False, False])})
    >>> random_units(found, jax.random.key(0), mask, {"v": True, "w": True})["v"].sum().item()
    1
    """
    kept = units_of(structure, mask)
    drawn = {
        group.name: jax.random.permutation(jax.random.fold_in(key, i), kept[group.name])
        for i, group in enumerate(structure.groups)
    }
    return as_mask(structure, drawn, prunable)


def as_mask(structure: Structure, units: UnitMask, prunable: Prunable) -> Mask:
    """`expand`, with the leaves that are not prunable all True."""
    return jax.tree.map(
        lambda m, use: m if use else jnp.ones_like(m), expand(structure, units), prunable
    )
