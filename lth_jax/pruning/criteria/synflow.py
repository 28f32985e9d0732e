"""SynFlow, a gradient criterion that needs no data."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax.pruning.checks import check_params
from lth_jax.pruning.criteria._inputs import CRITERIA, Criterion, named
from lth_jax.pruning.criteria._scaled import Scaled, aligned, evaluate, scaled, times_power
from lth_jax.pruning.masks import apply_mask
from lth_jax.types import Mask, Params, Scores

_RANGE = 32  # of the exponent of R in the scores: wide, and squares of scores stay in float32


def synflow(forward: Callable[[Any, Any], Any], example: Any) -> Criterion:
    """SynFlow (Tanaka et al. 2020): `|w| · ∂R/∂|w|`, with `R = Σ forward(|params ⊙ mask|, 1)`.

    The input is all ones and every parameter is replaced by its magnitude, so that a network of
    linear layers, ReLUs, and average or max pooling computes the product of its `|W|`. The score of
    a weight is the sum over all paths through it of the product of the weights. Synaptic flow is
    then conserved: the scores into a hidden unit (its bias included) sum to those out of it, and
    the kernels of a chain without biases all have the sum `R`.

    The caller provides the linearised network. `forward` should have neither normalisation by batch
    statistics nor activations that are nonlinear for positive inputs (GELU, tanh, softmax).
    BatchNorm must use running statistics: at initialisation it is then the identity up to scale and
    bias, whose magnitudes are used like those of other parameters.

    `R` grows or shrinks exponentially with depth. Activations and gradients therefore have separate
    integer exponents, so that they neither overflow nor vanish at any depth. Computations use at
    least float32. If `R` lies outside [2⁻³², 2³²], all scores are multiplied by the power of two
    that brings `R` into this range; the ranking does not change.

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

    # Compiled also in an eager call: operations of small arrays, one by one, take seconds.
    @jax.jit
    def scores(magnitudes: Any) -> Any:
        ones = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), example)
        program = jax.make_jaxpr(forward)(magnitudes, ones)
        leaves, structure = jax.tree.flatten(magnitudes)
        weights, inputs = map(scaled, leaves), list(map(scaled, jax.tree.leaves(ones)))
        values, exponents = zip(*weights, strict=True)

        def flow(values: Any) -> tuple[jax.Array, Any]:
            outputs = evaluate(program, [*map(Scaled, values, exponents), *inputs])
            totals = [scaled(jnp.sum(value), exponent) for value, exponent in outputs]
            parts, exponent = aligned(totals)
            return sum(parts[1:], start=parts[0]), exponent

        gradient, exponent = jax.grad(flow, has_aux=True)(values)
        common = jnp.clip(exponent, -_RANGE, _RANGE)
        found = [times_power(w * g, common) for w, g in zip(values, gradient, strict=True)]
        return jax.tree.unflatten(structure, found)

    @named("synflow")
    def criterion(params: Params, mask: Mask) -> Scores:
        check_params(params)
        return scores(jax.tree.map(jnp.abs, apply_mask(mask, params)))

    return criterion


CRITERIA.register("synflow", synflow)
