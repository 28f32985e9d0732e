"""Predicted step sizes against gradient descent itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.landscape.ends import Extremes, extremes
from lth_jax.landscape.operators import hessian
from lth_jax.landscape.step_size import at_named_points, relative_sharpness, step_sizes

KEY = jax.random.key(0)
ONE = [jnp.ones(1)]


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def quadratic(params, batch):
    return 0.5 * jnp.mean(batch) * params["w"] @ params["matrix"] @ params["w"]


def matrix_of(eigenvalues):
    q, _ = np.linalg.qr(draw(0, len(eigenvalues), len(eigenvalues)).astype(np.float64))
    return (q * eigenvalues) @ q.T


def ends_of(matrix, **options):
    point = {"matrix": jnp.asarray(matrix, jnp.float32), "w": jnp.zeros(len(matrix))}
    with jax.numpy_dtype_promotion("strict"):
        return extremes(hessian(quadratic, point, ONE, leaves="w"), KEY, **options)


def descend(matrix, rate, steps):
    """Distances from the minimum of ½ wᵀAw under gradient descent."""
    w = np.ones(len(matrix))
    distances = []
    for _ in range(steps):
        w = w - rate * matrix @ w
        distances.append(np.linalg.norm(w))
    return np.array(distances)


MATRIX = matrix_of(np.linspace(0.5, 4.0, 12))


def test_gradient_descent_converges_below_the_edge_and_diverges_above():
    edge = step_sizes(ends_of(MATRIX, exact_below=0)).edge
    assert descend(MATRIX, 0.99 * edge, 2000)[-1] < 1e-6
    assert descend(MATRIX, 1.01 * edge, 2000)[-1] > 1e6


def test_the_best_step_converges_at_the_rate_and_others_slower():
    found = step_sizes(ends_of(MATRIX, exact_below=0))

    def rate(step):
        distances = descend(MATRIX, step, 200)
        return (distances[-1] / distances[-51]) ** (1 / 50)

    assert found.definite
    assert found.rate == pytest.approx((8 - 1) / (8 + 1), rel=1e-4)
    assert rate(found.best) == pytest.approx(found.rate, rel=1e-4)
    assert rate(0.95 * found.best) > found.rate < rate(1.05 * found.best)


@pytest.mark.parametrize(
    "eigenvalues", [[-0.1, 1.0, 2.0], [0.0, 1.0, 2.0]], ids=["indefinite", "singular"]
)
def test_without_positive_curvature_everywhere_there_is_no_best_step(eigenvalues):
    found = step_sizes(ends_of(matrix_of(np.array(eigenvalues))))
    assert not found.definite
    assert np.isnan(found.best)
    assert np.isnan(found.rate)
    assert found.edge == pytest.approx(1.0, rel=1e-5)


def test_bounds_that_have_not_converged_are_no_ground_for_a_best_step():
    ends = ends_of(matrix_of(np.linspace(1, 2, 60)), exact_below=0, steps=2, tolerance=1e-6)
    assert not ends.converged
    assert not step_sizes(ends).definite


def test_without_positive_curvature_anywhere_no_step_is_too_long():
    assert step_sizes(ends_of(-np.eye(3))).edge == np.inf


def predict(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


def mlp_loss(params, batch):
    x, y = batch
    return 0.5 * jnp.mean(jnp.sum((predict(params, x) - y) ** 2, axis=1))


POINT = {"a": draw(1, 6, 8), "b": draw(2, 8, 2)}
MASK = jax.tree.map(lambda p: np.abs(p) > 0.6, POINT)
DATA = (draw(3, 20, 6), draw(4, 20, 2))


def build(params, mask):
    return hessian(mlp_loss, params, [DATA], mask=mask)


def test_the_points_are_those_they_are_named_after():
    retrained = jax.tree.map(lambda p, m: 0.5 * p * m, POINT, MASK)
    with jax.numpy_dtype_promotion("strict"):
        found = at_named_points(build, POINT, MASK, KEY, retrained=retrained)
    ticket = jax.tree.map(np.multiply, POINT, MASK)
    expected = {
        "dense": extremes(build(POINT, None), KEY),
        "dense_on_mask": extremes(build(POINT, MASK), KEY),
        "masked": extremes(build(ticket, MASK), KEY),
        "retrained": extremes(build(retrained, MASK), KEY),
    }
    assert list(found) == list(expected)
    for name, ends in found.items():
        np.testing.assert_allclose(ends.largest, expected[name].largest, rtol=1e-5)
    assert len({float(ends.largest[0]) for ends in found.values()}) == 4
    assert found["dense_on_mask"].largest[0] <= found["dense"].largest[0]
    assert found["dense_on_mask"].smallest[0] >= found["dense"].smallest[0]


def test_a_retrained_ticket_must_lie_on_its_mask():
    with pytest.raises(ValueError, match="`retrained` has weights that `mask` prunes, at 'a'"):
        at_named_points(build, POINT, MASK, KEY, retrained=POINT)


def test_a_mask_must_be_boolean():
    with pytest.raises(TypeError, match="`mask` at 'a' must be boolean"):
        at_named_points(build, POINT, POINT, KEY)


def test_the_learning_rate_must_be_positive():
    with pytest.raises(ValueError, match="`learning_rate` must be positive"):
        relative_sharpness(ends_of(MATRIX), 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("density", [1.0, 0.3])
def test_full_batch_gradient_descent_ends_at_the_edge_of_stability(density):
    """Cohen et al. (2021): the sharpness rises to 2/η and stays there, also in a subnetwork."""
    start = {"a": 0.35 * draw(5, 10, 30), "b": 0.3 * draw(6, 30, 3)}
    rng = np.random.default_rng(7)
    mask = jax.tree.map(
        lambda p: rng.permuted(np.arange(p.size) < density * p.size).reshape(p.shape), start
    )
    data = (draw(8, 100, 10), np.sign(draw(9, 100, 3)))
    rate = 0.4

    @jax.jit
    def train(params):
        def step(_, p):
            gradient = jax.grad(mlp_loss)(p, data)
            return jax.tree.map(lambda w, g, m: w - rate * g * m, p, gradient, mask)

        return jax.lax.fori_loop(0, 6000, step, params)

    def sharpness(params):
        operator = hessian(mlp_loss, params, [data], mask=mask)
        return relative_sharpness(extremes(operator, KEY, exact_below=0), rate)

    ticket = jax.tree.map(np.multiply, start, mask)
    assert sharpness(ticket) < 0.9
    assert sharpness(train(ticket)) == pytest.approx(1.0, abs=0.05)


def test_without_a_smallest_eigenvalue_only_the_edge_is_known():
    one, none = np.ones(1), np.zeros(0)
    found = step_sizes(Extremes(2 * one, none, 0 * one, none, 2, 0, None, True))
    assert found.edge == 1 and np.isnan(found.best) and not found.definite
