"""Evaluation of a traced function in block floating point: arrays with separate exponents.

Every floating-point array is held as `value · 2^exponent` with one integer exponent for the whole
array, chosen so that the largest finite magnitude of `value` lies in [½, 1). A product of hundreds
of layers then neither overflows nor vanishes. Factors are powers of two, so rounding equals that of
the plain evaluation wherever the latter stays in range. Half-precision arrays become float32.

Sums, maxima, comparisons and operations that move entries first bring their operands to one
exponent; products add exponents. Other operations (`exp`, `tanh`, …) get plain arrays, which
saturate at the largest finite power of two. The evaluation is differentiable: exponents are
constants.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex

from lth_jax.pruning.criteria._inputs import widen

_ZERO = -(2**24)
"""The exponent of an array of zeros: never the larger of two."""

# Linear in all floating-point operands together, comparisons of them included. Their integer and
# boolean operands are indices and conditions. Names are those of jax 0.10.
_LINEAR = frozenset(
    "abs add add_any argmax argmin broadcast_in_dim clamp concatenate convert_element_type copy "
    "copy_p cummax cummin cumsum dynamic_slice dynamic_update_slice eq expand_dims gather ge gt "
    "is_finite le lt max min ne neg optimization_barrier pad reduce_max reduce_min reduce_sum "
    "reduce_window_max reduce_window_min reduce_window_sum reshape rev scatter scatter-add "
    "select_n sharding_constraint slice sort split squeeze sub tile top_k transpose".split()
)
# The subset whose results are as large as their operands: the exponent stays the same.
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
    """An array `value · 2^exponent`; the exponent is an int32 scalar.

    It is None for arrays that any exponent fits: those that are not floating-point, and constants
    whose entries are all 0 or infinite.
    """

    value: Any
    exponent: Any


def scaled(value: Any, exponent: Any = 0) -> Scaled:
    """`value · 2^exponent` with the largest finite magnitude of the value in [½, 1).

    >>> found = scaled(jnp.array([3.0, -8.0]))
    >>> found.value.tolist(), int(found.exponent)
    ([0.1875, -0.5], 4)
    """
    if not _is_float(value):
        return Scaled(value, None)
    value = widen(jnp.asarray(value))
    if exponent is None:
        return Scaled(value, None)
    info = jnp.finfo(value.dtype)
    size = jnp.abs(lax.stop_gradient(value))
    bits = lax.bitcast_convert_type(size, f"int{info.bits}") >> info.nmant
    each = bits.astype(jnp.int32) + (info.minexp + jnp.asarray(exponent, jnp.int32))
    # The exponent is the result of a reduction, which XLA does not fuse into each of its uses: as
    # a scalar computed from those of all layers before, it takes minutes to compile (jax 0.10).
    most = jnp.max(jnp.where((size > 0) & (size < jnp.inf), each, _ZERO), initial=_ZERO)
    return Scaled(times_power(value, jnp.where(most > _ZERO, exponent - most, 0)), most)


def times_power(value: jax.Array, exponent: Any) -> jax.Array:
    """`value · 2^exponent` for an integer exponent, clipped to where the power is a normal number.

    >>> times_power(jnp.array([1.0, 3.0]), -2).tolist()
    [0.25, 0.75]
    """
    info = jnp.finfo(value.dtype)
    low, high = jnp.int32(info.minexp), jnp.int32(info.maxexp - 1)
    bits = lax.clamp(low, jnp.asarray(exponent, jnp.int32), high) - jnp.int32(info.minexp - 1)
    # The power is made of its bits, since exp2 is not exact.
    integer = jnp.dtype(f"int{info.bits}")
    return value * lax.bitcast_convert_type(bits.astype(integer) << info.nmant, value.dtype)


def aligned(arrays: Sequence[Scaled]) -> tuple[list[jax.Array], Any]:
    """The values of floating-point arrays at their largest exponent, and this exponent.

    >>> values, exponent = aligned([scaled(jnp.array(1.0)), scaled(jnp.array(8.0))])
    >>> [float(v) for v in values], int(exponent)
    ([0.0625, 0.5], 4)
    """
    known = [array.exponent for array in arrays if array.exponent is not None]
    if all(exponent is known[0] for exponent in known):
        return [array.value for array in arrays], known[0] if known else None
    most = reduce(jnp.maximum, known)
    values = [v if e is None else times_power(v, e - most) for v, e in arrays]
    return values, most


def evaluate(program: jex.ClosedJaxpr, args: Sequence[Scaled]) -> list[Scaled]:
    """The results of a traced function.

    Args:
      program: from `jax.make_jaxpr`.
      args: one for each of its arguments, as `scaled` makes them.

    >>> program = jax.make_jaxpr(lambda x: (x * 1e30) * 1e30)(jnp.array(1.0))
    >>> [out] = evaluate(program, [scaled(jnp.array(1.0))])
    >>> round(float(out.value) * 2.0 ** int(out.exponent) / 1e60, 6)
    1.0
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
        # At a tie, such as ReLU at 0, the derivative may differ; the flow through it is 0.
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


def _at(eqn: Any, values: Sequence[Any], exponent: Any) -> list[Scaled]:
    """The operation on these values, its floating-point results at the exponent given."""
    params = {name: _wide_dtype(value) for name, value in eqn.params.items()}
    outs = eqn.primitive.bind(*values, **params)
    if eqn.primitive.name in _AS_LARGE:
        return [Scaled(outs, exponent if _is_float(outs) else None)]
    return [scaled(out, exponent) for out in (outs if eqn.primitive.multiple_results else [outs])]


def _sum(eqn: Any, ins: Sequence[Scaled], signs: Sequence[int]) -> Any:
    """The exponent of a product or quotient; None where a factor is a constant 0."""
    found = jnp.int32(0)
    for array, atom, sign in zip(ins, eqn.invars, signs, strict=False):
        if array.exponent is not None:
            found = found + sign * array.exponent
        elif _is_float(atom.aval):
            return None
    return found


def _linear(eqn: Any, ins: list[Scaled]) -> list[Scaled]:
    floats = [_is_float(atom.aval) for atom in eqn.invars]
    if not any(floats):
        return _at(eqn, [array.value for array in ins], 0)
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
    exponent = 0 if array.exponent is None else jnp.minimum(array.exponent, most)
    return times_power(array.value, exponent).astype(aval.dtype)


def _quotient(eqn: Any, ins: list[Scaled]) -> list[Scaled]:
    return _at(eqn, [array.value for array in ins], _sum(eqn, ins, (1, -1)))


def _whole_power(eqn: Any, ins: list[Scaled]) -> list[Scaled]:
    return _at(eqn, [ins[0].value], _sum(eqn, ins, [eqn.params.get("y", 2)]))


def _sign(eqn: Any, ins: list[Scaled]) -> list[Scaled]:
    return _at(eqn, [ins[0].value], 0)


def _root(eqn: Any, ins: list[Scaled]) -> list[Scaled]:
    """√x and 1/√x, at an even exponent."""
    value, exponent = ins[0]
    exponent = jnp.int32(0) if exponent is None else exponent
    sign = -1 if eqn.primitive.name == "rsqrt" else 1
    return _at(eqn, [times_power(value, exponent & 1)], sign * (exponent >> 1))


def _scan(eqn: Any, ins: list[Scaled]) -> list[Scaled]:
    """A loop whose carried arrays have an exponent for each iteration."""
    p = eqn.params
    first, last = p["num_consts"], p["num_consts"] + p["num_carry"]
    consts, carry, xs = ins[:first], ins[first:last], ins[last:]

    def body(carry: list[Scaled], values: list[Any]) -> tuple[list[Scaled], list[Scaled]]:
        slices = [scaled(v, x.exponent) for v, x in zip(values, xs, strict=True)]
        outs = evaluate(p["jaxpr"], [*consts, *carry, *slices])
        outs = list(map(_close, outs))
        return outs[: len(carry)], outs[len(carry) :]

    values = [x.value for x in xs]
    options = {"length": p["length"], "reverse": p["reverse"], "unroll": p["unroll"]}
    carry, stacked = lax.scan(body, list(map(_close, carry)), values, **options)
    return [*carry, *map(_joined, stacked)]


def _close(array: Scaled) -> Scaled:
    """The array with an integer exponent instead of None, as loops and branches need it."""
    value, exponent = array
    return Scaled(value, jnp.int32(_ZERO) if exponent is None and _is_float(value) else exponent)


def _joined(rows: Scaled) -> Scaled:
    """An array whose rows have an exponent each, at one exponent."""
    value, exponents = rows
    if exponents is None:
        return rows
    most = jnp.max(exponents, initial=_ZERO)
    shifts = (exponents - most).reshape(-1, *[1] * (value.ndim - 1))
    return Scaled(times_power(value, shifts), most)


def _cond(eqn: Any, ins: list[Scaled]) -> list[Scaled]:
    def run(branch: Any) -> Callable[..., list[Scaled]]:
        return lambda *operands: list(map(_close, evaluate(branch, operands)))

    branches = [run(branch) for branch in eqn.params["branches"]]
    results: list[Scaled] = lax.switch(ins[0].value, branches, *map(_close, ins[1:]))
    return results


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


def _wide_dtype(parameter: Any) -> Any:
    """float32 in place of a half-precision dtype among the parameters of an operation."""
    if isinstance(parameter, np.dtype) and jnp.issubdtype(parameter, jnp.floating):
        return np.dtype(jnp.float32) if jnp.finfo(parameter).bits < 32 else parameter
    return parameter


def _is_half(array: Any) -> bool:
    return _is_float(array) and jnp.finfo(array.dtype).bits < 32


def _is_float(array: Any) -> bool:
    return jnp.issubdtype(getattr(array, "dtype", type(array)), jnp.floating)
