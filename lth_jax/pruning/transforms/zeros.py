"""Which results of a traced program are 0 wherever its inputs are."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from jax.extend.core import Jaxpr, Literal

EVERYWHERE = "everywhere"
"""The label of an array of zeros."""

Label = Hashable | None
"""Names the places at which an array is 0, among arrays of its shape; None: no such places."""

_UNARY = {"abs", "convert_element_type", "copy", "neg", "sign", "sqrt", "square"}
_SUMS = {"add", "add_any", "max", "min", "sub"}
_CALLS = {"jit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}
"""Primitives that run a program once, and the parameter that holds it; a scan runs it often."""


def zeros_after(jaxpr: Jaxpr, labels: Sequence[Label]) -> list[Label]:
    """The places at which each result is 0, from those of each input.

    Follows sums, and products and quotients with one number for all places; assumes that this
    number is finite, and not 0 as a divisor. Results of all other operations have the label None.

    >>> import jax, jax.numpy as jnp
    >>> moment = lambda g, m: (0.1 * g**2 + 0.9 * m, g + 1.0)
    >>> traced = jax.make_jaxpr(moment)(jnp.ones(3), jnp.ones(3))
    >>> zeros_after(traced.jaxpr, ["pruned", "pruned"])
    ['pruned', None]
    """
    at: dict[Any, Label] = dict(zip(jaxpr.invars, labels, strict=True))
    uniform: set[Any] = set()

    def label_of(v: Any) -> Label:
        if isinstance(v, Literal):
            return EVERYWHERE if np.all(np.asarray(v.val) == 0) else None
        return at.get(v)

    def is_uniform(v: Any) -> bool:
        return isinstance(v, Literal) or not v.aval.shape or v in uniform

    for equation in jaxpr.eqns:
        inputs, name = equation.invars, equation.primitive.name
        given = [label_of(v) for v in inputs]
        found: list[Label] = [None] * len(equation.outvars)
        if name in _CALLS:
            found = zeros_after(equation.params[_CALLS[name]].jaxpr, given)
        elif name in _UNARY or (name == "integer_pow" and equation.params["y"] > 0):
            found = given
        elif name in _SUMS:
            found = [_common(given)]
        elif name == "select_n":
            found = [_common(given[1:])]
        elif name == "mul":
            first, second = given
            if first is not None and (first == second or is_uniform(inputs[1])):
                found = [first]
            elif is_uniform(inputs[0]):
                found = [second]
        elif name == "div" and is_uniform(inputs[1]):
            found = given[:1]
        elif name == "broadcast_in_dim":
            if is_uniform(inputs[0]):
                uniform.add(equation.outvars[0])
            if given[0] == EVERYWHERE:
                found = given[:1]
        at |= zip(equation.outvars, found, strict=True)
    return [label_of(v) for v in jaxpr.outvars]


def _common(labels: Sequence[Label]) -> Label:
    """The label of a sum: that of all terms, but for those that are 0 everywhere."""
    places = {label for label in labels if label != EVERYWHERE} or {EVERYWHERE}
    return places.pop() if len(places) == 1 else None
