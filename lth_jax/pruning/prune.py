"""One pruner from its three parts: what is scored, over what scores compete, what goes together."""

import inspect
from collections.abc import Callable
from typing import Any

from lth_jax.layouts import Layouts
from lth_jax.pruning.checks import check_mask, check_params
from lth_jax.pruning.criteria import Criterion
from lth_jax.pruning.granularity import Granularity, weights
from lth_jax.pruning.scopes import Scope
from lth_jax.types import Count, Key, Mask, Params, Prunable

Pruner = Callable[..., Mask]
"""`(params, mask, count, *, prunable, layouts, key, batches, initial) -> mask`; see `prune`."""


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
      `(params, mask, count, *, prunable, layouts=None, key=None, batches=None, initial=None) ->
      mask`. `layouts` (`lth_jax.layouts`, static like `prunable`) gives the meaning of the kernels'
      axes; `key`, `batches` and `initial` reach the criterion as they are. Raises `TypeError` for
      leaves that are not floating-point and for a count that is no whole number, `ValueError` for a
      mask or scores of another structure, for NaN scores (where values can be read), for a count
      that does not fit the scope, and for a kernel whose axes the granularity has to know.

    Raises:
      TypeError: a part is of another kind, for instance a builder that was not called.

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
    _check_parts(criterion, scope, granularity)

    def pruner(
        params: Params,
        mask: Mask,
        count: Count,
        *,
        prunable: Prunable,
        layouts: Layouts | None = None,
        key: Key | None = None,
        batches: Any = None,
        initial: Params | None = None,
    ) -> Mask:
        check_params(params)
        check_mask(mask, params)
        scores = criterion(params, mask, key=key, batches=batches, initial=initial)
        units = granularity.to_units(scores, mask, prunable=prunable, layouts=layouts)
        kept = scope.select(
            units.scores,
            units.mask,
            count,
            prunable=units.prunable,
            sizes=units.sizes,
            layers=units.layers,
        )
        return granularity.to_leaves(kept, mask, prunable=prunable, layouts=layouts)

    return pruner


def _check_parts(criterion: Any, scope: Any, granularity: Any) -> None:
    """Raises `TypeError` for parts of another kind; for one, a builder that was not called."""
    try:
        inspect.signature(criterion).bind(None, None, key=None, batches=None, initial=None)
    except TypeError as error:
        raise TypeError(
            "`criterion` must take (params, mask, *, key, batches, initial), but is "
            f"{_shown(criterion)}."
        ) from error
    for name, part, kind in (("scope", scope, Scope), ("granularity", granularity, Granularity)):
        if not isinstance(part, kind):
            raise TypeError(f"`{name}` must be a {kind.__name__}, but is {_shown(part)}.")


def _shown(part: Any) -> str:
    name = getattr(part, "__name__", None)
    return (
        f"the function `{name}`; if it builds one, call it, `{name}(...)`" if name else repr(part)
    )
