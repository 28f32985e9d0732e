"""Accuracy of curvature where the exact result is known, with unguarded alternatives.

Each case has a number known in closed form, or from `numpy.linalg.eigvalsh` in float64. The
alternatives are a plain Lanczos loop and, if installed, matfree.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.landscape import Operator, eigenvalues, extremes, hessian, step_sizes

KEY = jax.random.key(0)


class Known(NamedTuple):
    """A case: the known number, ours, those of others, and the tolerance."""

    case: str
    known: float
    ours: float
    others: dict[str, float]
    tolerance: float


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def regression(w: Any, batch: Any) -> jax.Array:
    return 0.5 * jnp.mean((batch[0] @ w - batch[1]) ** 2)


def masked_regression() -> Iterator[Known]:
    """The Hessian on a mask is the principal submatrix, and interlaces the whole."""
    x, mask = draw(0, 60, 30), draw(1, 30) > 0
    batches = [(x[:40], draw(2, 40)), (x[40:], draw(3, 20))]
    exact = np.linalg.eigvalsh((x.T.astype(np.float64) @ x / 60)[np.ix_(mask, mask)])
    w = np.zeros(30, np.float32)
    found = extremes(hessian(regression, w, batches, mask=mask), KEY, exact_below=0)
    whole = extremes(hessian(regression, w, batches), KEY, exact_below=0)
    yield Known("masked regression, unequal batches: λmax", exact[-1], found.largest[0], {}, 1e-3)
    yield Known("masked regression: λmin", exact[0], found.smallest[0], {}, 1e-3)
    inside = float(found.largest[0] <= whole.largest[0] and found.smallest[0] >= whole.smallest[0])
    yield Known("masked regression interlaces the whole", 1.0, inside, {}, 0.0)


def deep_linear() -> Iterator[Known]:
    """`σ_i(W1)² + σ_j(W2)²` for whitened inputs without a residual."""
    w1, w2 = draw(4, 4, 6), draw(5, 3, 4)
    x = (np.linalg.qr(draw(6, 40, 6))[0] * np.sqrt(40)).astype(np.float32)

    def loss(p: Any, batch: Any) -> jax.Array:
        out = batch[0] @ p["a"].T @ p["b"].T
        return 0.5 * jnp.mean(jnp.sum((out - batch[1]) ** 2, axis=1))

    found = eigenvalues(hessian(loss, {"a": w1, "b": w2}, [(x, x @ w1.T @ w2.T)]))
    inputs, outputs = np.linalg.eigvalsh(w1.T @ w1), np.linalg.eigvalsh(w2 @ w2.T)
    exact = np.sort((inputs[:, None] + outputs).ravel())
    worst = np.abs(found[-18:] - exact).max() / exact.max()
    yield Known("deep linear net: worst eigenvalue, relative", 0.0, worst, {}, 1e-4)


def euler() -> Iterator[Known]:
    """`H θ = (L − 1) ∇f` for a masked ReLU net of L layers without biases, f its mean output."""
    weights = [draw(10 + i, *shape) for i, shape in enumerate(pairwise([6, 8, 8, 4]))]
    mask = [draw(20 + i, *w.shape) > -0.3 for i, w in enumerate(weights)]
    ticket = [w * m for w, m in zip(weights, mask, strict=True)]
    x = draw(30, 11, 6)

    def mean_output(weights: Any, x: jax.Array) -> jax.Array:
        for w in weights[:-1]:
            x = jax.nn.relu(x @ w)
        return jnp.mean(x @ weights[-1])

    operator = hessian(mean_output, ticket, [x[:4], x[4:]], mask=mask)
    gradient = operator.contract(jax.grad(mean_output)(ticket, x))
    product = operator(operator.contract(ticket))
    ratio = float(product @ gradient / (gradient @ gradient))
    yield Known("masked ReLU net of 3 layers: Hθ over ∇f", 2.0, ratio, {}, 1e-4)


def rank_ten() -> Iterator[Known]:
    """A Hessian of rank 10 for 100 weights, as after layer collapse, with range [0, 449]."""
    curvatures = np.concatenate([np.linspace(20, 449, 10), np.zeros(90)]).astype(np.float32)

    def quadratic(w: Any, batch: Any) -> jax.Array:
        return 0.5 * jnp.mean(batch) * jnp.sum(curvatures * w**2)

    operator = hessian(quadratic, np.ones(100, np.float32), [np.ones(1, np.float32)])
    for steps in (32, 64):
        ours = extremes(operator, KEY, steps=steps, tolerance=0.0, exact_below=0)
        others = {name: way(operator, steps) for name, way in unguarded().items()}
        for end, known, mine in (("λmax", 449.0, ours.largest[0]), ("λmin", 0.0, ours.smallest[0])):
            theirs = {name: found[0 if end == "λmin" else -1] for name, found in others.items()}
            yield Known(f"rank 10, {steps} steps: {end}", known, mine, theirs, 1e-2)


def unguarded() -> dict[str, Callable[[Operator, int], np.ndarray]]:
    """`(operator, steps) -> Ritz values`, without a guard against an exhausted Krylov space."""

    def plain(operator: Operator, steps: int) -> np.ndarray:
        q, before, coupling = jax.random.normal(KEY, (operator.size,)), 0.0, 0.0
        q = q / jnp.linalg.norm(q)
        diagonal, couplings = [], []
        for _ in range(steps):
            w = operator(q) - coupling * before
            diagonal.append(float(q @ w))
            w = w - diagonal[-1] * q
            coupling = float(jnp.linalg.norm(w))
            couplings.append(coupling)
            before, q = q, w / coupling
        return _ritz(np.array(diagonal), np.array(couplings))

    def by_matfree(operator: Operator, steps: int) -> np.ndarray:
        from matfree import decomp

        start = jax.random.normal(KEY, (operator.size,))
        matrix = decomp.tridiag_sym(steps, reortho="full")(operator, start).J_small
        return np.linalg.eigvalsh(np.nan_to_num(np.asarray(matrix, np.float64)))

    ways: dict[str, Callable[[Operator, int], np.ndarray]] = {"plain Lanczos": plain}
    try:
        import matfree  # noqa: F401
    except ImportError:
        return ways
    return ways | {"matfree": by_matfree}


def _ritz(diagonal: np.ndarray, couplings: np.ndarray) -> np.ndarray:
    matrix = np.diag(diagonal) + np.diag(couplings[:-1], 1) + np.diag(couplings[:-1], -1)
    return np.linalg.eigvalsh(matrix)


def nothing_there() -> Iterator[Known]:
    """The zero operator: every eigenvalue is 0, and so is every bound."""

    def flat(w: Any, batch: Any) -> jax.Array:
        return jnp.mean(batch) * jnp.sum(w)

    found = extremes(hessian(flat, jnp.ones(40), [jnp.ones(1)]), KEY, exact_below=0)
    worst = max(abs(found.largest[0]), abs(found.smallest[0]), found.largest_bounds[0])
    yield Known("zero operator: largest eigenvalue or bound", 0.0, worst, {}, 0.0)


def descent() -> Iterator[Known]:
    """Gradient descent on a regression at 0.99 and 1.01 of `2/λmax`."""
    x, y = draw(50, 80, 12), draw(51, 80)
    operator = hessian(regression, np.zeros(12, np.float32), [(x, y)])
    edge = step_sizes(extremes(operator, KEY, exact_below=0)).edge
    gram = x.T.astype(np.float64) @ x / 80
    for share, known in ((0.99, 0.0), (1.01, 1.0)):
        w = np.ones(12)
        for _ in range(3000):
            w = w - share * edge * gram @ w
        diverged = float(np.linalg.norm(w) > np.sqrt(12))
        yield Known(f"gradient descent at {share} of 2/λmax diverges", known, diverged, {}, 0.0)


CASES = (masked_regression, deep_linear, euler, rank_ten, nothing_there, descent)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_every_known_answer_is_met(case):
    """The error is at most the tolerance, relative to the known number (or to 1)."""
    for known in case():
        off = abs(known.ours - known.known) / max(1.0, abs(known.known))
        assert off <= known.tolerance, known.case


@pytest.mark.slow
def test_matfree_shows_why_a_guard_is_needed():
    pytest.importorskip("matfree", reason="matfree is not installed")
    worst = max(abs(known.others["matfree"] - known.known) for known in rank_ten())
    assert worst > 449
