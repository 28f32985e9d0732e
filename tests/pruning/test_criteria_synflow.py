"""SynFlow's conservation laws, and the rounds that prevent an empty layer."""

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


def chain(depth, width, scale, dtype):
    draw = np.random.default_rng(0)
    spread = scale * (2 / width) ** 0.5
    kernels = [draw.normal(size=(width, width)) * spread for _ in range(depth)]
    return {f"{i:03d}": jnp.asarray(kernel, dtype) for i, kernel in enumerate(kernels)}


def stacked_chain(params, x):
    return jax.lax.scan(lambda h, kernel: (jax.nn.relu(h @ kernel), None), x, params["k"])[0]


def share_per_layer(scores):
    flat = np.sort(np.concatenate([np.ravel(s) for s in scores]))
    least = flat[-len(flat) // 10]
    return np.array([np.mean(np.asarray(s) >= least) for s in scores])


@pytest.mark.parametrize(
    ("depth", "scale", "dtype"),
    [(300, 1.0, "float32"), (300, 1e-20, "float32"), (40, 1.0, "float16"), (40, 1.0, "bfloat16")],
)
def test_no_depth_overflows_or_vanishes(depth, scale, dtype):
    kernels = jnp.stack(list(chain(depth, 32, scale, dtype).values()))
    scored = criteria.synflow(stacked_chain, jax.ShapeDtypeStruct((1, 32), dtype))
    scores = scored({"k": kernels}, {"k": jnp.ones(kernels.shape, bool)})["k"]
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores.sum((1, 2)), float(scores[0].sum()), rtol=1e-4)
    shares = share_per_layer(list(scores))
    assert 0.05 < shares.min() and shares.max() < 0.2


def test_in_range_the_scores_are_those_of_the_plain_gradient():
    params = network()
    mask = random_mask(params)
    magnitudes = jax.tree.map(lambda w, m: jnp.where(m, jnp.abs(w), 0.0), params, mask)
    gradient = jax.jit(jax.grad(lambda p: forward(p, jnp.ones((1, WIDTHS[0]))).sum()))(magnitudes)
    plain = jax.tree.map(jnp.multiply, magnitudes, gradient)
    jax.tree.map(np.testing.assert_array_equal, synflow(params, mask), plain)


def test_residual_branches_of_any_size_are_aligned():
    """A trunk that grows, branches that do not: exact against float64 on the host."""
    depth, n = 120, 6
    draw = np.random.default_rng(0)
    kernels = np.abs(draw.normal(size=(depth, n, n))).astype(np.float32)

    def block(x, kernel):
        return x + jax.nn.relu((x - 0.0) @ kernel) / jnp.sqrt(jnp.float32(1.0 + 1e-5)), None

    def residual(params, x):
        return jax.lax.scan(block, x, params["k"])[0]

    found = criteria.synflow(residual, jnp.ones((1, n)))(
        {"k": jnp.asarray(kernels)}, {"k": jnp.ones(kernels.shape, bool)}
    )["k"]
    steps = np.eye(n) + kernels.astype(np.float64) / np.sqrt(1 + 1e-5)
    ahead = [np.ones(n)]
    for step in steps:
        ahead.append(ahead[-1] @ step / np.abs(ahead[-1] @ step).max())
    behind = [np.ones(n)]
    for step in steps[::-1]:
        behind.append(step @ behind[-1] / np.abs(step @ behind[-1]).max())
    for i in (0, 60, 119):  # within a layer the scores have the same factor
        right = kernels[i] * np.outer(ahead[i], behind[depth - 1 - i])
        np.testing.assert_allclose(found[i] / found[i].sum(), right / right.sum(), rtol=1e-4)


@pytest.mark.exhaustive
def test_resnet56_gets_the_mask_of_float64():
    from lth_jax.models import NETWORKS, from_linen

    model, x = from_linen(NETWORKS["resnet56"](classes=10)), np.ones((1, 8, 8, 3), np.float32)
    params, state = jax.device_get(jax.jit(model.init)(jax.random.key(0), x))
    prunable, scope = masks.prunable_leaves(params), scopes.globally()
    everything, count = masks.ones_like(params), scope.counts(params, 0.1, prunable=prunable)

    def network(params, x):
        return model.apply(params, state, x, train=False)[0]

    with jax.numpy_dtype_promotion("standard"):
        start = jax.tree.map(jnp.asarray, params)
        mask = prune(criteria.synflow(network, jnp.asarray(x)), scope)(
            start, everything, count, prunable=prunable
        )
        with jax.enable_x64(True):  # R is about 1e100: in range there
            wide = jax.tree.map(lambda w: jnp.abs(jnp.asarray(w, jnp.float64)), params)
            state = jax.tree.map(lambda s: jnp.asarray(s, jnp.float64), state)
            flow = jax.jit(jax.grad(lambda p: network(p, jnp.asarray(x, jnp.float64)).sum()))
            scores = jax.tree.map(jnp.multiply, wide, flow(wide))
            right = scope.select(scores, everything, count, prunable=prunable)
    differing = [
        np.sum(np.asarray(a) != b)
        for a, b in zip(*map(jax.tree.leaves, (mask, right)), strict=True)
    ]
    assert sum(differing) <= 4  # ties of float32
