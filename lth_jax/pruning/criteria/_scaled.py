"""Evaluation of a traced function in block floating point: arrays with an exponent of their own.

Every floating-point array is held as `value · 2^exponent` with one integer exponent for the whole
array, chosen so that the largest finite magnitude of `value` lies in [½, 1). A product of hundreds
of layers then neither overflows nor vanishes. Factors are powers of two, so rounding is that of
the plain evaluation wherever that one stays in range. Half-precision arrays become float32.

Sums, maxima, comparisons and everything that moves entries put their operands at one exponent
first; products add exponents. What is neither (`exp`, `tanh`, …) gets plain arrays, which saturate
at the largest finite power of two. All of it is differentiable: exponents are constants.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex

from lth_jax.pruning.criteria._inputs import widen

_ZERO = -(2**20)
"""What an array of zeros adds to its exponent, so that it is never the larger of two."""

Exponent = Mapping[int, tuple[Any, int]]
"""A sum of int32 scalars, each with a multiplicity, by the scalars' ids.

Kept as a sum, since the exponents of two branches then differ by what happened in the branches
alone. As one number each would depend on all layers before it, and XLA, which fuses scalar
operations into all their uses, takes minutes to compile 40 layers (jax 0.10 on CPU).
"""

_PLAIN: Exponent = {}
"""The exponent 0."""

# Linear in all floating-point operands together, comparisons of them included. Their integer and
# boolean operands are indices and conditions. Names are those of jax 0.10.
_LINEAR = frozenset(
    "abs add add_any argmax argmin broadcast_in_dim clamp concatenate convert_element_type copy "
    "copy_p cummax cummin cumsum dynamic_slice dynamic_update_slice eq expand_dims gather ge gt "
    "is_finite le lt max min ne neg optimization_barrier pad reduce_max reduce_min reduce_sum "
    "reduce_window_max reduce_window_min reduce_window_sum reshape rev scatter scatter-add "
    "select_n sharding_constraint slice sort split squeeze sub tile top_k transpose".split()
)
# Those of them whose results are as large as their operands: no new exponent is sought for these.
_AS_LARGE = frozenset(
    "abs broadcast_in_dim concatenate convert_element_type copy expand_dims max min neg pad "
    "reduce_max reduce_min reduce_window_max reshape rev squeeze transpose".split()
)
# Linear in each floating-point operand; "conv" is the primitive of `lth_jax.models.convolution`.
_PRODUCTS = frozenset(("mul", "dot_general", "conv_general_dilated", "conv", "ragged_dot_general"))
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}


class Scaled(NamedTuple):
    """An array `value · 2^exponent`.

    The exponent is None for arrays that any exponent fits: those that are not floating-point, and
    constants whose entries are all 0 or infinite.
    """

    value: Any
    exponent: Exponent | None


def scaled(value: Any, exponent: Exponent | None = _PLAIN) -> Scaled:
    """`value · 2^exponent` with the largest finite magnitude of the value in [½, 1).

    >>> found = scaled(jnp.array([3.0, -8.0]))
    >>> found.value.tolist(), int(total(found.exponent))
    ([0.1875, -0.5], 4)
    """
    if not _is_float(value):
        return Scaled(value, None)
    value = widen(jnp.asarray(value))
    if exponent is None:
        return Scaled(value, None)
    info = jnp.finfo(value.dtype)
    size = jnp.abs(lax.stop_gradient(value))
    top = jnp.max(jnp.where(jnp.isfinite(size), size, jnp.zeros_like(size)), initial=0)
    bits = lax.bitcast_convert_type(top, f"int{info.bits}") >> info.nmant
    shift = bits.astype(jnp.int32) + info.minexp
    found = jnp.where(top > 0, shift, _ZERO)
    return Scaled(times_power(value, jnp.where(top > 0, -shift, 0)), plus(exponent, term(found)))


def term(exponent: jax.Array) -> Exponent:
    """An int32 scalar as an exponent."""
    return {id(exponent): (exponent, 1)}


def plus(a: Exponent, b: Exponent, times: int = 1) -> Exponent:
    """`a + times · b`."""
    found = dict(a)
    for name, (value, number) in b.items():
        number = found.get(name, (value, 0))[1] + times * number
        found[name] = (value, number)
    return {name: pair for name, pair in found.items() if pair[1]}


def total(exponent: Exponent) -> Any:
    """The exponent as one int32 scalar; the Python number 0 for an empty sum.

    >>> total(plus(term(jnp.int32(2)), term(jnp.int32(3)), times=-2)).item()
    -4
    """
    return sum(value if number == 1 else number * value for value, number in exponent.values())


def times_power(value: jax.Array, exponent: Any) -> jax.Array:
    """`value · 2^exponent` for an integer exponent.

    >>> times_power(jnp.array([1.0, 3.0]), -2).tolist()
    [0.25, 0.75]
    """
    exponent = jnp.asarray(exponent, jnp.int32)
    half = exponent >> 1  # two factors, since 2^128 is no float32 although its root is
    return value * _power(half, value.dtype) * _power(exponent - half, value.dtype)


def aligned(arrays: Sequence[Scaled]) -> tuple[list[jax.Array], Exponent | None]:
    """The values of floating-point arrays at their largest exponent, and this exponent.

    >>> values, exponent = aligned([scaled(jnp.array(1.0)), scaled(jnp.array(8.0))])
    >>> [float(v) for v in values], int(total(exponent))
    ([0.0625, 0.5], 4)
    """
    known = [array.exponent for array in arrays if array.exponent is not None]
    if not known:
        return [array.value for array in arrays], None
    first = known[0]
    above = [None if e is None else total(plus(e, first, times=-1)) for _, e in arrays]
    if all(difference is None or isinstance(difference, int) for difference in above):
        return [array.value for array in arrays], first
    most = reduce(jnp.maximum, [d for d in above if d is not None], jnp.int32(0))
    values = [
        value if d is None else times_power(value, d - most)
        for (value, _), d in zip(arrays, above, strict=True)
    ]
    return values, plus(first, term(most))


def evaluate(program: jex.ClosedJaxpr, args: Sequence[Scaled]) -> list[Scaled]:
    """The results of a traced function.

    Args:
      program: from `jax.make_jaxpr`.
      args: one for each of its arguments, as `scaled` makes them.

    >>> program = jax.make_jaxpr(lambda x: (x * 1e30) * 1e30)(jnp.array(1.0))
    >>> [out] = evaluate(program, [scaled(jnp.array(1.0))])
    >>> float(np.float64(out.value) * 2.0 ** int(total(out.exponent)))
    1.0000000...e+60
    """
    jaxpr = program.jaxpr
    held: dict[Any, Scaled] = dict(zip(jaxpr.invars, args, strict=True))
    held.update(zip(jaxpr.constvars, map(scaled, program.consts), strict=True))

    def read(atom: Any) -> Scaled:
        return held[atom] if not isinstance(atom, jex.Literal) else _constant(atom.val)

    for eqn in jaxpr.eqns:
        outs = _apply(eqn, [read(atom) for atom in eqn.invars])
        held.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(eqn: Any, ins: list[Scaled]) -> list[Scaled]:
    """The results of one operation."""
    name, params = eqn.primitive.name, eqn.params
    if name in _CALLS:
        return evaluate(_closed(params[_CALLS[name]]), ins)
    if name == "custom_jvp_call" and _is_linear(params["call_jaxpr"].jaxpr):
        # At a tie, as of ReLU at 0, the derivative may be another; no flow passes there.
        return evaluate(params["call_jaxpr"], ins)
    if name == "convert_element_type" and not _is_float(eqn.outvars[0].aval):
        return _plainly(eqn, ins)
    if name in _LINEAR:
        return _linear(eqn, ins)
    if name in _PRODUCTS:
        return _at(eqn, [array.value for array in ins], _sum(eqn, ins, [1] * len(ins)))
    return _RULES.get(name, _plainly)(eqn, ins)


def _constant(value: Any) -> Scaled:
    fits = not np.any(np.isfinite(value) & (value != 0)) if _is_float(value) else True
    return Scaled(jnp.asarray(value), None) if fits and not _is_half(value) else scaled(value)


def _at(eqn: Any, values: Sequence[Any], exponent: Exponent | None) -> list[Scaled]:
    """The operation on these values, its floating-point results at the exponent given."""
    params = {name: _wide_dtype(value) for name, value in eqn.params.items()}
    outs = eqn.primitive.bind(*values, **params)
    if eqn.primitive.name in _AS_LARGE:
        return [Scaled(outs, exponent if _is_float(outs) else None)]
    return [scaled(out, exponent) for out in (outs if eqn.primitive.multiple_results else [outs])]


def _sum(eqn: Any, ins: Sequence[Scaled], signs: Sequence[int]) -> Exponent | None:
    """The exponent of a product or quotient; None where a factor is a constant 0."""
    found: Exponent = _PLAIN
    for array, atom, sign in zip(ins, eqn.invars, signs, strict=False):
        if array.exponent is not None:
            found = plus(found, array.exponent, sign)
        elif _is_float(atom.aval):
            return None
    return found


def _linear(eqn: Any, ins: list[Scaled]) -> list[Scaled]:
    floats = [_is_float(atom.aval) for atom in eqn.invars]
    if not any(floats):
        return _at(eqn, [array.value for array in ins], _PLAIN)
    values, exponent = aligned([a for a, use in zip(ins, floats, strict=True) if use])
    rest = iter(values)
    mixed = [next(rest) if use else a.value for a, use in zip(ins, floats, strict=True)]
    return _at(eqn, mixed, exponent)


def _plainly(eqn: Any, ins: list[Scaled]) -> list[Scaled]:
    """The operation on plain arrays of the dtypes that it was traced with."""
    functions, params = eqn.primitive.get_bind_params(eqn.params)
    values = [_plain(array, atom.aval) for array, atom in zip(ins, eqn.invars, strict=True)]
    outs = eqn.primitive.bind(*functions, *values, **params)
    return [scaled(out) for out in (outs if eqn.primitive.multiple_results else [outs])]


def _plain(array: Scaled, aval: Any) -> Any:
    if not _is_float(aval):
        return array.value
    most = jnp.finfo(array.value.dtype).maxexp - 1
    exponent = total(array.exponent or _PLAIN)
    return times_power(array.value, jnp.minimum(exponent, most)).astype(aval.dtype)


def _quotient(eqn: Any, ins: list[Scaled]) -> list[Scaled]:
    return _at(eqn, [array.value for array in ins], _sum(eqn, ins, (1, -1)))


def _whole_power(eqn: Any, ins: list[Scaled]) -> list[Scaled]:
    return _at(eqn, [ins[0].value], _sum(eqn, ins, [eqn.params.get("y", 2)]))


def _sign(eqn: Any, ins: list[Scaled]) -> list[Scaled]:
    return _at(eqn, [ins[0].value], _PLAIN)


def _root(eqn: Any, ins: list[Scaled]) -> list[Scaled]:
    """√x and 1/√x, at an even exponent."""
    value, exponent = ins[0]
    terms = (exponent or _PLAIN).items()
    rest = jnp.asarray(total({name: (v, 1) for name, (v, n) in terms if n % 2}), jnp.int32)
    half = plus({name: (v, n // 2) for name, (v, n) in terms if n // 2}, term(rest // 2))
    sign = -1 if eqn.primitive.name == "rsqrt" else 1
    return _at(eqn, [times_power(value, rest % 2)], plus(_PLAIN, half, sign))


def _scan(eqn: Any, ins: list[Scaled]) -> list[Scaled]:
    """A loop whose carried arrays have an exponent for each iteration."""
    p = eqn.params
    first, last = p["num_consts"], p["num_consts"] + p["num_carry"]
    consts, carry, xs = ins[:first], ins[first:last], ins[last:]

    def body(carry: list[Any], values: list[Any]) -> tuple[list[Any], list[Any]]:
        slices = [scaled(v, x.exponent) for v, x in zip(values, xs, strict=True)]
        outs = evaluate(p["jaxpr"], [*consts, *map(_open, carry), *slices])
        outs = list(map(_close, outs))
        return outs[: len(carry)], outs[len(carry) :]

    values = [x.value for x in xs]
    options = {"length": p["length"], "reverse": p["reverse"], "unroll": p["unroll"]}
    carry, stacked = lax.scan(body, list(map(_close, carry)), values, **options)
    return [*map(_open, carry), *map(_joined, stacked)]


def _close(array: Scaled) -> tuple[Any, jax.Array | None]:
    """The array with its exponent as one scalar, as loops and branches hold it."""
    value, exponent = array
    if not _is_float(value):
        return value, None
    return value, jnp.asarray(_ZERO if exponent is None else total(exponent), jnp.int32)


def _open(array: tuple[Any, jax.Array | None]) -> Scaled:
    """The inverse of `_close`."""
    value, exponent = array
    return Scaled(value, None if exponent is None else term(exponent))


def _joined(rows: tuple[Any, jax.Array | None]) -> Scaled:
    """An array whose rows have an exponent each, at one exponent."""
    value, exponents = rows
    if exponents is None:
        return Scaled(value, None)
    most = jnp.max(exponents, initial=_ZERO)
    shifts = (exponents - most).reshape(-1, *[1] * (value.ndim - 1))
    return Scaled(times_power(value, shifts), term(most))


def _cond(eqn: Any, ins: list[Scaled]) -> list[Scaled]:
    def run(branch: Any) -> Callable[..., list[Any]]:
        return lambda *operands: list(map(_close, evaluate(branch, list(map(_open, operands)))))

    branches = [run(branch) for branch in eqn.params["branches"]]
    return list(map(_open, lax.switch(ins[0].value, branches, *map(_close, ins[1:]))))


_RULES: dict[str, Callable[[Any, list[Scaled]], list[Scaled]]] = {
    "div": _quotient,
    "square": _whole_power,
    "integer_pow": _whole_power,
    "sign": _sign,
    "sqrt": _root,
    "rsqrt": _root,
    "scan": _scan,
    "cond": _cond,
}


def _is_linear(jaxpr: Any) -> bool:
    """Whether a function is linear, up to choices, in all its operands together."""
    atoms = [atom for eqn in jaxpr.eqns for atom in eqn.invars if isinstance(atom, jex.Literal)]
    constant = any(_is_float(atom.aval) and np.any(np.asarray(atom.val) != 0) for atom in atoms)
    calls = [e.params[_CALLS[e.primitive.name]] for e in jaxpr.eqns if e.primitive.name in _CALLS]
    rest = {e.primitive.name for e in jaxpr.eqns} - set(_CALLS)
    inner = all(_is_linear(_closed(call).jaxpr) for call in calls)
    return not constant and not jaxpr.constvars and rest <= _LINEAR and inner


def _closed(program: Any) -> jex.ClosedJaxpr:
    return program if isinstance(program, jex.ClosedJaxpr) else jex.ClosedJaxpr(program, ())


def _power(exponent: jax.Array, dtype: Any) -> jax.Array:
    """2^exponent, clipped to the normal numbers of the dtype, exactly: made of its bits."""
    info = jnp.finfo(dtype)
    integer = jnp.int64 if info.bits == 64 else jnp.int32
    bits = jnp.clip(exponent, info.minexp, info.maxexp - 1).astype(integer) - (info.minexp - 1)
    return lax.bitcast_convert_type(bits << info.nmant, dtype)


def _wide_dtype(parameter: Any) -> Any:
    """float32 in place of a half-precision dtype among the parameters of an operation."""
    if isinstance(parameter, np.dtype) and jnp.issubdtype(parameter, jnp.floating):
        return jnp.promote_types(parameter, jnp.float32)
    return parameter


def _is_half(array: Any) -> bool:
    return _is_float(array) and jnp.finfo(array.dtype).bits < 32


def _is_float(array: Any) -> bool:
    return jnp.issubdtype(getattr(array, "dtype", type(array)), jnp.floating)
