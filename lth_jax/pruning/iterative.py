"""Pruning in several rounds without training between them, as in SynFlow and iterative SNIP."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax import trees
from lth_jax.layouts import Layouts, map_layers, resolve
from lth_jax.pruning import scores
from lth_jax.pruning.checks import same_structure
from lth_jax.pruning.compiled import compiled, is_shared, shared
from lth_jax.pruning.prune import Pruner
from lth_jax.types import Count, Info, Key, Mask, Params, Prunable


def iterate(pruner: Pruner, counts: Count) -> Pruner:
    """A pruner in several rounds, each scored under the mask of the last (one `jax.lax.scan`).

    SynFlow (Tanaka et al. 2020, algorithm 1) takes `levels = 100` rounds of exponentially falling
    density:

        schedule = schedules.exponential(levels, final)
        counts = trees.stack([
            scope.counts(params, schedule(level), prunable=prunable)
            for level in range(1, levels + 1)
        ])

    Args:
      pruner: from `prune`.
      counts: the counts of all rounds, stacked along a first axis; may be traced.

    Returns:
      A `Pruner` without the argument `count`: `(params, mask, *, prunable, layouts=None, key=None,
      batches=None, initial=None) -> mask`. Round `i` gets the key `fold_in(key, i)`. The info
      covers all rounds; a round with invalid scores does not change the mask.

    Example:
      >>> from lth_jax.pruning import criteria, prune, scopes
      >>> pruner = prune.prune(criteria.magnitude(), scopes.globally())
      >>> rounds = iterate(pruner, jnp.array([3, 2]))
      >>> params, mask = {"w": jnp.arange(4.0)}, {"w": jnp.ones(4, bool)}
      >>> rounds(params, mask, prunable={"w": True})["w"].tolist()
      [False, False, True, True]
    """
    rounds = _shared_rounds(pruner) if is_shared(pruner) else _rounds(pruner)

    def with_info(params: Params, mask: Mask, **inputs: Any) -> tuple[Mask, Info]:
        return rounds(params, mask, counts, **inputs)

    first = jax.tree.map(lambda k: k[0], counts)
    return Pruner(pruner.criterion, with_info, first, pruner.parts)


def in_rounds(pruner: Pruner, rounds: int) -> Pruner:
    """A pruner that reaches each count in several rounds, each scored under the last mask.

    From n live weights, round i of R keeps `n (count / n)^(i / R)`: SynFlow's exponential schedule
    (Tanaka et al. 2020, algorithm 1; R = 100). Counts by leaf fall in this way in each leaf.

    Args:
      pruner: from `prune`.
      rounds: R, at least 1; with 1 the pruner is returned unchanged.

    Raises:
      ValueError: `rounds` is below 1.

    >>> from lth_jax.pruning import criteria, prune, scopes
    >>> pruner = in_rounds(prune.prune(criteria.magnitude(), scopes.globally()), 3)
    >>> params, mask = {"w": jnp.arange(8.0)}, {"w": jnp.ones(8, bool)}
    >>> int(pruner(params, mask, jnp.array(2), prunable={"w": True})["w"].sum())
    2
    """
    if rounds < 1:
        raise ValueError(f"`rounds` must be at least 1, but is {rounds}.")
    if rounds == 1:
        return pruner
    repeated = _shared_rounds(pruner) if is_shared(pruner) else _rounds(pruner)

    def falling(count: Any, live: Any) -> jax.Array:
        done = jnp.arange(1, rounds + 1).reshape(-1, *[1] * jnp.ndim(count)) / rounds
        n, k = jnp.maximum(live, 1).astype(jnp.float32), jnp.asarray(count)
        kept = jnp.round(n * (k / n) ** done).astype(k.dtype)
        return jnp.maximum(kept, k).at[-1].set(k)

    def with_info(
        params: Params, mask: Mask, count: Count, *, prunable: Prunable, **inputs: Any
    ) -> tuple[Mask, Info]:
        known = resolve(mask, inputs.get("layouts"))

        def live(name: str, m: jax.Array, use: bool) -> Any:
            return map_layers(jnp.sum, known.get(name), m) if use else 0

        alive = trees.map_named(live, mask, prunable)
        if same_structure(count, 0):
            counts = falling(count, sum(jnp.sum(n) for n in jax.tree.leaves(alive)))
        else:
            counts = jax.tree.map(falling, count, alive)
        return repeated(params, mask, counts, prunable=prunable, **inputs)

    return Pruner(pruner.criterion, with_info, pruner.counts, pruner.parts)


def _rounds(pruner: Pruner) -> Callable[..., tuple[Mask, Info]]:
    """`Pruner.with_info` with the stacked counts of all rounds."""

    def rounds(
        params: Params,
        mask: Mask,
        counts: Count,
        *,
        prunable: Prunable,
        layouts: Layouts | None = None,
        key: Key | None = None,
        **inputs: Any,
    ) -> tuple[Mask, Info]:
        def one(carry: tuple[Mask, Any], count: Count) -> tuple[tuple[Mask, Any], Info]:
            mask, i = carry
            fresh = None if key is None else jax.random.fold_in(key, i)
            mask, info = pruner.with_info(
                params, mask, count, prunable=prunable, layouts=layouts, key=fresh, **inputs
            )
            return (mask, i + 1), info

        (mask, _), infos = jax.lax.scan(one, (mask, 0), counts)
        return mask, scores.over_rounds(infos)

    return compiled(rounds)


_shared_rounds = shared(_rounds)
