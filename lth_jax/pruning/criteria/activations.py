"""Criteria that use the inputs of each weight.

Each output of a linear layer `y = layer(W, x)` is a sum of weights times inputs. The derivative of
`Σ layer(W, x²)` w.r.t. a weight is therefore `Σ x²` over all inputs that it multiplies: all
examples and all positions, with the strides, padding and groups of a convolution. One rule serves
dense layers, convolutions, einsums and embeddings (whose inputs are one-hot).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax import trees
from lth_jax.pruning.criteria._inputs import (
    CRITERIA,
    Criterion,
    kept,
    named,
    require_batches,
    widen,
)
from lth_jax.types import Mask, Params, Scores

Inputs = Callable[[Any, Any], dict[str, jax.Array]]
"""`inputs(params, batch) -> {leaf name: Σ x²}`, each of the shape of the leaf."""


def wanda(inputs: Inputs) -> Criterion:
    """Wanda (Sun et al. 2024): `|w_ij| · ‖x_j‖₂`, with `x_j` the input that the weight multiplies.

    The norm runs over all examples and positions of all batches, in the masked network, `params ⊙
    mask`. A weight of a leaf that `inputs` does not report scores `|w|`. In the paper only the
    weights of one output compete, so use a scope in which layers do not compete.

    Args:
      inputs: `(params, batch) -> {leaf name: Σ x²}`, made by `linen_inputs` or `nnx_inputs`, or
        written by hand from `squared_inputs`; names as in `trees.names(params)`.

    Returns:
      A criterion that needs `batches`.

    Raises:
      ValueError: from the criterion, if `inputs` reports nothing, or a leaf that `params` lacks.

    Example:
      >>> params = {"kernel": jnp.array([[1.0], [-2.0]])}
      >>> mask = {"kernel": jnp.ones((2, 1), bool)}
      >>> inputs = lambda params, x: squared_inputs(lambda p, x: x @ p["kernel"], params, x)
      >>> batches = [jnp.array([[3.0, 1.0], [4.0, 0.0]])]
      >>> wanda(inputs)(params, mask, batches=batches)["kernel"].tolist()
      [[5.0], [2.0]]
    """

    @named("wanda")
    def criterion(params: Params, mask: Mask, batches: Any) -> Scores:
        weights, norms = _input_norms(inputs, params, mask, batches, "wanda")
        return trees.map_named(lambda n, w: jnp.abs(widen(w)) * norms.get(n, 1.0), weights)

    return criterion


def activation_norms(inputs: Inputs) -> Criterion:
    """`‖x_j‖₂` of the activation that each weight multiplies; the weight's value does not matter.

    Intended for units. Summed over the slices of a unit, the scores rank the units of a group by
    the norm of their outputs, because the slices that produce the outputs have equal scores. Leaves
    that `inputs` does not report score 0. (Hu et al. 2016, "Network trimming", rank by the fraction
    of zeros instead.)

    Args:
      inputs: as in `wanda`.

    Returns:
      A criterion that needs `batches`.

    Raises:
      ValueError: as in `wanda`.

    Example:
      >>> inputs = lambda params, x: squared_inputs(lambda p, x: x @ p["kernel"], params, x)
      >>> params, mask = {"kernel": jnp.array([[5.0], [7.0]])}, {"kernel": jnp.ones((2, 1), bool)}
      >>> batches = [jnp.array([[3.0, 1.0], [4.0, 0.0]])]
      >>> activation_norms(inputs)(params, mask, batches=batches)["kernel"].tolist()
      [[5.0], [1.0]]
    """

    @named("activation_norms")
    def criterion(params: Params, mask: Mask, batches: Any) -> Scores:
        weights, norms = _input_norms(inputs, params, mask, batches, "activation_norms")
        return trees.map_named(lambda n, w: norms.get(n, jnp.zeros_like(widen(w))), weights)

    return criterion


def _input_norms(
    inputs: Inputs, params: Any, mask: Any, batches: Any, name: str
) -> tuple[Any, dict[str, jax.Array]]:
    """The masked parameters, and the norm of the inputs of each weight over all batches."""
    batches = require_batches(batches, name)
    weights = kept(params, mask)
    squares = [inputs(weights, batch) for batch in batches]
    _check_names(squares[0], params)
    return weights, {
        leaf: jnp.sqrt(sum(widen(found[leaf]) for found in squares)) for leaf in squares[0]
    }


def squared_inputs(layer: Callable[[Any, Any], Any], weights: Any, x: Any) -> dict[str, jax.Array]:
    """`Σ x²` over the inputs that each weight of one linear layer multiplies, by leaf name.

    Args:
      layer: `layer(weights, x) -> outputs`, linear in `weights` up to a constant.
      weights: tree of floating-point arrays; its names are those of the result.
      x: the layer's input; integers (of an embedding) are not squared.

    Returns:
      The sums by leaf name, in at least float32; for a bias the number of outputs it is added to.

    Example:
      >>> layer = lambda w, x: x @ w["out"]["kernel"]
      >>> weights = {"out": {"kernel": jnp.ones((2, 1))}}
      >>> squared_inputs(layer, weights, jnp.array([[3.0, 1.0]]))["out/kernel"].tolist()
      [[9.0], [1.0]]
    """
    weights = jax.tree.map(widen, weights)
    floating = jnp.issubdtype(jnp.result_type(x), jnp.floating)
    square = jnp.square(widen(x)) if floating else x
    sums = jax.grad(lambda w: jnp.sum(layer(w, square)))(weights)
    return dict(zip(trees.names(sums), jax.tree.leaves(sums), strict=True))


def _check_names(found: dict[str, jax.Array], params: Any) -> None:
    """Raises if `inputs` reports no leaf, or a leaf that `params` lacks."""
    unknown = sorted(set(found) - set(trees.names(params)))
    if unknown or not found:
        raise ValueError(
            f"`inputs` must report leaves of `params`, such as {trees.names(params)[:3]}, but it "
            f"reported {unknown[:3] or 'none at all'}."
        )


CRITERIA.register("wanda", wanda)
CRITERIA.register("activation_norms", activation_norms)
