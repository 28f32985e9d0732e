"""Curvature criteria on problems whose curvature is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.pruning import criteria
from lth_jax.types import Batch

HESSIAN = np.array([[2.0, 0.5, -0.3], [0.5, -1.0, 0.2], [-0.3, 0.2, 4.0]])
WEIGHTS = np.array([1.0, -2.0, 0.5])
ALL = {"w": jnp.ones(3, bool)}


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def quadratic(hessian):
    def loss(params, batch):
        return 0.5 * params["w"] @ jnp.asarray(hessian, jnp.float32) @ params["w"] * batch.mean()

    return loss


def run(criterion, params, mask, batches, key=None):
    return jax.jit(lambda p, m, b, k: criterion(p, m, batches=b, key=k))(params, mask, batches, key)


ONE = [jnp.ones(1)]


def obd(hessian, mask=ALL, *, probes=1, seed=0, batches=ONE):
    params = {"w": jnp.asarray(WEIGHTS, jnp.float32)}
    criterion = criteria.obd(quadratic(hessian), probes=probes)
    return run(criterion, params, mask, batches, jax.random.key(seed))["w"]


def test_obd_is_exact_for_a_diagonal_hessian():
    diagonal = np.diag(np.diag(HESSIAN))
    np.testing.assert_allclose(obd(diagonal), 0.5 * np.diag(HESSIAN) * WEIGHTS**2, rtol=1e-6)


def test_obd_at_a_minimum_is_the_loss_of_removing_the_weight():
    minimum = jnp.asarray(WEIGHTS, jnp.float32)
    curvature = jnp.array([2.0, 1.0, 4.0])
    loss = lambda p, batch: 0.5 * jnp.sum(curvature * (p["w"] - minimum) ** 2) * batch.mean()  # noqa: E731
    scores = run(criteria.obd(loss), {"w": minimum}, ALL, ONE, jax.random.key(0))["w"]
    removed = [float(loss({"w": minimum.at[i].set(0.0)}, jnp.ones(1))) for i in range(3)]
    np.testing.assert_allclose(scores, removed, rtol=1e-6)


def test_obd_converges_to_the_diagonal_at_the_rate_it_states():
    probes = 2000
    estimate = obd(HESSIAN, probes=probes)
    scale = 0.5 * WEIGHTS**2
    off_diagonal = HESSIAN - np.diag(np.diag(HESSIAN))
    deviation = scale * np.sqrt((off_diagonal**2).sum(1) / probes)
    error = np.abs(estimate - scale * np.diag(HESSIAN))
    assert (error < 4 * deviation).all()
    assert (error > 0).all()  # an estimate, not the diagonal read off


def test_obd_probes_only_the_surviving_weights():
    # Alone, weight 1 has a one-by-one Hessian: one probe is exact, whatever the full matrix.
    alone = {"w": jnp.array([False, True, False])}
    assert float(obd(HESSIAN, alone)[1]) == pytest.approx(0.5 * -1.0 * 4.0, rel=1e-6)


def test_obd_draws_new_probes_for_a_new_key():
    assert not np.array_equal(obd(HESSIAN, seed=0), obd(HESSIAN, seed=3))


def test_obd_weights_batches_by_their_sizes():
    split = [jnp.array([1.0, 2.0, 6.0]), jnp.array([5.0])]
    together = [jnp.array([1.0, 2.0, 6.0, 5.0])]
    np.testing.assert_allclose(
        obd(HESSIAN, batches=split), obd(HESSIAN, batches=together), rtol=1e-5
    )


def network(params, batch):
    return jnp.mean((jnp.tanh(batch.x @ params["w"]) - batch.y) ** 2)


def examples(n):
    draw = np.random.default_rng(1)
    return Batch(*(jnp.asarray(draw.normal(size=s), jnp.float32) for s in ((n, 3), (n,))))


def fisher_by_hand(params, batch):
    squares = []
    for i in range(len(batch.y)):
        x, y, w = (np.asarray(a, np.float64) for a in (batch.x[i], batch.y[i], params["w"]))
        out = np.tanh(x @ w)
        squares.append((2 * (out - y) * (1 - out**2) * x) ** 2)
    return 0.5 * np.mean(squares, 0) * np.asarray(params["w"], np.float64) ** 2


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_fisher_is_the_mean_of_squared_gradients_of_single_examples(chunk):
    params, batch = {"w": jnp.asarray(WEIGHTS, jnp.float32)}, examples(7)
    scores = run(criteria.fisher(network, chunk=chunk), params, ALL, [batch])["w"]
    np.testing.assert_allclose(scores, fisher_by_hand(params, batch), rtol=1e-4)


def test_fisher_does_not_depend_on_how_examples_are_batched():
    params, batch = {"w": jnp.asarray(WEIGHTS, jnp.float32)}, examples(7)
    parts = [jax.tree.map(lambda x: x[:5], batch), jax.tree.map(lambda x: x[5:], batch)]
    scores = run(criteria.fisher(network, chunk=2), params, ALL, parts)["w"]
    np.testing.assert_allclose(scores, fisher_by_hand(params, batch), rtol=1e-4)


def test_fisher_is_taken_at_the_masked_weights():
    mask = {"w": jnp.array([True, False, True])}
    params = {"w": jnp.asarray(WEIGHTS, jnp.float32)}
    scores = run(criteria.fisher(network), params, mask, [examples(4)])["w"]
    pruned = {"w": params["w"] * jnp.array([1.0, 0.0, 1.0])}
    np.testing.assert_allclose(scores, fisher_by_hand(pruned, examples(4)), rtol=1e-4)


def test_fisher_squares_half_precision_gradients_in_float32():
    loss = lambda params, x: jnp.mean(x @ params["w"])  # noqa: E731
    params, mask = {"w": jnp.ones(1, jnp.float16)}, {"w": jnp.ones(1, bool)}
    batches = [jnp.full((3, 1), 1e-3, jnp.float16)]
    score = run(criteria.fisher(loss), params, mask, batches)["w"]
    np.testing.assert_allclose(score, [0.5e-6], rtol=1e-2)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: criteria.fisher(network, chunk=0), "`chunk` must be at least 1"),
        (lambda: criteria.obd(network, probes=0), "`probes` must be at least 1"),
    ],
)
def test_builders_refuse_what_cannot_work(build, words):
    with pytest.raises(ValueError, match=words):
        build()
