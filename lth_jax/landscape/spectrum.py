"""Eigenvalues of a curvature matrix: all of them, the two ends with bounds, or their density.

Everything counts the weights of the support only: a matrix on a mask has `|mask|` eigenvalues and
none of the zeros that rows of pruned weights would add.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lth_jax.landscape import lanczos
from lth_jax.landscape.checks import NotFiniteError
from lth_jax.landscape.operators import Operator
from lth_jax.landscape.tridiagonal import Tridiagonal, ritz
from lth_jax.measures.intervals import student_t
from lth_jax.measures.spectra import broadened
from lth_jax.types import Key

EXACT_LIMIT = 10_000
"""Beyond this size no matrix is written out: 20 bytes an entry with `eigh`'s own are then 2 GB."""

EXACT_BELOW = 256
"""Up to this size `extremes` writes the matrix out: as many products as a long Lanczos run."""

MEMORY = 2 * 1024**3
"""What a Lanczos basis may take unless the caller says otherwise, in bytes."""

LONGER = 3.0
"""How many times as long as its random part the gradient is where a pilot begins: it saves a step,
and what a pilot misses costs no more than steps after it."""

BESIDE = 0.03
"""The random share of a start that a pilot found."""

POINTS = 512
"""Points of a spectral density, unless the caller gives his own."""


class Extremes(NamedTuple):
    """The two ends of a spectrum, each with bounds.

    Attributes:
      largest: float64 `[k]`, falling.
      smallest: float64 `[k]` or as many as were asked for, rising.
      largest_bounds: float64 `[k]`; an eigenvalue lies within this distance of the value.
      smallest_bounds: float64 `[k]`; likewise.
      size: rows of the matrix, the weights of the support.
      steps: Lanczos steps done; 0 where the matrix was written out.
      rank: steps that the start vector carried before its Krylov space was exhausted, at most
        `steps`; None where the matrix was written out.
      converged: whether every bound is within the tolerance.
    """

    largest: NDArray[np.float64]
    smallest: NDArray[np.float64]
    largest_bounds: NDArray[np.float64]
    smallest_bounds: NDArray[np.float64]
    size: int
    steps: int
    rank: int | None
    converged: bool

    @property
    def collapsed(self) -> bool:
        """Whether the Krylov space was exhausted: fewer distinct eigenvalues than steps."""
        return self.rank is not None and self.rank < self.steps


class Density(NamedTuple):
    """A spectral density, normalised so that its integral over all eigenvalues is 1.

    Attributes:
      points: float64 `[m]`, eigenvalues.
      mean: float64 `[m]`, the density there, the mean over probes.
      low: float64 `[m]`, lower end of Student's interval over probes, at least 0.
      high: float64 `[m]`, upper end; both NaN with a single probe.
      width: the standard deviation of the Gaussian that stands for each eigenvalue.
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


def dense(operator: Operator, *, chunk: int = 64, limit: int = EXACT_LIMIT) -> NDArray[np.float64]:
    """The matrix itself, `[size, size]` in float64, made symmetric as `(A + Aᵀ)/2`.

    Args:
      operator: the matrix.
      chunk: columns computed at once; memory on the device grows with it.
      limit: refuse beyond this size.

    Raises:
      ValueError: if the matrix is larger than `limit` or not finite, or `chunk` below 1.

    >>> from lth_jax.landscape.operators import hessian
    >>> loss = lambda w, x: jnp.mean(x) * (w[0] ** 2 + w[0] * w[1])
    >>> dense(hessian(loss, jnp.ones(2), [jnp.ones(1)])).tolist()
    [[2.0, 1.0], [1.0, 0.0]]
    """
    if chunk < 1:
        raise ValueError(f"`chunk` must be at least 1 column, got {chunk}.")
    if operator.size > limit:
        raise ValueError(
            f"`operator` has {operator.size} rows, more than `limit` {limit}: "
            "ask for its ends or its density instead."
        )
    chunk = min(chunk, operator.size)
    matrix = np.empty((operator.size, operator.size))
    for first in range(0, operator.size, chunk):
        # The last chunk is moved back rather than cut: one shape, one program.
        first = min(first, operator.size - chunk)
        matrix[first : first + chunk] = _columns(operator, first, chunk)
    if not np.isfinite(matrix).all():
        raise NotFiniteError("`operator` must be finite, but has entries that are NaN or infinite.")
    matrix += matrix.T.copy()
    matrix /= 2
    return matrix


def eigenvalues(
    operator: Operator, *, chunk: int = 64, limit: int = EXACT_LIMIT
) -> NDArray[np.float64]:
    """All eigenvalues in rising order, float64 `[size]`, from the matrix written out.

    Args:
      operator: as in `dense`.
      chunk: as in `dense`.
      limit: as in `dense`.

    Raises:
      ValueError: as in `dense`.

    >>> from lth_jax.landscape.operators import hessian
    >>> loss = lambda w, x: jnp.mean(x) * w[0] * w[1]
    >>> eigenvalues(hessian(loss, jnp.ones(2), [jnp.ones(1)])).tolist()
    [-1.0, 1.0]
    """
    matrix = dense(operator, chunk=chunk, limit=limit)
    return np.asarray(np.linalg.eigvalsh(matrix), np.float64)


def extremes(
    operator: Operator,
    key: Key,
    *,
    k: int = 1,
    smallest: int | None = None,
    steps: int = 64,
    tolerance: float = 1e-3,
    pilot: Operator | None = None,
    exact_below: int = EXACT_BELOW,
    memory: int = MEMORY,
    driver: lanczos.Driver | None = None,
) -> Extremes:
    """The `k` largest eigenvalues and as many of the smallest, with a bound on each.

    Lanczos until every bound is below `tolerance` times the spectral norm; matrices of at most
    `exact_below` rows are written out. `converged` says whether the steps sufficed, and the bounds
    are right either way. Of equal eigenvalues a start vector sees one; each breakdown reveals one
    more, so after the first the iteration goes on until there were `k`. The start vector is half
    random and half the operator's gradient, which saves some steps to the largest; a `pilot`, the
    same matrix for a sixteenth of the examples, say, saves one or two more where products are
    dear.

    Args:
      operator: the matrix.
      key: for the random half of the start vector.
      k: how many of the largest.
      smallest: how many of the smallest; `k` by default, 0 where they are not wanted.
      steps: at most so many Lanczos steps; `k + smallest` are the fewest that can converge.
      tolerance: of the bounds, relative to the largest absolute eigenvalue found.
      pilot: a matrix near `operator` and cheaper to multiply by: the iteration begins where a few
        steps with it end, and a little beside, lest a direction be missed.
      exact_below: write the matrix out up to this size; 0 for never.
      memory: bytes that the Lanczos basis may take.
      driver: `lanczos.blocked`, `lanczos.iterate` or `lanczos.compiled`; `lanczos.driver` chooses
        when None.

    Raises:
      ValueError: if `k` is not in [1, size] or `smallest` not in [0, size], a product is not
        finite, `pilot` is of another size, or the basis of `steps` vectors exceeds `memory`.

    >>> from lth_jax.landscape.operators import hessian
    >>> loss = lambda w, x: 0.5 * jnp.mean(x) * jnp.sum(w**2 * jnp.array([1.0, 2.0, 5.0]))
    >>> found = extremes(hessian(loss, jnp.ones(3), [jnp.ones(1)]), jax.random.key(0))
    >>> found.smallest.tolist(), found.largest.tolist(), found.converged
    ([1.0], [5.0], True)
    """
    if not 1 <= k <= operator.size:
        raise ValueError(f"`k` must lie in [1, {operator.size}], the support's size, got {k}.")
    wanted = (k, k if smallest is None else smallest)
    if not 0 <= wanted[1] <= operator.size:
        raise ValueError(f"`smallest` must lie in [0, {operator.size}], got {smallest}.")
    if pilot is not None and pilot.size != operator.size:
        raise ValueError(f"`pilot` must have {operator.size} rows, got {pilot.size}.")
    if operator.size <= min(exact_below, EXACT_LIMIT):
        return _written_out(operator, wanted)
    steps = _check_steps(operator, steps, memory)
    if steps < max(wanted):
        raise ValueError(f"`steps` must be at least `k` {max(wanted)}, got {steps}.")
    run = driver or _driver(operator)
    drawn, fresh = jax.random.split(key)
    start = _start(operator.gradient, drawn) if pilot is None else _near(pilot, drawn, wanted)
    found = run(
        operator,
        start,
        fresh,
        steps=steps,
        left=lambda part: _left(part, operator.size, wanted, tolerance),
        check=lanczos.CHECK if pilot is None else lanczos.CHECK - 1,
    )
    known = ritz(found)
    ends = _ends(known.values, known.bounds, wanted)
    settled = _settled(found, operator.size, wanted, tolerance)
    return Extremes(*ends, operator.size, found.steps, found.rank, settled)


def density(
    operator: Operator,
    key: Key,
    *,
    probes: int = 8,
    steps: int = 64,
    points: ArrayLike | None = None,
    width: float | None = None,
    confidence: float = 0.95,
    memory: int = MEMORY,
    driver: lanczos.Driver | None = None,
) -> Density:
    """The spectral density by stochastic Lanczos quadrature (Ubaru, Chen & Saad, 2017).

    `φ(x) = 1/size Σ_i N(x; λ_i, width²)`, estimated as the mean over probes of
    `Σ_j τ_j N(x; θ_j, width²)` with the Ritz values `θ` and weights `τ` of random signs on the
    support. The interval is that of the probes; it knows nothing of the quadrature's own error,
    which `steps` makes small.

    Args:
      operator: the matrix.
      key: for the probes.
      probes: random start vectors; at least 2 for an interval.
      steps: at most so many Lanczos steps for each.
      points: where to evaluate, `[m]`; by default 512 from end to end.
      width: the Gaussian's standard deviation; by default 1 % of the range of Ritz values.
      confidence: of the interval.
      memory: bytes that one Lanczos basis may take.
      driver: as in `extremes`.

    Raises:
      ValueError: if a number is out of its range, a product not finite, or the basis exceeds
        `memory`.

    >>> from lth_jax.landscape.operators import hessian
    >>> loss = lambda w, x: 0.5 * jnp.mean(x) * jnp.sum(w**2 * jnp.array([1.0, 2.0, 2.0]))
    >>> operator = hessian(loss, jnp.ones(3), [jnp.ones(1)])
    >>> found = density(operator, jax.random.key(0), width=0.1, points=[2.0])
    >>> round(float(found.mean[0] * 0.1 * np.sqrt(2 * np.pi)), 3)  # two of three
    0.667
    """
    if probes < 1:
        raise ValueError(f"`probes` must be at least 1 random vector, got {probes}.")
    if width is not None and not width > 0:
        raise ValueError(f"`width` must be positive, got {width}.")
    steps = _check_steps(operator, steps, memory)
    run = driver or _driver(operator)
    found = []
    for i in range(probes):
        signs, fresh = jax.random.split(jax.random.fold_in(key, i))
        start = jax.random.rademacher(signs, (operator.size,), operator.dtype)
        found.append(ritz(run(operator, start, fresh, steps=steps)))
    nodes, weights = (np.stack([getattr(r, part) for r in found]) for part in ("values", "weights"))
    width = width or _default_width(nodes)
    at = _default_points(nodes, width) if points is None else np.asarray(points, np.float64)
    curves = np.stack([broadened(n, w, at, width) for n, w in zip(nodes, weights, strict=True)])
    intervals = [student_t(column, confidence=confidence) for column in curves.T]
    low = np.maximum([interval.low for interval in intervals], 0)  # a density is never negative
    high = np.array([interval.high for interval in intervals])
    return Density(at, curves.mean(0), low, high, width, nodes, weights, operator.size)


@jax.jit(static_argnums=2)
def _columns(operator, first, chunk):
    rows = first + jnp.arange(chunk)
    basis = jax.nn.one_hot(rows, operator.size, dtype=operator.dtype)
    return jax.vmap(operator)(basis)


def _written_out(operator: Operator, wanted: tuple[int, int]) -> Extremes:
    values = eigenvalues(operator)
    error = operator.size * np.finfo(operator.dtype).eps * np.abs(values).max()
    ends = _ends(values, np.full(values.shape, error), wanted)
    return Extremes(*ends, operator.size, 0, None, True)


def _ends(values: Any, bounds: Any, wanted: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    k, smallest = wanted
    return values[::-1][:k], values[:smallest], bounds[::-1][:k], bounds[:smallest]


def _settled(found: Tridiagonal, size: int, wanted: tuple[int, int], tolerance: float) -> bool:
    """Whether the values wanted can be told, equal ones among them, and are within bounds."""
    breakdowns = np.count_nonzero(np.asarray(found.coupling)[:-1] == 0)
    if found.steps < min(sum(wanted), size):
        return False
    if 0 < breakdowns < max(wanted) and found.steps < size:
        return False
    return _worst_bound(found, wanted) <= tolerance


def _left(found: Tridiagonal, size: int, wanted: tuple[int, int], tolerance: float) -> int:
    """How many more steps it takes at the rate at which the bounds now shrink; 0 when settled."""
    if _settled(found, size, wanted, tolerance):
        return 0
    missing = min(sum(wanted), size) - found.steps
    if missing > 0:
        return missing
    before, now = (_worst_bound(found.first(found.steps - n), wanted) for n in (2, 0))
    if not 0 < tolerance < now < before:
        return lanczos.CHECK
    steps = 2 * np.log(now / tolerance) / np.log(before / now)
    return int(np.clip(np.ceil(steps), 1, lanczos.BLOCK))


def _worst_bound(found: Tridiagonal, wanted: tuple[int, int]) -> float:
    """The largest bound of the eigenvalues wanted, in units of the largest absolute eigenvalue."""
    known = ritz(found)
    _, _, *bounds = _ends(known.values, known.bounds, wanted)
    worst, scale = np.concatenate(bounds).max(), np.abs(known.values).max()
    return float(worst / scale) if scale else float(worst)


def _driver(operator: Operator) -> lanczos.Driver:
    return lanczos.driver(operator, jax.ShapeDtypeStruct((operator.size,), operator.dtype))


@jax.jit
def _start(gradient: jax.Array, key: Key, longer: float = 1.0) -> jax.Array:
    """Random numbers and the gradient, so many times as long."""
    drawn = jax.random.normal(key, gradient.shape, gradient.dtype)
    length = jnp.linalg.norm(gradient)
    share = jnp.where(length > 0, longer * jnp.linalg.norm(drawn) / length, 0.0)
    return drawn + share.astype(drawn.dtype) * gradient


def _near(pilot: Operator, key: Key, wanted: tuple[int, int]) -> jax.Array:
    """Where a few steps with a cheaper matrix lead, and a little of where they began."""
    first, fresh = jax.random.split(key)
    start, (largest, smallest) = _start(pilot.gradient, first, LONGER), wanted
    steps = min(lanczos.CHECK + largest + smallest - 2, pilot.size)
    found = lanczos.leading(pilot, start, fresh, steps=steps, largest=largest, smallest=smallest)
    return _beside(found, start)


@jax.jit
def _beside(found: jax.Array, start: jax.Array) -> jax.Array:
    return found + BESIDE * start / jnp.linalg.norm(start)


def _check_steps(operator: Operator, steps: int, memory: int) -> int:
    steps = min(steps, operator.size)
    lanczos.check_steps(steps, operator.size, dtype=operator.dtype, memory=memory)
    return steps


def _default_width(nodes: NDArray[np.float64]) -> float:
    """1 % of the range; for a single eigenvalue, of its size; for the zero matrix, of 1."""
    return 0.01 * float(np.ptp(nodes) or np.abs(nodes).max() or 1.0)


def _default_points(nodes: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    return np.linspace(nodes.min() - 4 * width, nodes.max() + 4 * width, POINTS)
