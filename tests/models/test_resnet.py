"""The acid test: a ResNet with BatchNorm and dropout as a population, under every transform."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from lth_jax import trees
from lth_jax.models.adapters import from_linen
from lth_jax.models.resnet import ResNet
from tests.models import by_hand

# One block only, the kind with strides and a projection: compiling takes most of the time.
MODEL = from_linen(ResNet(blocks=(0, 1), width=4, classes=3, dropout=0.3))
X = jnp.float32(np.random.default_rng(0).normal(size=(4, 8, 8, 3)))
KEYS = jax.random.split(jax.random.key(6), 2)


def gradient(params, state, key):
    def loss(params):
        out, new_state = MODEL.apply(params, state, X, key=key, train=True)
        return (out**2).mean(), (new_state, out)

    return jax.grad(loss, has_aux=True)(params)


@pytest.fixture(scope="module")
def members(filled):
    """Two members that share parameters and differ in their dropout keys."""
    params, state = filled(MODEL, X)
    return trees.stack([params] * 2), trees.stack([state] * 2)


@pytest.fixture(scope="module")
def together(members):
    return jax.jit(jax.vmap(gradient))(*members, KEYS)


def test_members_agree_with_single_runs(members, together):
    alone = jax.jit(gradient)
    for i in range(2):
        single = alone(*trees.index(members, i), KEYS[i])
        for a, b in zip(
            jax.tree.leaves(trees.index(together, i)), jax.tree.leaves(single), strict=True
        ):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_members_draw_their_own_dropout_and_their_own_statistics(together):
    gradients, (state, out) = together
    assert not np.allclose(out[0], out[1])
    last = state["batch_stats"]["ResidualBlock_0"]["BatchNorm_1"]["mean"]
    assert not np.allclose(last[0], last[1])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))


def test_statistics_follow_their_momentum(members, together):
    params, state = trees.index(members, 0)
    moved = trees.index(together[1][0], 0)["batch_stats"]["BatchNorm_0"]
    kernel = params["Conv_0"]["kernel"]
    h = jax.lax.conv_general_dilated(
        X, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    start = state["batch_stats"]["BatchNorm_0"]
    for name, new in {"mean": h.mean((0, 1, 2)), "var": h.var((0, 1, 2))}.items():
        np.testing.assert_allclose(moved[name], 0.9 * start[name] + 0.1 * new, atol=1e-5)
    trees.check_same_structure("moved", trees.index(together[1][0], 0), "state", state)


def test_bottlenecks_behind_a_large_stem_are_their_formula(filled):
    x = jnp.float32(np.random.default_rng(1).normal(size=(2, 8, 12, 3)))
    options = {"blocks": (1,), "width": 2, "classes": 3, "bottleneck": True, "large_images": True}
    model = from_linen(ResNet(**options))
    params, state = filled(model, x)

    def layer(h, i, p, s, stride=1):
        norm = f"BatchNorm_{i}"
        return by_hand.batch_norm(by_hand.conv(h, p[f"Conv_{i}"], stride), p[norm], s[norm])

    def expected(p, s):
        h = nn.relu(layer(x, 0, p, s, stride=2))
        h = nn.max_pool(jnp.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (2, 2))
        inside = p["BottleneckBlock_0"], s["BottleneckBlock_0"]
        deep = layer(nn.relu(layer(nn.relu(layer(h, 0, *inside)), 1, *inside)), 2, *inside)
        h = nn.relu(layer(h, 3, *inside) + deep)
        return by_hand.dense(h.mean((1, 2)), p["Dense_0"])

    ours, theirs = jax.jit(
        lambda p, s: (model.apply(p, s, x, train=False)[0], expected(p, s["batch_stats"]))
    )(params, state)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_sharded_population_agrees(members, together):
    mesh = jax.make_mesh((2,), ("m",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = P("m")
    sharded = jax.jit(
        jax.shard_map(jax.vmap(gradient), mesh=mesh, in_specs=(spec,) * 3, out_specs=spec)
    )(*members, KEYS)
    for a, b in zip(jax.tree.leaves(sharded), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_signals_go_through_it_too():
    model = from_linen(ResNet(width=4))
    params, state = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 40, 1)))
    assert params["ResidualBlock_2"]["Conv_2"]["kernel"].shape == (1, 8, 16)
    apply = functools.partial(model.apply, train=False)
    assert jax.eval_shape(apply, params, state, jnp.zeros((5, 40, 1)))[0].shape == (5, 10)
