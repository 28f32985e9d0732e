"""Supermasks: learned masks of frozen random weights.

A tree of *mask scores* is trained instead of the weights. Each step computes a *soft mask* from the
scores: a tree of floats shaped like the parameters with values 0 or 1 and the gradient of a smooth
function (a straight-through estimator, Bengio et al. 2013). `effective` computes the network's
parameters from it:

    def loss(mask_scores, params, batch, key):
        soft = supermask.bernoulli(key, mask_scores, prunable=prunable)
        return task_loss(supermask.effective(params, soft), batch)

The network uses `effective(params, soft)`. Do not mask the gradients of the mask scores. `harden`
gives the final boolean mask. A scope's `select` prunes trained mask scores to an exact count.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from lth_jax import trees
from lth_jax.layouts import Layouts, map_layers, require, resolve
from lth_jax.pruning import scores
from lth_jax.pruning.checks import check_finite, check_params, check_prunable
from lth_jax.pruning.compiled import compiled
from lth_jax.pruning.granularity import weights
from lth_jax.pruning.masks import ones_like
from lth_jax.pruning.scopes import Scope
from lth_jax.types import Count, Info, Key, Mask, Params, Prunable

Axes = int | Sequence[int]
"""One axis of a kernel, or several."""

MaskScores = Any
"""A tree of floats shaped like the parameters: the trained variables of a supermask."""

SoftMask = Any
"""A tree of floats shaped like the parameters, 1 where not prunable; differentiable."""


def edge_popup(
    mask_scores: MaskScores,
    count: Count,
    *,
    scope: Scope,
    prunable: Prunable,
    layouts: Layouts | None = None,
) -> SoftMask:
    """Edge-popup (Ramanujan et al. 2020): 1 for the `count` scores of largest magnitude, else 0.

    The gradient passes straight through to `|s|` of all scores: `∂L/∂s = sign(s) · ∂L/∂m`. The
    scope selects, so the count is exact; the authors select layerwise, with one density for all
    layers.

    Args:
      mask_scores: tree of floats.
      count: from `scope.counts`; may be traced.
      scope: which scores compete.
      prunable: static tree of booleans.
      layouts: declares stacked layers (`lth_jax.layouts`).

    Returns:
      A soft mask. It is NaN where scores are invalid (not finite, or all equal in a pool), so that
      the loss becomes NaN.

    Raises:
      ValueError: the scores are invalid, and values can be read.
      TypeError: a leaf of `mask_scores` is not floating-point.

    Example:
      >>> from lth_jax.pruning import scopes
      >>> scores, prunable = {"w": jnp.array([0.1, -0.5, 0.3])}, {"w": True}
      >>> soft = edge_popup(scores, jnp.int32(2), scope=scopes.globally(), prunable=prunable)
      >>> soft["w"].tolist()
      [0.0, 1.0, 1.0]
    """
    check_params(mask_scores, "mask_scores")
    check_prunable(prunable, mask_scores)
    everything = jax.tree.map(lambda s: np.ones(s.shape, bool), mask_scores)
    check_finite(mask_scores, everything, prunable)
    soft, info = _edge_popup(
        mask_scores, count, scope=scope.selection, prunable=prunable, layouts=layouts
    )
    scores.check(info, "edge_popup", count, prunable)
    return soft


def _edge_popup_with_info(
    mask_scores: MaskScores,
    count: Count,
    *,
    scope: Scope,
    prunable: Prunable,
    layouts: Layouts | None,
) -> tuple[SoftMask, Info]:
    sizes = jax.tree.map(jnp.abs, mask_scores)
    ranked = jax.lax.stop_gradient(sizes)
    everything = ones_like(ranked)
    units = weights.to_units(ranked, everything, prunable=prunable, layouts=layouts)
    options = {"prunable": prunable, "layers": units.layers}
    kept = scope.select(units.scores, units.mask, count, **options)
    info = scope.inspect(units.scores, units.mask, count, **options)
    mask = weights.to_leaves(kept, everything, prunable=prunable, layouts=layouts)
    soft = _where_prunable(jax.tree.map(_straight_through, mask, sizes), prunable)
    bad = jnp.where(scores.is_bad(info), jnp.nan, 0.0)
    return jax.tree.map(lambda m: m + bad.astype(m.dtype), soft), info


_edge_popup = compiled(_edge_popup_with_info, count=True)


def bernoulli(key: Key, mask_scores: MaskScores, *, prunable: Prunable) -> SoftMask:
    """A random mask, 1 with probability `σ(s)` (Zhou et al. 2019).

    The gradient passes straight through to the probability: `∂L/∂s = σ'(s) · ∂L/∂m`. The authors
    draw a new mask in every step, and evaluate the mean of ten draws.

    Args:
      key: a typed PRNG key; each leaf folds its position into it.
      mask_scores: tree of floats, the logits of the probabilities.
      prunable: static tree of booleans.

    Returns:
      A soft mask.

    Example:
      >>> scores = {"w": jnp.array([100.0, -100.0])}
      >>> bernoulli(jax.random.key(0), scores, prunable={"w": True})["w"].tolist()
      [1.0, 0.0]
    """
    check_params(mask_scores, "mask_scores")
    leaves, treedef = jax.tree.flatten(mask_scores)
    soft = [
        _straight_through(jax.random.bernoulli(jax.random.fold_in(key, i), p), p)
        for i, p in enumerate(map(jax.nn.sigmoid, leaves))
    ]
    return _where_prunable(jax.tree.unflatten(treedef, soft), prunable)


def threshold(mask_scores: MaskScores, *, prunable: Prunable) -> SoftMask:
    """1 where `σ(s) > ½`: a deterministic variant of `bernoulli` with the same gradient.

    Example:
      >>> threshold({"w": jnp.array([0.2, -0.1])}, prunable={"w": True})["w"].tolist()
      [1.0, 0.0]
    """
    check_params(mask_scores, "mask_scores")
    soft = jax.tree.map(lambda s: _straight_through(s > 0, jax.nn.sigmoid(s)), mask_scores)
    return _where_prunable(soft, prunable)


def rescale(soft: SoftMask, *, layouts: Layouts | None = None) -> SoftMask:
    """Dynamic weight rescaling (Zhou et al. 2019): a layer's mask over its mean, `m n / Σm`.

    The sum of a layer's mask then equals its size. An empty layer stays 0. A leaf is one layer,
    unless `layouts` declares stacked layers.

    Example:
      >>> rescale({"w": jnp.array([1.0, 0.0, 1.0, 0.0])})["w"].tolist()
      [2.0, 0.0, 2.0, 0.0]
    """

    def over_mean(m: jax.Array) -> jax.Array:
        mean = jnp.mean(m, dtype=jnp.float32)
        return m / jnp.where(mean > 0, mean, 1.0).astype(m.dtype)

    known = resolve(soft, layouts)
    return trees.map_named(lambda name, m: map_layers(over_mean, known.get(name), m), soft)


def effective(params: Params, soft: SoftMask) -> Params:
    """The parameters that the network uses: `params ⊙ soft`, in the dtypes of `params`.

    Example:
      >>> effective({"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([0.0, 1.0])})["w"].tolist()
      [0.0, 4.0]
    """
    return jax.tree.map(lambda w, m: w * m.astype(w.dtype), params, soft)


def harden(soft: SoftMask) -> Mask:
    """The boolean mask of a soft one: True where it is not 0.

    Example:
      >>> harden({"w": jnp.array([0.0, 1.3])})["w"].tolist()
      [False, True]
    """
    return jax.tree.map(lambda m: m != 0, soft)


def init_scores(
    key: Key, params: Params, *, prunable: Prunable, layouts: Layouts | None = None
) -> MaskScores:
    """Initial mask scores of edge-popup: uniform on ±1/√fan_in (Ramanujan et al. 2020).

    Leaves that are not prunable get zeros. Zhou et al. 2019 initialise all scores to 0, a
    probability of ½.

    Args:
      key: a typed PRNG key; each leaf folds its position into it.
      params: tree of floating-point arrays.
      prunable: static tree of booleans.
      layouts: the meaning of the kernels' axes (`lth_jax.layouts`), for the fan-in.

    Returns:
      A tree shaped like `params`, in float32.

    Raises:
      ValueError: the layout of a prunable leaf is not known.

    Example:
      >>> params = {"w": jnp.zeros((100, 5))}
      >>> scores = init_scores(jax.random.key(0), params, prunable={"w": True})
      >>> bool(jnp.abs(scores["w"]).max() <= 0.1)
      True
    """
    check_params(params)
    chosen, known = check_prunable(prunable, params), resolve(params, layouts)

    def draw(i: int, name: str, leaf: jax.Array) -> jax.Array:
        fan = require(known, name, leaf.shape, "`init_scores`").fan_in(leaf.shape)
        bound = 1 / math.sqrt(fan)
        return jax.random.uniform(
            jax.random.fold_in(key, i), leaf.shape, jnp.float32, -bound, bound
        )

    leaves, treedef = jax.tree.flatten(params)
    drawn = [
        draw(i, name, leaf) if use else jnp.zeros(leaf.shape, jnp.float32)
        for i, (name, leaf, use) in enumerate(zip(trees.names(params), leaves, chosen, strict=True))
    ]
    return jax.tree.unflatten(treedef, drawn)


def kaiming_normal(
    density: Any = 1.0, *, out_axis: Axes = -1, batch_axis: Axes = ()
) -> initializers.Initializer:
    """Normal weights of standard deviation `√(2 / (k · fan_in))` (Ramanujan et al. 2020).

    Args:
      density: the fraction `k` that the supermask will keep: the factor `√(1/k)` compensates for
        masked weights. 1 gives the initializer of He et al. 2015. May be traced.
      out_axis: the axis or axes of the outputs; the fan-in is the product of the axes that are
        neither in `out_axis` nor in `batch_axis`. Linen and NNX pass attention kernels to their
        initializers as `(inputs, outputs)`, for which the defaults are right.
      batch_axis: the axis or axes of stacked layers, as in `jax.nn.initializers`.

    Returns:
      An initializer `(key, shape, dtype) -> array`, for instance for a layer's `kernel_init`.

    Example:
      >>> kaiming_normal(0.5)(jax.random.key(0), (4, 3), jnp.float32).shape
      (4, 3)
    """
    return _frozen(jax.random.normal, density, out_axis, batch_axis)


def signed_constant(
    density: Any = 1.0, *, out_axis: Axes = -1, batch_axis: Axes = ()
) -> initializers.Initializer:
    """Weights of random sign and magnitude `√(2 / (k · fan_in))` (Ramanujan et al. 2020).

    Args:
      density: the fraction `k` that the supermask will keep, as in `kaiming_normal`.
      out_axis: as in `kaiming_normal`.
      batch_axis: as in `kaiming_normal`.

    Returns:
      An initializer `(key, shape, dtype) -> array`, for instance for a layer's `kernel_init`.

    Example:
      >>> w = signed_constant(0.5)(jax.random.key(0), (4, 3), jnp.float32)
      >>> sorted(set(w.ravel().tolist()))
      [-1.0, 1.0]
    """
    return _frozen(jax.random.rademacher, density, out_axis, batch_axis)


def _frozen(draw: Any, density: Any, out_axis: Axes, batch_axis: Axes) -> initializers.Initializer:
    """An initializer: unit draws times `√(2 / (k · fan_in))`."""

    def init(key: Key, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        del out_sharding
        size = jnp.sqrt(2.0 / (density * _fan_in(shape, out_axis, batch_axis)))
        return jnp.multiply(draw(key, shape, dtype), size.astype(dtype))

    return init


def _fan_in(shape: tuple[int, ...], out_axis: Axes, batch_axis: Axes) -> int:
    """The number of inputs of one output; 1 for a leaf of one axis."""
    others = {
        axis % len(shape)
        for given in (out_axis, batch_axis)
        for axis in ((given,) if isinstance(given, int) else given)
    }
    return math.prod(size for axis, size in enumerate(shape) if axis not in others)


def _straight_through(hard: jax.Array, smooth: jax.Array) -> jax.Array:
    """`hard` in value, `smooth` in derivative."""
    hard = jax.lax.stop_gradient(hard.astype(smooth.dtype))
    return hard + (smooth - jax.lax.stop_gradient(smooth))  # the bracket is exactly 0


def _where_prunable(soft: SoftMask, prunable: Prunable) -> SoftMask:
    """Ones, without a gradient, where the leaf is not prunable."""
    check_prunable(prunable, soft)
    return jax.tree.map(lambda m, use: m if use else jnp.ones_like(m), soft, prunable)
