"""Dense curvature matrices and their full spectra.

`dense_hessian` is `jax.hessian` on the weights that a mask keeps, in blocks of columns if the
matrix is large. `dense`, which `eigenvalues` and `extremes(exact_below=...)` use, applies
`jax.jacfwd` to an operator's product in the same blocks: the operator of a Hessian is the gradient,
linearised once for all columns.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lth_jax.landscape import support
from lth_jax.landscape.checks import (
    NotFiniteError,
    batch_size,
    check_finite,
    check_params,
    check_scalar,
)
from lth_jax.landscape.numerics import full_precision
from lth_jax.landscape.operators import Batches, Loss, Operator
from lth_jax.types import Mask, Params

EXACT_LIMIT = 10_000
"""The largest size of dense matrices: 2 GB at 20 bytes per entry, including `eigh`."""

CHUNK = 64
"""Columns computed at once."""


def dense_hessian(
    loss: Loss,
    params: Params,
    batches: Batches,
    *,
    mask: Mask | None = None,
    leaves: str = "*",
    chunk: int = CHUNK,
    limit: int = EXACT_LIMIT,
) -> NDArray[np.float64]:
    """The Hessian `∂²L/∂w²` of the mean loss, by `jax.hessian` over the ravelled kept weights.

    All columns at once if `chunk` allows, else in blocks of `chunk` columns, which need memory
    proportional to `chunk · size(params)`. Each block recomputes the gradient, one batch at a time.
    Compared with `dense(hessian(...))`, which stores the linearisation of all batches, this needs
    less memory and, with 64 columns per block, one or two percent more operations.

    Args:
      loss: as in `hessian`.
      params: as in `hessian`.
      batches: as in `hessian`.
      mask: as in `hessian`.
      leaves: as in `hessian`.
      chunk: columns computed at once.
      limit: the largest number of kept weights.

    Returns:
      float64 `[size, size]`, made symmetric as `(A + Aᵀ)/2`; rows and columns are the kept weights
      in the order of the ravelled parameters (`jax.tree.leaves`). The entries are computed in
      float64 if a parameter is float64, else in float32.

    Raises:
      TypeError: as in `hessian`.
      ValueError: as in `hessian`, or if more than `limit` weights are kept, `chunk` is below 1, or
        an entry is not finite (a `NotFiniteError`).

    Example: Lanczos agrees with the dense matrix at the ends of the spectrum.

    >>> from lth_jax.landscape import extremes, hessian
    >>> loss = lambda w, x: jnp.mean(jnp.tanh(x @ w) ** 2)
    >>> w, x = jnp.linspace(-1.0, 1.0, 6), jnp.sin(jnp.arange(60.0)).reshape(10, 6)
    >>> mask = jnp.array([True, True, False, True, True, True])
    >>> matrix = dense_hessian(loss, w, [x], mask=mask)
    >>> matrix.shape, bool(np.allclose(matrix, jax.hessian(loss)(w, x)[mask][:, mask], atol=1e-5))
    ((5, 5), True)
    >>> ends = extremes(hessian(loss, w, [x], mask=mask), jax.random.key(0), exact_below=0)
    >>> exact = np.linalg.eigvalsh(matrix)
    >>> bool(abs(ends.largest[0] - exact[-1]) <= ends.largest_bounds[0] + 1e-5)
    True
    """
    check_params(params)
    params = jax.tree.map(jnp.asarray, params)
    _, kept = support.find(params, mask, leaves)
    size = kept.shape[0]
    _check_size("the support", size, chunk, limit)
    batches = list(batches)
    shares = [batch_size(i, batch) for i, batch in enumerate(batches)]
    if not batches:
        raise ValueError("`batches` must hold at least one batch, got none.")

    def columns(first: int, count: int) -> NDArray[np.float64]:
        total = np.zeros((count, size))
        for share, batch in zip(shares, batches, strict=True):
            total += share * np.asarray(_hessian_columns(loss, params, kept, batch, first, count))
        return total / sum(shares)

    with full_precision():
        for i, batch in enumerate(batches):
            check_finite(i, _value(loss, params, batch))
        return _symmetric("the Hessian", _by_blocks(columns, size, chunk))


def dense(
    operator: Operator, *, chunk: int = CHUNK, limit: int = EXACT_LIMIT
) -> NDArray[np.float64]:
    """The matrix of any operator, `[size, size]` in float64, made symmetric as `(A + Aᵀ)/2`.

    Args:
      operator: the matrix.
      chunk: columns computed at once; memory on the device grows with it.
      limit: the largest size.

    Raises:
      ValueError: if the matrix is larger than `limit` or not finite, or `chunk` below 1.

    >>> from lth_jax.landscape import hessian
    >>> loss = lambda w, x: jnp.mean(x) * (w[0] ** 2 + w[0] * w[1])
    >>> dense(hessian(loss, jnp.ones(2), [jnp.ones(1)])).tolist()
    [[2.0, 1.0], [1.0, 0.0]]
    """
    _check_size("`operator`", operator.size, chunk, limit)
    matrix = _by_blocks(partial(_operator_columns, operator), operator.size, chunk)
    return _symmetric("`operator`", matrix)


def eigenvalues(
    operator: Operator, *, chunk: int = CHUNK, limit: int = EXACT_LIMIT
) -> NDArray[np.float64]:
    """All eigenvalues in ascending order, float64 `[size]`, from the dense matrix.

    Args:
      operator: as in `dense`.
      chunk: as in `dense`.
      limit: as in `dense`.

    Raises:
      ValueError: as in `dense`.

    >>> from lth_jax.landscape import hessian
    >>> loss = lambda w, x: jnp.mean(x) * w[0] * w[1]
    >>> eigenvalues(hessian(loss, jnp.ones(2), [jnp.ones(1)])).tolist()
    [-1.0, 1.0]
    """
    matrix = dense(operator, chunk=chunk, limit=limit)
    return np.asarray(np.linalg.eigvalsh(matrix), np.float64)


def _check_size(name: str, size: int, chunk: int, limit: int) -> None:
    if chunk < 1:
        raise ValueError(f"`chunk` must be at least 1 column, got {chunk}.")
    if size > limit:
        raise ValueError(
            f"{name} has {size} rows, more than `limit` {limit}: "
            "compute its extremes or its density instead."
        )


def _by_blocks(
    columns: Callable[[int, int], ArrayLike], size: int, chunk: int
) -> NDArray[np.float64]:
    """The matrix whose rows (or columns, of a symmetric one) `columns(first, count)` returns."""
    chunk = min(chunk, size)
    matrix = np.empty((size, size))
    for first in range(0, size, chunk):
        # The last block overlaps instead of being shorter, so that all blocks share one program.
        first = min(first, size - chunk)
        matrix[first : first + chunk] = columns(first, chunk)
    return matrix


def _symmetric(name: str, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    if not np.isfinite(matrix).all():
        raise NotFiniteError(f"{name} must be finite, but has entries that are NaN or infinite.")
    matrix += matrix.T.copy()
    matrix /= 2
    return matrix


@partial(jax.jit, static_argnums=0)
def _value(loss, params, batch):
    check_scalar(jax.eval_shape(loss, params, batch))
    return loss(params, batch)


@partial(jax.jit, static_argnums=(0, 5))
def _hessian_columns(loss, params, kept, batch, first, count):
    """Columns of the Hessian of one batch's loss in the kept weights, as rows."""
    flat = support.ravel(params, support.vector_dtype(params))

    def value(weights):
        return loss(support.unravel(flat.at[kept].set(weights), params), batch)

    at = flat[kept]
    if count == at.size:
        return jax.hessian(value)(at)

    return _jacobian_columns(jax.grad(value), at, first, count)


@partial(jax.jit, static_argnums=2)
def _operator_columns(operator, first, count):
    zero = jnp.zeros(operator.size, operator.dtype)
    return _jacobian_columns(operator, zero, first, count)


def _jacobian_columns(field, at, first, count):
    """Columns of `jax.jacfwd(field)(at)`, as rows; of a gradient, those of `jax.hessian`."""

    def of_block(block):
        return field(jax.lax.dynamic_update_slice(at, block, (first,)))

    return jax.jacfwd(of_block)(jax.lax.dynamic_slice(at, (first,), (count,))).T
