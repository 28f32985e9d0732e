"""Units that can change places, and the order in which two networks agree best."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from scipy.optimize import linear_sum_assignment

from lth_jax import trees
from lth_jax.structure.groups import Group, Structure
from lth_jax.types import Params

Orders = dict[str, np.ndarray]
"""For each group by name, int `[units]`: which old unit stands at each place."""


def permute(structure: Structure, params: Params, orders: Mapping[str, Any]) -> Params:
    """The parameters with the units of each group in another order; the function stays the same.

    Any tree of the structure of the parameters will do: masks and optimizer slots move along.

    Args:
      structure: from `find_groups`.
      params: a pytree of the analysed structure and shapes.
      orders: for each group by name, int `[units]`, a permutation; absent groups stay.

    Raises:
      ValueError: if an order is no permutation of the group's units, or the places of the units
        carry a meaning (`Group.ordered`).

    >>> import jax.numpy as jnp
    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.array([[1.0], [2.0]]), "w": jnp.array([[3.0, 4.0]])}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 1)))
    >>> permute(found, params, {"v:0": [1, 0]})["w"].tolist()
    [[4.0, 3.0]]
    """
    trees.check_same_structure("params", params, "the analysed parameters", structure.params)
    moves: dict[str, dict[int, np.ndarray]] = {}
    for name, order in orders.items():
        group = structure[name]
        places = _check_order(group, order)
        for slot in group.slots:
            size = structure.shapes[slot.leaf][slot.axis]
            along = moves.setdefault(slot.leaf, {}).setdefault(slot.axis, np.arange(size))
            along[slot.indices] = slot.indices[places]

    def move(name: str, leaf: Any) -> Any:
        for axis, places in moves.get(name, {}).items():
            leaf = leaf.take(places, axis=axis)
        return leaf

    return trees.map_named(move, params)


def _check_order(group: Group, order: Any) -> np.ndarray:
    places = np.asarray(order)
    if not np.array_equal(np.sort(places), np.arange(group.units)):
        raise ValueError(
            f"`orders` at '{group.name}' must be a permutation of the {group.units} units"
        )
    if group.ordered:
        raise ValueError(
            f"`orders` at '{group.name}' moves units whose places matter: {group.ordered[0]}"
        )
    return places


def match(structure: Structure, target: Params, params: Params, *, sweeps: int = 100) -> Orders:
    """The order of the units of `params` in which its weights agree best with `target`'s.

    Weight matching (Ainsworth, Hayase & Srinivasa, 2023, Git Re-Basin): maximises
    `Σ ⟨target, permute(params, orders)⟩` by one linear assignment for each group in turn, the
    others held, until no group gains. A local optimum; on the host, in float64.

    Args:
      structure: from `find_groups`; groups whose units cannot change places are left alone.
      target: the parameters to come near.
      params: the parameters to reorder.
      sweeps: at most so many rounds over all groups.

    Returns:
      `orders` for `permute`.

    >>> import jax.numpy as jnp
    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.array([[1.0], [2.0]]), "w": jnp.array([[3.0, 4.0]])}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 1)))
    >>> match(found, params, permute(found, params, {"v:0": [1, 0]}))["v:0"].tolist()
    [1, 0]
    """
    goal, start = _host(target), _host(params)
    free = [group for group in structure.groups if not group.ordered]
    orders: Orders = {group.name: np.arange(group.units) for group in free}
    current, best = start, _agreement(goal, start)
    for _ in range(sweeps):
        before = best
        for group in free:
            gain = linear_sum_assignment(_similarity(group, goal, current), maximize=True)[1]
            trial = permute(structure, current, {group.name: gain})
            value = _agreement(goal, trial)
            if value > best * (1 + 1e-12) + 1e-12:
                current, best = trial, value
                orders[group.name] = orders[group.name][gain]
        if best == before:
            break
    return orders


def _host(params: Params) -> Params:
    return jax.tree.map(lambda p: np.asarray(p, np.float64), params)


def _agreement(a: Params, b: Params) -> float:
    return sum(float(np.vdot(x, y)) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def _similarity(group: Group, a: Params, b: Params) -> np.ndarray:
    """How much is gained by putting unit v of b in the place of unit u of a: `[units, units]`."""
    left, right = (dict(zip(trees.names(t), jax.tree.leaves(t), strict=True)) for t in (a, b))
    total = np.zeros((group.units, group.units))
    for slot in group.slots:
        rows = [np.moveaxis(t[slot.leaf], slot.axis, 0)[slot.indices] for t in (left, right)]
        total += rows[0].reshape(group.units, -1) @ rows[1].reshape(group.units, -1).T
    return total
