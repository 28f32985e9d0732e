"""Optimal Brain Surgeon, weight by weight: exact greedy removal, for small layers."""

from typing import Any

import jax
import jax.numpy as jnp

from lth_jax.landscape.numerics import dot
from lth_jax.pruning.compiled import shared
from lth_jax.reconstruct.keep import Keep, Pattern, is_mask, select
from lth_jax.reconstruct.methods.method import (
    LayerMethod,
    check_damping,
    damped,
    inverse_factor,
    least_squares,
)

_AT_ONCE = 16


@shared
def obs(damping: float = 0.01) -> LayerMethod:
    """Removes one weight at a time, always the cheapest, and updates the rest.

    For each output, with `H = XᵀX + λI`: the cheapest weight p has the smallest
    `w_p² / [H⁻¹]_pp`; the others change by `−w_p / [H⁻¹]_pp · H⁻¹ e_p`; and p leaves H⁻¹ by
    `H⁻¹ − H⁻¹ e_p e_pᵀ H⁻¹ / [H⁻¹]_pp`. With a count for the whole layer, the cheapest next weight
    of any output is removed. At the end the kept weights are fitted once more, to correct rounding
    errors. Time grows as `outputs · inputs³`: for layers of up to some hundred inputs.

    Source: Hassibi & Stork (1993), "Second order derivatives for network pruning: optimal brain
    surgeon"; Frantar & Alistarh (2022), "Optimal brain compression", algorithm 1.

    Args:
      damping: λ as a share of the mean diagonal of the Gram matrix (see `damped`).

    Raises:
      ValueError: `damping` is negative or not finite.

    >>> gram = jnp.array([[1.0, 0.5], [0.5, 1.0]])
    >>> weights, _ = obs(damping=0)(jnp.array([[2.0], [1.0]]), gram, 1)
    >>> weights.tolist()
    [[2.5], [0.0]]
    """
    check_damping(damping)

    def solve(weights: jax.Array, gram: jax.Array, keep: Keep) -> tuple[jax.Array, jax.Array]:
        hessian = damped(gram, damping)
        if is_mask(keep):
            return least_squares(weights, hessian, keep, weights), keep
        factor = inverse_factor(hessian)
        mask = _choose(weights, dot(factor.T, factor), keep)
        fitted = least_squares(weights, hessian, mask, weights)
        return jnp.where(jnp.isfinite(factor).all(), fitted, jnp.nan), mask

    return LayerMethod("obs", solve, damping)


def _choose(weights: jax.Array, inverse: jax.Array, keep: Keep) -> jax.Array:
    inputs, outputs = weights.shape
    pattern = keep if isinstance(keep, Pattern) else Pattern(1, inputs)
    steps = inputs // pattern.m * (pattern.m - pattern.n) if keep is pattern else inputs
    removed_at, costs = jax.lax.map(
        lambda w: _remove(w, inverse, steps, pattern if keep is pattern else None),
        weights.T,
        batch_size=min(_AT_ONCE, outputs),
    )
    if keep is pattern:
        kept = removed_at.T == inputs
    elif jnp.ndim(keep) == 1:
        kept = removed_at.T >= inputs - keep
    else:
        # A step can only be taken after the earlier ones of its output: it costs their maximum.
        prices = jax.lax.cummax(costs, axis=1).T
        gone = select(-prices, weights.size - keep)
        kept = removed_at.T >= jnp.sum(gone, axis=0)
    return kept


def _remove(
    weights: jax.Array, inverse: jax.Array, steps: int, pattern: Pattern | None
) -> tuple[jax.Array, jax.Array]:
    """When each weight of one output is removed (`inputs` if never), and what each step costs."""
    inputs = len(weights)

    def removable(alive: jax.Array) -> jax.Array:
        if pattern is None:
            return alive
        left = jnp.sum(alive.reshape(-1, pattern.m), axis=1)
        return alive & jnp.repeat(left > pattern.n, pattern.m)

    def step(t: jax.Array, state: tuple[Any, ...]) -> tuple[Any, ...]:
        w, inverse, removed_at, costs = state
        diagonal = jnp.diagonal(inverse)
        price = jnp.where(removable(removed_at == inputs), w**2 / diagonal, jnp.inf)
        p = jnp.argmin(price)
        column = inverse[:, p] / inverse[p, p]
        w = (w - w[p] * column).at[p].set(0)
        inverse = inverse - jnp.outer(column, inverse[p])
        # What remains in the removed row and column is rounding error; it must not be a divisor.
        inverse = inverse.at[p].set(0).at[:, p].set(0).at[p, p].set(1)
        return w, inverse, removed_at.at[p].set(t), costs.at[t].set(price[p])

    start = (weights, inverse, jnp.full(inputs, inputs, jnp.int32), jnp.zeros(steps, inverse.dtype))
    _, _, removed_at, costs = jax.lax.fori_loop(0, steps, step, start)
    return removed_at, costs
