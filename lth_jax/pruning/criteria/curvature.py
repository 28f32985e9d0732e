"""Criteria based on the diagonal curvature of the loss: `½ C_ii w_i²`.

That is the change of the loss when weight `i` alone is set to zero at a minimum, to second order,
with `C` the Hessian (`obd`) or the empirical Fisher matrix (`fisher`). Both are evaluated at `w =
params ⊙ mask`, with `loss(params, batch) -> scalar` the mean over the batch.
"""

from typing import Any

import jax
import jax.numpy as jnp

from lth_jax.pruning.criteria._inputs import (
    CRITERIA,
    Criterion,
    batch_size,
    kept,
    named,
    require_batches,
    require_key,
    weighted_mean,
    widen,
)
from lth_jax.pruning.criteria.gradients import Loss, hessian_product
from lth_jax.types import Mask, Params, Scores


def fisher(loss: Loss, *, chunk: int = 32) -> Criterion:
    """Fisher pruning (Theis et al. 2018): `½ F_ii w_i²`, with `F_ii = 1/N Σ_n (∂ℓ_n/∂w_i)²`.

    `F` is the empirical Fisher matrix: gradients use the labels in the data, and are squared per
    example before the sum. `loss` is called with batches of one example, so a network with
    BatchNorm must use its running statistics.

    Args:
      loss: `loss(params, batch) -> scalar`, the mean over the batch.
      chunk: number of examples differentiated at once. Memory grows with it; the result does not
        change.

    Returns:
      A criterion that needs `batches`.

    Raises:
      ValueError: if `chunk` is below 1; from the criterion, if `batches` is missing or empty, and
        as in `saliency`.
      TypeError: from the criterion, as in `saliency`.

    Example:
      >>> loss = lambda params, x: jnp.mean(x @ params["w"])
      >>> params, mask = {"w": jnp.array([2.0])}, {"w": jnp.ones(1, bool)}
      >>> fisher(loss)(params, mask, batches=[jnp.array([[1.0], [3.0]])])["w"].tolist()
      [10.0]
    """
    if chunk < 1:
        raise ValueError(f"`chunk` must be at least 1 example, not {chunk}.")

    @named("fisher")
    def criterion(params: Params, mask: Mask, batches: Any) -> Scores:
        batches = require_batches(batches, "fisher")
        weights = kept(params, mask)
        diagonal = weighted_mean(
            lambda batch: _mean_squared_gradient(loss, weights, batch, chunk), batches
        )
        return _second_order(weights, diagonal)

    return criterion


def obd(loss: Loss, *, probes: int = 1) -> Criterion:
    """Optimal brain damage (LeCun et al. 1990): `½ H_ii w_i²`, the diagonal by Hutchinson's probes.

    `H_ii` is estimated as the mean of `v_i (Hv)_i` over vectors `v` of random signs on the
    surviving weights (Bekas et al. 2007): unbiased, exact for a diagonal `H` whatever the signs,
    with variance `Σ_{j≠i} H_ij² / probes` otherwise. Where the curvature is negative so is the
    score: removing that weight lowers the loss, to second order.

    Args:
      loss: `loss(params, batch) -> scalar`, the mean over the batch; differentiable twice, once in
        forward mode.
      probes: the number of random vectors; each costs one Hessian-vector product a batch.

    Returns:
      A criterion that needs `key` and `batches`.

    Raises:
      ValueError: if `probes` is below 1; from the criterion, if `key` is missing, `batches` is
        missing or empty, and as in `saliency`.
      TypeError: from the criterion, if `key` is not a typed key, and as in `saliency`.

    Example:
      >>> loss = lambda params, x: jnp.mean(x @ params["w"] ** 2)  # H = diag(2x)
      >>> params, mask = {"w": jnp.array([2.0, 1.0])}, {"w": jnp.ones(2, bool)}
      >>> batches = [jnp.array([[1.0, 5.0]])]
      >>> obd(loss)(params, mask, key=jax.random.key(0), batches=batches)["w"].tolist()
      [4.0, 5.0]
    """
    if probes < 1:
        raise ValueError(f"`probes` must be at least 1 random vector, not {probes}.")

    @named("obd")
    def criterion(params: Params, mask: Mask, key: Any, batches: Any) -> Scores:
        key = require_key(key, "obd")
        batches = require_batches(batches, "obd")
        weights = kept(params, mask)

        def add_probe(total: Any, i: jax.Array) -> tuple[Any, None]:
            v = kept(_signs(jax.random.fold_in(key, i), weights), mask)
            product = hessian_product(loss, weights, v, batches)
            return jax.tree.map(lambda t, a, b: t + widen(a) * b / probes, total, v, product), None

        start = jax.tree.map(lambda w: jnp.zeros_like(widen(w)), weights)
        diagonal, _ = jax.lax.scan(add_probe, start, jnp.arange(probes))
        return _second_order(weights, diagonal)

    return criterion


def _second_order(weights: Any, diagonal: Any) -> Any:
    """`½ C_ii w_i²`."""
    return jax.tree.map(lambda w, c: 0.5 * c * jnp.square(widen(w)), weights, diagonal)


def _signs(key: jax.Array, like: Any) -> Any:
    """A tree of independent random signs, shaped like `like`."""
    leaves, treedef = jax.tree.flatten(like)
    return jax.tree.unflatten(
        treedef,
        [
            jax.random.rademacher(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
            for i, leaf in enumerate(leaves)
        ],
    )


def _mean_squared_gradient(loss: Loss, params: Any, batch: Any, chunk: int) -> Any:
    """`1/N Σ_n (∂ℓ_n/∂w)²` over the examples of one batch, at most `chunk` gradients at a time."""
    n = batch_size(batch)
    chunk = min(chunk, n)
    whole = n - n % chunk

    def squares(example: Any) -> Any:
        gradient = jax.grad(loss)(params, jax.tree.map(lambda x: x[None], example))
        return jax.tree.map(lambda g: jnp.square(widen(g)), gradient)

    def add(total: Any, examples: Any) -> tuple[Any, None]:
        part = jax.vmap(squares)(examples)
        return jax.tree.map(lambda t, p: t + p.sum(0), total, part), None

    batch = jax.tree.map(jnp.asarray, batch)
    start = jax.tree.map(lambda w: jnp.zeros_like(widen(w)), params)
    chunks = jax.tree.map(lambda x: x[:whole].reshape(-1, chunk, *x.shape[1:]), batch)
    total, _ = jax.lax.scan(add, start, chunks)
    if whole < n:  # the remainder is not padded: a padded example would have a gradient too
        total, _ = add(total, jax.tree.map(lambda x: x[whole:], batch))
    return jax.tree.map(lambda t: t / n, total)


CRITERIA.register("fisher", fisher)
CRITERIA.register("obd", obd)
