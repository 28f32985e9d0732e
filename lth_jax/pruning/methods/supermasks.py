"""Supermasks: mask scores are trained, and the random weights are frozen."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lth_jax import trees
from lth_jax.keys import as_threefry
from lth_jax.layouts import Layouts
from lth_jax.pruning import supermask as soft_masks
from lth_jax.pruning.criteria import magnitude
from lth_jax.pruning.masks import apply_mask, ones_like
from lth_jax.pruning.methods._parts import (
    LearnedState,
    learned,
    on_latent,
    require_params,
    zeros_like,
)
from lth_jax.pruning.methods.method import METHODS, Inputs, Method
from lth_jax.pruning.prune import prune
from lth_jax.pruning.scopes import Scope, globally
from lth_jax.pruning.scores import check, is_bad, unless_bad
from lth_jax.pruning.transforms import Transform
from lth_jax.pruning.transforms.subnetwork import extended, init_inner
from lth_jax.types import Mask, Params, Prunable


def edge_popup(
    *,
    prunable: Prunable,
    layouts: Layouts | None = None,
    scope: Scope | None = None,
    steps: int | None = None,
) -> Method:
    """Edge-popup (Ramanujan et al., 2020): keeps the `count` scores of largest magnitude.

    With `g` the gradient at the masked weights, the gradient of every score is `sign(s) · g · w`.
    The inner optimizer trains the scores; weights are not updated. Initial scores are uniform on
    ±1/√fan_in, drawn from the member's key. The authors' best results use weights of constant
    magnitude (`supermask.signed_constant`).

    Args:
      prunable: static tree of Python booleans.
      layouts: the meaning of the kernels' axes (`lth_jax.layouts`), for the fan-in.
      scope: which scores compete; `globally()` by default. The authors use `layerwise()`.
      steps: unused.

    Raises:
      ValueError: from `init`, `prunable` does not fit the parameters, the layout of a prunable leaf
        is not known, or the count is out of range.
      TypeError: `scope` has the wrong type.

    >>> method = edge_popup(prunable={"w": True})
    >>> method.name, method.starts_dense
    ('edge_popup', True)
    """
    del steps
    pruner = prune(magnitude(), scope or globally())

    def build(inner: optax.GradientTransformation, inputs: Inputs) -> Transform:
        def first(params: Params) -> Any:
            key = as_threefry(inputs.key)
            return soft_masks.init_scores(key, params, prunable=prunable, layouts=layouts)

        def renew(mask_scores: Any, mask: Mask, step: jax.Array) -> tuple[Mask, jax.Array]:
            new, info = pruner.with_info(
                mask_scores,
                ones_like(mask_scores),
                inputs.count,
                prunable=prunable,
                layouts=layouts,
            )
            check(info, "edge_popup", inputs.count, prunable)
            return unless_bad(info, new, mask), is_bad(info)

        return _frozen(inner, inputs, prunable, first, renew, jnp.sign, lambda soft: soft)

    return on_latent("edge_popup", build)


def supermask(
    *,
    prunable: Prunable,
    layouts: Layouts | None = None,
    scope: Scope | None = None,
    steps: int | None = None,
    init: float = 0.0,
    rescale: bool = False,
) -> Method:
    """Stochastic supermasks (Zhou et al., 2019): each weight is kept with probability σ(s).

    Each step draws a mask from the member's key and the number of the step. With `g` the gradient
    at the masked weights, the gradient of a score is `σ'(s) · g · w`. The inner optimizer trains
    the scores; weights are not updated. The final mask keeps the weights with σ(s) > ½ (s > 0), so
    it is empty before training if `init` is 0. The density results from training: `count` is
    unused.

    Args:
      prunable: static tree of Python booleans.
      layouts: declares stacked layers (`lth_jax.layouts`), for `rescale`.
      scope: unused.
      steps: unused.
      init: initial value of all scores; the authors use 0, a probability of ½.
      rescale: whether each layer's mask is divided by its density (dynamic weight rescaling).

    Raises:
      ValueError: from `init`, `prunable` has another structure than the parameters or no True leaf.
      TypeError: from `init`, a leaf of `prunable` is not a Python boolean.

    >>> method = supermask(prunable={"w": True}, rescale=True)
    >>> method.name, method.exact
    ('supermask', False)
    """
    del scope, steps

    def multiplier(soft: Any) -> Any:
        if not rescale:
            return soft
        scaled = soft_masks.rescale(soft, layouts=layouts)
        return jax.tree.map(lambda m, s, use: s if use else m, soft, scaled, prunable)

    def network(params: Params, mask: Mask) -> Params:
        soft = jax.tree.map(lambda m: m.astype(jnp.float32), mask)
        return apply_mask(mask, soft_masks.effective(params, multiplier(soft)))

    def slope(s: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(s) * jax.nn.sigmoid(-s)

    def build(inner: optax.GradientTransformation, inputs: Inputs) -> Transform:
        def renew(mask_scores: Any, mask: Mask, step: jax.Array) -> tuple[Mask, jax.Array]:
            key = jax.random.fold_in(as_threefry(inputs.key), step)
            drawn = soft_masks.bernoulli(key, mask_scores, prunable=prunable)
            return soft_masks.harden(drawn), jnp.zeros((), bool)

        def first(params: Params) -> Any:
            return jax.tree.map(lambda s: s + init, zeros_like(params))

        return _frozen(inner, inputs, prunable, first, renew, slope, multiplier)

    def effective(params: Params, state: LearnedState) -> Params:
        return network(params, state.mask)

    def final(params: Params, state: LearnedState) -> tuple[Params, Mask]:
        probable = soft_masks.threshold(state.scores, prunable=prunable)
        mask = soft_masks.harden(probable)
        return network(params, mask), mask

    return learned("supermask", build, effective, final, exact=False)


def _frozen(
    inner: optax.GradientTransformation,
    inputs: Inputs,
    prunable: Prunable,
    first: Callable[[Params], Any],
    renew: Callable[[Any, Mask, jax.Array], tuple[Mask, jax.Array]],
    slope: Callable[[jax.Array], jax.Array],
    multiplier: Callable[[Any], Any],
) -> Transform:
    """Trains mask scores by `inner`; the weights are frozen.

    Args:
      inner: the optimizer.
      inputs: the inputs of the member.
      prunable: static tree of Python booleans.
      first: `params -> mask scores`.
      renew: `(mask scores, mask, step) -> (mask, whether the scores are invalid)`.
      slope: the derivative of the soft mask with respect to the score.
      multiplier: maps the binary soft mask to the one that multiplies the weights.
    """
    inner = extended(inner)

    def init(params: Params) -> LearnedState:
        mask_scores, zero = first(params), jnp.zeros((), jnp.int32)
        mask, bad = renew(mask_scores, inputs.mask, zero)
        state = init_inner(inner, mask_scores, latent=True)
        return LearnedState(mask, mask_scores, zero, state, bad.astype(jnp.int32))

    def update(
        grads: Params, state: LearnedState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, LearnedState]:
        del extra  # they belong to the weights
        params = require_params(params)
        trees.check_same_structure("grads", grads, "params", params)
        soft = jax.tree.map(lambda m: m.astype(jnp.float32), state.mask)
        _, pull = jax.vjp(lambda soft: soft_masks.effective(params, multiplier(soft)), soft)

        def to_score(m: jax.Array, s: jax.Array, use: bool) -> jax.Array:
            return m * slope(s) if use else jnp.zeros_like(s)

        to_scores = jax.tree.map(to_score, pull(grads)[0], state.scores, prunable)
        moves, inner_state = inner.update(to_scores, state.inner, state.scores)
        mask_scores = optax.apply_updates(state.scores, moves)
        mask, bad = renew(mask_scores, state.mask, state.step + 1)
        undecided = state.undecided + bad
        updates = jax.tree.map(jnp.zeros_like, params)
        return updates, LearnedState(mask, mask_scores, state.step + 1, inner_state, undecided)

    return Transform(init, update)


METHODS.register("edge_popup", edge_popup)
METHODS.register("supermask", supermask)
