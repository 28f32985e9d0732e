"""Scopes: which weights compete with each other.

A scope is a pair of functions. `counts` runs once on the host and turns a density into whole
numbers; `select` keeps exactly that number of weights under `jax.jit`, `jax.vmap` and sharding.
Counts may be traced, so one program serves a population whose members differ in density.

Counts are rounded half up and are at least 1. Each stacked layer that `layouts` declares has its
own count and selection.
"""

import fnmatch
import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.layouts import Layouts, require, resolve
from lth_jax.pruning import scores as scores_module
from lth_jax.pruning.checks import (
    check_count,
    check_finite,
    check_fraction,
    check_params,
    check_prunable,
    check_scores,
    same_structure,
)
from lth_jax.pruning.compiled import compiled, shared
from lth_jax.pruning.topk import largest
from lth_jax.registry import Registry
from lth_jax.types import Count, Info, Mask, Params, Prunable, Scores


class Scope(NamedTuple):
    """Which weights compete with each other, as two pure functions.

    Attributes:
      counts: `(params, density, *, prunable, layouts=None) -> count`, on the host: how many weights
        to keep, an int32 scalar, or a tree of them, one per leaf (a vector, one per layer, where
        the leaf stacks layers).
      select: `(scores, mask, count, *, prunable, sizes=None, layers=None) -> mask`: keeps exactly
        `count` of the live weights (all of them if there are fewer), best scores first, ties by
        position; the result is a subset of `mask`. With `sizes` (per leaf, the size of each entry)
        it keeps the smallest number of best entries whose sizes sum to at least `count`. `layers`
        is, per leaf, the number of stacked layers along the first axis (`Units.layers`).
      inspect: arguments of `select` -> info: which scores are invalid; see `scores.inspect`.
      name: name in error messages and reprs.
    """

    counts: Callable[..., Count]
    select: Callable[..., Mask]
    inspect: Callable[..., Info] = scores_module.inspect
    name: str = "a scope"

    @property
    def selection(self) -> "Scope":
        """The scope without `counts`: scopes with equal selections share compiled programs."""
        return self._replace(counts=_no_counts)

    def __repr__(self) -> str:
        return f"Scope({self.name})"


def _no_counts(*args: Any, **kwargs: Any) -> Count:
    raise TypeError("`Scope.selection` has no `counts`; use those of its scope.")


SCOPES: Registry[Callable[..., Scope]] = Registry("scope")
"""Builders of scopes by name; configs use these names. Arguments have defaults."""


@shared
def globally(minimum: int | float = 0) -> Scope:
    """All prunable weights compete with each other.

    Args:
      minimum: the smallest number of weights (an integer) or density (a float in [0, 1]) that each
        prunable layer keeps. The default 0 allows layer collapse, which `masks.collapsed` reports.
        A layer with fewer live weights keeps them all.

    Raises:
      ValueError: `minimum` is negative or, as a density, above 1; from `counts`, the density is
        outside (0, 1], or the minima together exceed the count.

    >>> scope = globally(minimum=1)
    >>> params = {"a": jnp.array([[3.0, 4.0]]), "b": jnp.array([[1.0, 2.0]])}
    >>> mask = jax.tree.map(lambda p: p > 0, params)
    >>> prunable = {"a": True, "b": True}
    >>> count = scope.counts(params, 0.5, prunable=prunable)
    >>> jax.tree.map(lambda m: m.tolist(), scope.select(params, mask, count, prunable=prunable))
    {'a': [[False, True]], 'b': [[False, True]]}
    """
    whole = isinstance(minimum, numbers.Integral) and not isinstance(minimum, bool)
    fraction = isinstance(minimum, numbers.Real) and not isinstance(minimum, numbers.Integral)
    if not ((whole and minimum >= 0) or (fraction and 0 <= minimum <= 1)):
        raise ValueError(
            f"`minimum` must be an integer >= 0 or a float in [0, 1], but is {minimum!r}."
        )

    def floor(size: int) -> int:
        return min(int(minimum), size) if whole else math.ceil(minimum * size)

    def counts(
        params: Params, density: float, *, prunable: Prunable, layouts: Layouts | None = None
    ) -> Count:
        sizes = _layer_sizes(params, prunable, layouts)
        count = _round(check_fraction("density", density) * sum(sizes))
        if count < sum(map(floor, sizes)):
            raise ValueError(
                f"`density` {density} keeps {count} weights, but a `minimum` of {minimum!r} in "
                f"each of {len(sizes)} layers needs {sum(map(floor, sizes))}."
            )
        return np.int32(count)

    def select(
        scores: Scores, mask: Mask, count: Count, prunable: Prunable, sizes: Any, layers: Any
    ) -> Mask:
        if not same_structure(count, 0) or jnp.ndim(count) != 0:
            raise ValueError("`count` must be one number for a global scope; see `Scope.counts`.")
        pool = _Pool.of(scores, mask, prunable, sizes, layers if minimum else None)
        weights = [_weight(m, u) for m, u in zip(pool.live, pool.sizes, strict=True)]
        check_count("count", count, sum(weights))
        if not minimum:
            return pool.rebuild(largest(pool.scores, pool.live, count, sizes=pool.sizes))
        floors = [floor(weight) for weight in weights]
        saved = largest(pool.scores, pool.live, np.array(floors), sizes=pool.sizes, pooled=False)
        held = [jnp.sum(jnp.where(m, u, 0)) for m, u in zip(saved, pool.sizes, strict=True)]
        rest = [m & ~kept for m, kept in zip(pool.live, saved, strict=True)]
        left = jnp.maximum(jnp.asarray(count, jnp.int32) - sum(held), 0)
        chosen = largest(pool.scores, rest, left, sizes=pool.sizes)
        return pool.rebuild([a | b for a, b in zip(saved, chosen, strict=True)])

    return Scope(counts, _outside(select), name=f"globally({minimum or ''})")


def layerwise() -> Scope:
    """The weights of each prunable layer compete among themselves.

    `counts` takes one density for all leaves ("uniform"), or a tree of densities, one per leaf, as
    `per_leaf` makes it.

    Raises:
      ValueError: (from `counts`) a density is outside (0, 1].

    >>> scope, params = layerwise(), {"a": jnp.array([[3.0, 4.0]]), "b": jnp.array([[1.0, 2.0]])}
    >>> mask, prunable = jax.tree.map(lambda p: p > 0, params), {"a": True, "b": True}
    >>> count = scope.counts(params, 0.5, prunable=prunable)
    >>> jax.tree.map(lambda m: m.tolist(), scope.select(params, mask, count, prunable=prunable))
    {'a': [[False, True]], 'b': [[False, True]]}
    """
    return Scope(_counts_layerwise, _PER_LEAF, name="layerwise()")


def erk() -> Scope:
    """Layerwise with the Erdős–Rényi-kernel densities of Evci et al. (2020, RigL), section 3.

    The density of a layer of `i` inputs, `o` outputs and window `(w₁, …)` is min(1, ε·(i + o + Σwⱼ)
    / (i·o·Πwⱼ)): wide layers become sparser. ε is chosen such that the counts of all prunable
    layers sum exactly to the requested density (largest remainders are rounded up). Every layer
    keeps at least 1 weight. A leaf of three axes or more needs a layout.

    Raises:
      ValueError: (from `counts`) the density is outside (0, 1] or keeps fewer weights than there
        are prunable layers, or a leaf of three axes or more has no layout.

    >>> params = {"a": jnp.zeros((100, 100)), "b": jnp.zeros((100, 10))}
    >>> count = erk().counts(params, 0.2, prunable={"a": True, "b": True})
    >>> {name: int(k) for name, k in count.items()}
    {'a': 1419, 'b': 781}
    """
    return Scope(_counts_erk, _PER_LEAF, name="erk()")


def per_leaf(params: Params, default: float, rules: Mapping[str, float]) -> Any:
    """A tree of numbers, one per leaf: that of the first pattern that matches, or `default`.

    For rates and densities that differ between layers. Frankle & Carbin (2019) prune the output
    layer at half the rate:

    >>> params = {"hidden": {"kernel": jnp.zeros((4, 4))}, "output": {"kernel": jnp.zeros((4, 2))}}
    >>> level = 2
    >>> per_leaf(params, 0.8**level, {"output/*": 0.9**level})
    {'hidden': {'kernel': 0.64...}, 'output': {'kernel': 0.81}}

    Args:
      params: the tree whose leaves' names are matched.
      default: the number of a leaf that matches no pattern.
      rules: shell-style pattern (`*`, `?`, `[...]`) to number.

    Raises:
      ValueError: a pattern matches no leaf.
    """
    for pattern in rules:
        if not fnmatch.filter(trees.names(params), pattern):
            raise ValueError(
                f"`rules` has the pattern {pattern!r}, which fits no leaf; "
                f"the leaves are {trees.names(params)}."
            )

    def number(name: str, leaf: Any) -> float:
        fits = (value for pattern, value in rules.items() if fnmatch.fnmatchcase(name, pattern))
        return next(fits, default)

    return trees.map_named(number, params)


class _Pool(NamedTuple):
    """The prunable layers as lists, and the inverse map to a mask."""

    scores: list[jax.Array]
    live: list[jax.Array]
    sizes: list[Any]
    rebuild: Callable[[list[jax.Array]], Mask]

    @classmethod
    def of(cls, scores: Scores, mask: Mask, prunable: Prunable, sizes: Any, layers: Any) -> "_Pool":
        chosen = check_prunable(prunable, mask)
        masks, structure = jax.tree.flatten(mask)
        entries = [1] * len(masks) if sizes is None else jax.tree.leaves(sizes)
        depths = [1] * len(masks) if layers is None else jax.tree.leaves(layers)

        def split(leaves: list[Any]) -> list[Any]:
            parts: list[Any] = []
            for leaf, use, depth in zip(leaves, chosen, depths, strict=True):
                alike = depth == 1 or jnp.ndim(leaf) == 0
                parts += ([leaf] * depth if alike else list(leaf)) if use else []
            return parts

        def rebuild(kept: list[jax.Array]) -> Mask:
            new = iter(kept)
            leaves = [
                leaf if not use else next(new) if depth == 1 else jnp.stack(_take(new, depth))
                for leaf, use, depth in zip(masks, chosen, depths, strict=True)
            ]
            return jax.tree.unflatten(structure, leaves)

        return cls(split(jax.tree.leaves(scores)), split(masks), split(entries), rebuild)


def _take(items: Iterator[Any], number: int) -> list[Any]:
    return [next(items) for _ in range(number)]


def _select_per_leaf(
    scores: Scores, mask: Mask, count: Count, prunable: Prunable, sizes: Any, layers: Any
) -> Mask:
    """`Scope.select` of every scope in which only the weights of one layer compete."""
    if not same_structure(count, prunable):
        raise ValueError(
            "`count` must be a tree with one number per leaf for a layerwise scope; "
            "see `Scope.counts`."
        )
    pool = _Pool.of(scores, mask, prunable, sizes, layers)
    depths = jax.tree.leaves(layers) if layers is not None else [1] * len(jax.tree.leaves(prunable))
    wanted: list[Any] = []
    named = zip(trees.names(count), jax.tree.leaves(count), strict=True)
    for (name, k), use, depth in zip(named, jax.tree.leaves(prunable), depths, strict=True):
        if jnp.shape(k) not in (((), (1,)) if depth == 1 else ((depth,),)):
            raise ValueError(
                f"`count` at '{name}' has shape {jnp.shape(k)}, but the leaf stacks {depth} "
                "layer(s); compute `count` with the same `layouts` that you pass to the pruner."
            )
        wanted += (list(k) if jnp.ndim(k) else [k]) if use else []
    weights = [_weight(m, u) for m, u in zip(pool.live, pool.sizes, strict=True)]
    for k, weight in zip(wanted, weights, strict=True):
        check_count("count", k, weight)
    counts = jnp.stack([jnp.asarray(k, jnp.int32) for k in wanted])
    return pool.rebuild(largest(pool.scores, pool.live, counts, sizes=pool.sizes, pooled=False))


def _outside(select: Callable[..., Mask]) -> Callable[..., Mask]:
    """`select` with checked arguments, compiled when called outside a trace."""
    program = compiled(select, count=True)

    def checked(
        scores: Scores,
        mask: Mask,
        count: Count,
        *,
        prunable: Prunable,
        sizes: Any = None,
        layers: Any = None,
    ) -> Mask:
        check_scores(scores, mask)
        check_prunable(prunable, mask)
        check_finite(scores, mask, prunable)
        return program(scores, mask, count, prunable, sizes, layers)

    return checked


_PER_LEAF = _outside(_select_per_leaf)


def _counts_layerwise(
    params: Params, density: Any, *, prunable: Prunable, layouts: Layouts | None = None
) -> Count:
    sizes = _layer_sizes(params, prunable, layouts)
    if same_structure(density, 0.0):
        densities = [density] * len(jax.tree.leaves(params))
    else:
        trees.check_same_structure("density", density, "prunable", prunable)
        densities = jax.tree.leaves(density)
    depths = _depths(params, prunable, layouts)
    used = [d for d, depth in zip(densities, depths, strict=True) for _ in range(depth)]
    whole = [_round(check_fraction("density", d) * n) for d, n in zip(used, sizes, strict=True)]
    return _count_tree(params, depths, whole)


def _counts_erk(
    params: Params, density: float, *, prunable: Prunable, layouts: Layouts | None = None
) -> Count:
    sizes = np.array(_layer_sizes(params, prunable, layouts), np.float64)
    depths = _depths(params, prunable, layouts)
    known = resolve(params, layouts)
    perimeter: list[int] = []
    for name, leaf, depth in zip(trees.names(params), jax.tree.leaves(params), depths, strict=True):
        perimeter += [_perimeter(name, leaf.shape, known)] * depth if depth else []
    wanted = _round(check_fraction("density", density) * sizes.sum())
    if wanted < len(sizes):
        raise ValueError(
            f"`density` {density} keeps {wanted} weights, "
            f"fewer than the {len(sizes)} prunable layers."
        )
    amounts = _fill(np.array(perimeter, np.float64), sizes, wanted)
    return _count_tree(params, depths, _apportion(amounts, wanted))


def _perimeter(name: str, shape: tuple[int, ...], known: Layouts) -> int:
    """`inputs + outputs + Σ window`, the numerator of the ERK density."""
    if len(shape) <= 2 and name not in known:
        return sum(shape)  # the same for either order of the axes
    layout = require(known, name, shape, "The scope `erk`")
    _, _, inputs, outputs = layout.matrix_shape(shape)
    return inputs + outputs + sum(shape[axis] for axis in layout.window)


def _fill(shares: np.ndarray, capacity: np.ndarray, total: int) -> np.ndarray:
    """Divides `total` in proportion to `shares`, none above capacity; the others get the excess."""
    full = np.zeros(len(shares), bool)
    while True:
        open_shares = shares[~full].sum()
        scale = (total - capacity[full].sum()) / open_shares if open_shares else 0.0
        amounts = np.where(full, capacity, scale * shares)
        if not (amounts > capacity).any():
            return amounts
        full |= amounts >= capacity


def _apportion(amounts: np.ndarray, total: int) -> list[int]:
    """Whole numbers, at least 1 each, that sum to `total`: the largest remainders go up."""
    whole = np.maximum(np.floor(amounts + 1e-9), 1).astype(np.int64)
    order = np.argsort(whole - amounts, kind="stable")
    whole[order[: max(total - whole.sum(), 0)]] += 1
    while whole.sum() > total:  # layers at the minimum of 1 may take more than their share
        whole[np.argmax(whole)] -= 1
    return [int(number) for number in whole]


def _depths(params: Params, prunable: Prunable, layouts: Layouts | None) -> list[int]:
    """Per leaf the number of layers that compete: 0 where not prunable, 1 without a stack."""
    known = resolve(params, layouts) if layouts else {}
    return [
        (known[name].layers(leaf.shape) if name in known else 1) if use else 0
        for name, leaf, use in zip(
            trees.names(params),
            jax.tree.leaves(params),
            check_prunable(prunable, params),
            strict=True,
        )
    ]


def _layer_sizes(params: Params, prunable: Prunable, layouts: Layouts | None) -> list[int]:
    """The number of weights in each prunable layer; the total must fit int32."""
    check_params(params)
    depths = _depths(params, prunable, layouts)
    leaves = zip(jax.tree.leaves(params), depths, strict=True)
    sizes = [p.size // depth for p, depth in leaves for _ in range(depth)]
    if sum(sizes) > np.iinfo(np.int32).max:
        raise ValueError(
            f"`params` has {sum(sizes)} prunable weights, but counts are int32: at most 2³¹ − 1."
        )
    return sizes


def _count_tree(params: Params, depths: list[int], counts: list[int]) -> Count:
    """A tree of int32 counts; leaves that are not prunable hold their full size."""
    numbers_, depth_of = iter(counts), iter(depths)

    def count(leaf: jax.Array) -> Any:
        depth = next(depth_of)
        if depth == 0:
            return np.int32(leaf.size)
        own = np.array(_take(numbers_, depth), np.int32)
        return own if depth > 1 else own[0]

    return jax.tree.map(count, params)


def _round(amount: float) -> int:
    """Half rounds up; never below 1."""
    return max(1, math.floor(amount + 0.5))


def _weight(mask: jax.Array, sizes: Any) -> int:
    """The weights in all units of a leaf together (static)."""
    if np.ndim(sizes) == 0:
        return mask.size * int(sizes)
    return int(np.broadcast_to(sizes, mask.shape).sum(dtype=np.int64))


for _scope in (globally, layerwise, erk):
    SCOPES.register(_scope.__name__, _scope)
