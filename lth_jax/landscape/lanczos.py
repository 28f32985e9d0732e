"""Lanczos tridiagonalisation that is robust to exhausted Krylov spaces.

`A Q = Q T + r eᵀ` with an orthonormal basis, by two full passes of reorthogonalisation ("twice is
enough", Giraud et al., 2005). The Krylov space of a start vector has as many dimensions as distinct
eigenvalues occur in it. After layer collapse, or for a loss of low rank, it is soon exhausted; the
remainder is rounding noise, which naive versions normalise into spurious eigenvalues of any size.
Here a coupling below `BREAKDOWN` rounding errors of the largest product is dropped and recorded for
the bounds, and the iteration continues from a new random direction.
"""

from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lth_jax.landscape.numerics import dot
from lth_jax.landscape.tridiagonal import Tridiagonal, eigh
from lth_jax.types import Key

BREAKDOWN = 84
"""A coupling of at most this many rounding errors of the largest `‖A q‖` is noise.

This is 1e-5 of it in float32, 2e-14 in float64.
"""

BLOCK, EARLY = 16, 4
"""The smallest number of basis rows per array, and that of the first blocks in `blocked`.

`blocked` often stops early, and each step also passes over unwritten rows of its block.
"""

ROOM = 2**22
"""An array holds more than `BLOCK` rows only up to this size in bytes, which fits in the cache."""

CHECK = 5
"""The number of steps before the first check of the host drivers."""

LONG = 1000
"""A product of more operations than this is not compiled together with the loop."""

MEMORY = 2 * 1024**3
"""The default memory limit of a basis in bytes."""

Matvec = Callable[[jax.Array], jax.Array]
"""`v -> A v` for a symmetric matrix `A` and vectors `[size]`."""

Driver = Callable[..., "Krylov"]
"""`(matvec, start, key, *, steps, left, check, beside) -> Krylov`: runs the iteration."""

Left = Callable[[Tridiagonal], int]
"""`found -> n`: stop if n is 0, else check again n steps later."""


class Krylov(NamedTuple):
    """The result of a driver.

    Attributes:
      found: the tridiagonal matrix `T`, as NumPy arrays.
      basis: the orthonormal basis in blocks of rows; rows beyond `found.steps` are 0.
    """

    found: Tridiagonal
    basis: tuple[jax.Array, ...]

    def combine(self, weights: NDArray[np.float64]) -> jax.Array:
        """`weights @ basis`, `[rows, size]`: Ritz vectors, if `weights` has eigenvectors of `T`.

        Args:
          weights: `[rows, steps]`.
        """
        first, like = 0, self.basis[0]
        total = jnp.zeros((len(weights), like.shape[1]), like.dtype)
        for block in self.basis:
            part = weights[:, first : first + len(block)]
            missing = len(block) - part.shape[1]
            part = np.pad(part, ((0, 0), (0, missing))).astype(block.dtype)
            total = _add_rows(total, part, block)
            first += len(block)
        return total


def basis_bytes(size: int, steps: int, dtype: Any = jnp.float32) -> int:
    """The memory of a basis of `steps` vectors `[size]`, in bytes.

    >>> basis_bytes(25_000_000, 64)
    6400000000
    """
    return size * steps * jnp.dtype(dtype).itemsize


def check_steps(steps: int, size: int, *, dtype: Any, memory: int, beside: int = 0) -> None:
    """Raises `ValueError` unless `steps` fit the matrix and their basis fits `memory` bytes.

    `beside` is the number of further vectors in memory.
    """
    if not 1 <= steps <= size:
        raise ValueError(f"`steps` must lie in [1, {size}], the size of the matrix, got {steps}.")
    needed = basis_bytes(size, steps + beside, dtype)
    if needed > memory:
        most = max(memory // basis_bytes(size, 1, dtype) - beside, 0)
        others = f" beside {beside} eigenvectors" if beside else ""
        raise ValueError(
            f"`steps` {steps} need a basis of {needed} bytes{others}, but `memory` allows "
            f"{memory}: at most {most} steps of {size} weights."
        )


def allowed_steps(operator: Any, steps: int, memory: int, beside: int = 0) -> int:
    """`steps` limited to the size of the operator, and checked by `check_steps`."""
    steps = min(steps, operator.size)
    check_steps(steps, operator.size, dtype=operator.dtype, memory=memory, beside=beside)
    return steps


def iterate(
    matvec: Matvec,
    start: jax.Array,
    key: Key,
    *,
    steps: int,
    left: Left | None = None,
    check: int = CHECK,
    beside: jax.Array | None = None,
) -> Krylov:
    """Lanczos as a host loop, one product at a time; can stop early.

    On a CPU this is best for products that XLA runs slower inside loops, such as its convolutions,
    and for those that take long to compile.

    Args:
      matvec: the product, compiled by the caller; an `Operator` is.
      start: `[size]`, not zero; normalised here.
      key: key of the new directions after a breakdown.
      steps: maximal number of steps, 1 to `size`.
      left: called after `check` steps, and again after the number of steps that it returns; not
        called by default.
      check: number of steps before the first check, at least 1.
      beside: `[rows, size]`, orthonormal or 0: the iteration is that of `P A P` with `P` the
        projection orthogonal to these rows.

    >>> from lth_jax.landscape.tridiagonal import ritz
    >>> matrix = jnp.diag(jnp.array([1.0, 2.0, 5.0]))
    >>> found = iterate(lambda v: matrix @ v, jnp.ones(3), jax.random.key(0), steps=3)
    >>> ritz(found.found).values.round(4).tolist()
    [1.0, 2.0, 5.0]
    """
    return _driven(_one_by_one, matvec, start, key, steps, left, check, beside)


def blocked(
    matvec: Matvec,
    start: jax.Array,
    key: Key,
    *,
    steps: int,
    left: Left | None = None,
    check: int = CHECK,
    beside: jax.Array | None = None,
) -> Krylov:
    """Lanczos as a host loop over compiled loops of a few steps; can stop early.

    Inside a loop XLA computes loop invariants once, such as the patches of a convolution's inputs.
    One program serves any number of finished basis blocks, which are arguments; missing blocks are
    skipped.

    Args:
      matvec: a pytree that can be called, such as an `Operator`; those of equal shapes share one
        program.
      start: as in `iterate`.
      key: as in `iterate`.
      steps: as in `iterate`.
      left: as in `iterate`.
      check: as in `iterate`.
      beside: as in `iterate`.

    >>> from lth_jax.landscape.tridiagonal import ritz
    >>> matrix = jnp.diag(jnp.array([1.0, 2.0, 5.0]))
    >>> multiply = jax.tree_util.Partial(jnp.matmul, matrix)
    >>> found = blocked(multiply, jnp.ones(3), jax.random.key(0), steps=3)
    >>> ritz(found.found).values.round(4).tolist()
    [1.0, 2.0, 5.0]
    """
    return _driven(_together, matvec, start, key, steps, left, check, beside)


def leading(
    matvec: Any, start: jax.Array, key: Key, *, steps: int, largest: int = 1, smallest: int = 0
) -> jax.Array:
    """The sum of the extreme Ritz vectors after a few steps, `[size]`.

    It is used as the start vector for a similar matrix with more expensive products.

    Args:
      matvec: as in `blocked`.
      start: as in `iterate`.
      key: as in `iterate`.
      steps: number of steps, 1 to `size`.
      largest: number of Ritz vectors of largest values, at most `steps`.
      smallest: number of Ritz vectors of smallest values, at most `steps`.

    Raises:
      NotFiniteError: if a product is not finite.

    >>> multiply = jax.tree_util.Partial(jnp.multiply, jnp.array([1.0, 2.0, 5.0]))
    >>> found = leading(multiply, jnp.ones(3), jax.random.key(0), steps=3)
    >>> abs(found).round(4).tolist()
    [0.0, 0.0, 1.0]
    """
    krylov = driver(matvec, start)(matvec, start, key, steps=steps)
    _, vectors = eigh(krylov.found)
    ends = vectors[:, steps - largest :].sum(axis=1) + vectors[:, :smallest].sum(axis=1)
    return krylov.combine(ends[None])[0]


def scan(matvec: Matvec, start: jax.Array, key: Key, *, steps: int) -> Tridiagonal:
    """Lanczos as one traced loop of a fixed number of steps, for `jax.jit` and `jax.vmap`.

    The same iteration as `iterate` with the basis in one array; for GPUs and TPUs, where each
    dispatch from the host is expensive.

    Args:
      matvec: the product, traced once.
      start: `[size]`, not zero; normalised here.
      key: key of the new directions after a breakdown.
      steps: number of steps, 1 to `size`.

    >>> from lth_jax.landscape.tridiagonal import ritz
    >>> matrix = jnp.diag(jnp.array([1.0, 2.0, 5.0]))
    >>> found = scan(lambda v: matrix @ v, jnp.ones(3), jax.random.key(0), steps=3)
    >>> ritz(found).values.round(4).tolist()
    [1.0, 2.0, 5.0]
    """
    return _scan(matvec, start, key, steps, None).found


def compiled(
    matvec: Matvec,
    start: jax.Array,
    key: Key,
    *,
    steps: int,
    left: Left | None = None,
    check: int = CHECK,
    beside: jax.Array | None = None,
) -> Krylov:
    """`scan`, compiled, as a driver: one dispatch for all steps, so `left` is never called.

    Args:
      matvec: as in `blocked`.
      start: as in `scan`.
      key: as in `scan`.
      steps: as in `scan`.
      left: not used.
      check: not used.
      beside: as in `iterate`.
    """
    del left, check
    found, basis = _compiled_scan(matvec, start, key, steps, beside)
    return Krylov(jax.device_get(found), basis)


def driver(matvec: Any, like: Any = None) -> Driver:
    """Chooses the driver for a product on JAX's default backend.

    `compiled` on accelerators. On a CPU `blocked`, or `iterate` for products with one of XLA's
    convolutions (tens of times slower inside loops) or of more than `LONG` operations.

    Args:
      matvec: as in `blocked`.
      like: a vector, or its shape and dtype; by default, of an operator's `size` and `dtype`.

    >>> driver(jax.tree_util.Partial(jnp.multiply, 2.0), jnp.ones(3)) is blocked
    True
    """
    if jax.default_backend() != "cpu":
        return compiled
    if like is None:
        like = jax.ShapeDtypeStruct((matvec.size,), matvec.dtype)
    used = _primitives(_product.trace(matvec, like).jaxpr.jaxpr)
    alone = used["conv_general_dilated"] or used.total() > LONG
    return iterate if alone else blocked


@jax.jit
def _product(matvec, v):
    """Traced once for all matrices of equal shapes."""
    return matvec(v)


@lru_cache(maxsize=64)
def _primitives(jaxpr: Any) -> Counter[str]:
    """The number of occurrences of each primitive, including nested ones."""
    found = Counter(equation.primitive.name for equation in jaxpr.eqns)
    for equation in jaxpr.eqns:
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found += _primitives(inner)
    return found


def _driven(some_steps, matvec, start, key, steps, left, check, beside):
    """The host loop: runs steps of a block until the next check."""
    q, scale = _first(beside, start), jnp.zeros((), start.dtype)
    least = BLOCK if left is None else EARLY
    last = _empty(steps, q, least)
    others = -(-steps // len(last)) - 1
    full: list[jax.Array] = []
    rows: list[Any] = []
    done, target = 0, steps if left is None else min(check, steps)
    while done < steps:
        first = done % len(last)
        count = min(target - done, len(last) - first)
        fresh = jax.random.fold_in(key, done)
        last, q, scale, table = some_steps(
            matvec, beside, full, others, last, first, count, q, scale, fresh
        )
        rows += table
        done += count
        if left is not None and done == target < steps:
            more = left(_gather(rows, scale))
            if not more:
                break
            target = min(target + more, steps)
        if first + count == len(last) and done < steps:
            full.append(last)
            last = _empty(steps, q, least)
    return Krylov(_gather(rows, scale), (*full, last))


def _one_by_one(matvec, beside, full, others, last, first, count, q, scale, key):
    """Steps dispatched one after the other; the rows of `T` come last."""
    del others
    rows = []
    for i in range(first, first + count):
        before = (beside, tuple(full), None)
        last, rest, scale, row, broken = _advance(*before, last, i, q, matvec(q), scale)
        q = _restart(*before, last, jax.random.fold_in(key, i), q) if broken else rest
        rows.append(row)
    return last, q, scale, rows


def _together(matvec, beside, full, others, last, first, count, q, scale, key):
    """Steps in one compiled loop, with `others` blocks as arguments."""
    missing = others - len(full)
    blocks = [*full, *[full[-1] if full else jnp.zeros_like(last)] * missing]
    last, q, scale, table = _some_steps(
        matvec, beside, blocks, len(full), last, first, count, q, scale, key
    )
    return last, q, scale, list(np.asarray(table)[first : first + count])


def _scan(matvec, start, key, steps, beside):
    basis, scale = jnp.zeros((steps, start.size), start.dtype), jnp.zeros((), start.dtype)
    q = _first(beside, start)
    basis, _, scale, table = _loop(matvec, beside, (), None, basis, 0, steps, q, scale, key)
    diagonal, coupling, dropped = table.T
    return Krylov(Tridiagonal(diagonal, coupling, dropped, scale), (basis,))


_compiled_scan = jax.jit(_scan, static_argnums=3)


def _loop(matvec, beside, full, used, last, first, count, q, scale, key):
    """Traced steps, written to the rows of `last` from `first` on, and to those of a table."""

    def step(i, carry):
        last, q, scale, table = carry
        before = (beside, full, used)
        last, rest, scale, row, broken = _advance(*before, last, i, q, matvec(q), scale)
        fresh = jax.random.fold_in(key, i)
        q = jax.lax.cond(broken, lambda: _restart(*before, last, fresh, q), lambda: rest)
        return last, q, scale, table.at[i].set(row)

    table = jnp.zeros((len(last), 3), q.dtype)
    return jax.lax.fori_loop(first, first + count, step, (last, q, scale, table))


_some_steps = jax.jit(_loop, donate_argnums=4)


@partial(jax.jit, donate_argnums=3)
def _advance(beside, full, used, last, i, q, product, scale):
    """One step, from `q` and its product to the next vector and a row of `T`.

    `q` is written to row `i` of `last`. The next vector is the normalised orthogonal part of the
    product, unless it is noise (`broken`). The row is `(diagonal, coupling, dropped)`.
    """
    last = last.at[i].set(q)
    scale = jnp.maximum(scale, jnp.linalg.norm(product))
    rest = _orthogonalize(beside, full, used, last, product)
    length = jnp.linalg.norm(rest)
    broken = length <= BREAKDOWN * jnp.finfo(length.dtype).eps * scale
    zero = jnp.zeros_like(length)
    row = (dot(q, product), jnp.where(broken, zero, length), jnp.where(broken, length, zero))
    return last, _normalize(rest), scale, jnp.stack(row), broken


@jax.jit
def _restart(beside, full, used, last, key, like):
    """A random direction orthogonal to the basis."""
    fresh = jax.random.normal(key, like.shape, like.dtype)
    return _normalize(_orthogonalize(beside, full, used, last, fresh))


@jax.jit
def _first(beside, start):
    """The start vector, orthogonal to `beside` and normalised."""
    if beside is None:
        return _normalize(start)
    return _normalize(_orthogonalize(None, (), None, beside, start))


def _orthogonalize(beside, full, used, last, w):
    """The part of `w` orthogonal to the basis, by two passes for accuracy.

    The basis consists of the first `used` of the `full` blocks (or all), and `last`, whose
    unwritten rows are zero; rows of `beside` are included, if given.
    """
    for _ in range(2):
        if beside is not None:
            w = _without(beside, w)
        for j, block in enumerate(full):
            if used is None:
                w = _without(block, w)
            else:
                w = jax.lax.cond(j < used, _without, lambda _, same: same, block, w)
        w = _without(last, w)
    return w


def _without(block, w):
    return w - dot(dot(block, w), block)


@jax.jit
def _add_rows(total, weights, block):
    return total + dot(weights, block)


@jax.jit
def _normalize(w):
    # At the last step of a full basis the orthogonal complement is empty.
    return w / jnp.maximum(jnp.linalg.norm(w), jnp.finfo(w.dtype).tiny)


def _empty(steps, like, least=BLOCK):
    """An empty block; all blocks for `steps` have the same height."""
    most = max(least, ROOM // basis_bytes(like.size, 1, like.dtype))
    blocks = -(-steps // most)
    return jnp.zeros((-(-steps // blocks), like.size), like.dtype)


def _gather(rows, scale):
    diagonal, coupling, dropped = np.stack(jax.device_get(rows)).T
    return Tridiagonal(diagonal, coupling, dropped, np.asarray(scale))
