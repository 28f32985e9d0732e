"""Permutations of units, and matching of the units of two networks."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import scipy

from lth_jax import trees
from lth_jax.structure.groups import Group, Slot, Structure
from lth_jax.types import Params

Orders = dict[str, np.ndarray]
"""Group name → int `[units]`: the old unit at each position."""


def permute(structure: Structure, params: Params, orders: Mapping[str, Any]) -> Params:
    """Permutes the units of each group; the function does not change.

    Also works for other trees of this structure, such as masks and optimizer slots.

    Args:
      structure: from `find_groups`.
      params: a pytree of the analysed structure and shapes.
      orders: group name → int `[units]`, a permutation; absent groups are unchanged.

    Raises:
      ValueError: an order is not a permutation of the group's units, the order of the units matters
        (`Group.ordered`), or `params` does not fit the structure.
      KeyError: a name is not that of a group.

    >>> import jax.numpy as jnp
    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.array([[1.0], [2.0]]), "w": jnp.array([[3.0, 4.0]])}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 1)))
    >>> permute(found, params, {"v:0": [1, 0]})["w"].tolist()
    [[4.0, 3.0]]
    """
    trees.check_same_structure("params", params, "the analysed parameters", structure.params)
    checked = {name: _check_order(structure[name], order) for name, order in orders.items()}
    return _arranged(structure, params, structure, checked)


def _check_order(group: Group, order: Any) -> np.ndarray:
    places = np.asarray(order)
    if not np.array_equal(np.sort(places), np.arange(group.units)):
        raise ValueError(
            f"`orders` at '{group.name}' must be a permutation of the {group.units} units"
        )
    if group.ordered:
        raise ValueError(
            f"`orders` at '{group.name}' permutes units whose order matters: {group.ordered[0]}"
        )
    return places


def match(structure: Structure, target: Params, params: Params, *, sweeps: int = 100) -> Orders:
    """The permutations of the units of `params` that agree best with `target`.

    Weight matching (Ainsworth, Hayase & Srinivasa, 2023, Git Re-Basin): maximises `Σ ⟨target,
    permute(params, orders)⟩` by one linear assignment per group in turn, until no group improves.
    The result is a local optimum; computed on the host in float64.

    Args:
      structure: from `find_groups`; groups whose units cannot be permuted are skipped.
      target: the reference parameters.
      params: the parameters to permute.
      sweeps: maximal number of rounds over all groups.

    Returns:
      `orders` for `permute`: group name → int `[units]`.

    Raises:
      ValueError: `params` or `target` does not fit the structure.

    >>> import jax.numpy as jnp
    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.array([[1.0], [2.0]]), "w": jnp.array([[3.0, 4.0]])}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 1)))
    >>> match(found, params, permute(found, params, {"v:0": [1, 0]}))["v:0"].tolist()
    [1, 0]
    """
    return match_across(structure, params, structure, target, sweeps=sweeps)


def align(structure: Structure, target: Params, params: Params, *, sweeps: int = 100) -> Params:
    """Permutes the units of `params` to agree best with `target`.

    Applies `permute` with the result of `match`. `functools.partial(align, structure)` can be the
    argument `align` of `landscape.along_line`.

    Args:
      structure: as in `match`.
      target: as in `match`.
      params: as in `match`; both trees hold concrete arrays.
      sweeps: as in `match`.

    Returns:
      The permuted `params`, with their structure, shapes and dtypes.

    Raises:
      ValueError: `params` or `target` does not fit the structure, or weights of units that can be
        permuted are NaN or infinite.

    >>> import jax.numpy as jnp
    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.array([[1.0], [2.0]]), "w": jnp.array([[3.0, 4.0]])}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 1)))
    >>> align(found, params, permute(found, params, {"v:0": [1, 0]}))["w"].tolist()
    [[3.0, 4.0]]
    """
    return permute(structure, params, match(structure, target, params, sweeps=sweeps))


def transplant(large: Structure, params: Params, small: Structure, orders: Orders) -> Params:
    """Copies chosen units of a network into the shapes of a smaller one.

    Args:
      large: the structure of the source network.
      params: its parameters.
      small: the structure of the target network, with the same leaf names and group positions.
      orders: from `match_across`; for absent groups the first units are used.

    Raises:
      ValueError: the networks do not fit.

    >>> import jax.numpy as jnp
    >>> from lth_jax.structure.groups import find_groups
    >>> apply = lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"]
    >>> params = {"v": jnp.array([[1.0], [2.0]]), "w": jnp.array([[3.0, 4.0]])}
    >>> large = find_groups(apply, params, jnp.ones((1, 1)))
    >>> small = find_groups(apply, jax.tree.map(lambda p: p, params), jnp.ones((1, 1)))
    >>> transplant(large, params, small, {"v:0": [1, 0]})["w"].tolist()
    [[4.0, 3.0]]
    """
    _check_fits(large, small)
    return _arranged(large, params, small, orders)


def match_across(
    large: Structure, params: Params, small: Structure, target: Params, *, sweeps: int = 100
) -> Orders:
    """Matches each unit of a network to a different unit of a wider network.

    `match` between networks of different widths: maximises `Σ ⟨target, transplant(large, params,
    small, orders)⟩` by one rectangular linear assignment per group in turn, starting with the first
    units of each group. The result is a local optimum; computed on the host in float64.

    Args:
      large: the structure of the wider network.
      params: its parameters.
      small: the structure of a network with the same leaf names and group positions, and no larger
        group.
      target: its parameters.
      sweeps: maximal number of rounds over all groups.

    Returns:
      `orders` for `transplant`: group name → int `[units of small]`, without groups whose units
      cannot be permuted.

    Raises:
      ValueError: the networks do not fit.

    >>> import jax.numpy as jnp
    >>> from lth_jax.structure.groups import find_groups
    >>> apply, x = lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], jnp.ones((1, 1))
    >>> params = {"v": jnp.array([[1.0], [2.0], [3.0]]), "w": jnp.array([[1.0, 2.0, 3.0]])}
    >>> target = {"v": jnp.array([[3.0], [1.0]]), "w": jnp.array([[3.0, 1.0]])}
    >>> large, small = find_groups(apply, params, x), find_groups(apply, target, x)
    >>> match_across(large, params, small, target)["v:0"].tolist()
    [2, 1]
    """
    _check_fits(large, small)
    trees.check_same_structure("params", params, "the analysed parameters", large.params)
    trees.check_same_structure("target", target, "the analysed parameters", small.params)
    goal, source = _host(target), _host(params)
    free = [group for group in small.groups if not group.ordered]
    orders: Orders = {group.name: np.arange(group.units) for group in free}
    best = _agreement(goal, _arranged(large, source, small, orders))
    for _ in range(sweeps):
        before = best
        for group in free:
            similarity = _similarity(large, source, small, goal, orders, group)
            trial = orders | {
                group.name: scipy.optimize.linear_sum_assignment(similarity, maximize=True)[1]
            }
            value = _agreement(goal, _arranged(large, source, small, trial))
            if value > best + 1e-12 * abs(best) + 1e-12:
                best, orders = value, trial
        if best == before:
            break
    return orders


def _check_fits(large: Structure, small: Structure) -> None:
    """Raises unless leaf names and group positions are equal."""

    def places(group: Group) -> str:
        sizes = ((slot, slot.indices.shape[1]) for slot in group.slots)
        return ", ".join(f"{slot.leaf}:{slot.axis}" + f"×{n}" * (n > 1) for slot, n in sizes)

    wide = {group.name: group for group in large.groups}
    for group in small.groups:
        name, other = group.name, wide.get(group.name)
        if other is None:
            raise ValueError(f"`small` has the group '{name}', but `large` has no such group.")
        if places(other) != places(group):
            raise ValueError(
                f"the slices of the group '{name}' differ: {places(group)} in `small`, "
                f"{places(other)} in `large`."
            )
        if other.units < group.units:
            raise ValueError(
                f"the group '{name}' has {group.units} units in `small`, but only {other.units} "
                "in `large`."
            )
    for name, axes in _places(large, small, {}).items():
        lengths = tuple(map(len, axes.values()))
        if name not in small.shapes:
            raise ValueError(f"`large` has the leaf '{name}', but `small` has no such leaf.")
        if small.shapes[name] != lengths:
            raise ValueError(
                f"the leaf '{name}' has the shape {small.shapes[name]} in `small`, but, with as "
                f"many units, {lengths} in `large`."
            )


def _places(large: Structure, small: Structure, orders: Orders) -> dict[str, dict[int, np.ndarray]]:
    """Leaf name → axis → indices of the large network for those of the small one."""
    where = {
        name: {axis: np.arange(length) for axis, length in enumerate(shape)}
        for name, shape in large.shapes.items()
    }
    for group in small.groups:
        order = orders.get(group.name, np.arange(group.units))
        for wide, slot in zip(large[group.name].slots, group.slots, strict=True):
            length = small.shapes[slot.leaf][slot.axis]
            along = where[slot.leaf][slot.axis] = where[slot.leaf][slot.axis][:length].copy()
            along[slot.indices] = wide.indices[order]
    return where


def _arranged(large: Structure, params: Params, small: Structure, orders: Orders) -> Params:
    where = _places(large, small, orders)

    def move(name: str, leaf: Any) -> Any:
        for axis, places in where[name].items():
            if not np.array_equal(places, np.arange(leaf.shape[axis])):
                leaf = leaf.take(places, axis=axis)
        return leaf

    return trees.map_named(move, params)


def _host(params: Params) -> Params:
    return jax.tree.map(lambda p: np.asarray(p, np.float64), params)


def _agreement(a: Params, b: Params) -> float:
    return sum(float(np.vdot(x, y)) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def _similarity(
    large: Structure, params: Params, small: Structure, target: Params, orders: Orders, group: Group
) -> np.ndarray:
    """The agreement of each unit with each unit of the large network: `[units, wider units]`."""
    wide, narrow = trees.to_named(params), trees.to_named(target)
    where = _places(large, small, orders)
    total = np.zeros((group.units, large[group.name].units))
    for theirs, slot in zip(large[group.name].slots, group.slots, strict=True):
        leaf = wide[slot.leaf]
        for axis, places in where[slot.leaf].items():
            leaf = leaf if axis == slot.axis else leaf.take(places, axis=axis)
        total += _rows(narrow[slot.leaf], slot) @ _rows(leaf, theirs).T
    return total


def _rows(leaf: np.ndarray, slot: Slot) -> np.ndarray:
    """The slices of each unit, flattened: `[units, entries]`."""
    return np.moveaxis(leaf, slot.axis, 0)[slot.indices].reshape(len(slot.indices), -1)
