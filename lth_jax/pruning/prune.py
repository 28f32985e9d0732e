"""One pruner from its three parts: what is scored, over what scores compete, what goes together."""

from collections.abc import Callable
from typing import Any

from lth_jax.pruning.checks import check_mask, check_params
from lth_jax.pruning.criteria import Criterion
from lth_jax.pruning.granularity import Granularity, weights
from lth_jax.pruning.scopes import Scope
from lth_jax.types import Count, Key, Mask, Params, Prunable

Pruner = Callable[..., Mask]
"""`(params, mask, count, *, prunable, key=None, batches=None, initial=None) -> mask`."""


def prune(criterion: Criterion, scope: Scope, granularity: Granularity = weights) -> Pruner:
    """Composes a pruner: `scope.select(granularity(criterion(params, mask)), count)`.

    The pruner is pure: it can be jitted (close over `prunable`, which is static) and vmapped, with
    keys and counts that differ between members. Its new mask is contained in the old one and keeps
    exactly `count` weights (for units of several weights: the fewest best units that together hold
    `count` or more).

    Args:
      criterion: scores every weight; higher = keep.
      scope: over what scores compete; `scope.counts` makes the `count` from a density.
      granularity: what is removed together; single weights by default.

    Returns:
      `(params, mask, count, *, prunable, key=None, batches=None, initial=None) -> mask`; `key`,
      `batches` and `initial` reach the criterion as they are. Raises `TypeError` for leaves that
      are not floating-point, `ValueError` for a mask or scores of another structure, for NaN
      scores (where values can be read) and for a count that does not fit the scope.

    >>> import jax, jax.numpy as jnp
    >>> from lth_jax.pruning import masks, scopes
    >>> params = {"w": jnp.array([[3.0, -4.0], [1.0, 0.5]]), "b": jnp.zeros(2)}
    >>> prunable, scope = masks.prunable_leaves(params), scopes.globally()
    >>> magnitude = lambda params, mask, **_: jax.tree.map(jnp.abs, params)
    >>> count = scope.counts(params, 0.5, prunable=prunable)
    >>> pruner = prune(magnitude, scope)
    >>> pruner(params, masks.ones_like(params), count, prunable=prunable)["w"].tolist()
    [[True, True], [False, False]]
    """

    def pruner(
        params: Params,
        mask: Mask,
        count: Count,
        *,
        prunable: Prunable,
        key: Key | None = None,
        batches: Any = None,
        initial: Params | None = None,
    ) -> Mask:
        check_params(params)
        check_mask(mask, params)
        scores = criterion(params, mask, key=key, batches=batches, initial=initial)
        units = granularity.to_units(scores, mask, prunable=prunable)
        kept = scope.select(
            units.scores, units.mask, count, prunable=units.prunable, sizes=units.sizes
        )
        return granularity.to_leaves(kept, mask, prunable=prunable)

    return pruner
