"""Supermasks: values, counts, and the gradients that go straight through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.pruning import scopes, supermask

PRUNABLE = {"w": True, "b": False}
DRAW = np.random.default_rng(0)
PARAMS = {"w": jnp.asarray(DRAW.normal(size=(6, 4)), jnp.float32), "b": jnp.ones(4)}
SCORES = {"w": jnp.asarray(DRAW.normal(size=(6, 4)), jnp.float32), "b": jnp.full(4, 0.3)}
X = jnp.asarray(DRAW.normal(size=(5, 6)), jnp.float32)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def loss(network):
    return jnp.mean((X @ network["w"] + network["b"]) ** 2)


def popup(scores, count):
    return supermask.edge_popup(scores, count, scope=scopes.globally(), prunable=PRUNABLE)


SOFT = {
    "edge_popup": lambda s: popup(s, jnp.int32(9)),
    "bernoulli": lambda s: supermask.bernoulli(jax.random.key(3), s, prunable=PRUNABLE),
    "threshold": lambda s: supermask.threshold(s, prunable=PRUNABLE),
}
SLOPE = {
    "edge_popup": jnp.sign,
    "bernoulli": lambda s: jax.nn.sigmoid(s) * jax.nn.sigmoid(-s),
    "threshold": lambda s: jax.nn.sigmoid(s) * jax.nn.sigmoid(-s),
}


@pytest.mark.parametrize("name", SOFT)
def test_the_gradient_goes_through_the_mask_to_every_score(name):
    gradient = jax.jit(jax.grad(lambda s: loss(supermask.effective(PARAMS, SOFT[name](s)))))(SCORES)
    soft = jax.jit(SOFT[name])(SCORES)
    assert set(np.unique(soft["w"])) == {0.0, 1.0}
    at_network = jax.grad(loss)(supermask.effective(PARAMS, soft))["w"]
    expected = at_network * PARAMS["w"] * SLOPE[name](SCORES["w"])
    np.testing.assert_allclose(gradient["w"], expected, rtol=1e-5, atol=1e-7)
    assert (np.asarray(gradient["w"])[np.asarray(soft["w"]) == 0] != 0).all()  # masked ones learn
    assert gradient["b"].tolist() == [0.0] * 4 and soft["b"].tolist() == [1.0] * 4


def test_edge_popup_keeps_exactly_the_largest_for_every_member():
    counts = jnp.array([0, 1, 9, 24], jnp.int32)
    soft = jax.jit(jax.vmap(popup, (None, 0)))(SCORES, counts)
    assert soft["w"].sum((1, 2)).tolist() == [0.0, 1.0, 9.0, 24.0]
    kept = np.abs(SCORES["w"])[np.asarray(soft["w"][2]) == 1]
    assert kept.min() >= np.sort(np.abs(SCORES["w"]).ravel())[-9]


def test_edge_popup_finds_a_network_among_frozen_weights():
    target = X @ (PARAMS["w"] * jnp.asarray(DRAW.random((6, 4)) < 0.5, jnp.float32))

    def error(scores):
        network = supermask.effective(PARAMS, popup(scores, jnp.int32(12)))
        return jnp.mean((X @ network["w"] - target) ** 2)

    def step(scores, _):
        value, gradient = jax.value_and_grad(error)(scores)
        return jax.tree.map(lambda s, g: s - 0.1 * g, scores, gradient), value

    _, errors = jax.jit(lambda s: jax.lax.scan(step, s, None, 200))(SCORES)
    assert float(errors.min()) < 0.2 * float(errors[0])


def test_bernoulli_draws_each_weight_with_its_probability():
    scores = {"w": jnp.full((200, 200), jnp.log(0.3 / 0.7))}
    soft = supermask.bernoulli(jax.random.key(0), scores, prunable={"w": True})["w"]
    assert float(soft.mean()) == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 40_000))


def test_bernoulli_draws_leaves_and_keys_independently():
    scores, prunable = {"a": jnp.zeros(400), "b": jnp.zeros(400)}, {"a": True, "b": True}
    draw = jax.jit(lambda key: supermask.bernoulli(key, scores, prunable=prunable))
    one, other = draw(jax.random.key(0)), draw(jax.random.key(1))
    for x, y in [(one["a"], one["b"]), (one["a"], other["a"])]:
        assert 0.35 < float((x == y).mean()) < 0.65


def test_rescaling_gives_the_kept_the_weight_of_the_whole():
    soft = {"w": jnp.array([[1.0, 0.0], [0.0, 0.0]]), "gone": jnp.zeros(3), "b": jnp.ones(2)}
    rescaled = supermask.rescale(soft)
    assert rescaled["w"].tolist() == [[4.0, 0.0], [0.0, 0.0]]
    assert rescaled["gone"].tolist() == [0.0] * 3 and rescaled["b"].tolist() == [1.0] * 2
    hard = supermask.harden(rescaled)
    assert hard["w"].dtype == bool and hard["w"].tolist() == [[True, False], [False, False]]


def test_the_network_keeps_the_dtype_of_its_weights():
    params = {"w": PARAMS["w"].astype(jnp.bfloat16), "b": PARAMS["b"].astype(jnp.float16)}
    network = supermask.effective(params, SOFT["threshold"](SCORES))
    assert [leaf.dtype for leaf in jax.tree.leaves(network)] == [jnp.float16, jnp.bfloat16]


@pytest.mark.parametrize("density", [1.0, 0.25])
@pytest.mark.parametrize("shape", [(300, 40), (3, 3, 40, 30)])
def test_frozen_weights_have_the_size_that_makes_up_for_the_mask(shape, density):
    expected = np.sqrt(2 / (density * np.prod(shape[:-1])))
    constant = supermask.signed_constant(density)(jax.random.key(0), shape)
    np.testing.assert_allclose(np.abs(constant), expected, rtol=1e-6)
    assert abs(float(jnp.sign(constant).mean())) < 0.05
    normal = jax.jit(lambda k, d: supermask.kaiming_normal(d)(k, shape))
    draws = normal(jax.random.key(0), density)  # the density is traced here
    assert float(draws.std()) == pytest.approx(expected, rel=0.05)
    assert abs(float(draws.mean())) < 0.05 * expected


def test_the_fan_in_follows_the_layout():
    weights = supermask.signed_constant(out_axis=0)(jax.random.key(0), (3, 8), jnp.bfloat16)
    assert weights.dtype == jnp.bfloat16 and set(np.abs(weights).ravel().tolist()) == {0.5}


def test_initial_scores_fill_their_interval():
    params = {"w": jnp.zeros((64, 50)), "b": jnp.zeros(50)}
    scores = supermask.init_scores(jax.random.key(0), params, prunable={"w": True, "b": False})
    assert 0.12 < float(jnp.abs(scores["w"]).max()) <= 1 / 8
    assert not scores["b"].any()
