"""One-shot masks of many networks."""

from typing import Any

import jax

from lth_jax import trees
from lth_jax.pruning import masks, scores
from lth_jax.pruning.criteria import magnitude
from lth_jax.pruning.prune import Pruner, prune
from lth_jax.pruning.scopes import layerwise
from lth_jax.types import Batch, Count, Info, Key, Mask, Params, Prunable


def at_count(pruner: Pruner, count: Count) -> Pruner:
    """The pruner at a fixed count, without the argument `count`; for several rounds see `iterate`.

    >>> import jax.numpy as jnp
    >>> from lth_jax.pruning import criteria, prune, scopes
    >>> largest = at_count(prune.prune(criteria.magnitude(), scopes.globally()), jnp.int32(1))
    >>> weights, ones = {"w": jnp.arange(2.0)}, {"w": jnp.ones(2, bool)}
    >>> largest(weights, ones, prunable={"w": True})["w"].tolist()
    [False, True]
    """

    def with_info(params: Params, mask: Mask, **inputs: Any) -> tuple[Mask, Info]:
        return pruner.with_info(params, mask, count, **inputs)

    return Pruner(pruner.criterion, with_info, count, pruner.parts)


def member_masks(
    pruner: Pruner,
    params: Params,
    *,
    prunable: Prunable,
    batches: tuple[Batch, ...] | None = None,
    keys: Key | None = None,
) -> Mask:
    """The masks of many dense networks by one pruner.

    Args:
      pruner: without the argument `count`: from `at_count` or `iterate`.
      params: `[networks, …]`.
      prunable: static tree of Python booleans.
      batches: the batches of the criterion for each network, leaves `[networks, n, …]`.
      keys: `[networks]`, for a criterion that draws.

    Returns:
      Boolean leaves `[networks, …]`.

    Raises:
      ValueError: the scores of a network are invalid; the message names criterion and leaf.

    >>> import jax.numpy as jnp
    >>> from lth_jax.pruning import criteria, prune, scopes
    >>> largest = at_count(prune.prune(criteria.magnitude(), scopes.globally()), jnp.int32(1))
    >>> params = {"w": jnp.array([[1.0, 2.0], [2.0, 1.0]])}
    >>> member_masks(largest, params, prunable={"w": True})["w"].tolist()
    [[False, True], [True, False]]
    """

    @jax.jit
    @jax.vmap
    def choose(params: Params, batches: Any, key: Any) -> tuple[Mask, Info]:
        everything = masks.ones_like(params)
        return pruner.with_info(params, everything, prunable=prunable, key=key, batches=batches)

    chosen, infos = choose(params, batches, keys)
    scores.check(scores.over_rounds(infos), pruner.criterion, pruner.counts, prunable)
    found: Mask = chosen
    return found


def largest_weights(params: Params, density: float) -> Mask:
    """The masks of the largest weights of each layer, for each of many networks.

    Args:
      params: `[networks, …]`.
      density: the fraction of each layer that is kept.

    >>> import numpy as np
    >>> largest_weights({"kernel": np.array([[[1.0, 2.0]], [[2.0, 1.0]]])}, 0.5)["kernel"].tolist()
    [[[False, True]], [[True, False]]]
    """
    one, scope = trees.index(params, 0), layerwise()
    prunable = masks.prunable_leaves(one)
    count = scope.counts(one, density, prunable=prunable)
    return member_masks(at_count(prune(magnitude(), scope), count), params, prunable=prunable)
