"""Soft thresholds: a learned threshold per layer determines the density."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lth_jax import trees
from lth_jax.layouts import Layouts, from_layers, resolve, to_layers
from lth_jax.pruning.checks import check_prunable
from lth_jax.pruning.methods._parts import LearnedState, learned, require_params
from lth_jax.pruning.methods.method import METHODS, Inputs, Method
from lth_jax.pruning.scopes import Scope
from lth_jax.pruning.transforms import Transform
from lth_jax.pruning.transforms.subnetwork import (
    extended,
    in_structure_of,
    init_inner,
    update_inner,
)
from lth_jax.types import Mask, Params, Prunable


def soft_threshold(
    *,
    prunable: Prunable,
    layouts: Layouts | None = None,
    scope: Scope | None = None,
    steps: int | None = None,
    init: float = -5.0,
    decay: float = 1e-2,
) -> Method:
    """STR (Kusupati et al., 2020): `sign(w) · relu(|w| − σ(s))` with a trained s for each layer.

    Weights and thresholds are trained through this function (equations 3 and 4) by the same inner
    optimizer with separate states. The gradient of the thresholds also has the term `decay · s`,
    which moves σ(s) towards σ(0) = ½. The density results from training: `count` is unused, and
    `final` keeps the weights above their thresholds.

    Args:
      prunable: static tree of Python booleans.
      layouts: declares stacked layers (`lth_jax.layouts`); each has its own threshold.
      scope: unused.
      steps: unused.
      init: initial s. The authors choose it, together with the weight decay, for the target density
        (−3200 and above for a ResNet-50, in 10⁵ updates). The default suits short trainings.
      decay: weight decay of s.

    Raises:
      ValueError: from `init`, `prunable` has another structure than the parameters or no True leaf.
      TypeError: from `init`, a leaf of `prunable` is not a Python boolean.

    >>> import jax, optax
    >>> from lth_jax.pruning.methods import Inputs, soft_threshold
    >>> params, method = {"w": jnp.array([2.0, 0.1])}, soft_threshold(prunable={"w": True}, init=0)
    >>> inputs = Inputs({"w": jnp.ones(2, bool)}, jnp.int32(1), jax.random.key(0))
    >>> state = method.transform(optax.sgd(0.1), inputs).init(params)
    >>> method.effective(params, state)["w"].tolist()
    [1.5, 0.0]
    """
    del scope, steps

    def distances(params: Params, thresholds: Any) -> Params:
        """`|w| − σ(s)` in at least float32; 1 where not prunable."""
        check_prunable(prunable, params)
        known = resolve(params, layouts)

        def leaf(name: str, w: jax.Array, s: jax.Array, use: bool) -> jax.Array:
            if not use:
                return jnp.ones(w.shape)
            size, layout = jnp.abs(w.astype(s.dtype)), known.get(name)
            if s.ndim == 0 or layout is None:
                return size - jax.nn.sigmoid(s)
            layers = to_layers(size, layout)
            each = jax.nn.sigmoid(s).reshape(-1, *[1] * (layers.ndim - 1))
            return from_layers(layers - each, layout, w.shape)

        same = in_structure_of("prunable", prunable, "params", params)
        return trees.map_named(leaf, params, thresholds, same)

    def above(params: Params, thresholds: Any) -> Mask:
        return jax.tree.map(lambda d: d > 0, distances(params, thresholds))

    def shrunk(params: Params, thresholds: Any) -> Params:
        def leaf(w: jax.Array, d: jax.Array, use: bool) -> jax.Array:
            return (jnp.sign(w.astype(d.dtype)) * jax.nn.relu(d)).astype(w.dtype) if use else w

        same = in_structure_of("prunable", prunable, "params", params)
        return jax.tree.map(leaf, params, distances(params, thresholds), same)

    def start(params: Params) -> Any:
        known = resolve(params, layouts)

        def leaf(name: str, w: jax.Array) -> jax.Array:
            layout = known.get(name)
            stacked = layout is not None and layout.stacked
            shape = (layout.layers(w.shape),) if layout is not None and stacked else ()
            return jnp.full(shape, init, jnp.float32)

        return trees.map_named(leaf, params)

    def build(inner: optax.GradientTransformation, inputs: Inputs) -> Transform:
        del inputs
        inner = extended(inner)

        def first(params: Params) -> LearnedState:
            thresholds, zero = start(params), jnp.zeros((), jnp.int32)
            states = tuple(init_inner(inner, tree, latent=True) for tree in (params, thresholds))
            return LearnedState(above(params, thresholds), thresholds, zero, states, zero)

        def update(
            grads: Params, state: LearnedState, params: Params | None = None, **extra: Any
        ) -> tuple[Params, LearnedState]:
            params, thresholds = require_params(params), state.scores
            trees.check_same_structure("grads", grads, "params", params)
            _, pull = jax.vjp(shrunk, params, thresholds)
            to_weights, to_thresholds = pull(grads)
            to_thresholds = jax.tree.map(lambda g, s: g + decay * s, to_thresholds, thresholds)
            of_weights, of_thresholds = state.inner
            updates, of_weights = update_inner(inner, to_weights, of_weights, params, extra)
            moves, of_thresholds = inner.update(to_thresholds, of_thresholds, thresholds)
            thresholds = optax.apply_updates(thresholds, moves)
            mask = above(optax.apply_updates(params, updates), thresholds)
            states = (of_weights, of_thresholds)
            return updates, LearnedState(mask, thresholds, state.step + 1, states, state.undecided)

        return Transform(first, update)

    def final(params: Params, state: LearnedState) -> tuple[Params, Mask]:
        return shrunk(params, state.scores), above(params, state.scores)

    def effective(params: Params, state: LearnedState) -> Params:
        return shrunk(params, state.scores)

    return learned("soft_threshold", build, effective, final, exact=False)


METHODS.register("soft_threshold", soft_threshold)
