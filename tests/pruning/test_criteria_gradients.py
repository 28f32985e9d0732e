"""Gradient criteria against derivatives taken another way: gates, forward mode, differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.pruning import criteria
from lth_jax.types import Batch

DRAW = np.random.default_rng(0)
SHAPES = {"a": (3, 4), "b": (4, 2)}
PARAMS = {k: jnp.asarray(0.5 * DRAW.normal(size=s), jnp.float32) for k, s in SHAPES.items()}
MASK = {k: jnp.asarray(DRAW.random(s) < 0.7) for k, s in SHAPES.items()}
BATCH = Batch(*(jnp.asarray(DRAW.normal(size=(5, n)), jnp.float32) for n in (3, 2)))


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


@jax.jit
def loss(params, batch):
    return jnp.mean((jnp.tanh(batch.x @ params["a"]) @ params["b"] - batch.y) ** 2)


def gated(gates):
    """The weights under gates that multiply the surviving ones."""
    return jax.tree.map(lambda c, w, m: jnp.where(m, c * w, 0.0), gates, PARAMS, MASK)


def along_each_gate(f):
    """The derivative of `f(gates)` at ones along each gate by itself, in forward mode."""
    flat, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.ones_like, PARAMS))
    derivative = lambda e: jax.jvp(lambda c: f(unravel(c)), (flat,), (e,))[1]  # noqa: E731
    return jax.jit(lambda: unravel(jax.vmap(derivative)(jnp.eye(flat.size))))()


def run(criterion, params, mask, batches):
    return jax.jit(lambda p, m, b: criterion(p, m, batches=b))(params, mask, batches)


def assert_close(tree, expected, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, 1e-7), tree, expected)


def test_snip_is_the_normalised_sensitivity_to_gates():
    sensitivity = jax.tree.map(jnp.abs, along_each_gate(lambda c: loss(gated(c), BATCH)))
    total = sum(float(leaf.sum()) for leaf in sensitivity.values())
    scores = run(criteria.snip(loss), PARAMS, MASK, [BATCH])
    assert_close(scores, jax.tree.map(lambda s: s / total, sensitivity))
    assert sum(float(s.sum()) for s in scores.values()) == pytest.approx(1, abs=1e-6)


def test_saliency_predicts_what_a_small_step_towards_zero_changes():
    scores = run(criteria.saliency(loss), PARAMS, MASK, [BATCH])["a"]
    network = gated(jax.tree.map(jnp.ones_like, PARAMS))
    i, j = np.unravel_index(jnp.argmax(scores), scores.shape)

    def stepped(step):
        return float(loss({**network, "a": network["a"].at[i, j].multiply(1 + step)}, BATCH))

    slope = (stepped(1e-2) - stepped(-1e-2)) / 2e-2
    assert abs(slope) == pytest.approx(float(scores[i, j]), rel=1e-3)


def test_grasp_is_half_the_sensitivity_of_the_gradient_flow_to_gates():
    def flow(gates):
        gradient = jax.grad(loss)(gated(gates), BATCH)
        return sum(jnp.sum(jnp.where(MASK[name], g, 0.0) ** 2) for name, g in gradient.items())

    expected = jax.tree.map(lambda d: d / 2, along_each_gate(flow))
    scores = run(criteria.grasp(loss), PARAMS, MASK, [BATCH])
    assert_close(scores, expected, rtol=1e-4)


def test_grasp_keeps_the_weights_that_carry_the_flow():
    # For L = ½ Σ aᵢwᵢ² the flow is Σ (aᵢwᵢ)², and removing weight i takes exactly (aᵢwᵢ)² of it.
    a, w = jnp.array([1.0, 2.0, -3.0]), jnp.array([4.0, 1.0, -0.5])
    quadratic = lambda params, batch: 0.5 * jnp.sum(a * params["w"] ** 2) * batch.mean()  # noqa: E731
    scores = run(criteria.grasp(quadratic), {"w": w}, {"w": jnp.ones(3, bool)}, [jnp.ones(1)])
    np.testing.assert_allclose(scores["w"], [16.0, 4.0, 2.25], rtol=1e-6)


@pytest.mark.parametrize("name", ["saliency", "snip", "grasp"])
def test_batches_are_weighted_by_their_sizes(name):
    criterion = getattr(criteria, name)(loss)
    parts = [jax.tree.map(lambda x: x[:4], BATCH), jax.tree.map(lambda x: x[4:], BATCH)]
    assert_close(run(criterion, PARAMS, MASK, parts), run(criterion, PARAMS, MASK, [BATCH]), 1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_products_of_half_precision_neither_vanish_nor_tie(dtype):
    w = jnp.array([1e-4, 2e-4], dtype)
    linear = lambda params, x: jnp.mean(x @ params["w"])  # noqa: E731
    batches = [jnp.array([[1e-4, 1e-4]], dtype)]
    score = criteria.saliency(linear)({"w": w}, {"w": jnp.ones(2, bool)}, batches=batches)["w"]
    assert score.dtype == jnp.float32
    np.testing.assert_allclose(score, [1e-8, 2e-8], rtol=2e-2)


def test_snip_of_a_network_at_rest_is_zero():
    constant = lambda params, x: jnp.sum(params["w"]) * 0.0 + x.mean()  # noqa: E731
    ones = {"w": jnp.ones(2)}
    scores = criteria.snip(constant)(ones, {"w": jnp.ones(2, bool)}, batches=[jnp.ones(1)])
    assert scores["w"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("batches", "error", "words"),
    [
        (None, ValueError, "`snip` needs `batches`"),
        ([], ValueError, "`batches` is empty"),
        (BATCH, TypeError, "`batches` must be a list or tuple of batches"),
        ([Batch(jnp.ones((2, 3)), jnp.ones((3, 2)))], ValueError, r"first axes \[2, 3\]"),
        ([Batch(jnp.ones((2, 3)), jnp.ones(()))], ValueError, r"first axes \[0, 2\]"),
    ],
)
def test_bad_batches_are_refused(batches, error, words):
    with pytest.raises(error, match=words):
        criteria.snip(loss)(PARAMS, MASK, batches=batches)
