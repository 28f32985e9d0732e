"""Pruning in several rounds without training between them, as in SynFlow and iterative SNIP."""

from collections.abc import Callable
from typing import Any

import jax

from lth_jax.layouts import Layouts
from lth_jax.pruning import scores
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
      >>> import jax.numpy as jnp
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
