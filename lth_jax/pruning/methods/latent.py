"""Straight-through methods: all weights are trained, and the network uses the best of them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax import trees
from lth_jax.layouts import Layouts
from lth_jax.pruning import transforms
from lth_jax.pruning.criteria import Criterion, magnitude
from lth_jax.pruning.granularity import n_m
from lth_jax.pruning.methods._parts import as_events, on_latent, require_params
from lth_jax.pruning.methods.method import METHODS, Inputs, Method
from lth_jax.pruning.prune import Pruner, prune
from lth_jax.pruning.scopes import Scope, globally
from lth_jax.pruning.transforms import Events, Transform
from lth_jax.types import Params, Prunable


def straight_through(
    *,
    prunable: Prunable,
    layouts: Layouts | None = None,
    scope: Scope | None = None,
    steps: int | None = None,
    criterion: Criterion | None = None,
    events: Events | Sequence[int] | None = None,
) -> Method:
    """Dynamic pruning with feedback (Lin et al., 2020): the network uses the best latent weights.

    The gradient at the masked weights is applied to all latent weights, so that pruned weights can
    return. `count` applies from the start; the authors decrease the density as `gradual` does.

    Args:
      prunable: static tree of Python booleans.
      layouts: the meaning of the kernels' axes (`lth_jax.layouts`), as scope and criterion need it.
      scope: which weights compete; `globally()` by default.
      steps: unused.
      criterion: one that needs neither data nor a key; `magnitude()` by default.
      events: after which updates, counted from 1, the mask is revised: `Events`, or its numbers
        every,begin,end; by default after every 16th, as the authors do.

    Raises:
      ValueError: `events` are invalid; from `init`, `prunable` does not fit the parameters, the
        count is out of range, or the scores are NaN, infinite or all equal.
      TypeError: `criterion` or `scope` has the wrong type.

    >>> method = straight_through(prunable={"w": True})
    >>> method.name, method.starts_dense
    ('straight_through', True)
    """
    del steps
    when = as_events(events or Events(16))
    pruner = prune(criterion or magnitude(), scope or globally())

    def build(inner: Any, inputs: Inputs) -> Any:
        return _competing(inner, pruner, inputs, when, prunable, layouts)

    return on_latent("straight_through", build)


def iterative_n_m(
    *,
    prunable: Prunable,
    layouts: Layouts | None = None,
    scope: Scope | None = None,
    steps: int | None = None,
    n: int = 2,
    m: int = 4,
    decay: float = 2e-4,
    events: Events | Sequence[int] | None = None,
) -> Method:
    """N:M masks renewed in training, with the sparse-refined gradient (SR-STE, Zhou et al., 2021).

    The network keeps the `n` largest of each `m` neighbouring inputs. The gradient of the latent
    weights is that at the masked weights plus `decay · w` where pruned (equation 9), which
    stabilises the masks. The final mask keeps `min(count, n/m of the weights)`.

    Args:
      prunable: static tree of Python booleans.
      layouts: the meaning of the kernels' axes (`lth_jax.layouts`), which the pattern needs.
      scope: which of the pattern's weights compete; `globally()` by default.
      steps: unused.
      n: number kept of each group.
      m: the size of a group; it divides the inputs of each prunable leaf.
      decay: decay of pruned weights; the authors use 2e-4.
      events: after which updates, counted from 1, the mask is revised: `Events`, or its numbers
        every,begin,end; by default after each, as the authors do.

    Raises:
      ValueError: `n` is outside [1, `m`], or `events` are invalid; from `init`, `m` does not divide
        the inputs of a prunable leaf, its layout is not known, or as in `straight_through`.
      TypeError: `scope` has the wrong type.

    >>> method = iterative_n_m(prunable={"kernel": True}, n=1, m=4)
    >>> method.name, method.starts_dense
    ('iterative_n_m', True)
    """
    del steps
    when = as_events(events or Events())
    pruner = prune(magnitude(), scope or globally(), n_m(n, m))

    def build(inner: Any, inputs: Inputs) -> Transform:
        tx = _competing(inner, pruner, inputs, when, prunable, layouts)

        def update(
            grads: Params, state: Any, params: Params | None = None, **extra: Any
        ) -> tuple[Params, Any]:
            trees.check_same_structure("grads", grads, "params", require_params(params))

            def refined(g: jax.Array, kept: jax.Array, w: jax.Array) -> jax.Array:
                return g + jnp.where(kept, 0, decay * w).astype(g.dtype)

            refined_grads = jax.tree.map(refined, grads, state.mask, params)
            updates, state = tx.update(refined_grads, state, params, **extra)
            return updates, state

        return Transform(tx.init, update)

    return on_latent("iterative_n_m", build)


def _competing(
    inner: Any,
    pruner: Pruner,
    inputs: Inputs,
    events: Events,
    prunable: Prunable,
    layouts: Layouts | None,
) -> Transform:
    return transforms.straight_through(
        inner, pruner, inputs.count, events, prunable=prunable, layouts=layouts
    )


METHODS.register("straight_through", straight_through)
METHODS.register("iterative_n_m", iterative_n_m)
