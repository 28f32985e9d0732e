"""SparseGPT: prunes inputs in blocks, from first to last; later weights compensate for each."""

from typing import Any

import jax
import jax.numpy as jnp

from lth_jax.landscape.numerics import dot
from lth_jax.pruning.compiled import shared
from lth_jax.reconstruct.keep import Keep, Pattern, in_rows, is_mask, select
from lth_jax.reconstruct.methods.method import LayerMethod, check_damping, damped, inverse_factor


@shared
def sparse_gpt(damping: float = 0.01, block: int = 128) -> LayerMethod:
    """Prunes in one pass over the inputs, with the inverse Hessian of the inputs that are left.

    With `H = XᵀX + λI` and the upper triangular U, `H⁻¹ = UᵀU`: at each block the mask is chosen by
    `(w_i / U_ii)²`; then, input by input, the pruned weights are set to 0, and the weights of later
    inputs j change by `−U_ij e_i` with `e_i = w_i / U_ii`. Later blocks are updated once per block.
    A count is divided evenly among blocks, so it is met exactly. With a mask as `keep`, only the
    weights change.

    Source: Frantar & Alistarh (2023), "SparseGPT: massive language models can be accurately pruned
    in one-shot", algorithm 1.

    Args:
      damping: λ as a share of the mean diagonal of the Gram matrix (see `damped`); the paper's.
      block: inputs in a block; rounded up to a multiple of the pattern's m.

    Raises:
      ValueError: `damping` is negative or not finite, or `block` below 1.

    >>> gram = jnp.array([[1.0, 0.5], [0.5, 1.0]])
    >>> weights, _ = sparse_gpt(damping=0)(jnp.array([[1.0], [2.0]]), gram, 1)
    >>> [[round(w, 5) for w in row] for row in weights.tolist()]
    [[0.0], [2.5]]
    """
    check_damping(damping)
    if block < 1:
        raise ValueError(f"`block` must be at least 1, but is {block!r}.")

    def solve(weights: jax.Array, gram: jax.Array, keep: Keep) -> tuple[jax.Array, jax.Array]:
        factor = inverse_factor(damped(gram, damping))
        return _sweep(weights, factor, keep, min(block, len(weights)))

    return LayerMethod("sparse_gpt", solve, damping)


def _sweep(
    weights: jax.Array, factor: jax.Array, keep: Keep, block: int
) -> tuple[jax.Array, jax.Array]:
    inputs, outputs = weights.shape
    width = keep.m if isinstance(keep, Pattern) else block  # inputs that share one choice
    block = -(-block // width) * width
    number = -(-inputs // block)
    extra = number * block - inputs  # rows of zeros, never chosen, that nothing depends on
    whole = jnp.pad(factor, (0, extra)) + jnp.diag(jnp.arange(inputs + extra) >= inputs)
    given = jnp.pad(keep, ((0, extra), (0, 0))) if is_mask(keep) else None

    def choose(first: jax.Array, scores: jax.Array) -> jax.Array:
        if given is not None:
            return jax.lax.dynamic_slice_in_dim(given, first, width)
        if isinstance(keep, Pattern):
            return select(scores, keep)
        last = jnp.minimum(first + width, inputs)
        real = (first + jnp.arange(width) < inputs)[:, None]
        return select(jnp.where(real, scores, -jnp.inf), in_rows(keep, first, last, inputs))

    def one_block(b: jax.Array, state: tuple[Any, ...]) -> tuple[Any, ...]:
        w, mask = state
        start = b * block
        right = jax.lax.dynamic_slice_in_dim(whole, start, block)
        square = jax.lax.dynamic_slice_in_dim(right, start, block, axis=1)
        diagonal = jnp.diagonal(square)[:, None]

        def one_choice(c: jax.Array, state: tuple[Any, ...]) -> tuple[Any, ...]:
            rows, kept, errors = state
            parts = (jax.lax.dynamic_slice_in_dim(x, c * width, width) for x in (rows, diagonal))
            value, scale = parts
            chosen = choose(start + c * width, (value / scale) ** 2)
            kept = jax.lax.dynamic_update_slice_in_dim(kept, chosen, c * width, axis=0)

            def one_input(i: jax.Array, state: tuple[Any, ...]) -> tuple[Any, ...]:
                rows, errors = state
                error = jnp.where(kept[i], 0, rows[i] / diagonal[i])
                return rows - jnp.outer(square[i], error), errors.at[i].set(error)

            rows, errors = jax.lax.fori_loop(c * width, (c + 1) * width, one_input, (rows, errors))
            return rows, kept, errors

        rows = jax.lax.dynamic_slice_in_dim(w, start, block)
        begin = (rows, jnp.zeros((block, outputs), bool), jnp.zeros_like(rows))
        _, kept, errors = jax.lax.fori_loop(0, block // width, one_choice, begin)
        # To the left of the block U is 0; within it, this repeats the updates of `rows`.
        w = w - dot(right.T, errors)
        return w, jax.lax.dynamic_update_slice_in_dim(mask, kept, start, axis=0)

    padded = jnp.pad(weights, ((0, extra), (0, 0)))
    state = (padded, jnp.zeros(padded.shape, bool))
    w, mask = jax.lax.fori_loop(0, number, one_block, state)
    return w[:inputs], mask[:inputs]
