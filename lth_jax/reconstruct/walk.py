"""Runs a function operation by operation, and stops before each product of data and weights."""

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.reconstruct.products import Product, product_of
from lth_jax.reconstruct.views import View, follow
from lth_jax.structure.graph import Block, Op, Value
from lth_jax.structure.rules_control_flow import scan_parts

_INLINE = frozenset(("custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint"))
_SMALL = 4096


class Site(NamedTuple):
    """A product of data and weights.

    Attributes:
      primitive: its name.
      view: the moves from the leaf to the weights.
      product: the maps from operands to rows and to a matrix.
      operands: operands of the primitive; None for the weights.
    """

    primitive: str
    view: View
    product: Product
    operands: tuple[Any, ...]


class Use(NamedTuple):
    """An operation that reads a leaf and is not a product of data and weights."""

    leaf: int
    primitive: str


Walk: TypeAlias = Generator[Site | Use, None, list[Any]]


def walk(block: Block, inputs: Sequence[Any], leaves: Sequence[Any]) -> Walk:
    """Runs a block; yields a `Site` before each product, a `Use` before other uses of a leaf.

    A leaf is read from `leaves` at each operation that uses it, so that weights replaced between
    two events take effect at once. A scan that reads a leaf runs step by step, so that each layer
    of a stack is a separate product. A value is dropped after its last use.

    Args:
      block: the program.
      inputs: arrays, and a `View` for each leaf.
      leaves: the list of the leaves' arrays, which the caller may change.
    """
    env: dict[Value, Any] = dict(zip(block.ins, inputs, strict=True))
    last = {value: i for i, op in enumerate(block.ops) for value in op.ins}
    last |= dict.fromkeys(block.outs, len(block.ops))
    del inputs
    for i, op in enumerate(block.ops):
        operands = [env[v] if v in env else _constant(v) for v in op.ins]
        outs = yield from _step(op, operands, leaves)
        del operands
        env.update(zip(op.outs, outs, strict=True))
        for value in {*op.ins, *op.outs}:
            if last.get(value, i) <= i:
                env.pop(value, None)
    return [env[v] if v in env else _constant(v) for v in block.outs]


def _step(op: Op, operands: list[Any], leaves: Sequence[Any]) -> Walk:
    views = [k for k, x in enumerate(operands) if isinstance(x, View)]
    if not views:  # whole, with its own derivative if it has one
        return _run(op, operands)
    if op.name in _INLINE:
        return (yield from walk(op.blocks[0], operands, leaves))
    if (moved := follow(op, operands)) is not None:
        return list(moved)
    if op.name == "scan":
        return (yield from _scan(op, operands, leaves))
    product = product_of(op, views[0]) if len(views) == 1 else None
    if product is None:
        for k in views:
            yield Use(operands[k].leaf, op.name)
    else:
        data = tuple(None if k == views[0] else x for k, x in enumerate(operands))
        yield Site(op.name, operands[views[0]], product, data)
        del data
    return _run(op, [_read(x, leaves) for x in operands])


def _scan(op: Op, operands: list[Any], leaves: Sequence[Any]) -> Walk:
    start, end = scan_parts(op)
    constants, carry, sequences = operands[:start], operands[start:end], operands[end:]
    steps, carried = range(op.params["length"]), end - start
    del operands
    results: list[list[Any]] = []
    for i in reversed(steps) if op.params["reverse"] else steps:
        outs = yield from walk(
            op.blocks[0], [*constants, *carry, *(_index(x, i) for x in sequences)], leaves
        )
        carry = outs[:carried]
        results.append([_read(x, leaves) for x in outs[carried:]])
    if op.params["reverse"]:
        results.reverse()
    stacked = [jnp.stack([jnp.asarray(x) for x in column]) for column in zip(*results, strict=True)]
    return [*carry, *stacked]


def _index(x: Any, i: int) -> Any:
    return x.then(lambda array: array[i]) if isinstance(x, View) else x[i]


def _read(x: Any, leaves: Sequence[Any]) -> Any:
    return x.read(leaves[x.leaf]) if isinstance(x, View) else x


def _run(op: Op, operands: list[Any]) -> list[Any]:
    """The results; those of small integers that follow from constants stay NumPy arrays.

    An index is therefore static even if the data are traced.
    """
    known = bool(operands) and all(isinstance(x, np.ndarray) for x in operands)
    if not known or not all(_is_small(v.aval) for v in op.outs):
        return op.bind(*operands)
    with jax.ensure_compile_time_eval():
        return [np.asarray(x) for x in op.bind(*operands)]


def _constant(value: Value) -> Any:
    return np.asarray(value.constant) if _is_small(value.aval) else value.constant


def _is_small(aval: Any) -> bool:
    dtype = getattr(aval, "dtype", None)
    return isinstance(dtype, np.dtype) and dtype.kind in "iub" and aval.size <= _SMALL
