"""Lanczos tridiagonalisation that stays right when the Krylov space is exhausted.

`A Q = Q T + r eᵀ` with orthonormal rows of the basis kept so by two full passes of
reorthogonalisation ("twice is enough", Giraud et al., 2005). A start vector reaches only as many
dimensions as it has distinct eigenvalues in it: a layer that has collapsed, or a loss of low rank,
uses them up, and what is left then is rounding noise, which naive versions normalise into false
eigenvalues of any size. Here a coupling below `BREAKDOWN` of the largest product seen is dropped,
its size remembered for the bounds, and the iteration goes on from a fresh direction.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lth_jax.types import Key

BREAKDOWN = 1e-5
"""A coupling at most this fraction of the largest `‖A q‖` is rounding noise, not a direction."""

BLOCK = 16
"""Rows in a block of the host driver's basis: few programs, and no copy of a large array."""

CHECK = 4
"""The host driver asks whether to stop every so many steps."""

Matvec = Callable[[jax.Array], jax.Array]
"""`v -> A v` for a symmetric matrix `A` and vectors `[size]`."""

Driver = Callable[..., "Tridiagonal"]
"""`(matvec, start, key, *, steps, stop) -> Tridiagonal`: how the iteration is run."""


class Tridiagonal(NamedTuple):
    """`T` after `k` steps: `T[i, i] = diagonal[i]`, `T[i, i + 1] = T[i + 1, i] = coupling[i]`.

    Attributes:
      diagonal: `[k]`.
      coupling: `[k]`; the last one leads out of the space, and one that broke down is 0.
      dropped: `[k]`, what stood in the place of a coupling that broke down; 0 elsewhere.
      scale: the largest `‖A q‖` seen, a lower bound on the spectral norm.
    """

    diagonal: Any
    coupling: Any
    dropped: Any
    scale: Any

    @property
    def steps(self) -> int:
        """The number of steps, the dimension of the space searched."""
        return len(self.diagonal)

    @property
    def rank(self) -> int:
        """The Krylov rank: how many steps the start vector alone carried, at most `steps`.

        Rounding can carry it a step beyond the exact rank; the Ritz values stay right.
        """
        broken = np.flatnonzero(np.asarray(self.coupling) == 0)
        return int(broken[0]) + 1 if broken.size else self.steps


class Ritz(NamedTuple):
    """Approximate eigenvalues, in rising order.

    Attributes:
      values: float64 `[k]`.
      bounds: float64 `[k]`; an eigenvalue of `A` lies within `bounds[i]` of `values[i]`.
      weights: float64 `[k]`, the squared first components of `T`'s eigenvectors: the quadrature
        weights of the start vector, with sum 1.
    """

    values: NDArray[np.float64]
    bounds: NDArray[np.float64]
    weights: NDArray[np.float64]


def ritz(found: Tridiagonal) -> Ritz:
    """The eigenvalues of `T`, with residual bounds (Paige, 1971).

    The Ritz vector `Qᵀ s` of an eigenvector `s` of `T` leaves the residual
    `|coupling[-1] s[-1]|`. Every dropped coupling `d[i]` adds what it would have carried out of
    `q[i]`, `d[i] |s[i]|`, and what it would have brought back from the directions after it,
    together `(Σ d[i]² Σ_{j>i} s[j]²)^½`. With `k · eps · scale` for the rounding of the products,
    the sum bounds the distance to an eigenvalue of `A`. A bound speaks of some eigenvalue: one
    that the start vector has no part in is not seen.

    Raises:
      ValueError: if a product was not finite.

    >>> found = Tridiagonal(np.array([1.0, 3.0]), np.zeros(2), np.zeros(2), np.array(3.0))
    >>> ritz(found).values.tolist()
    [1.0, 3.0]
    """
    diagonal, coupling, dropped = (
        np.asarray(part, np.float64) for part in (found.diagonal, found.coupling, found.dropped)
    )
    if not (np.isfinite(diagonal).all() and np.isfinite(coupling).all()):
        raise ValueError("`matvec` must return finite numbers, but a product was NaN or infinite.")
    matrix = np.diag(diagonal) + np.diag(coupling[:-1], 1) + np.diag(coupling[:-1], -1)
    values, vectors = np.linalg.eigh(matrix)
    out = dropped.copy()
    out[-1] += coupling[-1]
    after = np.cumsum(vectors[::-1] ** 2, axis=0)[::-1] - vectors**2
    leaving, returning = out @ np.abs(vectors), np.sqrt(dropped**2 @ np.maximum(after, 0))
    rounding = found.steps * np.finfo(np.asarray(found.diagonal).dtype).eps * float(found.scale)
    return Ritz(values, leaving + returning + rounding, vectors[0] ** 2)


def basis_bytes(size: int, steps: int, dtype: Any = jnp.float32) -> int:
    """The memory that the basis of `steps` vectors `[size]` takes, in bytes.

    >>> basis_bytes(25_000_000, 64)
    6400000000
    """
    return size * steps * jnp.dtype(dtype).itemsize


def check_steps(steps: int, size: int, *, dtype: Any, memory: int) -> None:
    """Raises `ValueError` unless `steps` fit the matrix and their basis fits `memory` bytes."""
    if not 1 <= steps <= size:
        raise ValueError(f"`steps` must lie in [1, {size}], the size of the matrix, got {steps}.")
    needed = basis_bytes(size, steps, dtype)
    if needed > memory:
        most = memory // basis_bytes(size, 1, dtype)
        raise ValueError(
            f"`steps` {steps} need a basis of {needed} bytes, but `memory` allows {memory}: "
            f"at most {most} steps of {size} weights."
        )


def iterate(
    matvec: Matvec,
    start: jax.Array,
    key: Key,
    *,
    steps: int,
    stop: Callable[[Tridiagonal], bool] = lambda found: False,
) -> Tridiagonal:
    """Lanczos as a loop on the host over compiled pieces; it may stop early.

    On a CPU this beats one compiled loop wherever XLA runs the product's operations slower inside
    loops than outside, as it does convolutions.

    Args:
      matvec: the product, compiled by the caller; an `Operator` is.
      start: `[size]`, not zero; normalised here.
      key: for fresh directions after a breakdown.
      steps: at most so many, 1 to `size`.
      stop: asked every `CHECK` steps.

    Returns:
      Arrays of numpy.

    >>> matrix = jnp.diag(jnp.array([1.0, 2.0, 5.0]))
    >>> found = iterate(lambda v: matrix @ v, jnp.ones(3), jax.random.key(0), steps=3)
    >>> ritz(found).values.round(4).tolist()
    [1.0, 2.0, 5.0]
    """
    q, scale = _normalize(start), jnp.zeros((), start.dtype)
    blocks: tuple[jax.Array, ...] = ()
    rows: list[tuple[Any, ...]] = []
    for i in range(steps):
        if i and i % CHECK == 0 and stop(_gather(rows, scale)):
            break
        if i % BLOCK == 0:
            blocks += (jnp.zeros((min(BLOCK, steps - i), q.size), q.dtype),)
        *full, last = blocks
        product = matvec(q)
        last, q, scale, row, broken = _advance(tuple(full), last, i % BLOCK, q, product, scale)
        blocks = (*full, last)
        rows.append(row)
        if broken:
            q = _restart(blocks, jax.random.fold_in(key, i), q)
    return _gather(rows, scale)


def scan(matvec: Matvec, start: jax.Array, key: Key, *, steps: int) -> Tridiagonal:
    """Lanczos as one traced loop of a fixed number of steps, for `jax.jit` and `jax.vmap`.

    The same iteration as `iterate` with the basis in one array; what a GPU or TPU wants, where
    each dispatch from the host costs.

    Args:
      matvec: the product, traced once.
      start: `[size]`, not zero; normalised here.
      key: for fresh directions after a breakdown.
      steps: how many, 1 to `size`.

    >>> matrix = jnp.diag(jnp.array([1.0, 2.0, 5.0]))
    >>> found = scan(lambda v: matrix @ v, jnp.ones(3), jax.random.key(0), steps=3)
    >>> ritz(found).values.round(4).tolist()
    [1.0, 2.0, 5.0]
    """

    def body(carry, i):
        basis, q, scale = carry
        basis, rest, scale, row, broken = _advance((), basis, i, q, matvec(q), scale)
        fresh = jax.random.fold_in(key, i)
        q = jax.lax.cond(broken, lambda: _restart((basis,), fresh, q), lambda: rest)
        return (basis, q, scale), row

    basis = jnp.zeros((steps, start.size), start.dtype)
    carry = (basis, _normalize(start), jnp.zeros((), start.dtype))
    (_, _, scale), (diagonal, coupling, dropped) = jax.lax.scan(body, carry, jnp.arange(steps))
    return Tridiagonal(diagonal, coupling, dropped, scale)


def compiled(
    matvec: Matvec,
    start: jax.Array,
    key: Key,
    *,
    steps: int,
    stop: Callable[[Tridiagonal], bool] | None = None,
) -> Tridiagonal:
    """`scan`, compiled, as a driver: one dispatch for all steps, so `stop` is never asked.

    Args:
      matvec: a pytree that can be called, such as an `Operator`; those of equal shapes share one
        program.
      start: as in `scan`.
      key: as in `scan`.
      steps: as in `scan`.
      stop: not used.
    """
    del stop
    return jax.device_get(_compiled_scan(matvec, start, key, steps))


def driver() -> Driver:
    """`iterate` where JAX's default backend is a CPU, `compiled` elsewhere."""
    return iterate if jax.default_backend() == "cpu" else compiled


@partial(jax.jit, static_argnums=3)
def _compiled_scan(matvec, start, key, steps):
    return scan(matvec, start, key, steps=steps)


@partial(jax.jit, donate_argnums=1)
def _advance(blocks, last, i, q, product, scale):
    """One step, from `q` and its product to the next vector and a row of `T`.

    `q` joins the basis at row `i` of `last`. What the basis leaves of the product comes next,
    normalised, unless it is noise: `broken`. The row is `(diagonal, coupling, dropped)`.
    """
    last = last.at[i].set(q)
    scale = jnp.maximum(scale, jnp.linalg.norm(product))
    rest = _orthogonalize((*blocks, last), product)
    length = jnp.linalg.norm(rest)
    broken = length <= BREAKDOWN * scale
    zero = jnp.zeros_like(length)
    row = (q @ product, jnp.where(broken, zero, length), jnp.where(broken, length, zero))
    return last, _normalize(rest), scale, row, broken


@jax.jit
def _restart(blocks, key, like):
    """A random direction orthogonal to the basis."""
    return _normalize(_orthogonalize(blocks, jax.random.normal(key, like.shape, like.dtype)))


def _orthogonalize(blocks, w):
    """`w` without its part in the basis; two passes, since one leaves rounding errors of its own.

    Rows not yet written are zero and take nothing away.
    """
    for _ in range(2):
        for block in blocks:
            w = w - (block @ w) @ block
    return w


def _normalize(w):
    # At the last step of a full basis nothing is left to be orthogonal to.
    return w / jnp.maximum(jnp.linalg.norm(w), jnp.finfo(w.dtype).tiny)


def _gather(rows, scale):
    diagonal, coupling, dropped = map(np.stack, zip(*jax.device_get(rows), strict=True))
    return Tridiagonal(diagonal, coupling, dropped, np.asarray(scale))
