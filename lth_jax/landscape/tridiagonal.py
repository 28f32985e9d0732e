"""Ritz values, error bounds and missed components from a Lanczos tridiagonal matrix."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lth_jax.landscape.checks import NotFiniteError


class Tridiagonal(NamedTuple):
    """`T` after `k` steps: `T[i, i] = diagonal[i]`, `T[i, i + 1] = T[i + 1, i] = coupling[i]`.

    Attributes:
      diagonal: `[k]`.
      coupling: `[k]`; the last one is that of the residual, and one at a breakdown is 0.
      dropped: `[k]`, the dropped coupling at a breakdown; 0 elsewhere.
      scale: the largest `‖A q‖`, a lower bound on the spectral norm.
    """

    diagonal: Any
    coupling: Any
    dropped: Any
    scale: Any

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.diagonal)

    def first(self, steps: int) -> "Tridiagonal":
        """The matrix after the first `steps` steps."""
        diagonal, coupling, dropped, scale = self
        return Tridiagonal(diagonal[:steps], coupling[:steps], dropped[:steps], scale)

    @property
    def rank(self) -> int:
        """The dimension of the start vector's Krylov space, at most `steps`.

        With rounding it may exceed the exact rank by a step; the Ritz values remain correct.
        """
        broken = np.flatnonzero(np.asarray(self.coupling) == 0)
        return int(broken[0]) + 1 if broken.size else self.steps


class Ritz(NamedTuple):
    """Approximate eigenvalues in ascending order.

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

    The Ritz vector `Qᵀ s` of an eigenvector `s` of `T` leaves the residual `|coupling[-1] s[-1]|`.
    Every dropped coupling `d[i]` adds `d[i] |s[i]|` for the direction `q[i]`, and together `(Σ
    d[i]² Σ_{j>i} s[j]²)^½` for the later directions. With `k · eps · scale` for the rounding of the
    products, the sum bounds the distance to an eigenvalue of `A`. Eigenvalues without a component
    in the start vector are not found.

    Raises:
      NotFiniteError: a product was not finite.

    >>> found = Tridiagonal(np.array([1.0, 3.0]), np.zeros(2), np.zeros(2), np.array(3.0))
    >>> ritz(found).values.tolist()
    [1.0, 3.0]
    """
    values, vectors = eigh(found)
    dropped = np.asarray(found.dropped, np.float64)
    out = dropped.copy()
    out[-1] += found.coupling[-1]
    after = np.cumsum(vectors[::-1] ** 2, axis=0)[::-1] - vectors**2
    leaving, returning = out @ np.abs(vectors), np.sqrt(dropped**2 @ np.maximum(after, 0))
    rounding = found.steps * np.finfo(np.asarray(found.diagonal).dtype).eps * float(found.scale)
    return Ritz(values, leaving + returning + rounding, vectors[0] ** 2)


def hidden_share(found: Tridiagonal, beyond: float) -> float:
    """The log of the largest squared component of a start vector along eigenvectors above `beyond`.

    Let `p_j` be the polynomials with `q_j = p_j(A) q_0`, orthonormal under the measure that has the
    start vector's squared components as weights at the eigenvalues. An eigenvector with eigenvalue
    `μ` then has a squared component of at most `1 / Σ_j p_j(μ)²` (the Christoffel function). Above
    the largest Ritz value every `p_j` grows, so the value at `beyond` holds for all `μ` above it.
    `p_{j+1} / p_j` is the j-th pivot of `beyond − T` (its Sturm sequence) over the coupling.

    Van Dorsselaer, Hochstenbach & van der Vorst (2000), "Computing probabilistic bounds for extreme
    eigenvalues of symmetric matrices with the Lanczos method", with the last polynomial alone.

    Args:
      found: from Lanczos. After a breakdown, the blocks of `T` belong to further start vectors,
        each orthogonal to all before; the smallest component is returned.
      beyond: a number.

    Returns:
      0 if each block has a Ritz value at or above `beyond`; −inf if a start vector exhausted its
      Krylov space below it.

    >>> found = Tridiagonal(np.array([1.0]), np.array([0.1]), np.array([0.0]), np.array(1.0))
    >>> round(np.exp(-hidden_share(found, 2.0)))  # 1 + ((2.0 - 1.0) / 0.1)²
    101
    """
    least = total = growth = 0.0  # per block: logarithms of the sum and of p_j
    inverse = (
        0.0  # coupling² / pivot of the previous row; infinite after a pivot that is not positive
    )
    for diagonal, coupling in zip(*_parts(found), strict=True):
        pivot = beyond - diagonal - inverse
        if coupling == 0:
            if pivot > 0:
                return -np.inf
            total = growth = inverse = 0.0
        elif pivot > 0:
            growth += 2 * np.log(pivot / coupling)
            total = np.logaddexp(total, growth)
            least, inverse = min(least, -total), coupling**2 / pivot
        else:
            inverse = np.inf
            least = 0.0
    return least


def eigh(found: Tridiagonal) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The eigenvalues of `T` in ascending order, and its eigenvectors as columns."""
    diagonal, coupling = _parts(found)
    if not (np.isfinite(diagonal).all() and np.isfinite(coupling).all()):
        raise NotFiniteError(
            "`matvec` must return finite numbers, but a product was NaN or infinite."
        )
    matrix = np.diag(diagonal) + np.diag(coupling[:-1], 1) + np.diag(coupling[:-1], -1)
    values, vectors = np.linalg.eigh(matrix)
    return values, vectors


def _parts(found: Tridiagonal) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.asarray(found.diagonal, np.float64), np.asarray(found.coupling, np.float64)
