"""Costs of networks without some units: parameters, bytes and floating-point operations.

Each is a polynomial in the numbers of kept units, `Σ_terms Π_axes (length − removed indices)`, so
it is exact without compacting a network.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from lth_jax import trees
from lth_jax.models.convolution import conv_p
from lth_jax.structure.compact import UnitMask, check_units
from lth_jax.structure.graph import Block, Op, Value
from lth_jax.structure.groups import Structure
from lth_jax.structure.rules_control_flow import scan_parts
from lth_jax.structure.rules_reduce import own_layout, stock_layout
from lth_jax.types import Params

Terms = tuple[tuple[tuple[int, ...], tuple[tuple[int, str, int], ...]], ...]
"""A cost: for each term, the lengths of its axes, and `(axis, group, indices per unit)` for each of
them that loses indices."""


def evaluate(terms: Terms, gone: Mapping[str, Any]) -> Any:
    """The cost, given the number of removed units of each group (arrays, or traced)."""
    total: Any = 0
    for lengths, slots in terms:
        sizes: list[Any] = list(lengths)
        for axis, group, width in slots:
            sizes[axis] = sizes[axis] - gone[group] * width
        total += math.prod(sizes)
    return total


def of_leaves(structure: Structure, factors: Mapping[str, int]) -> Terms:
    """The number of kept entries of each leaf in `factors`, times its factor."""
    slots: dict[str, list[tuple[int, str, int]]] = {name: [] for name in factors}
    for group in structure.groups:
        for slot in group.slots:
            if slot.leaf in slots:
                slots[slot.leaf].append((slot.axis + 1, group.name, slot.indices.shape[1]))
    shapes = structure.shapes
    return tuple(((n, *shapes[name]), tuple(slots[name])) for name, n in factors.items())


def _parameters(structure: Structure, params: Params) -> Terms:
    return of_leaves(structure, dict.fromkeys(trees.names(params), 1))


def _bytes(structure: Structure, params: Params) -> Terms:
    leaves = zip(trees.names(params), jax.tree.leaves(params), strict=True)
    return of_leaves(structure, {name: leaf.dtype.itemsize for name, leaf in leaves})


def _flops(structure: Structure, params: Params) -> Terms:
    del params
    owner = _owners(structure)
    return tuple(_term(structure, owner, *found) for found in _products(structure.program.block))


COSTS = {"parameters": _parameters, "bytes": _bytes, "flops": _flops}
"""`(structure, params) -> terms` of each cost, by name."""


def costs(structure: Structure, params: Params, units: UnitMask | None = None) -> dict[str, int]:
    """The parameters, bytes and floating-point operations of a network without some units.

    `parameters` counts the entries of all leaves, `bytes` their memory. `flops` counts two
    operations for each multiplication of the matrix products and convolutions of one call with the
    analysed arguments, so it grows with their batch. Padding counts as input. The body of a scan
    counts once for each step; of a `while`, once; of a `cond`, all branches.

    Args:
      structure: from `find_groups`.
      params: arrays or `jax.ShapeDtypeStruct`s, of the analysed shapes.
      units: group name → bool `[units]`, True = kept; absent groups are kept whole.

    Raises:
      ValueError: `params` or `units` does not fit the structure, or the operations depend on which
        units of a group are removed.

    >>> import jax.numpy as jnp
    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"v": jnp.ones((8, 2)), "w": jnp.ones((3, 8))}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 3)))
    >>> costs(found, params)
    {'parameters': 40, 'bytes': 160, 'flops': 80}
    >>> costs(found, params, {"v:0": np.arange(8) < 3})
    {'parameters': 15, 'bytes': 60, 'flops': 30}
    """
    gone = {group.name: 0 for group in structure.groups}
    gone |= {
        name: int((~flags).sum()) for name, flags in check_units(structure, units or {}).items()
    }
    return {name: evaluate(terms_of(structure, params, name), gone) for name in COSTS}


def terms_of(structure: Structure, params: Params, name: str) -> Terms:
    """The polynomial of a cost by name, for parameters that have been checked."""
    trees.check_same_structure("params", params, "the analysed parameters", structure.params)
    return COSTS[name](structure, params)


# --- floating-point operations

Axes = list[tuple[Value, int]]


def _dot(op: Op) -> Axes:
    """All axes of the left operand, and those of the right one that only it has."""
    left, right = op.ins[:2]
    ragged = op.params.get("ragged_dot_dimension_numbers")
    dims = ragged.dot_dimension_numbers if ragged else op.params.get("dimension_numbers")
    (_, contracted), (_, batch) = dims or (((2,), (2,)), ((0,), (0,)))
    shared = {*contracted, *batch, *(ragged.rhs_group_dimensions if ragged else ())}
    free = [d for d in range(len(right.shape)) if d not in shared]
    return [*((left, d) for d in range(len(left.shape))), *((right, d) for d in free)]


def _convolution(op: Op) -> Axes:
    """All axes of the result, and window and inputs of the kernel."""
    layout = (own_layout if op.primitive is conv_p else stock_layout)(op)
    window = [*(axis for _, axis in layout.spaces), layout.fan_in]
    out, kernel = op.outs[0], op.ins[1]
    return [*((out, d) for d in range(len(out.shape))), *((kernel, d) for d in window)]


_PRODUCTS: dict[str, Callable[[Op], Axes]] = {
    **dict.fromkeys(("dot_general", "ragged_dot_general", "scaled_dot"), _dot),
    **dict.fromkeys(("scaled_matmul", "scaled_matmul_wrapper"), _dot),
    **dict.fromkeys(("conv_general_dilated", conv_p.name), _convolution),
}
"""For each primitive, the axes whose lengths multiply to its number of multiplications."""


def _products(block: Block, repeats: int = 1, steps: Axes | None = None) -> Iterator[Any]:
    """All products of a program: `(operation, repeats, axes of steps that may be removed)`."""
    steps = steps or []
    for op in block.ops:
        if op.name in _PRODUCTS:
            yield op, repeats, steps
        inside = repeats, steps
        if op.name == "scan":
            stacked = op.ins[scan_parts(op)[1] :]
            each = [*steps, (stacked[0], 0)] if stacked else steps
            inside = repeats * (1 if stacked else op.params["length"]), each
        yield from itertools.chain.from_iterable(_products(inner, *inside) for inner in op.blocks)


def _owners(structure: Structure) -> np.ndarray:
    """Int `[components]`: the number of the group's unit over all groups, or −1."""
    owner = np.full(structure.program.component.max(initial=-1) + 1, -1)
    found = np.concatenate([*structure.components, np.zeros(0, int)])
    owner[found] = np.arange(len(found))
    return owner


def _term(structure: Structure, owner: np.ndarray, op: Op, repeats: int, steps: Axes) -> Any:
    """The operations of a product as a term."""
    axes, ends = [*steps, *_PRODUCTS[op.name](op)], np.cumsum([g.units for g in structure.groups])
    slots = []
    for axis, (value, d) in enumerate(axes, start=1):
        found = owner[structure.program.component[structure.program.labels[value][d]]]
        held = np.bincount(found[found >= 0], minlength=ends[-1] if len(ends) else 0)
        for group, of_group in zip(structure.groups, np.split(held, ends[:-1]), strict=True):
            if (of_group != of_group[0]).any():
                raise ValueError(
                    f"`structure` has the group '{group.name}', whose units differ in the "
                    f"operations of `{op.name}`; leave it out by `Structure.only`."
                )
            if of_group[0]:
                slots.append((axis, group.name, int(of_group[0])))
    return (2 * repeats, *(value.shape[d] for value, d in axes)), tuple(slots)
