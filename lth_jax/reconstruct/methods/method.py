"""The interface of methods that prune one layer: `(weights, gram, keep) -> (weights, mask)`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax.landscape.numerics import dot
from lth_jax.reconstruct.keep import Keep, check_keep

Solve = Callable[[jax.Array, jax.Array, Keep], tuple[jax.Array, jax.Array]]

MOST_INPUTS = 65_535
"""The Gram matrix of this many inputs takes 17 GB; shares of counts are computed in 32 bits."""


@dataclass(frozen=True, eq=False, repr=False)
class LayerMethod:
    """Prunes one matrix: `(weights, gram, keep) -> (weights, mask)`.

    Pure, compiled and deterministic; `jax.vmap` over the arguments takes replicates,
    experts or groups at once.

    Attributes:
      name: shown in reports.
      solve: the uncompiled function; `weights` and `gram` have one floating-point dtype.
      damping: λ = `damping` · mean(diag(gram)) is added to the diagonal of the Gram matrix; the
        smallest one if there are several; None if the method inverts no matrix.
    """

    name: str
    solve: Solve
    damping: float | None = None

    def __call__(
        self, weights: jax.Array, gram: jax.Array, keep: Keep
    ) -> tuple[jax.Array, jax.Array]:
        """The new weights, exactly 0 where pruned, and the mask of those kept.

        Computed in float32, or float64 if the weights are. All kept weights are NaN if the Gram
        matrix is not finite, or if it is singular and the method inverts it.

        Args:
          weights: `W`, `(inputs, outputs)`.
          gram: `XᵀX` of the inputs `(rows, inputs)`, `(inputs, inputs)`.
          keep: how many weights stay, for each output if it is a vector; the mask; or a `Pattern`.

        Raises:
          ValueError: shapes that do not fit, numbers out of range, more than 65,535 inputs.
          TypeError: dtypes that do not fit.
        """
        shape = jnp.shape(weights)
        if len(shape) != 2 or jnp.shape(gram) != (shape[0], shape[0]):
            raise ValueError(
                f"`weights` must be (inputs, outputs) and `gram` (inputs, inputs), but they have "
                f"shapes {shape} and {jnp.shape(gram)}."
            )
        if shape[0] > MOST_INPUTS:
            raise ValueError(f"`weights` has {shape[0]} inputs; at most {MOST_INPUTS} are allowed.")
        if not jnp.issubdtype(jnp.result_type(weights), jnp.floating):
            raise TypeError(
                f"`weights` has dtype {jnp.result_type(weights)}, but it must be floating-point."
            )
        check_keep(keep, shape)
        return self._program(weights, gram, keep)

    @cached_property
    def _program(self) -> Any:
        def run(weights: jax.Array, gram: jax.Array, keep: Keep) -> tuple[jax.Array, jax.Array]:
            dtype = work_dtype(weights.dtype)
            new, mask = self.solve(weights.astype(dtype), gram.astype(dtype), keep)
            new = jnp.where(jnp.isfinite(gram).all(), new, jnp.nan).astype(weights.dtype)
            return jnp.where(mask, new, jnp.zeros_like(new)), mask

        return jax.jit(run)

    def __repr__(self) -> str:
        return f"LayerMethod({self.name})"


def work_dtype(dtype: Any) -> Any:
    """float64 for float64, else float32."""
    return jnp.promote_types(dtype, jnp.float32)


def layer_error(weights: jax.Array, new: jax.Array, gram: jax.Array) -> jax.Array:
    """`‖X W − X W'‖² / ‖X W‖²` from `gram` = `XᵀX`; 0 if both are 0, NaN if an entry is NaN.

    Args:
      weights: `W`, `(inputs, outputs)`, or `(groups, inputs, outputs)`, whose errors are summed.
      new: `W'`, like the weights.
      gram: `(inputs, inputs)`, or `(groups, inputs, inputs)`.

    Returns:
      A scalar.

    >>> w = jnp.array([[1.0], [2.0]])
    >>> float(layer_error(w, w.at[0].set(0), jnp.eye(2)))
    0.2...
    """

    def scaled(x: jax.Array, size: jax.Array) -> jax.Array:
        return x / jnp.where(size == 0, 1, size)

    # Scaling does not change the quotient; squares of very large or small weights would overflow
    # or vanish.
    change, gram = new - weights, scaled(gram, jnp.abs(gram).max(initial=0))
    size = jnp.maximum(jnp.abs(change).max(initial=0), jnp.abs(weights).max(initial=0))
    both = scaled(change, size), scaled(weights, size)
    wrong, whole = (jnp.sum(d * dot(gram, d)) for d in both)
    return jnp.where((wrong <= 0) & (whole >= 0), 0.0, wrong / whole)


def damped(gram: jax.Array, damping: float) -> jax.Array:
    """`XᵀX + λI` with λ = `damping` · mean(diag(XᵀX)).

    As the largest eigenvalue is at most the trace, the condition number is at most
    `1 + inputs / damping`, whatever the rank.

    >>> damped(jnp.eye(2), 0.5).tolist()
    [[1.5, 0.0], [0.0, 1.5]]
    """
    amount = damping * jnp.mean(jnp.diagonal(gram))
    return gram + amount * jnp.eye(len(gram), dtype=gram.dtype)


def check_damping(damping: float) -> float:
    """Raises `ValueError` unless `damping` is a finite number of at least 0."""
    if not 0 <= damping < float("inf"):
        raise ValueError(f"`damping` must be a finite number of at least 0, but is {damping!r}.")
    return float(damping)


def inverse_factor(hessian: jax.Array) -> jax.Array:
    """The upper triangular `U` with `H⁻¹ = Uᵀ U`, by one Cholesky factorisation of `H`.

    With rows and columns reversed the factor of `H` is `R`, upper triangular, `H = R Rᵀ`; then
    `U = R⁻¹`.

    >>> u = inverse_factor(jnp.array([[4.0, 0.0], [0.0, 16.0]]))
    >>> (u.T @ u).tolist()
    [[0.25, 0.0], [0.0, 0.0625]]
    """
    lower = jnp.linalg.cholesky(hessian[::-1, ::-1])
    upper, one = lower[::-1, ::-1], jnp.eye(len(hessian), dtype=hessian.dtype)
    return jax.scipy.linalg.solve_triangular(upper, one)


def least_squares(
    weights: jax.Array,
    hessian: jax.Array,
    mask: jax.Array,
    start: jax.Array,
    iterations: int = 500,
    tolerance: float = 1e-6,
) -> jax.Array:
    """The weights `W'` on a mask with the smallest `tr((W' − W)ᵀ H (W' − W))`.

    Conjugate gradients on the support, all outputs at once, preconditioned by the diagonal of H.
    Each iteration costs one product `H P` and never raises the objective, so the result is at least
    as good as `start`.

    Args:
      weights: `W`, `(inputs, outputs)`.
      hessian: `H`, positive definite.
      mask: boolean, like the weights.
      start: initial weights, like the weights; read on the mask.
      iterations: maximum number of iterations.
      tolerance: stop when the residual of every output is below this share of `‖H W‖`.
    """
    scale = jnp.diagonal(hessian)[:, None]
    target = dot(hessian, weights)
    stop = tolerance**2 * jnp.sum(target**2, axis=0)

    def on_mask(x: jax.Array) -> jax.Array:
        return jnp.where(mask, x, jnp.zeros_like(x))

    def ratio(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)

    def proceed(state: tuple[Any, ...]) -> jax.Array:
        return (state[0] < iterations) & jnp.any(jnp.sum(state[2] ** 2, axis=0) > stop)

    def iterate(state: tuple[Any, ...]) -> tuple[Any, ...]:
        i, x, residual, direction, energy = state
        image = on_mask(dot(hessian, direction))
        length = ratio(energy, jnp.sum(direction * image, axis=0))
        x, residual = x + length * direction, residual - length * image
        steepest = residual / scale
        new = jnp.sum(residual * steepest, axis=0)
        return i + 1, x, residual, steepest + ratio(new, energy) * direction, new

    x = on_mask(start)
    residual = on_mask(target - dot(hessian, x))
    steepest = residual / scale
    energy = jnp.sum(residual * steepest, axis=0)
    state = (jnp.int32(0), x, residual, steepest, energy)
    found: jax.Array = jax.lax.while_loop(proceed, iterate, state)[1]
    return found
