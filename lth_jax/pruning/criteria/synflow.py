"""SynFlow: the one gradient criterion that needs no data."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax.pruning.criteria._inputs import Criterion, kept, widen


def synflow(forward: Callable[[Any, Any], Any], example: Any) -> Criterion:
    """SynFlow (Tanaka et al. 2020): `|w| · ∂R/∂|w|`, with `R = Σ forward(|params ⊙ mask|, 1)`.

    The input is all ones and every parameter is replaced by its magnitude, so that a network of
    linear layers, ReLUs, average or max pooling acts as the product of its `|W|`, and the score of
    a weight is the total strength of the paths through it. Synaptic flow is then conserved: the
    scores into a hidden unit (its bias included) sum to those out of it, and the kernels of a chain
    without biases all have the sum `R`.

    The linearised network is the caller's to give. `forward` should have neither normalisation by
    batch statistics nor activations that bend positive inputs (GELU, tanh, softmax): BatchNorm must
    use running statistics (the identity at initialisation, up to its scale and bias, which enter by
    their magnitudes like any parameter). `R` multiplies over the layers and may overflow float32 in
    very deep networks: the scores are then not finite, and `forward` should divide its kernels by a
    constant, which changes no order in a network without biases.

    One pass at high sparsity can empty a layer; the paper takes 100, with density `ρ^(k/100)` after
    pass `k`, each from the mask of the last: `iterate` with `schedules.exponential(100, ρ)`.

    Args:
      forward: `forward(params, x) -> outputs`, any pytree of arrays.
      example: an input, or a `jax.ShapeDtypeStruct` of one, with its leading batch axis (1 is
        enough); a pytree of them where the network takes one. Only shapes and dtypes are read.

    Returns:
      A criterion that needs neither key nor batches.

    Raises:
      TypeError: if `example` is not floating-point.

    Example:
      >>> params = {"a": jnp.array([[2.0, -1.0]]), "b": jnp.array([[1.0], [-4.0]])}
      >>> mask = jax.tree.map(lambda w: jnp.ones(w.shape, bool), params)
      >>> forward = lambda params, x: jax.nn.relu(x @ params["a"]) @ params["b"]
      >>> scores = synflow(forward, jnp.zeros((1, 1)))(params, mask)
      >>> scores["a"].tolist(), scores["b"].tolist()
      ([[2.0, 4.0]], [[2.0], [4.0]])
    """
    for leaf in jax.tree.leaves(example):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"`example` must be floating-point, to be replaced by ones, not {leaf.dtype}: let "
                "`forward` start after the embedding."
            )

    def flow(magnitudes: Any) -> jax.Array:
        ones = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), example)
        outputs = jax.tree.leaves(forward(magnitudes, ones))
        return sum((widen(out).sum() for out in outputs), start=jnp.zeros(()))

    def criterion(params, mask, *, key=None, batches=None, initial=None):
        del key, batches, initial
        magnitudes = jax.tree.map(jnp.abs, kept(params, mask))
        gradient = jax.grad(flow)(magnitudes)
        return jax.tree.map(lambda w, g: widen(w) * widen(g), magnitudes, gradient)

    return criterion
