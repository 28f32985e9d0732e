"""The spectral density of a curvature matrix on its support."""

from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lth_jax.landscape import lanczos
from lth_jax.landscape.operators import Operator, check_operator
from lth_jax.landscape.tridiagonal import ritz
from lth_jax.measures.intervals import student_t
from lth_jax.measures.spectra import broadened
from lth_jax.types import Key

POINTS = 512
"""Default number of points of a spectral density."""


class Density(NamedTuple):
    """A spectral density, normalised so that its integral over all eigenvalues is 1.

    Attributes:
      points: float64 `[m]`, eigenvalues.
      mean: float64 `[m]`, the density there, the mean over probes.
      low: float64 `[m]`, lower end of Student's interval over probes, at least 0.
      high: float64 `[m]`, upper end; both NaN with a single probe.
      width: the standard deviation of the Gaussian of each eigenvalue.
      nodes: float64 `[probes, steps]`, the Ritz values of each probe.
      weights: float64 `[probes, steps]`, their quadrature weights; rows sum to 1.
      size: rows of the matrix; `size · mean` counts eigenvalues.
    """

    points: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    width: float
    nodes: NDArray[np.float64]
    weights: NDArray[np.float64]
    size: int

    def __repr__(self) -> str:
        probes, steps = self.nodes.shape
        where = f"{len(self.points)} points in [{self.points.min():.4g}, {self.points.max():.4g}]"
        return f"Density({where}, size={self.size}, probes={probes}, steps={steps})"


def density(
    operator: Operator,
    key: Key,
    *,
    probes: int = 8,
    steps: int = 64,
    points: ArrayLike | None = None,
    width: float | None = None,
    confidence: float = 0.95,
    memory: int = lanczos.MEMORY,
    driver: lanczos.Driver | None = None,
) -> Density:
    """The spectral density by stochastic Lanczos quadrature (Ubaru, Chen & Saad, 2017).

    `φ(x) = 1/size Σ_i N(x; λ_i, width²)`, estimated as the mean over probes of `Σ_j τ_j N(x; θ_j,
    width²)` with the Ritz values `θ` and weights `τ` of random signs on the support. The interval
    is over probes; it excludes the error of the quadrature, which decreases with `steps`.

    Args:
      operator: the matrix.
      key: key of the probes.
      probes: random start vectors; at least 2 for an interval.
      steps: maximal number of Lanczos steps per probe.
      points: points of evaluation `[m]`; by default 512 over the range of the spectrum.
      width: the Gaussian's standard deviation; by default 1 % of the range of Ritz values.
      confidence: confidence level of the interval.
      memory: maximal bytes of a Lanczos basis.
      driver: as in `extremes`.

    Raises:
      ValueError: if an argument is out of range, a product is not finite, or the basis exceeds
        `memory`.

    >>> import jax.numpy as jnp
    >>> from lth_jax.landscape import hessian
    >>> loss = lambda w, x: 0.5 * jnp.mean(x) * jnp.sum(w**2 * jnp.array([1.0, 2.0, 2.0]))
    >>> operator = hessian(loss, jnp.ones(3), [jnp.ones(1)])
    >>> found = density(operator, jax.random.key(0), width=0.1, points=[2.0])
    >>> round(float(found.mean[0] * 0.1 * np.sqrt(2 * np.pi)), 3)  # two of three
    0.667
    """
    check_operator(operator, key)
    if probes < 1:
        raise ValueError(f"`probes` must be at least 1 random vector, got {probes}.")
    if width is not None and not width > 0:
        raise ValueError(f"`width` must be positive, got {width}.")
    steps = lanczos.allowed_steps(operator, steps, memory)
    run = driver or lanczos.driver(operator)
    found = []
    for i in range(probes):
        signs, fresh = jax.random.split(jax.random.fold_in(key, i))
        start = jax.random.rademacher(signs, (operator.size,), operator.dtype)
        found.append(ritz(run(operator, start, fresh, steps=steps).found))
    nodes, weights = (np.stack([getattr(r, part) for r in found]) for part in ("values", "weights"))
    width = width or _default_width(nodes)
    if points is None:
        points = np.linspace(nodes.min() - 4 * width, nodes.max() + 4 * width, POINTS)
    at = np.asarray(points, np.float64)
    curves = np.stack([broadened(n, w, at, width) for n, w in zip(nodes, weights, strict=True)])
    intervals = [student_t(column, confidence=confidence) for column in curves.T]
    low = np.maximum([interval.low for interval in intervals], 0)  # a density is never negative
    high = np.array([interval.high for interval in intervals])
    return Density(at, curves.mean(0), low, high, width, nodes, weights, operator.size)


def _default_width(nodes: NDArray[np.float64]) -> float:
    """1 % of the range; for a single eigenvalue, of its size; for the zero matrix, of 1."""
    return 0.01 * float(np.ptp(nodes) or np.abs(nodes).max() or 1.0)
