"""A function as a graph of values and operations, from its jaxpr."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core as jex

# Calls that only group operations: the graph inlines them.
TRANSPARENT = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "call": "call_jaxpr",
    "composite": "jaxpr",
}
# Operations that run inner jaxprs: the graph keeps these as blocks.
_NESTED = {
    "custom_jvp_call": ("call_jaxpr",),
    "custom_vjp_call": ("call_jaxpr",),
    "remat2": ("jaxpr",),
    "checkpoint": ("jaxpr",),
    "scan": ("jaxpr",),
    "while": ("cond_jaxpr", "body_jaxpr"),
    "cond": ("branches",),
    "shard_map": ("jaxpr",),
}
_FOLD_LIMIT = 4096


@dataclass(eq=False, frozen=True)
class Value:
    """One array of the program: its type, and its value if it is a constant.

    Attributes:
      aval: shape and dtype.
      constant: the array itself for literals and closed-over arrays, else None. Read it by
        `np.asarray`: inside a trace, operations on a `jax.Array` would be traced.
    """

    aval: Any
    constant: Any = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape; `()` for tokens and other values without one."""
        return getattr(self.aval, "shape", ())


@dataclass(eq=False, frozen=True)
class Op:
    """One operation: a primitive with its parameters, operands, results and inner programs.

    Attributes:
      context: the settings under which it was traced (mesh, compute type, metadata). An operation
        inside `auto_axes` has another mesh than its surroundings.
      sources: its source lines: the calls around it, then itself (JAX's `SourceInfo`s).
    """

    primitive: jex.Primitive
    params: dict[str, Any]
    ins: tuple[Value, ...]
    outs: tuple[Value, ...]
    context: Any
    blocks: tuple["Block", ...] = ()
    sources: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """The primitive's name, the key of its rule."""
        return self.primitive.name

    def bind(self, *args: Any, **changes: Any) -> list[Any]:
        """Runs the primitive on `args` in its context, with changed parameters."""
        params = self.primitive.get_bind_params({**self.params, **changes})
        with self.context.manager:
            out = self.primitive.bind(*args, **params)
        return list(out) if self.primitive.multiple_results else [out]


class Block(NamedTuple):
    """A program: operations in order, from `ins` to `outs`."""

    ins: tuple[Value, ...]
    outs: tuple[Value, ...]
    ops: tuple[Op, ...]


def run(
    block: Block,
    args: Sequence[Any],
    bind: Callable[..., Sequence[Any]] = lambda op, *ins: op.bind(*ins),
) -> list[Any]:
    """Runs a program; `bind` computes the results of an operation from its inputs."""
    env = dict(zip(block.ins, args, strict=True))
    for op in block.ops:
        results = bind(op, *(env.get(v, v.constant) for v in op.ins))
        env.update(zip(op.outs, results, strict=True))
    return [env.get(v, v.constant) for v in block.outs]


def read(closed: jex.ClosedJaxpr, sources: tuple[Any, ...] = ()) -> Block:
    """The graph of a jaxpr, with inlined calls and folded integer constants.

    Indices are often literals after a few operations (`x[:, -1]`); the rules of slices and gathers
    need their values.

    Args:
      closed: the jaxpr.
      sources: source lines of the calls around it.
    """
    ins = tuple(Value(v.aval) for v in closed.jaxpr.invars)
    ops: list[Op] = []
    outs = _inline(closed, ins, ops, sources)
    return Block(ins, tuple(outs), tuple(ops))


def _inline(
    closed: jex.ClosedJaxpr, ins: Sequence[Value], ops: list[Op], sources: tuple[Any, ...]
) -> list[Value]:
    jaxpr = closed.jaxpr
    env = dict(zip(jaxpr.invars, ins, strict=True))
    env |= {v: Value(v.aval, c) for v, c in zip(jaxpr.constvars, closed.consts, strict=True)}

    def value(v: Any) -> Value:
        return Value(v.aval, v.val) if isinstance(v, jex.Literal) else env[v]

    for eqn in jaxpr.eqns:
        operands = tuple(value(v) for v in eqn.invars)
        inner = TRANSPARENT.get(eqn.primitive.name)
        here = (*sources, eqn.source_info)
        if inner in eqn.params:
            results = _inline(eqn.params[inner], operands, ops, here)
        else:
            results = _append(eqn, operands, ops, here)
        env.update(zip(eqn.outvars, results, strict=True))
    return [value(v) for v in jaxpr.outvars]


def _append(
    eqn: jex.JaxprEqn, ins: tuple[Value, ...], ops: list[Op], sources: tuple[Any, ...]
) -> list[Value]:
    outs = tuple(Value(v.aval) for v in eqn.outvars)
    op = Op(eqn.primitive, eqn.params, ins, outs, eqn.ctx, _blocks(eqn, sources), sources)
    if _foldable(op):
        return [Value(v.aval, np.asarray(c)) for v, c in zip(outs, _fold(op), strict=True)]
    ops.append(op)
    return list(outs)


def _blocks(eqn: jex.JaxprEqn, sources: tuple[Any, ...]) -> tuple[Block, ...]:
    found: list[Block] = []
    for name in _NESTED.get(eqn.primitive.name, ()):
        inner = eqn.params[name]
        for jaxpr in inner if isinstance(inner, tuple) else (inner,):
            closed = isinstance(jaxpr, jex.ClosedJaxpr)
            found.append(read(jaxpr if closed else jex.ClosedJaxpr(jaxpr, ()), sources))
    return tuple(found)


def _foldable(op: Op) -> bool:
    known = bool(op.ins) and all(v.constant is not None for v in op.ins)
    return known and not op.blocks and all(_small_integers(v.aval) for v in op.outs)


def _small_integers(aval: Any) -> bool:
    kind = getattr(aval, "dtype", np.dtype(float))
    plain = isinstance(kind, np.dtype) and kind.kind in "iub"
    return plain and math.prod(aval.shape) <= _FOLD_LIMIT


def _fold(op: Op) -> list[Any]:
    with jax.ensure_compile_time_eval():
        return op.bind(*(v.constant for v in op.ins))


def trace(f: Callable[..., Any], *args: Any) -> tuple[Block, Any]:
    """The graph of `f(*args)` and the tree of its results, from shapes alone.

    Args:
      f: a jittable function of pytrees of arrays.
      *args: arrays or `jax.ShapeDtypeStruct`s, as for `jax.eval_shape`.

    Returns:
      `(block, out)`: the block's inputs are the leaves of `args` in order; `out` is the result
      of `f` as `jax.ShapeDtypeStruct`s.

    Raises:
      ValueError: `f` cannot be traced because its control flow or shapes depend on the values of
        its arguments.

    >>> block, out = trace(lambda x: 2 * x, jax.ShapeDtypeStruct((3,), "float32"))
    >>> [op.name for op in block.ops], out.shape
    (['mul'], (3,))
    """
    try:
        closed, out = jax.make_jaxpr(f, return_shape=True)(*args)
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
        reason = str(error).strip().splitlines()[0]
        found = re.search(r"depends on the values? of the arguments? (.+)\.$", str(error), re.M)
        which = f" (here: the value of {found[1]})" if found else ""
        raise ValueError(
            "`apply` must be jittable: its control flow and its shapes may depend on the shapes "
            f"of its arguments, not on a value{which}: {reason}"
        ) from error
    return read(closed), out
