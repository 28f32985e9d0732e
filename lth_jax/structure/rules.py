"""Rules of primitives: registry, walk through a graph, and elementwise rules.

A rule has two functions: `link` relates the indices of operands and results, and `run` runs the
primitive without some of them. A primitive without a rule pins all axes of its operands and results
and is reported, so the result is always safe.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from lth_jax.structure.constraints import FINITE, WILD, ZERO, Atoms, Axes, Links, product
from lth_jax.structure.graph import Block, Op, Value
from lth_jax.structure.sharding import explicit, fitted


class Shrunk(Protocol):
    """The interface of a compacted program for rules."""

    def kept(self, value: Value) -> list[np.ndarray]:
        """The kept indices of a value: one bool array for each axis."""
        ...

    def shape(self, value: Value) -> tuple[int, ...]:
        """The reduced shape of a value."""
        ...

    def block(self, block: Block, args: Sequence[Any]) -> list[Any]:
        """Runs an inner program on reduced arguments."""
        ...

    def derived(
        self, f: Callable[..., Any], ins: Sequence[Value], outs: Sequence[Value]
    ) -> Callable[..., list[Any]]:
        """Compacts a function: from reduced `ins` to reduced `outs`."""
        ...


Link = Callable[[Links, Op, list[Axes]], list[Axes]]
Run = Callable[[Shrunk, Op, Sequence[Any]], list[Any]]
Content = Callable[[Op, list[np.ndarray]], np.ndarray]


class Rule(NamedTuple):
    """The rule of a primitive.

    Attributes:
      link: `(links, op, ins) -> outs`, computes the atoms of the results from those of the
        operands.
      run: `(shrunk, op, args) -> results`, runs the operation on reduced operands.
    """

    link: Link
    run: Run


def unchanged(shrunk: Shrunk, op: Op, args: Sequence[Any]) -> list[Any]:
    """Runs a primitive whose parameters do not depend on the shapes."""
    del shrunk
    return op.bind(*args)


RULES: dict[str, Rule] = {}


def register(*names: str, link: Link, run: Run = unchanged) -> None:
    """Registers a rule for primitives, also for user-defined ones.

    The rule replaces an earlier one of the same name without a warning, also one of the library.
    Nothing is checked here: names of unknown primitives have no effect, `find_groups` raises the
    errors of `link`, and `compact` those of `run`.

    Args:
      *names: names of primitives (`primitive.name`).
      link: `(links, op, ins) -> outs`. `ins` holds for each operand a list with one array of atoms
        for each axis; `outs` likewise for each result. Atoms shared by two axes, or tied by
        `links.tie`, are removed together; `links.pin` pins atoms.
      run: `(shrunk, op, args) -> results`; by default the primitive is bound with unchanged
        parameters.

    >>> register("my_negation", link=elementwise(keep))
    >>> del RULES["my_negation"]
    """
    RULES.update(dict.fromkeys(names, Rule(link, run)))


def walk(links: Links, block: Block, ins: Sequence[Axes]) -> list[Axes]:
    """Computes the atoms of all values of a block from those of its inputs; returns the outputs."""
    links.labels.update(zip(block.ins, ins, strict=True))
    outer = links.op
    for op in block.ops:
        links.op = op
        rule = RULES.get(op.name)
        link = rule.link if rule else _pin_everything
        links.labels.update(zip(op.outs, link(links, op, axes_of(links, op.ins)), strict=True))
    links.op = outer
    return axes_of(links, block.outs)


def axes_of(links: Links, values: Sequence[Value]) -> list[Axes]:
    """The atoms of values; those of constants are created at first use."""
    for value in values:
        if value not in links.labels:
            links.labels[value] = _constant_axes(links, value)
    return [links.labels[value] for value in values]


def _constant_axes(links: Links, value: Value) -> Axes:
    if not value.shape or not isinstance(value.aval.dtype, np.dtype):
        return [links.stuck(n, "a constant key") for n in value.shape]
    array = np.asarray(value.constant)
    if not array.size:
        return [links.fresh(n, ZERO) for n in array.shape]
    return [_constant_axis(links, np.moveaxis(array, d, 0)) for d in range(array.ndim)]


def _constant_axis(links: Links, array: np.ndarray) -> Atoms:
    rows = array.reshape(len(array), -1)
    atoms = links.fresh(len(rows), np.where((rows != 0).any(1), FINITE, ZERO))
    if (rows != rows[:1]).any():
        links.order(atoms, "a constant that differs from index to index")
    return atoms


def refuse(reason: str) -> Link:
    """The link of a primitive that pins its operands and results."""

    def link(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
        for axes in ins:
            for atoms in axes:
                links.pin(atoms, reason)
        return [[links.stuck(n, reason) for n in out.shape] for out in op.outs]

    return link


def _pin_everything(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    links.unknown.add(op.name)
    return refuse(f"`{op.name}` has no rule")(links, op, ins)


def elementwise(content: Content) -> Link:
    """The link of an elementwise operation, with broadcast scalars and axes of length 1.

    Args:
      content: `(op, contents) -> content`, the content of the result from those of the operands.
    """

    def link(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
        sizes = op.outs[0].shape
        axes = [_aligned(links, op, content, ins, d, n) for d, n in enumerate(sizes)]
        return [axes] * len(op.outs)

    return link


def _aligned(links: Links, op: Op, content: Content, ins: list[Axes], d: int, n: int) -> Atoms:
    rank = len(op.outs[0].shape)
    across = [axes[d] if len(axes) == rank and len(axes[d]) == n else None for axes in ins]
    for axes, atoms in zip(ins, across, strict=True):
        if atoms is None and len(axes) == rank:
            links.pin(axes[d], f"`{op.name}` broadcasts a length-1 axis")
    there = [atoms for atoms in across if atoms is not None]
    if not there:  # only scalars and axes of length 1
        return links.fresh(n)
    for atoms in there[1:]:
        links.tie(there[0], atoms)
    held = [
        scalar_content(value, n) if atoms is None else links.content(atoms)
        for value, atoms in zip(op.ins, across, strict=True)
    ]
    stuck = [atoms for atoms in there if links.is_stuck(atoms)]
    return links.with_content(stuck[0] if stuck else there[0], content(op, held))


def scalar_content(value: Value, n: int) -> np.ndarray:
    """The content of a broadcast scalar in each of `n` slices."""
    known = value.constant is not None and isinstance(value.aval.dtype, np.dtype)
    held = ZERO if known and not np.any(np.asarray(value.constant)) else FINITE
    return np.full(n, held, np.int8)


def keep(op: Op, held: list[np.ndarray]) -> np.ndarray:
    """f(0) = 0, and f is finite."""
    del op
    return held[0]


def spoil(op: Op, held: list[np.ndarray]) -> np.ndarray:
    """f(0) is finite and may differ from 0."""
    del op
    return np.maximum(np.max(held, axis=0), FINITE)


def pole(op: Op, held: list[np.ndarray]) -> np.ndarray:
    """f(0) is infinite or not a number."""
    del op
    return np.where(held[0] == ZERO, WILD, held[0])


def total(op: Op, held: list[np.ndarray]) -> np.ndarray:
    """f(0, 0) = 0."""
    del op
    return np.max(held, axis=0)


def times(op: Op, held: list[np.ndarray]) -> np.ndarray:
    """f(0, y) = f(x, 0) = 0."""
    del op
    return product(held[0], held[1])


def divided(op: Op, held: list[np.ndarray]) -> np.ndarray:
    """f(0, y) = 0 and f(x, 0) is not finite."""
    del op
    return np.where(held[1] == ZERO, WILD, np.maximum(held[0], held[1] * (held[1] == WILD)))


def extreme(harmless: Callable[[np.ndarray], Any]) -> Content:
    """Maximum or minimum: a constant bound that 0 satisfies preserves zeros."""

    def content(op: Op, held: list[np.ndarray]) -> np.ndarray:
        return np.max([_bound(v, h, harmless) for v, h in zip(op.ins, held, strict=True)], axis=0)

    return content


def _bound(value: Value, held: np.ndarray, harmless: Callable[[np.ndarray], Any]) -> np.ndarray:
    known = value.constant is not None and np.all(harmless(np.asarray(value.constant)))
    return np.full_like(held, ZERO) if known else held


def _clamp(op: Op, held: list[np.ndarray]) -> np.ndarray:
    low, _, high = op.ins
    below = _bound(low, held[0], lambda c: c <= 0)
    above = _bound(high, held[2], lambda c: c >= 0)
    return np.max([below, held[1], above], axis=0)


def _select(op: Op, held: list[np.ndarray]) -> np.ndarray:
    return total(op, held[1:])


def _integer_power(op: Op, held: list[np.ndarray]) -> np.ndarray:
    y = op.params["y"]
    return (keep if y > 0 else pole if y < 0 else spoil)(op, held)


def _power(op: Op, held: list[np.ndarray]) -> np.ndarray:
    y = op.ins[1].constant
    if y is None:
        return np.where(held[0] == ZERO, WILD, spoil(op, held))
    return (keep if np.all(np.asarray(y) > 0) else pole)(op, held)


def _undefined(op: Op, held: list[np.ndarray]) -> np.ndarray:
    """A function of several arguments that may be undefined where one of them is 0."""
    worst = np.max(held, axis=0)
    return np.where(np.min(held, axis=0) == ZERO, WILD, worst)


def same(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    """The link of a primitive whose results have the shapes and zeros of its operands."""
    return ins


def _second(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    """The result is the second operand."""
    return ins[1:]


def _nothing(links: Links, op: Op, ins: list[Axes]) -> list[Axes]:
    """No results."""
    return []


register(
    "abs", "asin", "asinh", "atan", "atanh", "bessel_i1e", "bitcast_convert_type", "cbrt", "ceil",
    "conj", "convert_element_type", "copy", "erf", "erf_inv", "expm1", "floor", "from_edtype",
    "imag", "layout_constraint", "log1p", "name", "neg", "real", "reduce_precision", "reshard",
    "round", "sharding_constraint", "sign", "sin", "sinh", "sqrt", "square", "stage",
    "stop_gradient", "tan", "tanh", "to_edtype",
    link=elementwise(keep),
)  # fmt: skip
register(
    "acos", "and", "atan2", "bessel_i0e", "clz", "cos", "cosh", "eq", "eq_to", "erfc", "exp",
    "exp2", "ge", "gt", "is_finite", "le", "le_to", "logistic", "lt", "lt_to", "ne", "nextafter",
    "not", "population_count", "shift_left", "shift_right_arithmetic", "shift_right_logical",
    "threefry2x32", "xor",
    link=elementwise(spoil),
)  # fmt: skip
register("acosh", "digamma", "lgamma", "log", "rsqrt", link=elementwise(pole))
register("add", "add_any", "complex", "sub", "or", link=elementwise(total))
register("mul", "mulhi", link=elementwise(times))
register("div", "rem", link=elementwise(divided))
register("max", link=elementwise(extreme(lambda c: c <= 0)))
register("min", link=elementwise(extreme(lambda c: c >= 0)))
register("clamp", link=elementwise(_clamp))
register("select_n", link=elementwise(_select))
register("integer_pow", link=elementwise(_integer_power))
register("pow", link=elementwise(_power))
register(
    "igamma", "igamma_grad_a", "igammac", "polygamma", "regularized_incomplete_beta", "zeta",
    link=elementwise(_undefined),
)  # fmt: skip
register("optimization_barrier", "device_put", link=same)
register("tie", link=_second)
register("dce_sink", link=_nothing)


def pick(x: Any, axis: int, places: np.ndarray) -> Any:
    """`x[..., places, ...]` along one axis for increasing `places`, as a slice if possible.

    >>> pick(np.arange(6), 0, np.array([1, 3, 5])).tolist()
    [1, 3, 5]
    """
    if len(places) == x.shape[axis]:
        return x
    before = (slice(None),) * axis
    if (sharding := explicit(x)) is not None:
        # On explicit meshes slices of sharded axes are ambiguous and `take` fails (jax 0.10.2).
        shape = (*x.shape[:axis], len(places), *x.shape[axis + 1 :])
        return x.at[*before, places].get(out_sharding=fitted(sharding, shape))
    steps = np.unique(np.diff(places))
    if len(places) and len(steps) <= 1:
        step = int(steps[0]) if len(steps) else 1
        return x[*before, int(places[0]) : int(places[-1]) + 1 : step]
    return x.take(places, axis=axis)


def pick_kept(x: Any, kept: Sequence[np.ndarray]) -> Any:
    """The kept entries of a full-size array."""
    for axis, flags in enumerate(kept):
        if not flags.all():
            x = pick(x, axis, np.flatnonzero(flags))
    return x
