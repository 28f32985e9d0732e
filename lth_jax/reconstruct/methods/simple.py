"""Methods that choose a mask by scores: with unchanged weights, or with those of the best fit."""

import jax
import jax.numpy as jnp

from lth_jax.pruning.compiled import shared
from lth_jax.reconstruct.keep import Keep, select
from lth_jax.reconstruct.methods.method import LayerMethod, check_damping, damped, least_squares


@shared
def magnitude() -> LayerMethod:
    """Keeps the weights of largest `|w|`, unchanged.

    >>> weights, mask = magnitude()(jnp.array([[3.0], [1.0]]), jnp.eye(2), 1)
    >>> weights.tolist()
    [[3.0], [0.0]]
    """

    def solve(weights: jax.Array, gram: jax.Array, keep: Keep) -> tuple[jax.Array, jax.Array]:
        del gram
        return weights, select(jnp.abs(weights), keep)

    return LayerMethod("magnitude", solve)


@shared
def wanda() -> LayerMethod:
    """Keeps the weights of largest `|w_ij| · ‖x_i‖`, unchanged; `‖x_i‖² = (XᵀX)_ii`.

    For orthogonal inputs this is the best mask without an update. The paper compares the weights of
    one output: give counts for each output (`per="output"` in `prune`).

    Source: Sun et al. (2024), "A simple and effective pruning approach for large language models".

    >>> weights, mask = wanda()(jnp.array([[3.0], [1.0]]), jnp.diag(jnp.array([1.0, 100.0])), 1)
    >>> weights.tolist()
    [[0.0], [1.0]]
    """

    def solve(weights: jax.Array, gram: jax.Array, keep: Keep) -> tuple[jax.Array, jax.Array]:
        norms = jnp.sqrt(jnp.diagonal(gram))[:, None]
        return weights, select(jnp.abs(weights) * norms, keep)

    return LayerMethod("wanda", solve)


@shared
def refit(choose: LayerMethod | None = None, damping: float = 0.01) -> LayerMethod:
    """The best weights on a mask: the least-squares fit to the layer's outputs.

    `argmin ‖X W' − X W‖² + λ ‖W' − W‖²` over W' that are 0 where the mask is False, by conjugate
    gradients. With a mask as `keep`, this reconstructs any ticket; with counts, `choose` makes the
    mask.

    Args:
      choose: the method whose mask is taken; `wanda()` by default.
      damping: λ as a share of the mean diagonal of the Gram matrix (see `damped`).

    Raises:
      ValueError: `damping` is negative or not finite.

    >>> gram = jnp.array([[1.0, 0.5], [0.5, 1.0]])
    >>> weights, _ = refit(damping=0)(jnp.ones((2, 1)), gram, jnp.array([[True], [False]]))
    >>> weights.tolist()
    [[1.5], [0.0]]
    """
    check_damping(damping)
    first = choose or wanda()

    def solve(weights: jax.Array, gram: jax.Array, keep: Keep) -> tuple[jax.Array, jax.Array]:
        start, mask = first.solve(weights, gram, keep)
        fitted = least_squares(weights, damped(gram, damping), mask, start)
        return jnp.where(jnp.isfinite(start).all(), fitted, jnp.nan), mask

    least = damping if first.damping is None else min(damping, first.damping)
    return LayerMethod(f"refit({first.name})", solve, least)
