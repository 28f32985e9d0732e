"""Operators against dense matrices from JAX, and against known results."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from lth_jax.landscape import operators
from lth_jax.types import Batch

SIZES = (6, 5, 3)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def draw(seed, shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def predict(params, batch):
    h = jnp.tanh(batch.x @ params["a"]["w"] + params["a"]["b"])
    return h @ params["c"]["w"]


def cross_entropy(logits, batch):
    log_p = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(log_p, batch.y[:, None], axis=1))


def loss(params, batch):
    return cross_entropy(predict(params, batch), batch)


PARAMS = {
    "a": {"w": draw(0, (6, 5)), "b": draw(1, (5,))},
    "c": {"w": draw(2, (5, 3))},
}
DATA = Batch(draw(3, (11, 6)), np.arange(11) % 3)
SPLIT = [Batch(DATA.x[:7], DATA.y[:7]), Batch(DATA.x[7:], DATA.y[7:])]
MASK = jax.tree.map(lambda p: draw(4, p.shape) > 0, PARAMS)
KEPT = np.flatnonzero(ravel_pytree(MASK)[0])


def full(f):
    """The Hessian of f(flat parameters) by JAX, written out."""
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, PARAMS))
    return np.asarray(jax.hessian(lambda v: f(unravel(v)))(flat))


def written_out(operator):
    eye = jnp.eye(operator.size, dtype=operator.dtype)
    return np.stack([operator(row) for row in eye])


@pytest.mark.slow
def test_hessian_of_unequal_batches_is_that_of_all_examples_on_the_support():
    operator = operators.hessian(loss, PARAMS, SPLIT, mask=MASK)
    expected = full(lambda p: loss(p, DATA))[np.ix_(KEPT, KEPT)]
    assert operator.size == KEPT.size
    np.testing.assert_allclose(written_out(operator), expected, atol=1e-5)


@pytest.mark.slow
def test_unequal_batches_weighted_equally_would_be_seen():
    each = [full(lambda p, b=b: loss(p, b)) for b in SPLIT]
    wrong = (each[0] + each[1]) / 2
    assert np.abs(wrong - full(lambda p: loss(p, DATA))).max() > 1e-3


@pytest.mark.slow
def test_gauss_newton_is_the_jacobian_form():
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, PARAMS))
    jacobian = jax.jacobian(lambda v: predict(unravel(v), DATA))(flat)
    curvature = jax.hessian(lambda f: cross_entropy(f, DATA))(predict(PARAMS, DATA))
    expected = np.einsum("ncp,ncmd,mdq->pq", jacobian, curvature, jacobian)
    operator = operators.gauss_newton(predict, cross_entropy, PARAMS, SPLIT)
    np.testing.assert_allclose(written_out(operator), expected, atol=1e-5)


def test_gauss_newton_of_a_linear_model_is_its_hessian():
    def outputs(w, batch):
        return batch.x @ w

    w = draw(5, (6, 3))
    one = operators.gauss_newton(outputs, cross_entropy, w, SPLIT)
    two = operators.hessian(lambda w, b: cross_entropy(outputs(w, b), b), w, SPLIT)
    np.testing.assert_allclose(written_out(one), written_out(two), atol=1e-6)


def example_gradients(data):
    def gradient(x, y):
        return ravel_pytree(jax.grad(loss)(PARAMS, Batch(x[None], y[None])))[0]

    return np.asarray(jax.vmap(gradient)(data.x, data.y))


def test_empirical_fisher_is_the_mean_outer_product_of_gradients():
    gradients = example_gradients(DATA)
    operator = operators.empirical_fisher(loss, PARAMS, SPLIT, mask=MASK)
    expected = (gradients.T @ gradients / len(gradients))[np.ix_(KEPT, KEPT)]
    np.testing.assert_allclose(written_out(operator), expected, atol=1e-6)


@pytest.mark.slow
def test_fisher_of_the_models_own_labels_estimates_gauss_newton():
    draws = 400

    def draw_labels(key, params, batch):
        y = jax.random.categorical(key, predict(params, batch), shape=(draws, len(batch.y)))
        return Batch(np.tile(batch.x, (draws, 1)), np.asarray(y).ravel())

    operator = operators.monte_carlo_fisher(loss, draw_labels, PARAMS, SPLIT, jax.random.key(0))
    estimate = written_out(operator)
    exact = written_out(operators.gauss_newton(predict, cross_entropy, PARAMS, [DATA]))
    data_labels = written_out(operators.empirical_fisher(loss, PARAMS, [DATA]))
    error = np.linalg.norm(estimate - exact) / np.linalg.norm(exact)
    assert error < 0.1 < np.linalg.norm(data_labels - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize(
    "build",
    [
        operators.hessian,
        operators.empirical_fisher,
        lambda _, *rest, **more: operators.gauss_newton(predict, cross_entropy, *rest, **more),
    ],
    ids=["hessian", "empirical_fisher", "gauss_newton"],
)
def test_the_gradient_is_that_of_all_examples_on_the_support(build):
    operator = build(loss, PARAMS, SPLIT, mask=MASK)
    expected = example_gradients(DATA).mean(axis=0)[KEPT]
    np.testing.assert_allclose(operator.gradient, expected, atol=1e-6)


def test_leaves_pick_a_layer():
    operator = operators.hessian(loss, PARAMS, [DATA], mask=MASK, leaves="a/*")
    inside = [i for i in KEPT if i < 35]  # a/b, a/w come first
    expected = full(lambda p: loss(p, DATA))[np.ix_(inside, inside)]
    np.testing.assert_allclose(written_out(operator), expected, atol=1e-6)


def test_the_point_is_taken_as_it_stands():
    ticket = jax.tree.map(np.multiply, PARAMS, MASK)
    v = jnp.ones(KEPT.size)
    here = operators.hessian(loss, PARAMS, SPLIT, mask=MASK)(v)
    there = operators.hessian(loss, ticket, SPLIT, mask=MASK)(v)
    assert np.abs(here - there).max() > 1e-3


def test_expand_and_contract_are_inverse_on_the_support():
    operator = operators.hessian(loss, PARAMS, [DATA], mask=MASK)
    v = jnp.arange(1.0, operator.size + 1)
    tree = operator.expand(v)
    np.testing.assert_array_equal(operator.contract(tree), v)
    jax.tree.map(lambda leaf, m: np.testing.assert_array_equal(leaf != 0, m), tree, MASK)


def test_products_can_be_vectorised_and_differentiated():
    operator = operators.hessian(loss, PARAMS, SPLIT, mask=MASK)
    vectors = draw(5, (2, operator.size))
    products = np.stack([operator(v) for v in vectors])
    np.testing.assert_allclose(jax.vmap(operator)(vectors), products, atol=1e-6)
    energy = jax.grad(lambda v: 0.5 * v @ operator(v))  # the gradient of v·Av / 2 is Av
    np.testing.assert_allclose(energy(vectors[0]), products[0], atol=1e-6)


def test_the_operator_crosses_jit_and_masks_share_a_program():
    traces: list[None] = []

    @jax.jit
    def product(operator, v):
        traces.append(None)
        return operator(v)

    other = jax.tree.map(lambda m: m[::-1], MASK)
    for mask in (MASK, other):
        operator = operators.hessian(loss, PARAMS, SPLIT, mask=mask)
        v = jnp.ones(operator.size)
        np.testing.assert_allclose(product(operator, v), operator(v), atol=1e-6)
    assert len(traces) == 1


def test_any_container_and_half_precision_leaves():
    params = [jnp.ones(2, jnp.bfloat16), (jnp.ones(2),)]

    def quadratic(p, batch):
        return jnp.mean(batch) * (
            jnp.sum(p[0] ** 2).astype(jnp.float32) + 2 * jnp.sum(p[1][0] ** 2)
        )

    operator = operators.hessian(quadratic, params, [jnp.ones(3)])
    assert operator.dtype == jnp.float32
    np.testing.assert_allclose(operator(jnp.ones(4)), [2, 2, 4, 4])


def test_masked_relu_net_with_mean_output_maps_its_point_to_its_gradient():
    # f is homogeneous of degree L in the weights, so its gradient is of degree L - 1 (Euler).
    layers = 3
    widths = [6, 8, 8, 4]
    weights = [draw(10 + i, s) for i, s in enumerate(pairwise(widths))]
    mask = [draw(20 + i, w.shape) > -0.3 for i, w in enumerate(weights)]
    ticket = [w * m for w, m in zip(weights, mask, strict=True)]

    def mean_output(weights, x):
        for w in weights[:-1]:
            x = jax.nn.relu(x @ w)
        return jnp.mean(x @ weights[-1])

    operator = operators.hessian(mean_output, ticket, [DATA.x[:4], DATA.x[4:]], mask=mask)
    gradient = operator.contract(jax.grad(mean_output)(ticket, DATA.x))
    product = operator(operator.contract(ticket))
    np.testing.assert_allclose(product, (layers - 1) * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"loss": lambda p, b: jnp.nan * loss(p, b)}, ValueError, "`loss` must be finite"),
        ({"loss": lambda p, b: predict(p, b)[:, 0]}, ValueError, "`loss` must return one"),
        ({"params": {"n": np.arange(3)}}, TypeError, "`params` at 'n' must be floating"),
        ({"params": {}}, ValueError, "`params` must hold"),
        ({"mask": jax.tree.map(np.zeros_like, MASK)}, ValueError, "`mask` keeps no weight"),
        ({"mask": PARAMS}, TypeError, "`mask` at 'a/b' must be boolean"),
        ({"mask": {"a": 1}}, ValueError, "`mask` must have the structure"),
        ({"leaves": "z/*"}, ValueError, r"`leaves` 'z/\*' matches none"),
        ({"batches": iter(())}, ValueError, "`batches` must hold at least one"),
        ({"batches": [Batch(DATA.x, DATA.y[:2])]}, ValueError, r"batch 0 has .*\[2, 11\]"),
        ({"batches": [Batch(DATA.x[:0], DATA.y[:0])]}, ValueError, r"batch 0 has .*\[0\]"),
    ],
)
def test_bad_input_is_one_sentence(change, error, words):
    settings = {"loss": loss, "params": PARAMS, "batches": [DATA], **change}
    with pytest.raises(error, match=words):
        operators.hessian(**settings)


def gauss_newton(loss, params, batches, mask):
    def parameters(params, batch):
        return params

    return operators.gauss_newton(parameters, loss, params, batches, mask=mask)


def monte_carlo_fisher(loss, params, batches, mask):
    def as_it_is(key, params, batch):
        return batch

    return operators.monte_carlo_fisher(
        loss, as_it_is, params, batches, jax.random.key(0), mask=mask
    )


@pytest.mark.parametrize(
    "build",
    [gauss_newton, operators.empirical_fisher, monte_carlo_fisher],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"loss": lambda p, b: jnp.nan * jnp.sum(p["w"])}, ValueError, "`loss` must be finite"),
        ({"loss": lambda p, b: p["w"]}, ValueError, "`loss` must return one"),
        ({"params": {"w": np.arange(3)}}, TypeError, "`params` at 'w' must be floating"),
        ({"mask": {"w": np.zeros(3, bool)}}, ValueError, "`mask` keeps no weight"),
        ({"batches": iter(())}, ValueError, "`batches` must hold at least one"),
        ({"batches": [Batch(DATA.x, DATA.y[:2])]}, ValueError, r"batch 0 has .*\[2, 11\]"),
    ],
    ids=["nan", "not_scalar", "integers", "empty_mask", "dry", "unlike_lengths"],
)
def test_every_matrix_refuses_what_the_hessian_refuses(build, change, error, words):
    settings = {
        "loss": lambda p, b: jnp.sum(p["w"]),
        "params": {"w": jnp.ones(3)},
        "batches": [DATA],
        "mask": {"w": np.ones(3, bool)},
        **change,
    }
    with pytest.raises(error, match=words):
        build(**settings)


def test_outputs_that_have_no_curvature_are_refused():
    def classes(params, batch):
        return {"class": jnp.argmax(predict(params, batch), axis=1)}

    with pytest.raises(TypeError, match="`outputs` at 'class' must be floating-point, got int32"):
        operators.gauss_newton(classes, cross_entropy, PARAMS, [DATA])


def test_a_vector_of_the_wrong_length_is_refused():
    operator = operators.hessian(loss, PARAMS, [DATA], mask=MASK)
    with pytest.raises(ValueError, match="`v` must have shape"):
        operator(jnp.ones(operator.size + 1))


def test_leaves_that_are_not_floating_are_constants_where_they_are_left_out():
    """The counter of a state, for instance of Haiku's BatchNorm."""

    def loss(place, x):
        return jnp.mean(x) * place["count"].astype(jnp.float32) * jnp.sum(place["w"] ** 2)

    place = {"count": jnp.int32(3), "w": jnp.ones(2)}
    mask = {"count": jnp.array(True), "w": jnp.array([False, True])}
    operator = operators.hessian(loss, place, [jnp.ones(4)], mask=mask, leaves="w*")
    assert operator(jnp.array([2.0])).tolist() == [12.0]
    assert operator.expand(jnp.ones(1))["w"].tolist() == [0.0, 1.0]
    with pytest.raises(TypeError, match="`params` at 'count' must be floating-point"):
        operators.hessian(loss, place, [jnp.ones(4)])
