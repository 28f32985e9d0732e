"""Dead units of unstructured tickets, and the density without them."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from lth_jax import trees
from lth_jax.pruning import masks
from lth_jax.structure.choices import settle
from lth_jax.structure.constraints import FINITE, ZERO, Axes, Links, Solution
from lth_jax.structure.graph import Value
from lth_jax.structure.groups import Structure
from lth_jax.structure.units import expand
from lth_jax.types import Mask, Prunable


def live_units(
    structure: Structure, mask: Mask, *, constant_inputs: bool = False
) -> dict[str, np.ndarray]:
    """The units of a masked network that can affect its results.

    A unit is dead if every sum over it multiplies it by masked weights only: no path leads from it
    to a result. The weights into it are then dead too, so that earlier units may be dead; the
    search is repeated until nothing changes. Removing dead units is exact for outputs and
    gradients. Tied units (of a residual stream) are live if one of them is used. Recurrent units
    that feed only each other count as live.

    Args:
      structure: from `find_groups`.
      mask: bool leaves shaped like the parameters (concrete); True entries may be nonzero.
      constant_inputs: whether units that are 0 for every input, because all weights and biases into
        them are masked, are dead too.

    Returns:
      Group name → bool `[units]`, True = live, as `compact` takes it. A group that is all False has
      collapsed.

    Raises:
      ValueError: `mask` does not fit the analysed parameters.

    >>> import jax.numpy as jnp
    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.ones((2, 1)), "w": jnp.ones((3, 2))}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    >>> mask = {"v": np.array([[True], [False]]), "w": np.ones((3, 2), bool)}
    >>> live_units(found, mask)["v:0"].tolist()
    [True, False]
    """
    trees.check_same_structure("mask", mask, "the analysed parameters", structure.params)
    alive = {group.name: np.ones(group.units, bool) for group in structure.groups}
    left = [np.asarray(leaf) for leaf in jax.tree.leaves(mask)]
    while True:
        found = _summed_units(structure, left, constant_inputs)
        new = {name: alive[name] & found[name] for name in alive}
        if all(np.array_equal(alive[name], new[name]) for name in alive):
            return alive
        alive = new
        kept = jax.tree.leaves(expand(structure, alive))
        left = [a & np.asarray(b) for a, b in zip(left, kept, strict=True)]


def _summed_units(
    structure: Structure, mask: list[np.ndarray], flow: bool
) -> dict[str, np.ndarray]:
    """The units that some sum multiplies by possibly nonzero values."""
    program = structure.program

    def start(links: Links) -> list[Axes]:
        ins = [[links.fresh(n) for n in value.shape] for value in program.block.ins]
        for axes, leaf in zip(ins, mask, strict=False):
            for axis, atoms in enumerate(axes):
                rows = np.moveaxis(leaf, axis, 0).reshape(len(atoms), -1)
                links.declare(atoms, np.where(rows.any(1), FINITE, ZERO))
        pin_again(links, ins, program.block.ins)
        return ins

    def pin_again(links: Links, labels: list[Axes], values: Sequence[Value]) -> None:
        """Pins the same atoms as before, so that the same factors of reshaped axes are chosen."""
        for axes, value in zip(labels, values, strict=True):
            for atoms, before in zip(axes, program.labels[value], strict=True):
                links.pin(atoms[structure.is_pinned[program.component[before]]], "pinned")

    def finish(links: Links, outs: list[Axes]) -> None:
        pin_again(links, outs, program.block.outs)

    links, solution = settle(program.block, start, finish, program.prefer, flow)
    names = trees.names(structure.params)
    leaves = {n: links.labels[v] for n, v in zip(names, program.block.ins, strict=False)}
    return {g.name: _is_summed(g.slots[0], leaves, solution) for g in structure.groups}


def _is_summed(slot: Any, leaves: dict[str, Axes], solution: Solution) -> np.ndarray:
    components = solution.component[leaves[slot.leaf][slot.axis][slot.indices[:, 0]]]
    return np.array([c in solution.inexact for c in components.tolist()])


def live_mask(structure: Structure, mask: Mask, *, constant_inputs: bool = False) -> Mask:
    """The mask without the weights of dead units.

    Args:
      structure: from `find_groups`.
      mask: bool leaves shaped like the parameters (concrete).
      constant_inputs: as in `live_units`.

    Returns:
      A subset of the mask: a tree of NumPy bools shaped like the parameters.

    Raises:
      ValueError: `mask` does not fit the analysed parameters.
      TypeError: a leaf of `mask` is floating-point.

    >>> import jax.numpy as jnp
    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.ones((2, 1)), "w": jnp.ones((3, 2))}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    >>> mask = {"v": np.array([[True], [False]]), "w": np.ones((3, 2), bool)}
    >>> live_mask(found, mask)["w"].tolist()
    [[True, False], [True, False], [True, False]]
    """
    units = live_units(structure, mask, constant_inputs=constant_inputs)
    return jax.tree.map(lambda a, b: np.asarray(a) & np.asarray(b), mask, expand(structure, units))


def effective_density(
    structure: Structure, mask: Mask, prunable: Prunable, *, constant_inputs: bool = False
) -> float:
    """The density of the mask without the weights of dead units.

    `(kept weights of live units) / (all weights)`, both over the prunable leaves. It is at most the
    density of the mask. Vysogorets & Kempe (2023) remove single connections; this function removes
    whole units.

    Args:
      structure: from `find_groups`.
      mask: bool leaves shaped like the parameters (concrete).
      prunable: which leaves are counted.
      constant_inputs: as in `live_units`.

    Returns:
      A fraction in [0, 1].

    Raises:
      ValueError: `mask` does not fit the analysed parameters, or `prunable` has another structure
        or no True leaf.
      TypeError: a leaf of `mask` is floating-point, or one of `prunable` is not a Python boolean.

    >>> import jax.numpy as jnp
    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.ones((2, 1)), "w": jnp.ones((3, 2))}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    >>> mask = {"v": np.array([[True], [False]]), "w": np.ones((3, 2), bool)}
    >>> effective_density(found, mask, {"v": True, "w": True})
    0.5
    """
    live = live_mask(structure, mask, constant_inputs=constant_inputs)
    return float(masks.density(live, prunable))
