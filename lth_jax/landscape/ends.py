"""Extreme eigenvalues by Lanczos, with error bounds and multiplicities.

Matrices are restricted to the support: a matrix on a mask has `|mask|` eigenvalues, without the
zeros of pruned rows.

Of equal eigenvalues, the Krylov space of one start vector contains a single eigenvector. If more
than one value is requested, the Ritz vectors found are therefore locked, and Lanczos restarts from
a random vector in their orthogonal complement. Values beyond the k-th are locked too. The search
ends when a missed eigenvalue is unlikely: a random unit vector in n dimensions has a squared
component below `π p² / 2n` along a given direction with probability at most p, and `hidden_share`
bounds the component along any eigenvector beyond the k-th value.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lth_jax.landscape import lanczos
from lth_jax.landscape.exact import EXACT_LIMIT, eigenvalues
from lth_jax.landscape.operators import Operator, check_operator
from lth_jax.landscape.tridiagonal import Tridiagonal, eigh, hidden_share, ritz
from lth_jax.types import Key

EXACT_BELOW = 256
"""Up to this size `extremes` uses the dense matrix: as many products as a long Lanczos run."""

LONGER = 3.0
"""Length of the gradient relative to the random part in the start vector of a pilot.

A value above 1 saves a step; if the pilot misses a direction, further steps find it.
"""

BESIDE = 0.03
"""The random part of a start vector from a pilot."""

LOCK = 0.5
"""Fraction of the tolerance for locking Ritz vectors: later starts add their residuals."""

LOOK_BACK = 32
"""The maximum number of last steps that are dropped if they added a copy that has not converged."""

MISS = 1e-4
"""Upper bound of the probability that a count misses an eigenvalue."""


class Extremes(NamedTuple):
    """The extreme eigenvalues of a matrix, with error bounds.

    Attributes:
      largest: float64 `[k]`, descending.
      smallest: float64 `[smallest]`, ascending.
      largest_bounds: float64 `[k]`; an eigenvalue lies within this distance of the value.
      smallest_bounds: float64 `[smallest]`; likewise.
      size: rows of the matrix, the weights of the support.
      steps: Lanczos steps from the start vector; 0 for a dense matrix.
      rank: dimension of the start vector's Krylov space, at most `steps`; None for a dense matrix.
      converged: whether every bound is within the tolerance, and, for more than one value at an
        end, no other eigenvalue lies beyond the last by more than the tolerance: equal eigenvalues
        are listed with their multiplicity.
      counting: further Lanczos steps, from start vectors in the complement of the eigenvectors
        found.
    """

    largest: NDArray[np.float64]
    smallest: NDArray[np.float64]
    largest_bounds: NDArray[np.float64]
    smallest_bounds: NDArray[np.float64]
    size: int
    steps: int
    rank: int | None
    converged: bool
    counting: int = 0

    def __repr__(self) -> str:
        largest = _bounded(self.largest, self.largest_bounds)
        ends = f"largest {largest}, smallest {_bounded(self.smallest, self.smallest_bounds)}"
        return f"Extremes({ends}, size={self.size}, converged={self.converged})"

    @property
    def collapsed(self) -> bool:
        """Whether the Krylov space was exhausted: fewer distinct eigenvalues than steps."""
        return self.rank is not None and self.rank < self.steps


def _bounded(values: NDArray[np.float64], bounds: NDArray[np.float64]) -> str:
    """Each value with its bound, the first and the last of many.

    >>> _bounded(np.array([12.6589, 3.0]), np.array([2.4e-05, 0.0]))
    '12.66 ± 2e-05, 3 ± 0'
    """
    shown = [f"{x:.4g} ± {bound:.1g}" for x, bound in zip(values, bounds, strict=True)]
    if len(shown) > 4:
        shown = [*shown[:2], "…", shown[-1]]
    return ", ".join(shown) or "none"


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
    memory: int = lanczos.MEMORY,
    driver: lanczos.Driver | None = None,
) -> Extremes:
    """The `k` largest and `smallest` smallest eigenvalues, with error bounds.

    Lanczos runs until every bound is below `tolerance` times the spectral norm. If more than one
    value is requested, further start vectors count equal eigenvalues (see the module's docstring;
    van Dorsselaer, Hochstenbach & van der Vorst, 2000): with probability at most 1e-4, `converged`
    is True although an eigenvalue is missing. Matrices of at most `exact_below` rows are computed
    densely. `converged` is False if the steps did not suffice; the bounds hold in any case.

    The start vector is half random and half the operator's gradient, which saves some steps for the
    largest eigenvalues; a `pilot`, for example the same matrix for a sixteenth of the examples,
    saves one or two further products with `operator`.

    Args:
      operator: the matrix.
      key: key of the random vectors.
      k: number of largest eigenvalues.
      smallest: number of smallest eigenvalues; `k` by default.
      steps: maximal number of Lanczos steps from each start vector, at least the larger of `k` and
        `smallest`.
      tolerance: tolerance of the bounds, relative to the largest absolute eigenvalue found; with 0
        all `steps` are taken.
      pilot: an approximation of `operator` with cheaper products: a few steps with it give the
        start vector, to which a random part is added.
      exact_below: largest size for the dense matrix; 0 for never.
      memory: maximal bytes of the Lanczos basis, plus `k + smallest` eigenvectors if more than one
        is requested.
      driver: `lanczos.blocked`, `lanczos.iterate` or `lanczos.compiled`; `lanczos.driver` chooses
        when None.

    Raises:
      TypeError: `operator` is not an `Operator`, or `key` not a typed key.
      ValueError: `k` is not in [1, size] or `smallest` not in [0, size], `steps` is below one of
        them, `tolerance` is negative, a product is not finite, `pilot` has another size, or the
        basis of `steps` vectors exceeds `memory`.

    >>> from lth_jax.landscape import dense_hessian, hessian
    >>> loss = lambda w, x: 0.5 * jnp.mean(x) * jnp.sum(w**2 * jnp.array([1.0, 2.0, 5.0, 5.0]))
    >>> operator = hessian(loss, jnp.ones(4), [jnp.ones(1)])
    >>> found = extremes(operator, jax.random.key(0), k=2, exact_below=0)
    >>> found.largest.round(4).tolist(), found.smallest.round(4).tolist(), found.converged
    ([5.0, 5.0], [1.0, 2.0], True)
    >>> np.linalg.eigvalsh(dense_hessian(loss, jnp.ones(4), [jnp.ones(1)])).tolist()
    [1.0, 2.0, 5.0, 5.0]
    """
    check_operator(operator, key)
    if not tolerance >= 0:
        raise ValueError(f"`tolerance` must be at least 0, got {tolerance}.")
    if not 1 <= k <= operator.size:
        raise ValueError(f"`k` must lie in [1, {operator.size}], the support's size, got {k}.")
    wanted = (k, k if smallest is None else smallest)
    if not 0 <= wanted[1] <= operator.size:
        raise ValueError(f"`smallest` must lie in [0, {operator.size}], got {smallest}.")
    if pilot is not None and pilot.size != operator.size:
        raise ValueError(f"`pilot` must have {operator.size} rows, got {pilot.size}.")
    if operator.size <= min(exact_below, EXACT_LIMIT):
        return _dense_extremes(operator, wanted)
    rows = sum(wanted) if max(wanted) > 1 else 0
    steps = lanczos.allowed_steps(operator, steps, memory, rows)
    if steps < max(wanted):
        raise ValueError(
            f"`steps` must be at least `k` and `smallest`, that is {max(wanted)}, got {steps}."
        )
    run = driver or lanczos.driver(operator)

    drawn, fresh = jax.random.split(key)
    if pilot is None:
        start = _start(operator.gradient, drawn)
    else:
        start = _pilot_start(pilot, drawn, wanted)
    locked = _nothing(operator, rows)
    known, first = _search(run, operator, start, fresh, steps, locked, wanted, tolerance, pilot)
    settled, counting = known.worst <= tolerance, 0
    if rows and settled and first.found.steps < operator.size:
        locked, settled, counting = _counted(
            run, operator, key, steps, _lock(operator, locked, known, first), wanted, tolerance
        )
        ends = _ends(locked.values, locked.bounds, wanted)
    else:
        ends = _ends(known.values, known.bounds, wanted)
    found = first.found
    return Extremes(*ends, operator.size, found.steps, found.rank, settled, counting)


class _Locked(NamedTuple):
    """Locked eigenvalues with bounds and vectors: orthonormal rows, then rows of 0."""

    values: NDArray[np.float64]
    bounds: NDArray[np.float64]
    vectors: jax.Array | None


class _Known(NamedTuple):
    """Locked eigenvalues, and Ritz values of a start vector.

    Attributes:
      values: the locked ones, then the Ritz values.
      bounds: likewise.
      chosen: positions in `values` of the requested eigenvalues at both ends.
      held: number of locked values.
      share: logarithm of the largest squared component of the start vector along an eigenvector
        beyond the ends.
    """

    values: NDArray[np.float64]
    bounds: NDArray[np.float64]
    chosen: NDArray[np.intp]
    held: int
    share: float

    @property
    def new(self) -> NDArray[np.intp]:
        """The positions of the requested Ritz values."""
        return self.chosen[self.chosen >= self.held]

    @property
    def worst(self) -> float:
        """The largest bound of the requested Ritz values over the largest absolute value."""
        return _relative(self.values, self.bounds[self.new])


def _search(run, operator, start, key, steps, locked, wanted, tolerance, pilot=None):
    """Lanczos from one start vector, until the requested values have converged.

    Of many equal eigenvalues, rounding brings a copy into the Krylov space every few steps. Where
    the last one has not converged, the results are those of fewer steps that had converged.
    """

    def left(found: Tridiagonal) -> int:
        return _left(found, locked, operator.size, wanted, tolerance)

    check = lanczos.CHECK if pilot is None else lanczos.CHECK - 1
    krylov = run(operator, start, key, steps=steps, left=left, check=check, beside=locked.vectors)
    known = _merge(krylov.found, locked, wanted, tolerance)
    if max(wanted) == 1 or known.worst <= tolerance:
        return known, krylov
    last = krylov.found.steps
    for fewer in range(last - 1, max(last - LOOK_BACK, lanczos.CHECK), -1):
        part = krylov.found.first(fewer)
        if not left(part):
            return _merge(part, locked, wanted, tolerance), krylov._replace(found=part)
    return known, krylov


def _counted(run, operator, key, steps, locked, wanted, tolerance):
    """Restarts orthogonally to the locked vectors, until nothing is found beyond the ends.

    Returns `(locked, settled, steps)`.
    """
    total = 0
    for i in range(2, sum(wanted) + 3):  # 0 and 1 would be the keys that `split(key)` returns
        held = len(locked.values)
        drawn, fresh = jax.random.split(jax.random.fold_in(key, i))
        start = jax.random.normal(drawn, (operator.size,), operator.dtype)
        most = min(steps, operator.size - held)
        known, krylov = _search(run, operator, start, fresh, most, locked, wanted, tolerance)
        total += krylov.found.steps
        complete = held + krylov.found.steps == operator.size
        if not known.new.size:
            rare = known.share <= _rare(operator.size - held)
            return locked, bool(complete or rare), total
        locked = _lock(operator, locked, known, krylov)
        settled = _relative(locked.values, locked.bounds) <= tolerance
        if complete or not settled:
            return locked, settled, total
    return locked, False, total


def _merge(found: Tridiagonal, locked: _Locked, wanted: tuple[int, int], tolerance: float):
    """Merges locked values with the Ritz values of a start vector.

    A Ritz value replaces a locked one only if it lies beyond it by more than the tolerance.
    """
    more, held = ritz(found), len(locked.values)
    values = np.concatenate([locked.values, more.values])
    bounds = np.concatenate([locked.bounds, more.bounds])
    slack = max(tolerance * np.abs(values).max(), np.finfo(np.float64).tiny)
    favour = slack * (np.arange(len(values)) < held)
    k, smallest = wanted
    top = np.argsort(-values - favour, kind="stable")[:k]
    bottom = np.argsort(values - favour, kind="stable")[:smallest]
    shares = [-np.inf]
    if k > 1:
        shares.append(hidden_share(found, values[top].min() + slack))
    if smallest > 1:
        mirrored = found._replace(diagonal=-np.asarray(found.diagonal))
        shares.append(hidden_share(mirrored, slack - values[bottom].max()))
    return _Known(values, bounds, np.union1d(top, bottom), held, max(shares))


def _left(
    found: Tridiagonal, locked: _Locked, size: int, wanted: tuple[int, int], tolerance: float
) -> int:
    """The number of further steps, extrapolated from the last two checks; 0 when converged."""
    held = len(locked.values)
    missing = min(sum(wanted), size) - held - found.steps
    if missing > 0:
        return missing
    now = _merge(found, locked, wanted, tolerance)
    before = _merge(found.first(found.steps - 2), locked, wanted, tolerance)
    if not now.new.size:
        return _steps_to(_rare(size - held), before.share, now.share)
    goal = tolerance * (LOCK if max(wanted) > 1 else 1.0)
    with np.errstate(divide="ignore"):
        return _steps_to(*np.log([goal, before.worst, now.worst]))


def _steps_to(goal: float, before: float, now: float) -> int:
    """The number of steps until a decreasing number reaches a goal, extrapolated."""
    if now <= goal:
        return 0
    if not (np.isfinite([goal, before, now]).all() and now < before):
        return lanczos.CHECK
    return int(np.clip(np.ceil(2 * (now - goal) / (before - now)), 1, lanczos.BLOCK))


def _rare(dimensions: int) -> float:
    """Logarithm of the squared component below which a random unit vector rarely is."""
    return float(np.log(np.pi * MISS**2 / (2 * dimensions)))


def _relative(values: NDArray[np.float64], bounds: NDArray[np.float64]) -> float:
    worst, scale = bounds.max(initial=0.0), np.abs(values).max()
    return float(worst / scale) if scale else float(worst)


def _nothing(operator: Operator, rows: int) -> _Locked:
    none = np.zeros(0)
    # Zeros instead of None before anything is locked, so that all starts share one program.
    vectors = jnp.zeros((rows, operator.size), operator.dtype) if rows else None
    return _Locked(none, none, vectors)


def _lock(operator: Operator, locked: _Locked, known: _Known, krylov: lanczos.Krylov) -> _Locked:
    """The requested values and their vectors; others are dropped."""
    assert locked.vectors is not None
    held, new = known.held, known.new
    weights = np.zeros((len(locked.vectors), krylov.found.steps))
    weights[: len(new)] = eigh(krylov.found)[1].T[new - held]
    fresh = krylov.combine(weights)
    bounds = known.bounds.copy()
    if held:  # add the residuals of the locked vectors, which the bounds of T do not include
        rounding = krylov.found.steps * float(jnp.finfo(fresh.dtype).eps * krylov.found.scale)
        for row, place in enumerate(new):
            residual = _residual(operator(fresh[row]), fresh[row], known.values[place])
            bounds[place] = float(residual) + rounding
    rows = np.full(len(weights), -1)
    rows[: len(known.chosen)] = np.where(
        known.chosen < held, known.chosen, len(weights) + np.searchsorted(new, known.chosen)
    )
    vectors = _select(locked.vectors, fresh, rows)
    return _Locked(known.values[known.chosen], bounds[known.chosen], vectors)


@jax.jit
def _residual(product, v, value):
    return jnp.linalg.norm(product - value.astype(v.dtype) * v)


@jax.jit
def _select(first, second, rows):
    """Rows of two stacked matrices; zeros for −1."""
    taken = jnp.concatenate([first, second])[rows]
    return jnp.where(rows[:, None] >= 0, taken, jnp.zeros_like(taken))


def _dense_extremes(operator: Operator, wanted: tuple[int, int]) -> Extremes:
    values = eigenvalues(operator)
    error = operator.size * np.finfo(operator.dtype).eps * np.abs(values).max()
    ends = _ends(values, np.full(values.shape, error), wanted)
    return Extremes(*ends, operator.size, 0, None, True)


def _ends(values: Any, bounds: Any, wanted: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    order, (k, smallest) = np.argsort(values), wanted
    values, bounds = values[order], bounds[order]
    return values[::-1][:k], values[:smallest], bounds[::-1][:k], bounds[:smallest]


@jax.jit
def _start(gradient: jax.Array, key: Key, longer: float = 1.0) -> jax.Array:
    """A random vector plus the gradient scaled to `longer` times its length."""
    drawn = jax.random.normal(key, gradient.shape, gradient.dtype)
    length = jnp.linalg.norm(gradient)
    share = jnp.where(length > 0, longer * jnp.linalg.norm(drawn) / length, 0.0)
    return drawn + share.astype(drawn.dtype) * gradient


def _pilot_start(pilot: Operator, key: Key, wanted: tuple[int, int]) -> jax.Array:
    """The result of a few steps with a cheaper matrix, plus a part of their start vector."""
    first, fresh = jax.random.split(key)
    start, (largest, smallest) = _start(pilot.gradient, first, LONGER), wanted
    steps = min(lanczos.CHECK + largest + smallest - 2, pilot.size)
    found = lanczos.leading(pilot, start, fresh, steps=steps, largest=largest, smallest=smallest)
    return _with_random_part(found, start)


@jax.jit
def _with_random_part(found: jax.Array, start: jax.Array) -> jax.Array:
    return found + BESIDE * start / jnp.linalg.norm(start)
