"""Criteria based on the gradient of the loss, and GraSP, which adds a Hessian-vector product.

Each takes `loss(params, batch) -> scalar`, the mean over the batch, and is evaluated at the masked
weights, `w = params ⊙ mask`. The mean over several batches is weighted by their sizes, so the
scores equal those of all examples in one batch. The loop over batches is a Python loop: pass a
jitted loss when you call a criterion eagerly.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax.pruning.criteria._inputs import (
    CRITERIA,
    Criterion,
    kept,
    named,
    require_batches,
    weighted_mean,
    widen,
)
from lth_jax.types import Mask, Params, Scores

Loss = Callable[[Any, Any], jax.Array]
"""`loss(params, batch)`: a scalar, the mean over the examples of the batch."""


def saliency(loss: Loss) -> Criterion:
    """First-order saliency `|w · ∂L/∂w|` (Mozer and Smolensky 1989; Molchanov et al. 2017).

    This is the change of the loss, to first order, when the weight is set to zero.

    Args:
      loss: `loss(params, batch) -> scalar`, the mean over the batch.

    Returns:
      A criterion that needs `batches`.

    Raises:
      ValueError: from the criterion, if `batches` is missing or empty, its batches differ in
        structure, dtype or example shape, their leaves do not share a first axis of at least one
        example, or `params` is empty or `mask` does not fit it.
      TypeError: from the criterion, if `batches` is not a list or tuple, `loss` does not return a
        scalar, a leaf of `params` is not floating-point, or one of `mask` is not boolean.

    Example:
      >>> loss = lambda params, x: jnp.mean(x @ params["w"])
      >>> params, mask = {"w": jnp.array([2.0, -3.0])}, {"w": jnp.ones(2, bool)}
      >>> saliency(loss)(params, mask, batches=[jnp.array([[1.0, 5.0]])])["w"].tolist()
      [2.0, 15.0]
    """

    @named("saliency")
    def criterion(params: Params, mask: Mask, batches: Any) -> Scores:
        return _saliency("saliency", loss, params, mask, batches)

    return criterion


def snip(loss: Loss) -> Criterion:
    """SNIP (Lee et al. 2019): connection sensitivity `|w · ∂L/∂w| / Σ |w · ∂L/∂w|`.

    Each weight has a gate `c`, and `∂L(c ⊙ w)/∂c` at `c = mask` is `w · ∂L/∂w`. The scores are
    those of `saliency`, normalised to sum to 1 over the tree. The paper computes them once, at
    initialisation, on one batch that holds every class several times.

    Args:
      loss: `loss(params, batch) -> scalar`, the mean over the batch.

    Returns:
      A criterion that needs `batches`.

    Raises:
      ValueError: from the criterion, if `batches` is missing or empty, and as in `saliency`.
      TypeError: from the criterion, as in `saliency`.

    Example:
      >>> loss = lambda params, x: jnp.mean(x @ params["w"])
      >>> params, mask = {"w": jnp.array([2.0, -3.0])}, {"w": jnp.ones(2, bool)}
      >>> snip(loss)(params, mask, batches=[jnp.array([[1.0, 2.0]])])["w"].tolist()
      [0.25, 0.75]
    """

    @named("snip")
    def criterion(params: Params, mask: Mask, batches: Any) -> Scores:
        scores = _saliency("snip", loss, params, mask, batches)
        total = sum(jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves(scores))
        # Zeros instead of 0/0 where all gradients vanish.
        total = jnp.where(total > 0, total, 1.0)
        return jax.tree.map(lambda leaf: leaf / total.astype(leaf.dtype), scores)

    return criterion


def grasp(loss: Loss) -> Criterion:
    """GraSP (Wang et al. 2020): keeps the weights that carry the gradient flow, `w · (Hg)`.

    Removing a weight changes the gradient flow `gᵀg` by about `2 S`, with the paper's score `S = -w
    · (Hg)`, `g = ∂L/∂w` and `H` the Hessian. The paper removes the weights of highest `S`, whose
    removal reduces the flow least; here higher means keep, so the scores are `-S`. `g` is the
    gradient with respect to the surviving weights. Both `g` and `H` are those of all batches
    together. The authors divide the logits by a temperature of 200 inside the loss.

    Args:
      loss: `loss(params, batch) -> scalar`, the mean over the batch; differentiable twice, once in
        forward mode.

    Returns:
      A criterion that needs `batches`.

    Raises:
      ValueError: from the criterion, if `batches` is missing or empty, and as in `saliency`.
      TypeError: from the criterion, as in `saliency`.

    Example:
      >>> loss = lambda params, x: jnp.mean(x * params["w"] ** 2)  # g = 2xw, H = 2x
      >>> params, mask = {"w": jnp.array([3.0])}, {"w": jnp.ones(1, bool)}
      >>> grasp(loss)(params, mask, batches=[jnp.array([[1.0]])])["w"].tolist()
      [36.0]
    """

    @named("grasp")
    def criterion(params: Params, mask: Mask, batches: Any) -> Scores:
        batches = require_batches(batches, "grasp")
        weights = kept(params, mask)
        flow = kept(_gradient(loss, weights, batches), mask)
        products = hessian_product(loss, weights, flow, batches)
        return jax.tree.map(lambda w, h: widen(w) * h, weights, products)

    return criterion


def hessian_product(loss: Loss, params: Any, vector: Any, batches: Any) -> Any:
    """`H v` with the Hessian `H` of the mean loss over all batches, forward over reverse."""
    tangent = jax.tree.map(lambda v, w: v.astype(w.dtype), vector, params)

    def product(batch: Any) -> Any:
        return jax.jvp(lambda p: jax.grad(loss)(p, batch), (params,), (tangent,))[1]

    return weighted_mean(product, batches)


def _gradient(loss: Loss, params: Any, batches: Any) -> Any:
    """The gradient of the mean loss over all batches, in at least float32."""
    return weighted_mean(lambda batch: jax.grad(loss)(params, batch), batches)


def _saliency(name: str, loss: Loss, params: Any, mask: Any, batches: Any) -> Any:
    """`|w · ∂L/∂w|` at the masked weights, for the criterion called `name`."""
    batches = require_batches(batches, name)
    weights = kept(params, mask)
    gradient = _gradient(loss, weights, batches)
    return jax.tree.map(lambda w, g: jnp.abs(widen(w) * g), weights, gradient)


CRITERIA.register("saliency", saliency)
CRITERIA.register("snip", snip)
CRITERIA.register("grasp", grasp)
