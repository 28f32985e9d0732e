"""Criteria that use only the weights: random, magnitude, LAMP, and those of Zhou et al. 2019.

In the equations `w` is the weight now (Zhou's `w_f`, final) and `w₀` the same weight in `initial`
(`w_i`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax import trees
from lth_jax.layouts import Layouts, map_layers, resolve
from lth_jax.pruning.checks import check_mask, check_params
from lth_jax.pruning.compiled import shared
from lth_jax.pruning.criteria._inputs import (
    CRITERIA,
    Criterion,
    kept,
    named,
    require_initial,
    require_key,
    widen,
)
from lth_jax.types import Mask, Params, Scores


@shared
def random() -> Criterion:
    """Scores drawn uniformly from [0, 1), independent of the weights.

    The control of every other criterion (Zhou et al. 2019, "random"). Each leaf folds its position
    into `key`, so a population of keys gives a population of masks.

    Returns:
      A criterion that needs `key`.

    Example:
      >>> params = {"w": jnp.ones(3)}
      >>> mask = {"w": jnp.ones(3, bool)}
      >>> random()(params, mask, key=jax.random.key(0))["w"].shape
      (3,)
    """

    @named("random")
    def criterion(params: Params, mask: Mask, key: Any) -> Scores:
        check_params(params)
        check_mask(mask, params)
        key = require_key(key, "random")
        leaves, treedef = jax.tree.flatten(params)
        draws = [
            jax.random.uniform(jax.random.fold_in(key, i), leaf.shape, widen(leaf).dtype)
            for i, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(treedef, draws)

    return criterion


@shared
def magnitude() -> Criterion:
    """The magnitude `|w|` (Han et al. 2015; "large final" in Zhou et al. 2019).

    No normalisation by layer: under a global scope the raw magnitudes compete, as in Frankle and
    Carbin 2019.

    Example:
      >>> params = {"w": jnp.array([-2.0, 1.0])}
      >>> magnitude()(params, {"w": jnp.ones(2, bool)})["w"].tolist()
      [2.0, 1.0]
    """
    return _of_final("magnitude", jnp.abs)


@shared
def small_final() -> Criterion:
    """`-|w|`: keeps the smallest weights (Zhou et al. 2019).

    Example:
      >>> params = {"w": jnp.array([-2.0, 1.0])}
      >>> small_final()(params, {"w": jnp.ones(2, bool)})["w"].tolist()
      [-2.0, -1.0]
    """
    return _of_final("small_final", lambda w: -jnp.abs(w))


@shared
def large_init() -> Criterion:
    """`|w₀|`: the magnitude at initialisation (Zhou et al. 2019). Needs `initial`.

    Example:
      >>> w, w0 = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([-4.0, 3.0])}
      >>> large_init()(w, {"w": jnp.ones(2, bool)}, initial=w0)["w"].tolist()
      [4.0, 3.0]
    """
    return _of_both("large_init", lambda w, w0: jnp.abs(w0))


@shared
def small_init() -> Criterion:
    """`-|w₀|`: keeps the weights of smallest initial magnitude (Zhou et al. 2019). Needs `initial`.

    Example:
      >>> w, w0 = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([-4.0, 3.0])}
      >>> small_init()(w, {"w": jnp.ones(2, bool)}, initial=w0)["w"].tolist()
      [-4.0, -3.0]
    """
    return _of_both("small_init", lambda w, w0: -jnp.abs(w0))


@shared
def large_init_large_final(alpha: float = 1.0) -> Criterion:
    """`min(α|w|, |w₀|)`: large both initially and finally (Zhou et al. 2019). Needs `initial`.

    Args:
      alpha: the factor α that scales final magnitudes to initial ones. The authors choose it per
        layer, such that thresholds on `|w|` and on `|w₀|` alone remove the same fraction.

    Example:
      >>> w, w0 = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([-4.0, 1.5])}
      >>> large_init_large_final()(w, {"w": jnp.ones(2, bool)}, initial=w0)["w"].tolist()
      [1.0, 1.5]
    """
    return _of_both(
        "large_init_large_final", lambda w, w0: jnp.minimum(alpha * jnp.abs(w), jnp.abs(w0))
    )


@shared
def small_init_small_final(alpha: float = 1.0) -> Criterion:
    """`-max(α|w|, |w₀|)`: small both initially and finally (Zhou et al. 2019). Needs `initial`.

    Args:
      alpha: the factor α that scales final magnitudes to initial ones.

    Example:
      >>> w, w0 = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([-4.0, 1.5])}
      >>> small_init_small_final()(w, {"w": jnp.ones(2, bool)}, initial=w0)["w"].tolist()
      [-4.0, -2.0]
    """
    return _of_both(
        "small_init_small_final", lambda w, w0: -jnp.maximum(alpha * jnp.abs(w), jnp.abs(w0))
    )


@shared
def magnitude_increase() -> Criterion:
    """`|w| - |w₀|`: the increase of the magnitude (Zhou et al. 2019).

    Needs `initial`.

    Example:
      >>> w, w0 = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([-4.0, 1.5])}
      >>> magnitude_increase()(w, {"w": jnp.ones(2, bool)}, initial=w0)["w"].tolist()
      [-3.0, 0.5]
    """
    return _of_both("magnitude_increase", lambda w, w0: jnp.abs(w) - jnp.abs(w0))


@shared
def movement() -> Criterion:
    """`|w - w₀|`: the distance that the weight has moved (Zhou et al. 2019). Needs `initial`.

    For the scores of Sanh et al. 2020, which accumulate `-w·∂L/∂w` in training, see
    `movement_pruning`.

    Example:
      >>> w, w0 = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([-4.0, 1.5])}
      >>> movement()(w, {"w": jnp.ones(2, bool)}, initial=w0)["w"].tolist()
      [5.0, 0.5]
    """
    return _of_both("movement", lambda w, w0: jnp.abs(w - w0))


@shared
def large_final_same_sign() -> Criterion:
    """`max(0, w·sign(w₀))`: large, with the sign of the initial weight (Zhou et al. 2019).

    The paper calls the resulting mask a supermask: applied to the untrained `w₀`, it gives an
    accuracy far above chance. Needs `initial`.

    Example:
      >>> w, w0 = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([-4.0, 1.5])}
      >>> large_final_same_sign()(w, {"w": jnp.ones(2, bool)}, initial=w0)["w"].tolist()
      [0.0, 2.0]
    """
    return _of_both("large_final_same_sign", lambda w, w0: jnp.maximum(w * jnp.sign(w0), 0.0))


@shared
def large_final_different_sign() -> Criterion:
    """`max(0, -w·sign(w₀))`: large, with the sign opposite to `w₀` (Zhou et al. 2019).

    The control of `large_final_same_sign`. Needs `initial`.

    Example:
      >>> w, w0 = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([-4.0, 1.5])}
      >>> large_final_different_sign()(w, {"w": jnp.ones(2, bool)}, initial=w0)["w"].tolist()
      [1.0, 0.0]
    """
    return _of_both("large_final_different_sign", lambda w, w0: jnp.maximum(-w * jnp.sign(w0), 0.0))


@shared
def lamp(*, layouts: Layouts | None = None) -> Criterion:
    """Layer-adaptive magnitude (Lee et al. 2021): `w_u² / Σ_{v ≥ u} w_v²` within each layer.

    The sum runs over the surviving weights of the layer that are no smaller than `w_u`; of equal
    weights the first in the layer scores highest. The largest weight of every layer scores 1, so
    under a global scope no layer is emptied before all layers have one weight. A leaf is one layer,
    unless `layouts` declares stacked layers.

    Args:
      layouts: the meaning of the kernels' axes (`lth_jax.layouts`).

    Example:
      >>> params = {"w": jnp.array([1.0, -2.0, 2.0])}
      >>> scores = lamp()(params, {"w": jnp.ones(3, bool)})["w"]
      >>> [round(float(s), 3) for s in scores]
      [0.111, 1.0, 0.5]
    """

    @named("lamp")
    def criterion(params: Params, mask: Mask) -> Scores:
        weights = kept(params, mask)
        known = resolve(weights, layouts)

        return trees.map_named(lambda name, w: map_layers(_lamp, known.get(name), w), weights)

    return criterion


def _lamp(leaf: jax.Array) -> jax.Array:
    # Scaled by the largest magnitude, so that squares neither vanish nor overflow.
    flat = jnp.abs(widen(leaf)).ravel()
    squares = jnp.square(flat / jnp.maximum(flat.max(), jnp.finfo(flat.dtype).tiny))
    descending = jnp.argsort(-squares, stable=True)
    ordered = squares[descending]
    sums = jnp.cumsum(ordered)
    scores = ordered / jnp.where(sums > 0, sums, 1.0)
    return jnp.zeros_like(squares).at[descending].set(scores).reshape(leaf.shape)


def _of_final(name: str, f: Callable[[jax.Array], jax.Array]) -> Criterion:
    """The criterion `f(w)`."""

    @named(name)
    def criterion(params: Params, mask: Mask) -> Scores:
        check_params(params)
        check_mask(mask, params)
        return jax.tree.map(lambda w: f(widen(w)), params)

    return criterion


def _of_both(name: str, f: Callable[[jax.Array, jax.Array], jax.Array]) -> Criterion:
    """The criterion `f(w, w₀)`."""

    @named(name)
    def criterion(params: Params, mask: Mask, initial: Any) -> Scores:
        check_params(params)
        check_mask(mask, params)
        initial = require_initial(initial, params, name)
        return jax.tree.map(lambda w, w0: f(widen(w), widen(w0)), params, initial)

    return criterion


for _criterion in (
    random,
    magnitude,
    small_final,
    large_init,
    small_init,
    large_init_large_final,
    small_init_small_final,
    magnitude_increase,
    movement,
    large_final_same_sign,
    large_final_different_sign,
    lamp,
):
    CRITERIA.register(_criterion.__name__, _criterion)
