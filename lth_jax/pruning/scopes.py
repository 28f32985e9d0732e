"""Scopes: over what scores compete.

A scope is a pair of functions. `counts` runs once on the host and turns a density into whole
numbers; `select` runs anywhere (`jax.jit`, `jax.vmap`, sharded) and keeps exactly so many, so
counts may be traced and the members of a population may differ in density under one program.

Whole numbers are made by rounding half up, and at least 1: no count is ever silently 0.
"""

import fnmatch
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.pruning import scores as scores_module
from lth_jax.pruning.checks import (
    check_finite,
    check_fraction,
    check_params,
    check_prunable,
    check_scores,
    same_structure,
)
from lth_jax.pruning.topk import largest
from lth_jax.types import Count, Info, Mask, Params, Prunable, Scores


class Scope(NamedTuple):
    """Over what scores compete, as two pure functions.

    Attributes:
      counts: `(params, density, *, prunable) -> count`, on the host: how many weights to keep, an
        int32 scalar, or a tree of them, one per leaf.
      select: `(scores, mask, count, *, prunable, sizes=None) -> mask`: keeps exactly `count` of the
        live weights (all that live if fewer do), best scores first, ties by position, never what
        `mask` does not keep. With `sizes` (per leaf, what each entry weighs) the fewest best
        entries that together weigh `count` or more.
      inspect: arguments as of `select` -> info: which of these scores cannot decide, as
        `scores.inspect` finds it.
    """

    counts: Callable[..., Count]
    select: Callable[..., Mask]
    inspect: Callable[..., Info] = scores_module.inspect


def globally(minimum: int | float = 0) -> Scope:
    """All prunable weights compete with each other.

    Args:
      minimum: what each prunable leaf keeps at the least, so that no layer collapses: a number of
        weights (an int), or a density (a float in [0, 1]). 0, the default, lets a layer collapse
        (`masks.collapsed` tells). A leaf with fewer live weights keeps those it has.

    Raises:
      ValueError: `minimum` is negative or, as a density, above 1. From `counts`: the minima
        together exceed the count.

    >>> scope = globally(minimum=1)
    >>> params = {"a": jnp.array([[3.0, 4.0]]), "b": jnp.array([[1.0, 2.0]])}
    >>> mask = jax.tree.map(lambda p: p > 0, params)
    >>> prunable = {"a": True, "b": True}
    >>> count = scope.counts(params, 0.5, prunable=prunable)
    >>> jax.tree.map(lambda m: m.tolist(), scope.select(params, mask, count, prunable=prunable))
    {'a': [[False, True]], 'b': [[False, True]]}
    """
    if minimum < 0 or (isinstance(minimum, float) and not minimum <= 1.0):
        raise ValueError(f"`minimum` must be an int >= 0 or a float in [0, 1], but is {minimum!r}.")

    def floor(size: int) -> int:
        return min(minimum, size) if isinstance(minimum, int) else math.ceil(minimum * size)

    def counts(params: Params, density: float, *, prunable: Prunable) -> Count:
        sizes = _prunable_sizes(params, prunable)
        count = _round(check_fraction("density", density) * sum(sizes))
        if count < sum(map(floor, sizes)):
            raise ValueError(
                f"`density` {density} keeps {count} weights, but a `minimum` of {minimum!r} in "
                f"each of {len(sizes)} leaves needs {sum(map(floor, sizes))}."
            )
        return np.int32(count)

    def select(
        scores: Scores, mask: Mask, count: Count, *, prunable: Prunable, sizes: Any = None
    ) -> Mask:
        if not same_structure(count, 0) or jnp.ndim(count) != 0:
            raise ValueError("`count` must be one number for a global scope; see `Scope.counts`.")
        pool = _Pool.of(scores, mask, prunable, sizes)
        if not minimum:
            return pool.rebuild(largest(pool.scores, pool.live, count, sizes=pool.sizes))
        floors = [floor(_weight(m, u)) for m, u in zip(pool.live, pool.sizes, strict=True)]
        saved = largest(pool.scores, pool.live, np.array(floors), sizes=pool.sizes, pooled=False)
        weights = [jnp.sum(jnp.where(m, u, 0)) for m, u in zip(saved, pool.sizes, strict=True)]
        rest = [m & ~held for m, held in zip(pool.live, saved, strict=True)]
        left = jnp.maximum(jnp.asarray(count, jnp.int32) - sum(weights), 0)
        chosen = largest(pool.scores, rest, left, sizes=pool.sizes)
        return pool.rebuild([a | b for a, b in zip(saved, chosen, strict=True)])

    return Scope(counts, select)


def layerwise() -> Scope:
    """The weights of each prunable leaf compete among themselves.

    `counts` takes one density for all leaves ("uniform"), or a tree of densities, one per leaf, as
    `per_leaf` makes it.

    >>> scope, params = layerwise(), {"a": jnp.array([[3.0, 4.0]]), "b": jnp.array([[1.0, 2.0]])}
    >>> mask, prunable = jax.tree.map(lambda p: p > 0, params), {"a": True, "b": True}
    >>> count = scope.counts(params, 0.5, prunable=prunable)
    >>> jax.tree.map(lambda m: m.tolist(), scope.select(params, mask, count, prunable=prunable))
    {'a': [[False, True]], 'b': [[False, True]]}
    """
    return Scope(_counts_layerwise, _select_per_leaf)


def erk() -> Scope:
    """Layerwise with the Erdős–Rényi-kernel densities of Evci et al. (2020, RigL), section 3.

    The density of a leaf of shape (s₁, …, s_d) is min(1, ε·Σsᵢ/Πsᵢ): wide layers become sparser.
    ε is such that the counts of all prunable leaves sum to the asked density of the whole; the sum
    is exact (largest remainders are rounded up), and every leaf keeps at least 1.

    Raises:
      ValueError: (from `counts`) the density keeps fewer weights than there are prunable leaves.

    >>> params = {"a": jnp.zeros((100, 100)), "b": jnp.zeros((100, 10))}
    >>> count = erk().counts(params, 0.2, prunable={"a": True, "b": True})
    >>> {name: int(k) for name, k in count.items()}
    {'a': 1419, 'b': 781}
    """
    return Scope(_counts_erk, _select_per_leaf)


def per_leaf(params: Params, default: float, rules: Mapping[str, float]) -> Any:
    """A tree of numbers, one per leaf: that of the first pattern that fits its name, or `default`.

    For rates and densities that differ by layer; for a predicate instead of patterns use
    `trees.map_named`. Frankle & Carbin (2019) prune the output layer at half the rate:

    >>> params = {"hidden": {"kernel": jnp.zeros((4, 4))}, "output": {"kernel": jnp.zeros((4, 2))}}
    >>> level = 2
    >>> per_leaf(params, 0.8**level, {"output/*": 0.9**level})
    {'hidden': {'kernel': 0.64...}, 'output': {'kernel': 0.81}}

    Args:
      params: the tree whose leaves' names are matched.
      default: the number of a leaf that fits no pattern.
      rules: shell-style pattern (`*`, `?`, `[...]`) to number.

    Raises:
      ValueError: a pattern that fits no leaf.
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
    """The prunable leaves as lists, and the way back to a mask."""

    scores: list[jax.Array]
    live: list[jax.Array]
    sizes: list[Any]
    rebuild: Callable[[list[jax.Array]], Mask]

    @classmethod
    def of(cls, scores: Scores, mask: Mask, prunable: Prunable, sizes: Any) -> "_Pool":
        check_scores(scores, mask)
        chosen = check_prunable(prunable, mask)
        check_finite(scores, mask, prunable)
        masks, structure = jax.tree.flatten(mask)
        weights = [1] * len(masks) if sizes is None else jax.tree.leaves(sizes)

        def prunable_only(leaves: list[Any]) -> list[Any]:
            return [leaf for leaf, use in zip(leaves, chosen, strict=True) if use]

        def rebuild(kept: list[jax.Array]) -> Mask:
            new = iter(kept)
            leaves = [next(new) if use else leaf for leaf, use in zip(masks, chosen, strict=True)]
            return jax.tree.unflatten(structure, leaves)

        return cls(
            prunable_only(jax.tree.leaves(scores)),
            prunable_only(masks),
            prunable_only(weights),
            rebuild,
        )


def _select_per_leaf(
    scores: Scores, mask: Mask, count: Count, *, prunable: Prunable, sizes: Any = None
) -> Mask:
    """`Scope.select` of every scope in which only the weights of one leaf compete."""
    if not same_structure(count, prunable):
        raise ValueError(
            "`count` must be a tree with one number per leaf for a layerwise scope; "
            "see `Scope.counts`."
        )
    pool = _Pool.of(scores, mask, prunable, sizes)
    chosen = jax.tree.leaves(prunable)
    wanted = [k for k, use in zip(jax.tree.leaves(count), chosen, strict=True) if use]
    counts = jnp.stack([jnp.asarray(k, jnp.int32) for k in wanted])
    return pool.rebuild(largest(pool.scores, pool.live, counts, sizes=pool.sizes, pooled=False))


def _counts_layerwise(params: Params, density: Any, *, prunable: Prunable) -> Count:
    sizes = _prunable_sizes(params, prunable)
    if same_structure(density, 0.0):
        densities = [density] * len(jax.tree.leaves(params))
    else:
        trees.check_same_structure("density", density, "prunable", prunable)
        densities = jax.tree.leaves(density)
    chosen = jax.tree.leaves(prunable)
    used = [d for d, use in zip(densities, chosen, strict=True) if use]
    whole = [_round(check_fraction("density", d) * n) for d, n in zip(used, sizes, strict=True)]
    return _count_tree(params, prunable, whole)


def _counts_erk(params: Params, density: float, *, prunable: Prunable) -> Count:
    sizes = np.array(_prunable_sizes(params, prunable), np.float64)
    chosen = zip(jax.tree.leaves(params), jax.tree.leaves(prunable), strict=True)
    perimeter = np.array([sum(leaf.shape) for leaf, use in chosen if use], np.float64)
    wanted = _round(check_fraction("density", density) * sizes.sum())
    if wanted < len(sizes):
        raise ValueError(
            f"`density` {density} keeps {wanted} weights, "
            f"fewer than the {len(sizes)} prunable leaves."
        )
    return _count_tree(params, prunable, _apportion(_fill(perimeter, sizes, wanted), wanted))


def _fill(shares: np.ndarray, capacity: np.ndarray, total: int) -> np.ndarray:
    """Divides `total` in proportion to `shares`, nobody above capacity; the excess goes round."""
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
    while whole.sum() > total:  # what the ones at 1 took too much
        whole[np.argmax(whole)] -= 1
    return whole.tolist()


def _prunable_sizes(params: Params, prunable: Prunable) -> list[int]:
    """The number of weights in each prunable leaf; no total may exceed what int32 can count."""
    check_params(params)
    chosen = check_prunable(prunable, params)
    sizes = [p.size for p, use in zip(jax.tree.leaves(params), chosen, strict=True) if use]
    if sum(sizes) > np.iinfo(np.int32).max:
        raise ValueError(
            f"`params` has {sum(sizes)} prunable weights; int32 counts end at 2³¹ − 1."
        )
    return sizes


def _count_tree(params: Params, prunable: Prunable, counts: list[int]) -> Count:
    """A tree of int32 counts; leaves that are not prunable hold their full size."""
    numbers = iter(counts)
    return jax.tree.map(lambda p, use: np.int32(next(numbers) if use else p.size), params, prunable)


def _round(amount: float) -> int:
    """Half rounds up; never below 1."""
    return max(1, math.floor(amount + 0.5))


def _weight(mask: jax.Array, sizes: Any) -> int:
    """The weights in all units of a leaf together (static)."""
    return int(np.broadcast_to(sizes, mask.shape).sum(dtype=np.int64))
