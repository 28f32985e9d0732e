"""ALPS: the mask by the alternating direction method of multipliers, then its best weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lth_jax.landscape.numerics import dot
from lth_jax.pruning.compiled import shared
from lth_jax.reconstruct.keep import Keep, is_mask, select
from lth_jax.reconstruct.methods.method import LayerMethod, check_damping, damped, least_squares

_CHECK_EVERY = 3
_GROWTH = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))
"""`(share, factor)`: the penalty grows by the factor of the first share that the fraction of
changed kept weights exceeds (section 3.2)."""


class _State(NamedTuple):
    """`sparse` is D with its mask, `multipliers` V and `penalty` ρ."""

    sparse: jax.Array
    mask: jax.Array
    multipliers: jax.Array
    penalty: jax.Array
    checks: jax.Array
    done: jax.Array


@shared
def alps(damping: float = 0.01, penalty: float = 0.1, iterations: int = 300) -> LayerMethod:
    """Minimises `tr((W − W₀)ᵀ H (W − W₀))` over sparse W, for all inputs together.

    With `H = XᵀX + λI` scaled to a unit diagonal, the dense W and the sparse D converge:

        W ← (H + ρI)⁻¹ (H W₀ − V + ρD),   D ← the best entries of W + V/ρ,   V ← V + ρ (W − D)

    starting from the D of the best entries of W₀. Every three iterations ρ grows by 1.3, 1.2 or
    1.1, depending on how much of the mask has changed; the iterations end when it is constant.
    The kept weights are then fitted by preconditioned conjugate gradients. One eigenvalue
    decomposition of H serves every ρ. The first mask, that of `wanda`, is fitted too, and the
    better of the two is returned: the result is never worse than `refit(wanda())`. With a mask as
    `keep` this is `refit`.

    Source: Meng, Behdin, Wang & Mazumder (2024), "ALPS: improved optimization for highly sparse
    one-shot pruning for large language models", sections 3.1 to 3.3.

    Args:
      damping: λ as a share of the mean diagonal of the Gram matrix (see `damped`).
      penalty: the first ρ.
      iterations: the maximum number of iterations for the mask.

    Raises:
      ValueError: `damping` is negative or not finite, `penalty` or `iterations` not positive.

    >>> gram = jnp.array([[1.0, 0.5], [0.5, 1.0]])
    >>> weights, _ = alps(damping=0)(jnp.array([[1.0], [2.0]]), gram, 1)
    >>> [[round(w, 5) for w in row] for row in weights.tolist()]
    [[0.0], [2.5]]
    """
    check_damping(damping)
    for name, value in (("penalty", penalty), ("iterations", iterations)):
        if not value > 0:
            raise ValueError(f"`{name}` must be positive, but is {value!r}.")

    def solve(weights: jax.Array, gram: jax.Array, keep: Keep) -> tuple[jax.Array, jax.Array]:
        hessian = damped(gram, damping)
        if is_mask(keep):
            return least_squares(weights, hessian, keep, weights), keep
        scale = jnp.sqrt(jnp.diagonal(hessian))[:, None]
        scaled, unit = weights * scale, hessian / scale / scale.T
        norms = jnp.sqrt(jnp.diagonal(gram))[:, None]
        first = select(jnp.abs(weights) * norms, keep)
        sparse, mask = _choose(scaled, unit, keep, first, penalty, iterations)
        found, other = (
            least_squares(scaled, unit, m, x) for m, x in ((mask, sparse), (first, scaled))
        )
        errors = [jnp.sum(d * dot(unit, d)) for d in (found - scaled, other - scaled)]
        better = errors[0] <= errors[1]
        return jnp.where(better, found, other) / scale, jnp.where(better, mask, first)

    return LayerMethod("alps", solve, damping)


def _choose(
    weights: jax.Array,
    hessian: jax.Array,
    keep: Keep,
    first: jax.Array,
    penalty: float,
    iterations: int,
) -> tuple[jax.Array, jax.Array]:
    """The last D and its mask, from the mask `first`."""
    values, vectors = jnp.linalg.eigh(hessian)
    target = dot(hessian, weights)

    def iterate(_: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
        sparse, _, multipliers, rho = state
        right = dot(vectors.T, target - multipliers + rho * sparse)
        dense = dot(vectors, right / (values[:, None] + rho))
        free = dense + multipliers / rho
        mask = select(jnp.abs(free), keep)
        sparse = jnp.where(mask, free, 0)
        return sparse, mask, multipliers + rho * (dense - sparse), rho

    def check(state: _State) -> _State:
        before = (state.sparse, state.mask, state.multipliers, state.penalty)
        sparse, mask, multipliers, rho = jax.lax.fori_loop(0, _CHECK_EVERY, iterate, before)
        changed = jnp.sum(mask != state.mask) / jnp.maximum(jnp.sum(mask), 1)
        factor = jnp.select([changed > share for share, _ in _GROWTH], [f for _, f in _GROWTH], 1.0)
        return _State(sparse, mask, multipliers, rho * factor, state.checks + 1, changed == 0)

    def proceed(state: _State) -> jax.Array:
        return (state.checks * _CHECK_EVERY < iterations) & ~state.done

    begin = _State(
        sparse=jnp.where(first, weights, 0),
        mask=first,
        multipliers=jnp.zeros_like(weights),
        penalty=jnp.asarray(penalty, weights.dtype),
        checks=jnp.int32(0),
        done=jnp.array(False),
    )
    last = jax.lax.while_loop(proceed, check, begin)
    return last.sparse, last.mask
