"""Lanczos tridiagonalisation that stays right when the Krylov space is exhausted.

`A Q = Q T + r eᵀ` with orthonormal rows of the basis kept so by two full passes of
reorthogonalisation ("twice is enough", Giraud et al., 2005). A start vector reaches only as many
dimensions as it has distinct eigenvalues in it: a layer that has collapsed, or a loss of low rank,
uses them up, and what is left then is rounding noise, which naive versions normalise into false
eigenvalues of any size. Here a coupling below `BREAKDOWN` of the largest product seen is dropped,
its size remembered for the bounds, and the iteration goes on from a fresh direction.
"""

from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.landscape.tridiagonal import Tridiagonal, eigh
from lth_jax.types import Key

BREAKDOWN = 1e-5
"""A coupling at most this fraction of the largest `‖A q‖` is rounding noise, not a direction."""

BLOCK, EARLY = 16, 4
"""So many rows of the basis at the least stand in one array, and where `blocked` may stop early:
after few steps mostly, of which each passes over the rows of its block not yet written too."""

ROOM = 2**22
"""More rows stand in one array as long as it is no larger than this, in bytes: it stays in the
cache meanwhile."""

CHECK = 5
"""The drivers on the host ask for the first time after so many steps."""

LONG = 1000
"""A product of more operations than this is not compiled again with the loop around it."""

Matvec = Callable[[jax.Array], jax.Array]
"""`v -> A v` for a symmetric matrix `A` and vectors `[size]`."""

Driver = Callable[..., Tridiagonal]
"""`(matvec, start, key, *, steps, left, check) -> Tridiagonal`: how the iteration is run."""

Left = Callable[[Tridiagonal], int]
"""`found -> n`: stop if n is 0, else ask again n steps later."""


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
    left: Left | None = None,
    check: int = CHECK,
) -> Tridiagonal:
    """Lanczos as a loop on the host, one product at a time; it may stop early.

    On a CPU this is the way for products that XLA runs slower inside loops than outside, as it does
    its own convolutions, and for those that take long to compile.

    Args:
      matvec: the product, compiled by the caller; an `Operator` is.
      start: `[size]`, not zero; normalised here.
      key: for fresh directions after a breakdown.
      steps: at most so many, 1 to `size`.
      left: asked after `check` steps, and again when it says; never by default.
      check: at least 1.

    Returns:
      Arrays of numpy.

    >>> from lth_jax.landscape.tridiagonal import ritz
    >>> matrix = jnp.diag(jnp.array([1.0, 2.0, 5.0]))
    >>> found = iterate(lambda v: matrix @ v, jnp.ones(3), jax.random.key(0), steps=3)
    >>> ritz(found).values.round(4).tolist()
    [1.0, 2.0, 5.0]
    """
    return _driven(_one_by_one, matvec, start, key, steps, left, check)


def blocked(
    matvec: Matvec,
    start: jax.Array,
    key: Key,
    *,
    steps: int,
    left: Left | None = None,
    check: int = CHECK,
) -> Tridiagonal:
    """Lanczos as a loop on the host over compiled loops of a few steps; it may stop early.

    Inside a loop XLA computes once what does not depend on the vector, such as the patches of a
    convolution's inputs. Finished blocks of the basis are arguments of one program for any number
    of them, and those not yet there are skipped.

    Args:
      matvec: a pytree that can be called, such as an `Operator`; those of equal shapes share one
        program.
      start: as in `iterate`.
      key: as in `iterate`.
      steps: as in `iterate`.
      left: as in `iterate`.
      check: as in `iterate`.

    Returns:
      Arrays of numpy.

    >>> from lth_jax.landscape.tridiagonal import ritz
    >>> matrix = jnp.diag(jnp.array([1.0, 2.0, 5.0]))
    >>> multiply = jax.tree_util.Partial(jnp.matmul, matrix)
    >>> found = blocked(multiply, jnp.ones(3), jax.random.key(0), steps=3)
    >>> ritz(found).values.round(4).tolist()
    [1.0, 2.0, 5.0]
    """
    return _driven(_together, matvec, start, key, steps, left, check)


def leading(
    matvec: Any, start: jax.Array, key: Key, *, steps: int, largest: int = 1, smallest: int = 0
) -> jax.Array:
    """The sum of the Ritz vectors at the ends after a few steps, `[size]`.

    A start for a matrix near this one that costs more to multiply by.

    Args:
      matvec: as in `blocked`.
      start: as in `iterate`.
      key: as in `iterate`.
      steps: how many, 1 to `size`; their basis stands in one array.
      largest: how many Ritz vectors of the upper end, at most `steps`.
      smallest: how many of the lower end, at most `steps`.

    Raises:
      NotFiniteError: if a product was not.

    >>> multiply = jax.tree_util.Partial(jnp.multiply, jnp.array([1.0, 2.0, 5.0]))
    >>> found = leading(multiply, jnp.ones(3), jax.random.key(0), steps=3)
    >>> abs(found).round(4).tolist()
    [0.0, 0.0, 1.0]
    """
    q, scale = _normalize(start), jnp.zeros((), start.dtype)
    some = _one_by_one if driver(matvec, q) is iterate else _together
    basis = jnp.zeros((steps, q.size), q.dtype)
    basis, _, scale, rows = some(matvec, [], 0, basis, 0, steps, q, scale, key)
    _, vectors = eigh(_gather(rows, scale))
    ends = vectors[:, steps - largest :].sum(axis=1) + vectors[:, :smallest].sum(axis=1)
    return _combined(ends.astype(basis.dtype), basis)


def scan(matvec: Matvec, start: jax.Array, key: Key, *, steps: int) -> Tridiagonal:
    """Lanczos as one traced loop of a fixed number of steps, for `jax.jit` and `jax.vmap`.

    The same iteration as `iterate` with the basis in one array; what a GPU or TPU wants, where
    each dispatch from the host costs.

    Args:
      matvec: the product, traced once.
      start: `[size]`, not zero; normalised here.
      key: for fresh directions after a breakdown.
      steps: how many, 1 to `size`.

    >>> from lth_jax.landscape.tridiagonal import ritz
    >>> matrix = jnp.diag(jnp.array([1.0, 2.0, 5.0]))
    >>> found = scan(lambda v: matrix @ v, jnp.ones(3), jax.random.key(0), steps=3)
    >>> ritz(found).values.round(4).tolist()
    [1.0, 2.0, 5.0]
    """
    basis, scale = jnp.zeros((steps, start.size), start.dtype), jnp.zeros((), start.dtype)
    _, _, scale, table = _loop(matvec, (), None, basis, 0, steps, _normalize(start), scale, key)
    diagonal, coupling, dropped = table.T
    return Tridiagonal(diagonal, coupling, dropped, scale)


def compiled(
    matvec: Matvec,
    start: jax.Array,
    key: Key,
    *,
    steps: int,
    left: Left | None = None,
    check: int = CHECK,
) -> Tridiagonal:
    """`scan`, compiled, as a driver: one dispatch for all steps, so `left` is never asked.

    Args:
      matvec: as in `blocked`.
      start: as in `scan`.
      key: as in `scan`.
      steps: as in `scan`.
      left: not used.
      check: not used.
    """
    del left, check
    return jax.device_get(_compiled_scan(matvec, start, key, steps))


def driver(matvec: Any, like: Any) -> Driver:
    """The driver that suits a product and JAX's default backend.

    `compiled` on accelerators. On a CPU `blocked`, but `iterate` for products with one of XLA's own
    convolutions, tens of times slower inside its loops, or of more than `LONG` operations.

    Args:
      matvec: as in `blocked`.
      like: a vector, or its shape and dtype.

    >>> driver(jax.tree_util.Partial(jnp.multiply, 2.0), jnp.ones(3)) is blocked
    True
    """
    if jax.default_backend() != "cpu":
        return compiled
    used = _primitives(_product.trace(matvec, like).jaxpr.jaxpr)
    alone = used["conv_general_dilated"] or used.total() > LONG
    return iterate if alone else blocked


@jax.jit
def _product(matvec, v):
    """Traced once for all matrices of equal shapes."""
    return matvec(v)


@lru_cache(maxsize=64)
def _primitives(jaxpr: Any) -> Counter[str]:
    """How often each primitive occurs, inside of others too."""
    found = Counter(equation.primitive.name for equation in jaxpr.eqns)
    for equation in jaxpr.eqns:
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found += _primitives(inner)
    return found


def _driven(some_steps, matvec, start, key, steps, left, check):
    """The loop on the host: so many steps of a block at a time as may go unasked."""
    q, scale = _normalize(start), jnp.zeros((), start.dtype)
    least = BLOCK if left is None else EARLY
    last = _empty(steps, q, least)
    others = -(-steps // len(last)) - 1
    full: list[jax.Array] = []
    rows: list[Any] = []
    done, ask = 0, steps if left is None else min(check, steps)
    while done < steps:
        first = done % len(last)
        count = min(ask - done, len(last) - first)
        fresh = jax.random.fold_in(key, done)
        last, q, scale, table = some_steps(
            matvec, full, others, last, first, count, q, scale, fresh
        )
        rows += table
        done += count
        if left is not None and done == ask < steps:
            more = left(_gather(rows, scale))
            if not more:
                break
            ask = min(ask + more, steps)
        if first + count == len(last) and done < steps:
            full.append(last)
            last = _empty(steps, q, least)
    return _gather(rows, scale)


def _one_by_one(matvec, full, others, last, first, count, q, scale, key):
    """Steps dispatched one after the other; the rows of `T` come last."""
    del others
    rows = []
    for i in range(first, first + count):
        last, rest, scale, row, broken = _advance(tuple(full), None, last, i, q, matvec(q), scale)
        q = _restart(tuple(full), None, last, jax.random.fold_in(key, i), q) if broken else rest
        rows.append(row)
    return last, q, scale, rows


def _together(matvec, full, others, last, first, count, q, scale, key):
    """Steps in one compiled loop, which is given as many blocks as there will be `others`."""
    missing = others - len(full)
    blocks = [*full, *[full[-1] if full else jnp.zeros_like(last)] * missing]
    last, q, scale, table = _some_steps(
        matvec, blocks, len(full), last, first, count, q, scale, key
    )
    return last, q, scale, list(np.asarray(table)[first : first + count])


@partial(jax.jit, static_argnums=3)
def _compiled_scan(matvec, start, key, steps):
    return scan(matvec, start, key, steps=steps)


def _loop(matvec, full, used, last, first, count, q, scale, key):
    """Traced steps, written to the rows of `last` from `first` on, and to those of a table."""

    def step(i, carry):
        last, q, scale, table = carry
        last, rest, scale, row, broken = _advance(full, used, last, i, q, matvec(q), scale)
        fresh = jax.random.fold_in(key, i)
        q = jax.lax.cond(broken, lambda: _restart(full, used, last, fresh, q), lambda: rest)
        return last, q, scale, table.at[i].set(row)

    table = jnp.zeros((len(last), 3), q.dtype)
    return jax.lax.fori_loop(first, first + count, step, (last, q, scale, table))


_some_steps = jax.jit(_loop, donate_argnums=3)


@partial(jax.jit, donate_argnums=2)
def _advance(full, used, last, i, q, product, scale):
    """One step, from `q` and its product to the next vector and a row of `T`.

    `q` joins the basis at row `i` of `last`. What the basis leaves of the product comes next,
    normalised, unless it is noise: `broken`. The row is `(diagonal, coupling, dropped)`.
    """
    last = last.at[i].set(q)
    scale = jnp.maximum(scale, jnp.linalg.norm(product))
    rest = _orthogonalize(full, used, last, product)
    length = jnp.linalg.norm(rest)
    broken = length <= BREAKDOWN * scale
    zero = jnp.zeros_like(length)
    row = (q @ product, jnp.where(broken, zero, length), jnp.where(broken, length, zero))
    return last, _normalize(rest), scale, jnp.stack(row), broken


@jax.jit
def _restart(full, used, last, key, like):
    """A random direction orthogonal to the basis."""
    fresh = jax.random.normal(key, like.shape, like.dtype)
    return _normalize(_orthogonalize(full, used, last, fresh))


def _orthogonalize(full, used, last, w):
    """`w` without its part in the basis; two passes, since one leaves rounding errors of its own.

    The basis is the first `used` of the `full` blocks, or all, and `last`, whose rows not yet
    written are zero and take nothing away.
    """
    for _ in range(2):
        for j, block in enumerate(full):
            if used is None:
                w = _without(block, w)
            else:
                w = jax.lax.cond(j < used, _without, lambda _, same: same, block, w)
        w = _without(last, w)
    return w


def _without(block, w):
    return w - (block @ w) @ block


@jax.jit
def _combined(weights, basis):
    return weights @ basis


@jax.jit
def _normalize(w):
    # At the last step of a full basis nothing is left to be orthogonal to.
    return w / jnp.maximum(jnp.linalg.norm(w), jnp.finfo(w.dtype).tiny)


def _empty(steps, like, least=BLOCK):
    """An unwritten block: of as many as `steps` need, all of one height."""
    most = max(least, ROOM // basis_bytes(like.size, 1, like.dtype))
    blocks = -(-steps // most)
    return jnp.zeros((-(-steps // blocks), like.size), like.dtype)


def _gather(rows, scale):
    diagonal, coupling, dropped = np.stack(jax.device_get(rows)).T
    return Tridiagonal(diagonal, coupling, dropped, np.asarray(scale))
