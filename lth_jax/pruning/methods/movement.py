"""Movement pruning: mask scores trained together with the weights."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lth_jax import trees
from lth_jax.layouts import Layouts
from lth_jax.pruning.criteria._inputs import named
from lth_jax.pruning.events import when
from lth_jax.pruning.masks import apply_mask, ones_like
from lth_jax.pruning.methods._parts import (
    LearnedState,
    cubic_count,
    events_in,
    on_latent,
    require_params,
    zeros_like,
)
from lth_jax.pruning.methods.method import METHODS, Inputs, Method
from lth_jax.pruning.prune import prune
from lth_jax.pruning.scopes import Scope, globally
from lth_jax.pruning.scores import is_bad, unless_bad
from lth_jax.pruning.transforms import Events, Transform
from lth_jax.pruning.transforms.subnetwork import extended, init_inner, update_inner
from lth_jax.types import Count, Mask, Params, Prunable


def movement(
    *,
    prunable: Prunable,
    layouts: Layouts | None = None,
    scope: Scope | None = None,
    steps: int,
    score_optimizer: optax.GradientTransformation | None = None,
    events: Events | Sequence[int] | None = None,
) -> Method:
    """Movement pruning (Sanh et al., 2020), with an exact count ("hard" movement pruning).

    Each weight has a score, initially 0. The network uses the weights of the largest scores. With
    `g` the gradient at the masked weights, the gradient of a score is `g · w` (straight through the
    mask), and that of a weight is `g` where kept and 0 elsewhere. Pruned weights change only by
    momentum and weight decay, and return if their scores recover. Event i of N keeps the count of
    `gradual`; after the last event the mask is revised at the same spacing.

    Args:
      prunable: static tree of Python booleans.
      layouts: declares stacked layers (`lth_jax.layouts`).
      scope: which scores compete; `globally()` by default (layerwise in the authors' code).
      steps: updates of the training.
      score_optimizer: optimizer of the scores; `optax.adam(1e-2)` by default, as the authors use,
        without their warm-up and decay of the learning rate.
      events: when the count decreases and the mask is revised: `Events`, or its numbers
        every,begin,end; by default at each update, until the final count is reached at three
        quarters of the training.

    Raises:
      ValueError: `steps` is not an integer of at least 1, or `events` are invalid or do not begin
        in the training; from `update`, `prunable` does not fit the parameters.
      TypeError: `scope` has the wrong type.
      AttributeError: `score_optimizer` is not an optimizer.

    >>> method = movement(prunable={"w": True}, steps=1000)
    >>> method.name, method.starts_dense
    ('movement', True)
    """
    times = events_in(steps, events, every=1)
    optimizer = optax.with_extra_args_support(score_optimizer or optax.adam(1e-2))
    pruner = prune(named("movement")(lambda params, mask, **_: params), scope or globally())

    def renewed(
        held: tuple[Mask, jax.Array], mask_scores: Any, step: jax.Array, count: Count
    ) -> tuple[Mask, jax.Array]:
        now = cubic_count(count, mask_scores, prunable, step, times)
        everything = ones_like(mask_scores)
        new, info = pruner.with_info(
            mask_scores, everything, now, prunable=prunable, layouts=layouts
        )
        return unless_bad(info, new, held[0]), held[1] + is_bad(info)

    def build(inner: optax.GradientTransformation, inputs: Inputs) -> Transform:
        inner = extended(inner)

        def init(params: Params) -> LearnedState:
            mask_scores = zeros_like(params)
            zero = jnp.zeros((), jnp.int32)
            states = (init_inner(inner, params, latent=True), optimizer.init(mask_scores))
            return LearnedState(inputs.mask, mask_scores, zero, states, zero)

        def update(
            grads: Params, state: LearnedState, params: Params | None = None, **extra: Any
        ) -> tuple[Params, LearnedState]:
            params = require_params(params)
            trees.check_same_structure("grads", grads, "params", params)
            to_scores = jax.tree.map(
                lambda g, w, s: g.astype(s.dtype) * w.astype(s.dtype), grads, params, state.scores
            )
            of_weights, of_scores = state.inner
            kept = apply_mask(state.mask, grads)
            updates, of_weights = update_inner(inner, kept, of_weights, params, extra)
            moves, of_scores = optimizer.update(to_scores, of_scores, state.scores)
            mask_scores = optax.apply_updates(state.scores, moves)
            at = times._replace(end=steps).at(state.step)
            held = (state.mask, state.undecided)
            mask, undecided = when(at, renewed, held, mask_scores, state.step, inputs.count)
            inner_state = (of_weights, of_scores)
            return updates, LearnedState(mask, mask_scores, state.step + 1, inner_state, undecided)

        return Transform(init, update)

    return on_latent("movement", build)


METHODS.register("movement", movement)
