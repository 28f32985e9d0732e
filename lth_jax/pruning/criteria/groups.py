"""Scores as a weighted sum over groups of examples."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax.pruning.criteria._inputs import Criterion, name_of, named, require_batches
from lth_jax.types import Mask, Params, Scores


def by_group(criterion: Criterion, weights: Sequence[float]) -> Criterion:
    """`Σ_g weights[g] · s_g`, with `s_g` the criterion's scores on group g alone.

    Each of `batches` holds the examples of one group. With equal weights a small group has the same
    influence as a large one; an average over examples would weight groups by their size. A positive
    weight for one group and a negative weight for another keep the weights that matter more to the
    first, as FairPrune does with second-order saliencies (Wu et al. 2022).

    Args:
      criterion: one that needs `batches`.
      weights: one finite number for each group, not all of them 0.

    Returns:
      A criterion that needs as many `batches` as there are weights.

    Raises:
      ValueError: `weights` are all 0 or not finite; from the criterion, if the numbers of batches
        and weights differ.

    Example:
      >>> from lth_jax.pruning.criteria import saliency
      >>> loss = lambda params, x: jnp.mean(x @ params["w"])
      >>> params, mask = {"w": jnp.array([1.0, 1.0])}, {"w": jnp.ones(2, bool)}
      >>> large, small = jnp.array([[4.0, 0.0]] * 9), jnp.array([[0.0, 6.0]])
      >>> fair = by_group(saliency(loss), (0.5, 0.5))
      >>> fair(params, mask, batches=[large, small])["w"].tolist()
      [2.0, 3.0]
    """
    weights = [float(weight) for weight in weights]
    if not any(weights) or not all(abs(weight) < float("inf") for weight in weights):
        raise ValueError(f"`weights` must be finite and not all 0, got {weights}.")

    @named(f"by_group({name_of(criterion)})")
    def scored(params: Params, mask: Mask, key: Any, batches: Any, initial: Any) -> Scores:
        batches = require_batches(batches, "by_group")
        if len(batches) != len(weights):
            raise ValueError(
                f"`batches` must hold one batch for each of {len(weights)} groups, "
                f"got {len(batches)}."
            )
        parts = (
            jax.tree.map(
                lambda s, weight=weight: weight * s,
                criterion(params, mask, key=key, batches=(batch,), initial=initial),
            )
            for weight, batch in zip(weights, batches, strict=True)
        )
        return functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), parts)

    return scored
