"""Stochastic estimates of trace, diagonal and Frobenius norm, with standard errors."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lth_jax.landscape.checks import NotFiniteError
from lth_jax.landscape.numerics import dot
from lth_jax.landscape.operators import Operator, check_operator
from lth_jax.text import brief
from lth_jax.types import Key


class Estimate(NamedTuple):
    """A mean over random probes.

    Attributes:
      value: float64, a number or `[size]`.
      error: float64, its standard error over probes; NaN with a single probe.
      products: number of products with the matrix.
    """

    value: Any
    error: Any
    products: int

    def __repr__(self) -> str:
        return f"Estimate({brief(self.value)} ± {brief(self.error)}, products={self.products})"


def trace(operator: Operator, key: Key, *, probes: int = 32) -> Estimate:
    """The trace as the mean of `vᵀ A v` over random signs `v` (Hutchinson, 1989).

    Unbiased, with variance `2 Σ_{i≠j} A_ij² / probes`.

    Args:
      operator: the matrix.
      key: key of the probes.
      probes: number of products.

    Raises:
      TypeError: if `operator` is not an `Operator`, or `key` is not a key.
      ValueError: if `probes` is below 1, or a product not finite.

    >>> from lth_jax.landscape.operators import hessian
    >>> loss = lambda w, x: 0.5 * jnp.mean(x) * jnp.sum(w**2 * jnp.array([1.0, 2.0, 5.0]))
    >>> trace(hessian(loss, jnp.ones(3), [jnp.ones(1)]), jax.random.key(0)).value
    8.0
    """
    return _mean([_inner(v, av) for v, av in _products(operator, key, probes)])


def hutch_plus_plus(operator: Operator, key: Key, *, probes: int = 32) -> Estimate:
    """The trace by Hutch++ (Meyer, Musco, Musco & Woodruff, 2021).

    With an orthonormal basis `Q` of `A S` for random signs `S`, the estimate is `tr(Qᵀ A Q)`,
    computed exactly, plus Hutchinson's estimate on the complement of `Q`. For a spectrum with a few
    large eigenvalues the error decreases as 1/probes instead of its square root. The sketch, `Q`
    and the complement use a third of the products each; the standard error is that of the
    complement. Arguments are those of `trace`.

    Raises:
      ValueError: if `probes` is below 3, or a product not finite.

    >>> from lth_jax.landscape.operators import hessian
    >>> loss = lambda w, x: 0.5 * jnp.mean(x) * jnp.sum(w) ** 2  # rank one
    >>> found = hutch_plus_plus(hessian(loss, jnp.ones(9), [jnp.ones(1)]), jax.random.key(0))
    >>> round(found.value, 4), found.error < 1e-4
    (9.0, True)
    """
    check_operator(operator, key)
    if probes < 3:
        raise ValueError(f"`probes` must be at least 3 for Hutch++, got {probes}.")
    sketch_key, rest_key = jax.random.split(key)
    width = min(probes // 3, operator.size)
    sketch = jnp.stack([av for _, av in _products(operator, sketch_key, width)], axis=1)
    q, _ = jnp.linalg.qr(sketch)
    head = sum(_inner(column, operator(column)) for column in q.T)
    rest = []
    for v in _probes(operator, rest_key, probes - 2 * width):
        v = v - dot(q, dot(q.T, v))
        rest.append(_inner(v, operator(v)))
    tail = _mean(rest)
    return Estimate(head + tail.value, tail.error, probes)


def diagonal(operator: Operator, key: Key, *, probes: int = 32) -> Estimate:
    """The diagonal as the mean of `v ⊙ A v` over random signs `v`.

    Bekas, Kokiopoulou & Saad (2007). Unbiased; entry i has variance `Σ_{j≠i} A_ij² / probes`.
    `operator.expand` converts it to a tree.

    Arguments and errors are those of `trace`.

    >>> from lth_jax.landscape.operators import hessian
    >>> loss = lambda w, x: 0.5 * jnp.mean(x) * jnp.sum(w**2 * jnp.array([1.0, 2.0, 5.0]))
    >>> diagonal(hessian(loss, jnp.ones(3), [jnp.ones(1)]), jax.random.key(0)).value.tolist()
    [1.0, 2.0, 5.0]
    """
    return _mean([_host(v) * _host(av) for v, av in _products(operator, key, probes)])


def frobenius_norm(operator: Operator, key: Key, *, probes: int = 32) -> Estimate:
    """`‖A‖_F`, the root of the mean of `‖A v‖²` over random signs `v`.

    The mean is unbiased for the square; the root's standard error is that of the square over twice
    the root (delta method), and its bias is of that order squared.

    Arguments and errors are those of `trace`.

    >>> from lth_jax.landscape.operators import hessian
    >>> loss = lambda w, x: 0.5 * jnp.mean(x) * jnp.sum(w**2 * jnp.array([3.0, 4.0]))
    >>> frobenius_norm(hessian(loss, jnp.ones(2), [jnp.ones(1)]), jax.random.key(0)).value
    5.0
    """
    square = _mean([_inner(av, av) for _, av in _products(operator, key, probes)])
    root = float(np.sqrt(square.value))
    return Estimate(root, square.error / (2 * root) if root else square.error, probes)


def _probes(operator: Operator, key: Key, probes: int) -> Iterator[jax.Array]:
    """Vectors of random signs on the support."""
    check_operator(operator, key)
    if probes < 1:
        raise ValueError(f"`probes` must be at least 1 random vector, got {probes}.")
    for i in range(probes):
        yield jax.random.rademacher(jax.random.fold_in(key, i), (operator.size,), operator.dtype)


def _products(operator: Operator, key: Key, probes: int) -> Iterator[tuple[jax.Array, jax.Array]]:
    return ((v, operator(v)) for v in _probes(operator, key, probes))


def _host(v: jax.Array) -> NDArray[np.float64]:
    return np.asarray(v, np.float64)


def _inner(a: jax.Array, b: jax.Array) -> float:
    return float(_host(a) @ _host(b))


def _mean(samples: list[Any]) -> Estimate:
    """The mean and its standard error, over the first axis."""
    values = np.asarray(samples, np.float64)
    if not np.isfinite(values).all():
        raise NotFiniteError("`operator` must be finite, but a product was NaN or infinite.")
    n = len(values)
    mean = values.mean(axis=0)
    spread = values.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full(mean.shape, np.nan)
    if mean.ndim == 0:
        return Estimate(float(mean), float(spread), n)
    return Estimate(mean, spread, n)
