"""Whether a program passes an input on unchanged where its parameters are zero.

The program is vmapped over steps with separate parameters. Along the axis of the steps the rules
then determine whether the values of a step are zero, as they do for units along other axes.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lth_jax.structure.constraints import ZERO, Links
from lth_jax.structure.graph import Block, Op, Value, trace
from lth_jax.structure.rules import walk
from lth_jax.structure.sharding import abstract

# Operations that return their operands, possibly in another dtype, in the same order.
PASS = (
    "convert_element_type", "copy", "name", "optimization_barrier", "reshard",
    "sharding_constraint",
)  # fmt: skip
SUMS = ("add", "add_any", "sub")
CALLS = ("remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call")


class Steps(NamedTuple):
    """A program with an axis of steps, walked for given zeros.

    Attributes:
      block: the program.
      links: the atoms of all its values.
      component: the component of each atom.
      steps: the atoms of the steps.
    """

    block: Block
    links: Links
    component: np.ndarray
    steps: np.ndarray

    def content(self, value: Value) -> np.ndarray | None:
        """The content of each step of a value; None if the value does not depend on the step."""
        for atoms in self.links.labels.get(value, ()):
            if np.array_equal(self.component[atoms], self.component[self.steps]):
                return self.links.content(atoms)
        return None

    def zero(self, value: Value) -> np.ndarray:
        """Bool `[steps]`: the value is zero in this step."""
        if value.constant is not None:
            return np.full(len(self.steps), not np.any(np.asarray(value.constant)))
        held = self.content(value)
        return np.zeros(len(self.steps), bool) if held is None else held == ZERO

    def unchanged(self, value: Value, start: Value) -> np.ndarray:
        """Bool `[steps]`: `value` equals `start`, to which zeros were added."""
        return _unchanged(self, _makers(self.block), start, value)


def stacked(
    f: Callable[..., Any], axes: Sequence[int | None], ins: Sequence[Any], steps: int
) -> Block | None:
    """The graph of `f` for several steps at once, or None if an operation cannot be vmapped.

    Args:
      f: a function of arrays.
      axes: for each argument 0 if it has a value for each step, else None.
      ins: the arguments' abstract values of one step.
      steps: the number of steps.
    """
    shapes = [
        abstract(a) if axis is None else jax.ShapeDtypeStruct((steps, *a.shape), a.dtype)
        for a, axis in zip(ins, axes, strict=True)
    ]
    with contextlib.suppress(NotImplementedError):
        return trace(jax.vmap(f, list(axes)), *shapes)[0]
    return None


def analyse(block: Block, contents: Sequence[np.ndarray | None]) -> Steps:
    """Walks a program made by `stacked`.

    Args:
      block: the program.
      contents: for each input the content of each step; None for inputs without an axis of steps.
    """
    links = Links()
    steps = links.fresh(max(len(held) for held in contents if held is not None))
    ins = []
    for value, held in zip(block.ins, contents, strict=True):
        axes = [links.fresh(n) for n in value.shape]
        if held is not None:
            links.declare(axes[0], held)
            links.tie(steps, axes[0])
        ins.append(axes)
    walk(links, block, ins)
    return Steps(block, links, links.solve().component, steps)


def _operations(block: Block) -> Iterator[Op]:
    for op in block.ops:
        yield op
        for inner in op.blocks:
            yield from _operations(inner)


def _makers(block: Block) -> dict[Value, Op]:
    """The operation that makes each value, also of inner programs."""
    return {value: op for op in _operations(block) for value in op.outs}


def _unchanged(
    steps: Steps,
    makers: dict[Value, Op],
    start: Value,
    value: Value,
    order: tuple[int, ...] | None = None,
) -> np.ndarray:
    """`Steps.unchanged`; `order` has the axis of `start` for each axis of `value`."""
    order = tuple(range(len(value.shape))) if order is None else order
    same = functools.partial(_unchanged, steps, makers, start, order=order)
    never, op = np.zeros(len(steps.steps), bool), makers.get(value)
    if value is start and order == tuple(range(len(order))):
        return ~never
    if op is None or not holds(value, start):
        return never
    if op.name in PASS:
        return same(op.ins[op.outs.index(value)])
    if op.name == "transpose":
        moved = dict(zip(op.params["permutation"], order, strict=True))
        return same(op.ins[0], order=tuple(moved[d] for d in range(len(order))))
    if op.name in SUMS:
        a, b = op.ins
        ways = [(a, b)] if op.name == "sub" else [(a, b), (b, a)]
        return np.any([z & same(x) for x, y in ways if (z := steps.zero(y)).any()] or [never], 0)
    if op.name == "select_n":
        return np.all([same(x) for x in op.ins[1:]], axis=0)
    if op.name in CALLS:
        (inner,), end = op.blocks, op.blocks[0].outs[op.outs.index(value)]
        entries = zip(op.ins, inner.ins, strict=True)
        return np.any([same(x) & _unchanged(steps, makers, e, end) for x, e in entries], axis=0)
    return never


def holds(value: Value, start: Value) -> bool:
    """Whether `value` has the entries of `start`, in a dtype that holds all of its numbers."""
    kinds = start.aval.dtype, value.aval.dtype
    plain = all(isinstance(kind, np.dtype) for kind in kinds)
    return plain and sorted(value.shape) == sorted(start.shape) and np.can_cast(*kinds)
