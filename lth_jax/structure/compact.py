"""Compaction: smaller parameters, and the same program on them."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from lth_jax import trees
from lth_jax.structure.choices import settle
from lth_jax.structure.constraints import Atoms, Axes, Links, Prefer
from lth_jax.structure.graph import Block, Op, Value, trace
from lth_jax.structure.groups import Group, Program, Structure
from lth_jax.structure.rules import RULES, pick, pick_kept
from lth_jax.structure.sharding import abstract, fitted

UnitMask = Mapping[str, Any]
"""Group name → bool `[units]`, True = kept; absent groups are kept whole."""


class Smaller:
    """A program without some of its atoms; implements `Shrunk` for the `run` of rules."""

    def __init__(self, labels: dict[Value, Axes], left: np.ndarray, prefer: Prefer):
        """Initialises with the atoms of all values and bool `[atoms]`, True = kept."""
        self._labels, self._left, self._prefer = labels, left, prefer

    def kept(self, value: Value) -> list[np.ndarray]:
        """The kept indices of each axis of a value."""
        return [self._left[atoms] for atoms in self._labels[value]]

    def shape(self, value: Value) -> tuple[int, ...]:
        """The reduced shape of a value."""
        return tuple(int(flags.sum()) for flags in self.kept(value))

    def block(self, block: Block, args: Sequence[Any]) -> list[Any]:
        """Runs a program on reduced arguments."""
        env = dict(zip(block.ins, args, strict=True))

        def value(v: Value) -> Any:
            return env[v] if v in env else self._constant(v)

        for op in block.ops:
            run = op.bind if self._is_whole(op) else functools.partial(self._run, op)
            env.update(zip(op.outs, run(*map(value, op.ins)), strict=True))
        return [value(v) for v in block.outs]

    def derived(
        self, f: Callable[..., Any], ins: Sequence[Value], outs: Sequence[Value]
    ) -> Callable[..., list[Any]]:
        """Compacts a function: from reduced `ins` to reduced `outs`."""
        block, _ = trace(f, *(abstract(v.aval) for v in ins))
        smaller = shrink(
            block, [self.kept(v) for v in ins], self._prefer, [self.kept(v) for v in outs]
        )
        return lambda *args: smaller.block(block, args)

    def _is_whole(self, op: Op) -> bool:
        return all(flags.all() for v in (*op.ins, *op.outs) for flags in self.kept(v))

    def _run(self, op: Op, *args: Any) -> list[Any]:
        shardings = {
            name: fitted(given, self.shape(op.outs[0]))
            for name, given in op.params.items()
            if isinstance(given, NamedSharding)
        }
        smaller = dataclasses.replace(op, params={**op.params, **shardings})
        with op.context.manager:
            return RULES[op.name].run(self, smaller, args)

    def _constant(self, value: Value) -> Any:
        if not value.shape or all(flags.all() for flags in self.kept(value)):
            return value.constant
        return pick_kept(jnp.asarray(value.constant), self.kept(value))


def shrink(
    block: Block,
    kept: Sequence[Sequence[np.ndarray]],
    prefer: Prefer,
    outs: Sequence[Sequence[np.ndarray]] = (),
) -> Smaller:
    """Compacts a program for inputs without some indices.

    Args:
      block: the program at its original size.
      kept: bool for each axis of each input, True = kept.
      prefer: as in `find_groups`.
      outs: the same for each result, if known: results may be constants, which are tied to nothing.

    Raises:
      ValueError: the program ties a removed index to a kept one.
    """

    def pin(links: Links, values: Sequence[Axes], flags: Sequence[Sequence[np.ndarray]]) -> None:
        for atoms, flag in _pairs(values, flags):
            links.pin(atoms[flag], "kept")

    def start(links: Links) -> list[Axes]:
        ins = [[links.fresh(n) for n in value.shape] for value in block.ins]
        pin(links, ins, kept)
        return ins

    links, solution = settle(block, start, lambda links, ends: pin(links, ends, outs), prefer)
    gone = np.zeros_like(solution.is_pinned())
    for values, flags in ((block.ins, kept), (block.outs, outs)):
        for atoms, flag in _pairs([links.labels[v] for v in values], flags):
            gone[solution.component[atoms[~flag]]] = True
    if (gone & solution.is_pinned()).any():
        raise ValueError(
            "`apply` ties units that are removed to units that are kept when it is traced with "
            "arguments of other types, or in a custom derivative; pin the leaves concerned."
        )
    return Smaller(links.labels, ~gone[solution.component], prefer)


def _pairs(
    values: Sequence[Axes], flags: Sequence[Sequence[np.ndarray]]
) -> Iterator[tuple[Atoms, np.ndarray]]:
    """The atoms and flags of each axis, for values with flags."""
    for axes, of_value in zip(values, flags, strict=False):
        yield from zip(axes, of_value, strict=True)


def check_units(structure: Structure, units: UnitMask) -> dict[str, np.ndarray]:
    """The unit mask as host arrays, checked against the groups.

    Raises:
      ValueError: a name or length does not fit a group, or a group would be empty.
    """
    names = [group.name for group in structure.groups]
    unknown = sorted(set(units) - set(names))
    if unknown:
        raise ValueError(f"`units` names {unknown}, which are not groups; the groups are {names}.")
    checked = {}
    for name, flags in units.items():
        flags, group = np.asarray(flags), structure[name]
        if flags.dtype != bool or flags.shape != (group.units,):
            raise ValueError(
                f"`units` at '{name}' must be bool of shape ({group.units},), one for each unit, "
                f"but it is {flags.dtype} of shape {flags.shape}."
            )
        if not flags.any():
            raise ValueError(
                f"`units` at '{name}' removes all {group.units} units, so leaf "
                f"'{group.slots[0].leaf}' would be empty; keep at least one."
            )
        checked[name] = flags
    return checked


def take(structure: Structure, params: Any, units: UnitMask, *, donate: bool = False) -> Any:
    """The parameters without the slices of removed units.

    Leaves are cut one after the other, so memory holds at most one leaf besides `params` and the
    result. NumPy leaves stay on the host (of a `np.memmap` only the kept slices are read), and the
    result shares no memory with a leaf that it cuts. Also works for other trees of this structure
    (optimizer slots, masks). Results with equal numbers of kept units can be stacked to a
    population.

    Args:
      structure: from `find_groups`.
      params: a pytree of the analysed structure and shapes.
      units: group name → bool `[units]`; absent groups are kept whole.
      donate: whether to free each JAX array after it is cut; `params` cannot be used afterwards.

    Returns:
      A pytree of smaller arrays.

    Raises:
      ValueError: if `units` does not fit the groups, or `params` does not fit the structure.

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"w": jnp.ones((4, 3)), "v": jnp.ones((3, 2))}
    >>> found = find_groups(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], params, jnp.ones((1, 4)))
    >>> take(found, params, {"v:0": np.array([True, False, True])})["w"].shape
    (4, 2)
    """
    trees.check_same_structure("params", params, "the analysed parameters", structure.params)
    kept = _kept_of_leaves(structure, check_units(structure, units))

    def cut(name: str, leaf: Any) -> Any:
        small = leaf
        for axis, flags in kept.get(name, {}).items():
            small = pick(small, axis, np.flatnonzero(flags))
        if small is leaf:
            return leaf
        if isinstance(leaf, np.ndarray):
            return np.array(small)  # a view would keep the whole leaf alive
        if donate and not isinstance(leaf, jax.core.Tracer):
            leaf.delete()
        return small

    return trees.map_named(cut, params)


def _kept_of_leaves(structure: Structure, units: Mapping[str, np.ndarray]) -> dict[str, dict]:
    kept: dict[str, dict[int, np.ndarray]] = {}
    for name, flags in units.items():
        for slot in structure[name].slots:
            axes = kept.setdefault(slot.leaf, {})
            along = axes.setdefault(
                slot.axis, np.ones(structure.shapes[slot.leaf][slot.axis], bool)
            )
            along[slot.indices[~flags]] = False
    return kept


def compact(
    structure: Structure,
    params: Any,
    units: UnitMask,
    *,
    inexact: bool = False,
    donate: bool = False,
) -> tuple[Any, Callable[..., Any]]:
    """Smaller parameters, and a function that computes the masked network from them.

    The function runs the operations of the original with changed shapes. Constants that depend on a
    width (LayerNorm's divisor, attention's scale) keep their value, so `apply(smaller, x) =
    original(masked, x)`, and gradients equal those of the masked network at kept weights. Custom
    derivatives are kept. The function can be jitted, differentiated, vmapped and exported. On an
    explicit mesh it is traced again for the shardings of its arguments; a mesh axis that does not
    divide a smaller axis no longer shards it.

    Args:
      structure: from `find_groups`.
      params: the parameters; the slices of removed units are dropped, whatever their values.
      units: group name → bool `[units]`, True = kept; absent groups are kept whole.
      inexact: whether to allow removing units of groups that are not `exact`, for which the masked
        network differs (a softmax over experts includes masked ones).
      donate: as in `take`.

    Returns:
      `(smaller, apply)` with `apply(smaller, *args)`; `args` may have other batch sizes than
      those analysed.

    Raises:
      ValueError: `units` does not fit the groups, empties one, or removes units of one that is not
        exact; or `params` does not fit the structure.

    >>> from lth_jax.structure.groups import find_groups
    >>> def mlp(p, x):
    ...     return jnp.tanh(x @ p["w"]) @ p["v"]
    >>> params = {"w": jnp.ones((4, 3)), "v": jnp.ones((3, 2))}
    >>> found = find_groups(mlp, params, jnp.ones((1, 4)))
    >>> smaller, apply = compact(found, params, {"v:0": np.array([True, False, True])})
    >>> smaller["w"].shape, apply(smaller, jnp.ones((1, 4))).shape
    ((4, 2), (1, 2))
    """
    checked = check_units(structure, units)
    if not inexact:
        _check_exact([structure[name] for name, flags in checked.items() if not flags.all()])
    program = structure.program
    left = _left(structure, checked)
    smaller = Smaller(program.labels, left, program.prefer)
    return take(structure, params, checked, donate=donate), _function(program, smaller)


def _check_exact(groups: Sequence[Group]) -> None:
    for group in groups:
        if group.inexact:
            raise ValueError(
                f"`units` removes some of '{group.name}' (leaf '{group.slots[0].leaf}'), but "
                f"without them the network differs from the masked one: {group.inexact[0]}; "
                "pass `inexact=True` if this is intended."
            )


def _left(structure: Structure, units: Mapping[str, np.ndarray]) -> np.ndarray:
    component = structure.program.component
    gone = np.zeros(component.max(initial=-1) + 1, bool)
    for group, components in zip(structure.groups, structure.components, strict=True):
        if group.name in units:
            gone[components[~units[group.name]]] = True
    return ~gone[component]


def _function(program: Program, smaller: Smaller) -> Callable[..., Any]:
    """The compact function: of the analysed graph, or traced again for other dtypes or meshes."""
    leaves = len(program.block.ins)
    count = leaves - len(jax.tree.leaves(program.in_tree.children()[1:]))
    kept = [smaller.kept(v) for v in program.block.ins]
    analysed = program.mesh, tuple(abstract(v.aval) for v in program.block.ins)

    @functools.cache
    def at(mesh: Any, types: tuple[Any, ...]) -> tuple[Smaller, Block]:
        if (mesh, types) == analysed:
            return smaller, program.block
        block, _ = trace(program.apply, *jax.tree.unflatten(program.in_tree, types))
        free = [[np.ones(n, bool) for n in t.shape] for t in types[count:]]
        return shrink(block, [*kept[:count], *free], program.prefer), block

    def apply(params: Any, *args: Any) -> Any:
        flat, tree = jax.tree.flatten((params, *args))
        if tree != program.in_tree:
            raise ValueError(
                f"`apply` must be called with arguments of the structure {program.in_tree}, "
                f"not {tree}."
            )
        _check_shapes(flat[:count], kept, trees.names(params))
        shapes = [v.shape for v in program.block.ins[:count]] + [None] * (len(flat) - count)
        types = tuple(abstract(jax.typeof(x), n) for x, n in zip(flat, shapes, strict=True))
        here, block = at(jax.sharding.get_abstract_mesh(), types)
        return jax.tree.unflatten(program.out_tree, here.block(block, flat))

    return apply


def _check_shapes(leaves: Sequence[Any], kept: Sequence[Any], names: Sequence[str]) -> None:
    for name, leaf, axes in zip(names, leaves, kept, strict=False):
        shape = tuple(int(flags.sum()) for flags in axes)
        if jnp.shape(leaf) != shape:
            raise ValueError(
                f"`params` at '{name}' has shape {jnp.shape(leaf)}, but the compact function "
                f"was made for {shape}."
            )
