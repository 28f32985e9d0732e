"""Detection of invalid scores: those that are not finite, and those that are all equal.

Such scores would give a mask that depends only on positions. `inspect` finds them by reductions,
also under `jax.jit` and `jax.vmap`, and returns arrays; `names` and `check` read them on the host.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.pruning.checks import check_prunable, same_structure
from lth_jax.types import Count, Info, Mask, Prunable, Scores


def inspect(
    scores: Scores,
    mask: Mask,
    count: Count,
    *,
    prunable: Prunable,
    sizes: Any = None,
    layers: Any = None,
) -> Info:
    """Finds live scores that are not finite, and pools whose live scores are all equal.

    Args:
      scores: tree of floating-point arrays.
      mask: True = alive; scores of pruned entries are ignored.
      count: one number where all prunable leaves compete, or a tree of them, one per leaf (or a
        vector, one per layer).
      prunable: static tree of Python booleans.
      sizes: per leaf the size of each entry, as `count` counts; 1 by default.
      layers: per leaf the number of stacked layers along the first axis (`Units.layers`).

    Returns:
      `"nonfinite"`: int32 `[prunable leaves]`, the number of live scores that are NaN or infinite;
      `"undecided"`: bool `[pools]`, whether all live scores of a pool are equal while the count
      keeps some of them and not all. Ties at the threshold alone are valid.

    >>> info = inspect({"w": jnp.ones(3)}, {"w": jnp.ones(3, bool)}, 2, prunable={"w": True})
    >>> info["nonfinite"].tolist(), info["undecided"].tolist()
    ([0], [True])
    """
    used = check_prunable(prunable, mask)

    def chosen(tree: Any) -> list[Any]:
        return [leaf for leaf, use in zip(jax.tree.leaves(tree), used, strict=True) if use]

    values, live = chosen(scores), chosen(mask)
    weights = chosen(sizes) if sizes is not None else [1] * len(live)
    depths = chosen(layers) if layers is not None else [1] * len(live)

    def by_layer(f: Any, parts: Any) -> jax.Array:
        found = [
            f(*(_rows(x, depth) for x in row)) for *row, depth in zip(*parts, depths, strict=True)
        ]
        return jnp.concatenate(found)

    low = by_layer(_least, (values, live))
    high = by_layer(lambda s, m: -_least(-s, m), (values, live))
    kept = by_layer(_weight, (live, weights))
    if same_structure(count, 0):
        counts = jnp.asarray(count, jnp.int32)[None]
        low, high, kept = low.min()[None], high.max()[None], kept.sum()[None]
    else:
        counts = jnp.concatenate([jnp.asarray(k, jnp.int32).reshape(-1) for k in chosen(count)])
    return {
        "nonfinite": jnp.stack([_nonfinite(s, m) for s, m in zip(values, live, strict=True)]),
        "undecided": (low == high) & (0 < counts) & (counts < kept),
    }


def is_bad(info: Info) -> jax.Array:
    """Whether scores are invalid (boolean scalar): any entry of an `inspect` result is set.

    >>> is_bad({"nonfinite": jnp.array([0, 2]), "undecided": jnp.array([False])}).item()
    True
    """
    flags = jnp.concatenate([jnp.ravel(jnp.asarray(v).astype(bool)) for v in info.values()])
    # XLA (jax 0.10.2) fuses a reduction into each leaf that uses it, as scalar operations: the
    # program of a pruner of 200 leaves took minutes to compile. A sort is not fused.
    return jnp.sort(flags)[-1]


def unless_bad(info: Info, new: Any, old: Any) -> Any:
    """`new`, or `old` where scores are invalid.

    >>> info = {"nonfinite": jnp.array([1]), "undecided": jnp.array([False])}
    >>> unless_bad(info, {"w": jnp.array([True, False])}, {"w": jnp.ones(2, bool)})["w"].tolist()
    [True, True]
    """
    return trees.where(is_bad(info), old, new)


def over_rounds(infos: Info) -> Info:
    """Joins the infos of several rounds, stacked along a first axis.

    >>> over_rounds({"nonfinite": jnp.array([[1], [2]])})["nonfinite"].tolist()
    [3]
    """

    def joined(rows: jax.Array) -> jax.Array:
        return jnp.any(rows, axis=0) if rows.dtype == bool else jnp.sum(rows, axis=0)

    return {name: joined(rows) for name, rows in infos.items()}


def names(info: Info, count: Count, prunable: Prunable) -> list[str]:
    """The leaves (or groups of units) with invalid scores; reads values.

    Args:
      info: the info of one pruning, on the host.
      count: the requested count; its structure names the pools.
      prunable: static tree of Python booleans.

    >>> info = {"nonfinite": np.array([0, 2]), "undecided": np.array([False])}
    >>> names(info, 3, {"a": True, "b": True})
    ['b']
    """
    leaves = _used(prunable, prunable)
    found = {name for name, n in zip(leaves, info["nonfinite"], strict=True) if n}
    if same_structure(count, 0):
        pools = [leaves]
    else:
        named = zip(trees.names(count), jax.tree.leaves(count), strict=True)
        every = not same_structure(count, prunable)  # groups of units, all of which compete
        used = (pool for name, k in named if every or name in leaves for pool in _pools(name, k))
        pools = [[pool] for pool in used]
    # Sums of finite scores over a unit may overflow; the leaf cannot be determined.
    everywhere = bool(np.any(info.get("nonfinite_units", 0)) and not found)
    found |= set(leaves if everywhere else [])
    found |= {n for pool, bad in zip(pools, info["undecided"], strict=True) if bad for n in pool}
    return sorted(found)


def check(info: Info, criterion: str, count: Count, prunable: Prunable) -> None:
    """Raises for invalid scores, if values can be read: not under `jit` or `vmap`.

    Raises:
      ValueError: the scores are invalid; the message names the criterion and the leaves.

    >>> info = {"nonfinite": np.array([2]), "undecided": np.array([False])}
    >>> check(info, "magnitude", 3, {"w": True})
    Traceback (most recent call last):
      ...
    ValueError: `magnitude` gives scores that are NaN or infinite at 'w'; they do not
    determine a mask.
    """
    if any(isinstance(value, jax.core.Tracer) for value in jax.tree.leaves(info)):
        return
    info = jax.tree.map(np.asarray, info)
    if found := names(info, count, prunable):
        raise ValueError(sentence(criterion, found, reason(info)))


def reason(info: Info) -> str:
    """The reason why scores are invalid, for messages; reads values."""
    finite = not any(np.any(info[key]) for key in info if key.startswith("nonfinite"))
    return "all equal" if finite else "NaN or infinite"


def sentence(criterion: str, leaves: Sequence[str], what: str) -> str:
    """The message for errors and reports; names at most three leaves.

    >>> sentence("snip", ["a", "b", "c", "d"], "all equal")
    "`snip` gives scores that are all equal at 'a', 'b', 'c' and 1 more; they do not
    determine a mask."
    """
    shown = ", ".join(f"'{name}'" for name in leaves[:3])
    more = f" and {len(leaves) - 3} more" if len(leaves) > 3 else ""
    where = f"at {shown}{more}"
    return f"`{criterion}` gives scores that are {what} {where}; they do not determine a mask."


def _pools(name: str, count: Any) -> list[str]:
    """The pools of a leaf: itself, or each layer of a stack."""
    shape = jnp.shape(count)
    return [f"{name}[{i}]" for i in range(shape[0])] if shape else [name]


def _used(tree: Any, prunable: Prunable) -> list[str]:
    used = jax.tree.leaves(prunable)
    return [name for name, use in zip(trees.names(tree), used, strict=True) if use]


def _rows(leaf: Any, depth: int) -> Any:
    """One row per layer; a size common to all entries is unchanged."""
    return leaf if jnp.ndim(leaf) == 0 and not hasattr(leaf, "reshape") else leaf.reshape(depth, -1)


def _least(scores: jax.Array, live: jax.Array) -> jax.Array:
    wide = jnp.float64 if scores.dtype == jnp.float64 else jnp.float32
    return jnp.min(jnp.where(live, scores, jnp.inf).astype(wide), axis=1, initial=jnp.inf)


def _nonfinite(scores: jax.Array, live: jax.Array) -> jax.Array:
    return jnp.sum(live & ~jnp.isfinite(scores), dtype=jnp.int32)


def _weight(live: jax.Array, sizes: Any) -> jax.Array:
    return jnp.sum(jnp.where(live, sizes, 0), axis=1, dtype=jnp.int32)
