"""SynFlow's conservation laws, and the rounds that keep it from emptying a layer."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import trees
from lth_jax.pruning import criteria, masks, schedules, scopes
from lth_jax.pruning.iterative import iterate
from lth_jax.pruning.prune import prune

WIDTHS = (4, 20, 6, 3)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def network(biases=True):
    draw, params = np.random.default_rng(0), {}
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(WIDTHS)):
        params[str(i)] = {"kernel": jnp.asarray(draw.normal(size=(fan_in, fan_out)), jnp.float32)}
        if biases:
            params[str(i)]["bias"] = jnp.asarray(draw.normal(size=fan_out), jnp.float32)
    return params


def forward(params, x):
    for i in range(len(params)):
        x = jax.nn.relu(x @ params[str(i)]["kernel"] + params[str(i)].get("bias", 0.0))
    return x


def random_mask(params):
    draw = np.random.default_rng(0)
    return jax.tree.map(lambda w: jnp.asarray(draw.random(w.shape) < 0.6), params)


SYNFLOW = criteria.synflow(forward, jax.ShapeDtypeStruct((1, WIDTHS[0]), jnp.float32))
synflow = jax.jit(SYNFLOW)


def test_what_flows_into_a_unit_flows_out_of_it():
    params = network()
    scores = synflow(params, random_mask(params))
    for i in range(len(params) - 1):
        into = scores[str(i)]["kernel"].sum(0) + scores[str(i)]["bias"]
        np.testing.assert_allclose(into, scores[str(i + 1)]["kernel"].sum(1), rtol=1e-5)


def test_each_layer_of_a_chain_carries_the_whole_flow():
    params = network(biases=False)
    mask = random_mask(params)
    magnitudes = jax.tree.map(lambda w, m: jnp.where(m, jnp.abs(w), 0.0), params, mask)
    flow = float(forward(magnitudes, jnp.ones((1, WIDTHS[0]))).sum())
    for layer in synflow(params, mask).values():
        assert float(layer["kernel"].sum()) == pytest.approx(flow, rel=1e-5)


def test_a_score_is_what_the_weight_adds_to_the_flow():
    # R is linear in each single weight, so removing one takes exactly its score from R.
    params = jax.tree.map(jnp.abs, network())
    score = float(synflow(params, masks.ones_like(params))["1"]["kernel"][2, 3])
    less = jax.tree.map(lambda w: w, params)
    less["1"]["kernel"] = less["1"]["kernel"].at[2, 3].set(0.0)
    ones = jnp.ones((1, WIDTHS[0]))
    assert float((forward(params, ones) - forward(less, ones)).sum()) == pytest.approx(
        score, rel=1e-3
    )


def test_signs_and_data_do_not_matter():
    params = network()
    flipped = jax.tree.map(jnp.negative, params)
    again = jax.jit(criteria.synflow(forward, jnp.full((1, WIDTHS[0]), jnp.nan)))
    mask = masks.ones_like(params)
    jax.tree.map(np.testing.assert_array_equal, synflow(params, mask), again(flipped, mask))


def rounds(levels, final, params, prunable):
    scope, schedule = scopes.globally(), schedules.exponential(levels, final)
    counts = [scope.counts(params, schedule(i + 1), prunable=prunable) for i in range(levels)]
    run = iterate(prune(SYNFLOW, scope), trees.stack(counts))
    mask = jax.jit(lambda p, m: run(p, m, prunable=prunable))(params, masks.ones_like(params))
    assert int(masks.count_kept(mask, prunable)) == int(counts[-1])
    return mask


def test_rounds_save_a_layer_that_one_shot_empties():
    params = network(biases=False)
    prunable = masks.prunable_leaves(params)
    final = 6 / trees.size(params)
    assert masks.collapsed(rounds(1, final, params, prunable), prunable)
    mask = rounds(100, final, params, prunable)
    assert not masks.collapsed(mask, prunable)
    alive = forward(
        jax.tree.map(lambda w, m: jnp.abs(w) * m.astype(w.dtype), params, mask), jnp.ones((1, 4))
    )
    assert float(alive.sum()) > 0  # and a path runs through all of them


def test_an_integer_input_is_refused():
    with pytest.raises(TypeError, match="`example` must be floating-point"):
        criteria.synflow(forward, jnp.zeros((1, 4), jnp.int32))
