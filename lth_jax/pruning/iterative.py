"""Pruning in rounds without training in between, as SynFlow and iterative SNIP do."""

from collections.abc import Callable
from typing import Any

import jax

from lth_jax.layouts import Layouts
from lth_jax.types import Count, Mask


def iterate(pruner: Callable[..., Mask], counts: Count) -> Callable[..., Mask]:
    """A pruner's rounds, each scored on the mask that the last one left (one `jax.lax.scan`).

    SynFlow (Tanaka et al. 2020, algorithm 1) takes `levels = 100` rounds of exponentially falling
    density:

        schedule = schedules.exponential(levels, final)
        counts = trees.stack([
            scope.counts(params, schedule(level), prunable=prunable)
            for level in range(1, levels + 1)
        ])

    Args:
      pruner: `(params, mask, count, *, prunable, layouts, key, batches, initial) -> mask`, as made
        by `prune`.
      counts: the counts of all rounds, stacked along a first axis; may be traced.

    Returns:
      A function `(params, mask, *, prunable, layouts=None, key=None, batches=None, initial=None) ->
      mask`. Round
      `i` gets the key `fold_in(key, i)`.

    Example:
      >>> import jax.numpy as jnp
      >>> halve = lambda params, mask, count, **_: {"w": mask["w"] & (params["w"] <= count)}
      >>> rounds = iterate(halve, jnp.array([3, 2]))
      >>> params, mask = {"w": jnp.arange(4)}, {"w": jnp.ones(4, bool)}
      >>> rounds(params, mask, prunable={"w": True})["w"].tolist()
      [True, True, True, False]
    """

    def rounds(
        params: Any,
        mask: Mask,
        *,
        prunable: Any,
        layouts: Layouts | None = None,
        key: Any = None,
        batches: Any = None,
        initial: Any = None,
    ) -> Mask:
        def one(carry: tuple[Mask, Any], count: Count) -> tuple[tuple[Mask, Any], None]:
            mask, i = carry
            fresh = None if key is None else jax.random.fold_in(key, i)
            inputs = {"key": fresh, "batches": batches, "initial": initial}
            return (
                pruner(params, mask, count, prunable=prunable, layouts=layouts, **inputs),
                i + 1,
            ), None

        (mask, _), _ = jax.lax.scan(one, (mask, 0), counts)
        return mask

    return rounds
