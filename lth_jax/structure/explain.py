"""Explains why indices of a leaf cannot be removed, or with which leaves: by equations."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy
from jax.extend import source_info_util

from lth_jax import legal, text
from lth_jax.structure.constraints import Atoms, Links, Solution
from lth_jax.structure.graph import Block, Op, Value

Structure = Any
"""The record of `groups.py`, which imports this module."""

_SHOWN = 10
"""Lines of one explanation; more are counted."""


@text.with_short_repr
class Equation(NamedTuple):
    """An equation of the analysed jaxpr.

    Attributes:
      primitive: the primitive's name.
      operands: dtypes and shapes of its operands, such as `float32[4,8]`.
      results: the same of its results.
      module: the named scopes around it, such as `MLP/Dense_0` for Flax; may be empty.
      source: file, line and function; may be empty.
    """

    primitive: str
    operands: tuple[str, ...]
    results: tuple[str, ...]
    module: str
    source: str

    def __str__(self) -> str:
        types = f"{_listed(self.operands)} → {_listed(self.results)}"
        return "  ".join(filter(None, [self.primitive, types, self.module, self.source]))


@text.with_short_repr
class Pinned(NamedTuple):
    """Indices that no unit contains.

    Attributes:
      reason: why they cannot be removed.
      indices: int `[n]`, these indices of the axis.
      equations: from the leaf to the constraint, for the first of the indices.
    """

    reason: str
    indices: np.ndarray
    equations: tuple[Equation, ...]


@text.with_short_repr
class Tied(NamedTuple):
    """One leaf that loses indices together with the axis.

    Attributes:
      leaf: the name of the leaf.
      axis: its axis.
      equations: those that tie it, from the axis in question, for the first unit.
    """

    leaf: str
    axis: int
    equations: tuple[Equation, ...]


@text.with_short_repr
class Member(NamedTuple):
    """Indices that are removed with the units of a group.

    Attributes:
      group: the name of the group.
      indices: int `[n]`, these indices of the axis.
      ties: all other axes of the group, those with the fewest equations first.
    """

    group: str
    indices: np.ndarray
    ties: tuple[Tied, ...]


class Why(NamedTuple):
    """The result of `Structure.why`; `str` formats it as text.

    Attributes:
      leaf: the name of the leaf.
      axis: the axis.
      size: its length.
      pinned: the indices that cannot be removed, by reason; several reasons may hold for one.
      members: the indices that are units, by group.
    """

    leaf: str
    axis: int
    size: int
    pinned: tuple[Pinned, ...]
    members: tuple[Member, ...]

    def __str__(self) -> str:
        lines = [f"Axis {self.axis} of '{self.leaf}', length {self.size}"]
        for pinned in self.pinned:
            lines += [f"{self._share(pinned.indices)} cannot be removed: {pinned.reason}"]
            lines += _short([f"  {equation}" for equation in pinned.equations])
        for member in self.members:
            lines += [f"{self._share(member.indices)} belong to units of '{member.group}'"]
            lines += _short([f"  {_tie(tied)}" for tied in member.ties])
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _share(self, indices: np.ndarray) -> str:
        return "all" if len(indices) == self.size else f"{len(indices)} of {self.size}"


def _listed(types: Sequence[str], most: int = 4) -> str:
    return ", ".join([*types[:most], "…"] if len(types) > most else types)


def _short(lines: list[str]) -> list[str]:
    more = len(lines) - _SHOWN
    return lines if more <= 0 else [*lines[:_SHOWN], f"  … and {more} more"]


def _tie(tied: Tied) -> str:
    through = ", ".join(
        f"{e.primitive} ({e.module or Path(e.source).name})" for e in tied.equations
    )
    return f"with {tied.leaf}:{tied.axis}" + (f" by {through}" if through else "")


class Constraints:
    """All ties and pins of an analysis, as a graph between atoms.

    Attributes:
      links: the ties and pins of the program.
      solution: the components of the atoms.
    """

    def __init__(self, links: Links, solution: Solution):
        """Concatenates the ties."""
        self.links, self.solution = links, solution
        none = [np.zeros(0, np.int64)]
        self._a = np.concatenate([tie.a for tie in links.ties] or none)
        self._b = np.concatenate([tie.b for tie in links.ties] or none)
        self._tie = np.repeat(np.arange(len(links.ties)), [len(tie.a) for tie in links.ties])

    def around(self, start: int) -> _Paths:
        """The shortest paths of ties from an atom to the atoms of its component."""
        component = self.solution.component
        inside = np.flatnonzero(component[self._a] == component[start])
        ties = self._tie[inside]
        return _Paths(
            start, self._a[inside], self._b[inside], lambda k: self.links.ties[ties[k]].op
        )

    def pins(self, component: int) -> list[tuple[str, Op | None, Atoms]]:
        """The pins of a component: reasons, operations and atoms."""
        found = []
        for pin in self.links.pins:
            here = pin.atoms[self.solution.component[pin.atoms] == component]
            if len(here):
                found.append((pin.reason, pin.op, here))
        return found


class _Paths:
    """A breadth-first search from one atom along ties `a[i] — b[i]`, made by `op_of(i)`."""

    def __init__(self, start: int, a: Atoms, b: Atoms, op_of: Callable[[int], Op | None]):
        atoms, places = np.unique(np.concatenate([[start], a, b]), return_inverse=True)
        self._atoms, self._op_of = atoms, op_of
        self._a, self._b = places[1 : 1 + len(a)], places[1 + len(a) :]
        matrix = scipy.sparse.coo_matrix(
            (np.ones(len(a), bool), (self._a, self._b)), shape=(len(atoms), len(atoms))
        )
        order, self._before = scipy.sparse.csgraph.breadth_first_order(
            matrix.tocsr(), places[0], directed=False
        )
        self._rank = np.full(len(atoms), len(atoms))
        self._rank[order] = np.arange(len(order))

    def nearest(self, targets: Atoms) -> tuple[int, int]:
        """The rank and the atom of the target with the fewest ties."""
        places = np.searchsorted(self._atoms, targets)
        best = int(np.argmin(self._rank[places]))
        return int(self._rank[places[best]]), int(targets[best])

    def to(self, atom: int) -> list[Op]:
        """The operations on the shortest path to an atom, without repetitions in a row."""
        here, ops = int(np.searchsorted(self._atoms, atom)), []
        while (before := int(self._before[here])) >= 0:
            along = (self._a == here) & (self._b == before)
            along |= (self._a == before) & (self._b == here)
            ops.append(self._op_of(int(np.argmax(along))))
            here = before
        known = [op for op in reversed(ops) if op is not None]
        return [op for k, op in enumerate(known) if k == 0 or op is not known[k - 1]]


def explain(structure: Structure, leaf: str, axis: int) -> Why:
    """See `Structure.why`."""
    shapes = structure.shapes
    legal.check_name("leaf", leaf, shapes)
    axes = len(shapes[leaf])
    if not (isinstance(axis, int | np.integer) and -axes <= axis < axes):
        raise ValueError(f"`axis` is {axis!r}, but '{leaf}' has shape {shapes[leaf]}.")
    axis = int(axis) % axes
    found = structure.constraints
    value = structure.program.block.ins[list(shapes).index(leaf)]
    atoms = found.links.labels[value][axis]
    component = found.solution.component[atoms]
    members = _members(structure, found, leaf, axis, atoms, component)
    pinned = _pinned(structure.program.block, found, atoms, component)
    taken = [pinned_.indices for pinned_ in pinned] + [member.indices for member in members]
    rest = np.setdiff1d(np.arange(len(atoms)), np.concatenate([*taken, np.zeros(0, int)]))
    if len(rest):
        pinned.append(Pinned(structure.pinned[leaf][axis][-1], rest, _together(found, atoms[rest])))
    return Why(leaf, axis, len(atoms), tuple(pinned), members)


def _members(
    structure: Structure,
    found: Constraints,
    leaf: str,
    axis: int,
    atoms: Atoms,
    component: np.ndarray,
) -> tuple[Member, ...]:
    members = []
    for group, components in zip(structure.groups, structure.components, strict=True):
        indices = np.flatnonzero(np.isin(component, components))
        if len(indices):
            paths = found.around(int(atoms[indices[0]]))
            here = component[indices[0]]
            ties = [
                (*_way(structure, found, paths, slot.leaf, slot.axis, here), slot.leaf, slot.axis)
                for slot in group.slots
                if (slot.leaf, slot.axis) != (leaf, axis)
            ]
            ordered = sorted(ties, key=lambda tie: tie[0])
            reached = tuple(Tied(name, d, _equations(paths.to(to))) for _, to, name, d in ordered)
            members.append(Member(group.name, indices, reached))
    return tuple(members)


def _way(
    structure: Structure, found: Constraints, paths: _Paths, leaf: str, axis: int, component: int
) -> tuple[int, int]:
    value = structure.program.block.ins[list(structure.shapes).index(leaf)]
    atoms = found.links.labels[value][axis]
    return paths.nearest(atoms[found.solution.component[atoms] == component])


def _pinned(block: Block, found: Constraints, atoms: Atoms, component: np.ndarray) -> list[Pinned]:
    """The pinned indices by reason, the reason with the fewest equations first."""
    reasons = found.solution.pinned
    indices: dict[str, list[np.ndarray]] = {}
    ways: dict[str, list[Op]] = {}
    for c in np.unique(component).tolist():
        if c in reasons:
            places = np.flatnonzero(component == c)
            for reason in reasons[c]:
                indices.setdefault(reason, []).append(places)
            if not ways.keys() >= set(reasons[c]):
                ways = _to_pins(block, found, int(atoms[places[0]])) | ways
    rows = [
        Pinned(reason, np.sort(np.concatenate(places)), _equations(ways[reason]))
        for reason, places in indices.items()
    ]
    return sorted(rows, key=lambda row: len(row.equations))


def _to_pins(block: Block, found: Constraints, start: int) -> dict[str, list[Op]]:
    """For each reason of an atom's component, the operations to the nearest pin."""
    paths = found.around(start)
    best: dict[str, tuple[int, int, Op | None]] = {}
    for reason, op, targets in found.pins(int(found.solution.component[start])):
        rank, atom = paths.nearest(targets)
        if reason not in best or rank < best[reason][0]:
            best[reason] = rank, atom, op or _maker(block, found, atom)
    return {reason: _joined(paths.to(atom), op) for reason, (_, atom, op) in best.items()}


def _joined(ops: list[Op], last: Op | None) -> list[Op]:
    return ops if last is None or (ops and ops[-1] is last) else [*ops, last]


def _maker(block: Block, found: Constraints, atom: int) -> Op | None:
    """The operation that makes the result with this atom, if a result has it."""

    def has(value: Value) -> bool:
        return any((axis == atom).any() for axis in found.links.labels[value])

    ends = {value for value in block.outs if has(value)}
    return next((op for op in block.ops if ends & set(op.outs)), None)


def _together(found: Constraints, atoms: Atoms) -> tuple[Equation, ...]:
    """The equations that tie the first two indices to each other, if they are tied."""
    two = atoms[:2]
    if len(two) < 2 or len(np.unique(found.solution.component[two])) > 1:
        return ()
    return _equations(found.around(int(two[0])).to(int(two[1])))


def _equations(ops: Sequence[Op]) -> tuple[Equation, ...]:
    return tuple(
        Equation(
            op.name,
            tuple(_type(v.aval) for v in op.ins),
            tuple(_type(v.aval) for v in op.outs),
            "/".join(filter(None, (str(source.name_stack) for source in op.sources))),
            _line(op),
        )
        for op in ops
    )


def _type(aval: Any) -> str:
    return aval.str_short() if hasattr(aval, "str_short") else str(aval)


def _line(op: Op) -> str:
    """The innermost line of the user's program, with the last three parts of the file's path.

    Functions of JAX that are compiled once for several calls have no separate line.
    """
    lines = filter(None, map(source_info_util.summarize, reversed(op.sources)))
    short = "/".join(Path(next(lines, "")).parts[-3:])
    return re.sub(r":(\d+):\d+ ", r":\1 ", short)
