"""Finds the removable units of any JAX function: slices of leaves that are removed together."""

import dataclasses
import fnmatch
import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import jax
import numpy as np

from lth_jax import legal, text, trees
from lth_jax.pruning.compiled import compiled
from lth_jax.report.unit_map import unit_map
from lth_jax.structure import overview
from lth_jax.structure.choices import settle
from lth_jax.structure.constraints import Axes, Links, Prefer, Solution, major
from lth_jax.structure.explain import Constraints, Why, explain
from lth_jax.structure.graph import Block, Value, trace
from lth_jax.structure.group import Group, Slot

P = ParamSpec("P")
T = TypeVar("T")


class Program(NamedTuple):
    """A function's graph, with the component of each index of each value.

    `settle` walks through the graph again and returns all constraints.
    """

    apply: Callable[..., Any]
    prefer: Prefer
    block: Block
    labels: dict[Value, Axes]
    component: np.ndarray
    mesh: Any
    in_tree: Any
    out_tree: Any
    settle: Callable[[], tuple[Links, Solution]]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Structure:
    """The result of `find_groups`.

    Attributes:
      groups: the removable units.
      pinned: for each axis of each leaf, the reasons why indices are in no group; empty if and only
        if each index is in a group.
      unused: names of leaves that the function does not use.
      unknown: names of primitives without a rule; their operands and results are pinned.
      params: the parameters' shapes and dtypes.
      program: the function's graph, for `compact` and other functions.
      components: for each group, the component of each of its units.
      is_pinned: bool for each component.
    """

    groups: tuple[Group, ...]
    pinned: dict[str, tuple[tuple[str, ...], ...]]
    unused: tuple[str, ...]
    unknown: tuple[str, ...]
    params: Any
    program: Program
    components: tuple[np.ndarray, ...]
    is_pinned: np.ndarray

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The analysed shape of each leaf by name."""
        leaves = jax.tree.leaves(self.params)
        return {n: leaf.shape for n, leaf in zip(trees.names(self.params), leaves, strict=True)}

    @functools.cached_property
    def constraints(self) -> Constraints:
        """All ties and pins, by a second analysis at the first use."""
        return Constraints(*self.program.settle())

    def why(self, leaf: str, axis: int) -> Why:
        """Why indices of an axis cannot be removed, or with which leaves they are removed.

        The equations are those of the jaxpr on the shortest path of constraints from the axis to
        the pin, or to the other leaf; those that pass an axis on without a new constraint are left
        out. The first call repeats the analysis.

        Args:
          leaf: the name of a leaf.
          axis: one of its axes.

        Raises:
          ValueError: there is no such leaf, or it has no such axis.

        >>> import jax.numpy as jnp
        >>> def mlp(p, x):
        ...     return jnp.tanh(x @ p["w"]) @ p["v"]
        >>> found = find_groups(mlp, {"w": jnp.ones((4, 8)), "v": jnp.ones((8, 2))}, jnp.ones(4))
        >>> [pinned] = found.why("v", 1).pinned
        >>> pinned.reason, [equation.primitive for equation in pinned.equations]
        ('an axis of result 0', ['dot_general'])
        >>> [member] = found.why("w", 1).members
        >>> [(tied.leaf, tied.axis) for tied in member.ties]
        [('v', 0)]
        """
        return explain(self, leaf, axis)

    def only(self, *patterns: str) -> "Structure":
        """The structure restricted to some groups.

        Args:
          *patterns: shell-style patterns; groups whose name matches one are kept.

        Raises:
          ValueError: a pattern matches no group.
        """
        names = [group.name for group in self.groups]
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise ValueError(
                    f"`patterns` has {pattern!r}, which matches no group; the groups are {names}."
                )
        stays = [any(fnmatch.fnmatchcase(name, p) for p in patterns) for name in names]
        return dataclasses.replace(
            self,
            groups=tuple(itertools.compress(self.groups, stays)),
            components=tuple(itertools.compress(self.components, stays)),
        )

    def removable(self, *patterns: str) -> "Structure":
        """As `only`; raises unless the compacted network equals the masked one.

        Raises:
          ValueError: a pattern matches no group, no group is left, or a group is not exact.
        """
        found = self.only(*patterns)
        if not found.groups:
            raise ValueError(f"no unit of this network can be removed: {found.pinned}.")
        for group in found.groups:
            if not group.exact:
                raise ValueError(
                    f"`patterns` includes '{group.name}', but a network without some of its units "
                    f"differs from the masked one: {group.inexact[0]}; leave it out."
                )
        return found

    def __repr__(self) -> str:
        return self._short(limit=15)

    def __str__(self) -> str:
        return self._short(limit=40)

    def _short(self, limit: int) -> str:
        if not self.groups:
            return "Structure without groups: no slice can be removed (see `pinned`)"
        rows = overview.lines(self.groups[:limit], self.shapes)
        shown = text.table(overview.HEADER, rows)
        more = len(self.groups) - len(rows)
        return f"{shown}\n… and {more} more: see `table()`" if more else shown

    def table(self) -> text.TextTable:
        """All groups: units, leaves, weights of one unit, and the slices that it consists of.

        `w:1×8` stands for 8 indices of axis 1 of leaf `w`. Weights that belong to units of two
        groups count for both.
        """
        return text.TextTable(overview.HEADER, overview.lines(self.groups, self.shapes))

    def figure(self, units: Mapping[str, Any] | None = None) -> Any:
        """All groups in one matplotlib figure; a thousand remain readable.

        Groups whose names differ by numbers only, such as those of repeated blocks, form one row
        of cells beside a bar with their weights. Weights between two groups count for both.

        Args:
          units: group name → bool `[units]`, True = kept; cells then show the share of units kept.
            Otherwise their colour shows whether the compacted network equals the masked one.

        Raises:
          ValueError: a name is not that of a group.
        """
        for name in units or ():
            legal.check_name("units", name, [group.name for group in self.groups])
        kept = {name: np.asarray(flags) for name, flags in (units or {}).items()}
        whole = sum(map(math.prod, self.shapes.values()))
        return unit_map(
            overview.rows(self.groups, self.shapes, kept), whole, pruned=units is not None
        )

    def __getitem__(self, name: str) -> Group:
        """The group of this name; `KeyError` if there is none."""
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(f"no group is called {name!r}; there are {[g.name for g in self.groups]}")


def compiled_with(
    f: Callable[Concatenate[Structure, P], T],
) -> Callable[Concatenate[Structure, P], T]:
    """`f(structure, …)`, compiled outside a trace; the structure holds the compiled programs."""

    @functools.wraps(f)
    def call(structure: Structure, *args: P.args, **kwargs: P.kwargs) -> T:
        programs = vars(structure).setdefault("_programs", {})
        if f not in programs:
            programs[f] = compiled(functools.partial(f, structure))
        result: T = programs[f](*args, **kwargs)
        return result

    return call


def find_groups(
    apply: Callable[..., Any],
    params: Any,
    *args: Any,
    pin_outputs: Any = True,
    pin: Callable[[str, int], bool] | None = None,
    prefer: Prefer = major,
) -> Structure:
    """Finds the removable units of `apply(params, *args)` from its jaxpr.

    Every index of every axis of every value is an atom. The rule of each primitive ties atoms that
    must be removed together and pins atoms that cannot be removed. The units are the connected
    components that contain parameters and no pinned atom. The axes of `args`, of the results (see
    `pin_outputs`) and of primitives without a rule are pinned. Layers of a `lax.scan` are units
    along the first axis of their stacked leaves. Only shapes are needed; nothing is computed. The
    dependency graph of units is from DepGraph (Fang et al., 2023).

    Args:
      apply: a jittable function `(params, *args) -> out`.
      params: a pytree of arrays or `jax.ShapeDtypeStruct`s: all arrays that may lose slices,
        including BatchNorm statistics if they are an input.
      *args: pytrees of arrays or `jax.ShapeDtypeStruct`s: the inputs.
      pin_outputs: whether results keep their shape: a bool, or a prefix tree of bools for `out`
        (`(True, False)` for logits and new BatchNorm statistics).
      pin: `(leaf name, axis) -> bool`, True for further axes to pin.
      prefer: which factor of a reshaped axis is removable: `major` (whole heads), `minor` (the same
        features of all heads), or a function of the factors' sizes.

    Returns:
      The groups, and the reasons why other indices are in no group.

    Raises:
      ValueError: `apply` is not jittable, or does not use `params`.

    >>> import jax.numpy as jnp
    >>> def mlp(p, x):
    ...     return jnp.tanh(x @ p["w"] + p["b"]) @ p["v"]
    >>> shape = lambda *n: jax.ShapeDtypeStruct(n, "float32")
    >>> params = {"w": shape(4, 8), "b": shape(8), "v": shape(8, 2)}
    >>> found = find_groups(mlp, params, shape(1, 4))
    >>> [(g.name, g.units, [(s.leaf, s.axis) for s in g.slots]) for g in found.groups]
    [('b:0', 8, [('b', 0), ('v', 0), ('w', 1)])]
    """
    names = trees.names(params)
    if not names:
        raise ValueError("`params` has no leaves, so there is nothing to remove")
    block, out = trace(apply, params, *args)
    unused = _unused(block, names)
    start = functools.partial(_start, block, names, trees.names(args), unused, pin)
    finish = functools.partial(_pin_results, _spread_over(pin_outputs, out))
    settled = functools.partial(settle, block, start, finish, prefer)
    links, solution = settled()
    leaves = dict(zip(names, (links.labels[v] for v in block.ins), strict=False))
    groups, components = _collect(leaves, solution)
    alone = ~solution.is_pinned()
    alone[np.concatenate([np.zeros(0, int), *components])] = False
    program = Program(
        apply=apply,
        prefer=prefer,
        block=block,
        labels=links.labels,
        component=solution.component,
        mesh=jax.sharding.get_abstract_mesh(),
        in_tree=jax.tree.structure((params, *args)),
        out_tree=jax.tree.structure(out),
        settle=settled,
    )
    return Structure(
        groups=groups,
        pinned={name: _reasons(axes, solution, alone) for name, axes in leaves.items()},
        unused=unused,
        unknown=tuple(sorted(links.unknown)),
        params=jax.tree.map(_shape_of, params),
        program=program,
        components=components,
        is_pinned=solution.is_pinned(),
    )


def _start(
    block: Block,
    names: list[str],
    fixed: list[str],
    unused: tuple[str, ...],
    pin: Callable[[str, int], bool] | None,
    links: Links,
) -> list[Axes]:
    """The atoms of the inputs: parameters, then data, whose atoms are pinned."""
    ins = [[links.fresh(n) for n in value.shape] for value in block.ins]
    for name, axes in zip(names, ins, strict=False):
        _enter(links, name, axes, name in unused, pin)
    for name, axes in zip(fixed, ins[len(names) :], strict=True):
        _pin_axes(links, axes, f"an axis of the argument {name!r}")
    return ins


def _spread_over(prefix: Any, out: Any) -> list[bool]:
    """A bool for each result, from a prefix tree of bools."""
    flags = jax.tree.map(lambda flag, part: jax.tree.map(lambda _: flag, part), prefix, out)
    return jax.tree.leaves(flags)


def _pin_results(flags: list[bool], links: Links, outs: list[Axes]) -> None:
    for k, (axes, flag) in enumerate(zip(outs, flags, strict=True)):
        if flag:
            _pin_axes(links, axes, f"an axis of result {k}")


def _shape_of(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(x), x.dtype)


def _unused(block: Block, names: list[str]) -> tuple[str, ...]:
    read = {value for op in block.ops for value in op.ins} | set(block.outs)
    unused = tuple(n for n, v in zip(names, block.ins, strict=False) if v not in read)
    if len(unused) == len(names):
        raise ValueError(
            f"`apply` does not read any leaf of `params`, not even '{names[0]}': it must take them "
            "as its first argument"
        )
    return unused


def _enter(links: Links, name: str, axes: Axes, unused: bool, pin: Any) -> None:
    """The atoms of a parameter, of zero content; some are pinned."""
    for axis, atoms in enumerate(axes):
        links.declare(atoms, 0)
        if unused:
            links.pin(atoms, "the function does not read this leaf")
        if pin is not None and pin(name, axis):
            links.pin(atoms, "pinned by the caller")


def _pin_axes(links: Links, axes: Axes, reason: str) -> None:
    for atoms in axes:
        links.pin(atoms, reason)


def _reasons(axes: Axes, solution: Solution, alone: np.ndarray) -> tuple[tuple[str, ...], ...]:
    """For each axis of a leaf, the reasons why indices are in no group.

    Args:
      axes: the atoms of the leaf.
      solution: the components of all atoms.
      alone: bool `[components]`: not pinned, and in no group.
    """
    return tuple(_why_not(solution.component[atoms], solution, alone) for atoms in axes)


def _why_not(components: np.ndarray, solution: Solution, alone: np.ndarray) -> tuple[str, ...]:
    """Reasons of pinned components, and of free ones whose removal would empty a leaf."""
    if not components.size:
        return ("an axis without indices",)
    found = _noted(solution.pinned, components)
    if not alone[components].any():
        return found
    if len(components) == 1:
        return (*found, "an axis of length 1; removing it would empty the leaf")
    if (components == components[0]).all():
        return (*found, "its indices can only be removed together, which would empty the leaf")
    reason = "no two indices are units of the same kind, and each kind keeps at least one"
    return (*found, reason)


def _noted(notes: dict[int, tuple[str, ...]], components: np.ndarray) -> tuple[str, ...]:
    found = {r: None for c in sorted(notes.keys() & set(components.tolist())) for r in notes[c]}
    return tuple(found)


class _Axis(NamedTuple):
    """One axis of a leaf, with indices sorted by component."""

    leaf: str
    axis: int
    order: np.ndarray
    found: np.ndarray
    first: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, leaf: str, axis: int, components: np.ndarray) -> "_Axis":
        order = np.argsort(components, kind="stable")
        found, first, counts = np.unique(components[order], return_index=True, return_counts=True)
        return cls(leaf, axis, order, found, first, counts)

    def slot(self, members: np.ndarray, count: int) -> Slot:
        """The indices of components with `count` indices each."""
        start = self.first[np.searchsorted(self.found, members)]
        return Slot(self.leaf, self.axis, self.order[start[:, None] + np.arange(count)])


def _collect(
    leaves: dict[str, Axes], solution: Solution
) -> tuple[tuple[Group, ...], tuple[np.ndarray, ...]]:
    """The components of parameters that are not pinned; equal ones are grouped."""
    free = ~solution.is_pinned()
    axes = [
        _Axis.of(name, d, solution.component[atoms])
        for name, label in leaves.items()
        for d, atoms in enumerate(label)
    ]
    units: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for k, axis in enumerate(axes):
        here = free[axis.found]
        for c, n in zip(axis.found[here].tolist(), axis.counts[here].tolist(), strict=True):
            units[c].append((k, n))
    alike: defaultdict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    for c, where in units.items():
        alike[tuple(where)].append(c)
    found = [
        _group(axes, where, np.array(members), solution)
        for where, members in alike.items()
        if len(members) > 1
    ]
    return _renamed([group for group, _ in found]), tuple(members for _, members in found)


def _group(
    axes: list[_Axis], where: tuple[tuple[int, int], ...], members: np.ndarray, solution: Solution
) -> tuple[Group, np.ndarray]:
    """A group: its units in the order of their first indices, and their components."""
    first, count = where[0]
    members = members[np.argsort(axes[first].slot(members, count).indices[:, 0])]
    slots = tuple(axes[k].slot(members, n) for k, n in where)
    reasons = (_noted(notes, members) for notes in (solution.inexact, solution.ordered))
    return Group(f"{slots[0].leaf}:{slots[0].axis}", slots, *reasons), members


def _renamed(groups: list[Group]) -> tuple[Group, ...]:
    """Appends a number to the names of groups that begin in the same axis."""
    seen: defaultdict[str, int] = defaultdict(int)
    out = []
    for group in groups:
        seen[group.name] += 1
        count = seen[group.name]
        out.append(group if count == 1 else group._replace(name=f"{group.name}#{count}"))
    return tuple(out)
