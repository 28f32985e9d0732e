"""Networks as Flax writes them, Linen and NNX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import lth_jax as lth
from lth_jax import structure as st


def data(*shape, seed=3):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), "float32")


def linen(module, x, **options):
    """`(apply, variables)` with every leaf a little random, biases and statistics too."""
    variables = jax.jit(module.init)(jax.random.key(0), x)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda v: np.asarray(v) + rng.uniform(0.1, 0.3, v.shape).astype(v.dtype), variables
    )
    return lambda v, x: module.apply(v, x, **options), variables


class Convnet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3))(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.GroupNorm(num_groups=4)(nn.Conv(8, (3, 3))(x)))
        return nn.Dense(3)(nn.relu(nn.Dense(5)(x.reshape(len(x), -1))))


@pytest.mark.slow
def test_linen_convnet_with_group_norm(check):
    x = data(2, 8, 8, 2)
    found = check(*linen(Convnet(), x), x)
    sizes = {g.name.split("/")[1]: g.units for g in found.groups}
    assert sizes == {"Conv_0": 6, "Conv_1": 4, "Dense_0": 5}


class Block(nn.Module):
    width: int
    stride: int
    train: bool

    @nn.compact
    def __call__(self, x):
        def norm():
            return nn.BatchNorm(use_running_average=not self.train)

        y = nn.relu(norm()(nn.Conv(4, (3, 3), self.stride, use_bias=False)(x)))
        y = norm()(nn.Conv(self.width, (3, 3), use_bias=False)(y))
        if y.shape != x.shape:
            x = norm()(nn.Conv(self.width, (1, 1), self.stride, use_bias=False)(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    train: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(5, (3, 3), use_bias=False)(x))
        for width, stride in ((5, 1), (6, 2)):
            x = Block(width, stride, self.train)(x)
        return nn.Dense(3)(x.mean((1, 2)))


@pytest.mark.slow
def test_linen_resnet_with_running_statistics(check):
    x = data(2, 6, 6, 2)
    found = check(*linen(ResNet(), x), x)
    assert sorted(g.units for g in found.groups) == [4, 4, 5, 6]
    statistics = [slot.leaf for g in found.groups for slot in g.slots if "batch_stats" in slot.leaf]
    assert len(statistics) == 10


@pytest.mark.slow
def test_linen_resnet_in_training_with_new_statistics(check):
    x = data(4, 6, 6, 2)
    apply, variables = linen(ResNet(train=True), x, mutable=["batch_stats"])
    found = check(
        apply, variables, x, pin_outputs=(True, False), pinned=lambda out: out[0], atol=1e-4
    )
    assert sorted(g.units for g in found.groups) == [4, 4, 5, 6]
    units = {g.name: np.arange(g.units) < 2 for g in found.groups}
    small, compact = st.compact(found, variables, units)
    _, new = compact(small, x)
    old = {"batch_stats": small["batch_stats"]}
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, old)


class Normed(nn.Module):
    features: int = 16

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(self.features)(x))
        return nn.Dense(4)(nn.relu(x))


def test_variables_with_statistics_are_pruned_compacted_and_trained():
    x, model = data(12, 8), Normed()
    _, variables = linen(model, x)
    found = st.find_groups(model.apply, variables, x)
    scope, prunable = st.by_group(found, multiple=8), st.prunable(found)
    assert all(jax.tree.leaves(prunable["batch_stats"]))
    prunable["batch_stats"] = jax.tree.map(lambda _: False, prunable["batch_stats"])
    count = scope.counts(variables, 0.25, prunable=prunable)
    pruner = lth.prune(lth.magnitude(), scope, st.granularity(found))
    mask = pruner(variables, lth.ones_like(variables), count, prunable=prunable)
    small, small_apply = st.compact(found, variables, st.units_of(found, mask))
    assert small["batch_stats"]["BatchNorm_0"]["mean"].shape == (8,)
    masked = model.apply(lth.apply_mask(mask, variables), x)
    np.testing.assert_allclose(small_apply(small, x), masked, atol=1e-5)
    new = st.rebuild(model, small, lambda x: small_apply(small, x), x)
    _, updated = new.apply(small, x, train=True, mutable=["batch_stats"])
    assert new.features == 8 and updated["batch_stats"]["BatchNorm_0"]["var"].shape == (8,)


class ViT(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (4, 4), (4, 4))(x)
        x = x.reshape(len(x), -1, 8)
        cls = self.param("cls", nn.initializers.zeros, (1, 1, 8))
        x = jnp.concatenate([jnp.tile(cls, (len(x), 1, 1)), x], 1)
        x = x + self.param("pos", nn.initializers.normal(0.02), (1, x.shape[1], 8))
        h = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=4, qkv_features=12)(h, h)
        h = nn.LayerNorm()(x)
        x = x + nn.Dense(8)(nn.gelu(nn.Dense(10)(h)))
        return nn.Dense(3)(nn.LayerNorm()(x)[:, 0])


@pytest.mark.slow
def test_linen_vision_transformer(check):
    x = data(2, 8, 8, 3)
    found = check(*linen(ViT(), x), x)
    # the stream, the heads, the features of queries and keys, those of values, the hidden units
    assert sorted(g.units for g in found.groups) == [3, 3, 4, 8, 10]


def test_two_pass_layer_norm_is_recognised(compare_units):
    module = nn.Sequential([nn.Dense(6), nn.LayerNorm(use_fast_variance=False), nn.Dense(2)])
    x = data(2, 3)
    apply, variables = linen(module, x)
    found = st.find_groups(apply, variables, x)
    (group,) = found.groups
    assert not group.exact
    units = {group.name: np.arange(6) < 3}
    with pytest.raises(ValueError, match=r"'params/layers_0/bias:0'.*differs from the masked"):
        st.compact(found, variables, units)
    with pytest.raises(AssertionError):  # what the flag says is true
        compare_units(found, apply, (x,), units, variables, inexact=True)


class Recurrent(nn.Module):
    cell: type

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(7, 4)(tokens)
        return nn.Dense(2)(jnp.asarray(nn.RNN(self.cell(6))(x))[:, -1])


@pytest.mark.slow
@pytest.mark.parametrize("cell", [nn.OptimizedLSTMCell, nn.GRUCell])
def test_linen_recurrent_units_and_embedding_columns(cell, check):
    tokens = jnp.array([[1, 2, 3], [6, 0, 5]])
    found = check(*linen(Recurrent(cell), tokens), tokens)
    assert sorted(g.units for g in found.groups) == [4, 6]


class Mixed(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 6, (3, 3), rngs=rngs)
        self.depth = nnx.Conv(6, 6, (3, 3), feature_group_count=6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, use_running_average=True, rngs=rngs)
        self.group = nnx.GroupNorm(6, 3, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(3, 6, qkv_features=9, decode=False, rngs=rngs)
        self.layer = nnx.LayerNorm(6, rngs=rngs)
        self.up = nnx.Linear(6, 5, rngs=rngs)
        self.out = nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.depth(self.conv(x))))
        x = self.group(x)
        x = x.reshape(len(x), -1, 6)
        x = self.layer(x + self.attend(x))
        return self.out(nnx.relu(self.up(x.mean(1))))


@pytest.mark.slow
def test_nnx_state(check):
    graph, state = nnx.split(Mixed(nnx.Rngs(0)))
    x = data(2, 4, 4, 2)
    found = check(lambda s, x: nnx.merge(graph, s)(x), nnx.as_pure(state), x, atol=5e-5)
    assert sorted(g.units for g in found.groups) == [3, 3, 3, 3, 5]
