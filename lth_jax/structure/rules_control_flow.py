"""Rules of the primitives that run programs: scan, while, cond, remat and custom derivatives."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from lth_jax.structure.constraints import FINITE, ZERO, Atoms, Axes, Links
from lth_jax.structure.graph import Block, Op
from lth_jax.structure.identity import analyse, stacked
from lth_jax.structure.rules import Shrunk, register, walk


def _link_block(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    return walk(links, op.blocks[0], ins)


# --- remat


def _run_remat(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    policy, prevent_cse = op.params["policy"], op.params["prevent_cse"]
    body = jax.checkpoint(
        lambda *xs: shrunk.block(op.blocks[0], xs), policy=policy, prevent_cse=prevent_cse
    )
    return body(*args)


register("remat2", "checkpoint", link=_link_block, run=_run_remat)


# --- loops


def _repeat(
    links: Links, carry: list[Axes], body: Callable[[list[Axes]], list[Axes]]
) -> tuple[list[Axes], list[Axes]]:
    """Repeats the walk through a loop's body until the content of the carry no longer changes.

    Returns the atoms of the carry and those of all results of the body.
    """
    state = [[links.with_content(a, links.content(a)) for a in axes] for axes in carry]
    while True:
        outs = body(state)
        held = [
            [np.maximum(links.content(a), links.content(b)) for a, b in zip(*pair, strict=True)]
            for pair in zip(state, outs[: len(state)], strict=True)
        ]
        changed = [
            [links.with_content(a, h) for a, h in zip(axes, h, strict=True)]
            for axes, h in zip(state, held, strict=True)
        ]
        if all(
            a is b for x, y in zip(state, changed, strict=True) for a, b in zip(x, y, strict=True)
        ):
            break
        state = changed
    for axes, results in zip(state, outs[: len(state)], strict=True):
        for a, b in zip(axes, results, strict=True):
            links.tie(a, b)
    return state, outs


def scan_parts(op: Op) -> tuple[int, int]:
    """The first and last position of the carry among a scan's operands (constants, carry, xs).

    Derived from ranks, because the names of the parameters differ between versions of JAX.
    """
    body = op.blocks[0]
    outs = zip(op.outs, body.outs, strict=True)
    carry = sum(len(whole.shape) == len(part.shape) for whole, part in outs)
    ins = zip(op.ins, body.ins, strict=True)
    end = sum(len(whole.shape) == len(part.shape) for whole, part in ins)
    return end - carry, end


def _scan(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    n, m = scan_parts(op)
    steps = _steps(links, op, ins)
    slices = [axes[1:] for axes in ins[m:]]
    carry, outs = _repeat(
        links, ins[n:m], lambda c: walk(links, op.blocks[0], [*ins[:n], *c, *slices])
    )
    return [*carry, *([a, *axes] for a, axes in zip(steps, outs[len(carry) :], strict=True))]


def _steps(links: Links, op: Op, ins: list[Axes]) -> list[Atoms]:
    """The atoms of the steps in each stacked result.

    If all stacked operands are parameters, a step is a unit if it passes the carry on unchanged
    where these are zero, as a residual layer does: removing it then equals masking it.
    """
    n, m = scan_parts(op)
    reason, results = "`scan` runs along it", len(op.outs) - (m - n)
    along = [axes[0] for axes in ins[m:]]
    if not along or any(links.is_stuck(atoms) for atoms in along):
        for atoms in along:
            links.pin(atoms, reason)
        return [links.stuck(op.params["length"], reason)] * results
    for atoms in along:
        links.tie(along[0], atoms)
    links.order(along[0], reason)
    given = [links.content(atoms) for atoms in along]
    idle, held = _masked_steps(op, given)
    loose, masked = np.where(idle, ZERO, FINITE), np.max(given, axis=0) == ZERO
    links.pin(along[0][masked & ~idle], f"{reason}, and a masked step changes the carry")
    links.add_up(along[0], loose, f"{reason}, and a step changes the carry")
    return [links.with_content(along[0], content) for content in held]


def _masked_steps(op: Op, given: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Which steps pass the carry on unchanged, and the content of each step of each result.

    Args:
      op: a scan.
      given: the content of each step of its stacked operands.
    """
    n, m = scan_parts(op)
    steps, block = len(given[0]), _side_by_side(op)
    free = np.full(steps, FINITE)
    if block is None:
        return np.zeros(steps, bool), [free] * (len(op.outs) - (m - n))
    found = analyse(block, [*[None] * n, *[free] * (m - n), *given])
    pairs = zip(block.outs, block.ins[n:m], strict=False)
    idle = np.all([found.unchanged(out, start) for out, start in pairs], axis=0)
    results = [found.links.labels[out][0] for out in block.outs[m - n :]]
    return idle, [found.links.content(atoms) for atoms in results]


@functools.lru_cache(maxsize=64)
def _side_by_side(op: Op) -> Block | None:
    """The body of a scan for all steps at once, each with a separate carry."""
    n, body = scan_parts(op)[0], op.blocks[0]
    axes = [None if k < n else 0 for k in range(len(body.ins))]
    with op.context.manager:
        return stacked(
            jax.extend.core.jaxpr_as_fun(op.params["jaxpr"]),
            axes,
            [v.aval for v in body.ins],
            op.params["length"],
        )


def _run_scan(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    n, m = scan_parts(op)

    def body(carry: Any, xs: Any) -> tuple[Any, Any]:
        outs = shrunk.block(op.blocks[0], [*args[:n], *carry, *xs])
        return outs[: m - n], outs[m - n :]

    carry, ys = jax.lax.scan(
        body,
        list(args[n:m]),
        list(args[m:]),
        length=args[m].shape[0] if args[m:] else op.params["length"],
        **{name: op.params[name] for name in ("reverse", "unroll")},
    )
    return [*carry, *ys]


def _while(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    n = op.params["cond_nconsts"]
    m = n + op.params["body_nconsts"]
    test, body = op.blocks
    carry, _ = _repeat(links, ins[m:], lambda c: walk(links, body, [*ins[n:m], *c]))
    walk(links, test, [*ins[:n], *carry])
    return carry


def _run_while(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    n = op.params["cond_nconsts"]
    m = n + op.params["body_nconsts"]
    test, body = op.blocks
    return jax.lax.while_loop(
        lambda carry: shrunk.block(test, [*args[:n], *carry])[0],
        lambda carry: shrunk.block(body, [*args[n:m], *carry]),
        list(args[m:]),
    )


register("scan", link=_scan, run=_run_scan)
register("while", link=_while, run=_run_while)


# --- branches


def _cond(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    branches = [walk(links, block, ins[1:]) for block in op.blocks]
    return [_meet(links, results) for results in zip(*branches, strict=True)]


def _meet(links: Links, results: Sequence[Axes]) -> Axes:
    """A result of all branches: tied, and zero if it is in every branch."""
    out: Axes = []
    for across in zip(*results, strict=True):
        for atoms in across[1:]:
            links.tie(across[0], atoms)
        held = np.max([links.content(atoms) for atoms in across], axis=0)
        out.append(links.with_content(across[0], held))
    return out


def _run_cond(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    def branch(block: Block) -> Callable[..., list[Any]]:
        return lambda *xs: shrunk.block(block, xs)

    return jax.lax.switch(args[0], [branch(block) for block in op.blocks], *args[1:])


register("cond", link=_cond, run=_run_cond)


# --- custom derivatives


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _is_given(tangent: Any) -> bool:
    """Whether a tangent or cotangent is a floating-point array, not a symbolic zero."""
    return not isinstance(tangent, SymbolicZero) and _is_float(tangent)


def _no_tangent(x: Any) -> np.ndarray:
    return np.zeros(jnp.shape(x), jax.dtypes.float0)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Differentiated:
    """The differentiated operands of a function, as a static residual."""

    places: tuple[int, ...]


def _at(op: Op, args: Sequence[Any], places: Sequence[int]) -> Callable[..., tuple[Any, ...]]:
    """The operation as a function of the operands at `places`."""

    def call(*given: Any) -> tuple[Any, ...]:
        full = list(args)
        for k, x in zip(places, given, strict=True):
            full[k] = x
        return tuple(op.bind(*full))

    return call


def _run_custom_jvp(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    """A function with the compacted body and the compacted custom JVP rule.

    Inlining the body would change gradients: relu's custom rule gives 0 at 0, its body gives 1/2.
    The rule is called with tangents of the differentiated operands only, because some rules reject
    others.
    """
    floats = [k for k, v in enumerate(op.outs) if _is_float(v.aval)]

    @jax.custom_jvp
    def call(*xs: Any) -> tuple[Any, ...]:
        return tuple(shrunk.block(op.blocks[0], xs))

    def forward(primals: Any, tangents: Any) -> tuple[Any, Any]:
        places = [k for k, t in enumerate(tangents) if _is_given(t)]

        def rule(*flat: Any) -> list[Any]:
            xs, given = flat[: len(op.ins)], flat[len(op.ins) :]
            f = _at(op, xs, places)
            outs, tangents = jax.jvp(f, [xs[k] for k in places], list(given))
            return [*outs, *(tangents[k] for k in floats)]

        ins, outs = [op.ins[k] for k in places], [op.outs[k] for k in floats]
        smaller = shrunk.derived(rule, [*op.ins, *ins], [*op.outs, *outs])
        flat = smaller(*primals, *(tangents[k] for k in places))
        results, given = flat[: len(op.outs)], dict(zip(floats, flat[len(op.outs) :], strict=True))
        return tuple(results), tuple(given.get(k, _no_tangent(x)) for k, x in enumerate(results))

    call.defjvp(forward, symbolic_zeros=True)
    return list(call(*args))


def _run_custom_vjp(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    """As `_run_custom_jvp`, for a custom VJP rule, which recomputes its residuals."""

    @jax.custom_vjp
    def call(*xs: Any) -> tuple[Any, ...]:
        return tuple(shrunk.block(op.blocks[0], xs))

    def forward(*xs: Any) -> tuple[tuple[Any, ...], Any]:
        primals = [x.value for x in xs]
        places = tuple(k for k, x in enumerate(xs) if x.perturbed and _is_float(x.value))
        return tuple(shrunk.block(op.blocks[0], primals)), (primals, _Differentiated(places))

    def backward(residuals: Any, cotangents: Any) -> tuple[Any, ...]:
        primals, differentiated = residuals
        places = differentiated.places
        used = [k for k, c in enumerate(cotangents) if _is_given(c)]
        if not used:
            return (None,) * len(primals)

        def rule(*flat: Any) -> list[Any]:
            xs, given = flat[: len(op.ins)], flat[len(op.ins) :]
            f = _at(op, xs, places)
            _, back = jax.vjp(lambda *ys: [f(*ys)[k] for k in used], *(xs[k] for k in places))
            return list(back(list(given)))

        ins, outs = [op.ins[k] for k in places], [op.outs[k] for k in used]
        smaller = shrunk.derived(rule, [*op.ins, *outs], ins)
        found = dict(zip(places, smaller(*primals, *(cotangents[k] for k in used)), strict=True))
        return tuple(found.get(k) for k in range(len(primals)))

    call.defvjp(forward, backward, symbolic_zeros=True)
    return list(call(*args))


register("custom_jvp_call", link=_link_block, run=_run_custom_jvp)
register("custom_vjp_call", link=_link_block, run=_run_custom_vjp)
