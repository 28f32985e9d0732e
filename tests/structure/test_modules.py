"""Modules of compact size: refitted and rebuilt ones meet the masked network, or are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from lth_jax import structure as st


class Convnet(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Conv(2, 8, (3, 3), rngs=rngs)
        self.group = nnx.GroupNorm(8, 4, rngs=rngs)
        self.depth = nnx.Conv(8, 8, (3, 3), feature_group_count=8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, use_running_average=True, rngs=rngs)
        self.out = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.group(self.first(x)))
        return self.out(nnx.relu(self.norm(self.depth(x))).mean((1, 2)))


class Attention(nnx.Module):
    def __init__(self, rngs, kv=None):
        self.table = nnx.Embed(7, 6, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(
            4, 6, qkv_features=8, num_kv_heads=kv, decode=False, rngs=rngs
        )
        self.out = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, tokens):
        x = self.table(tokens)
        return self.out(x + self.attend(x))


def analysed(module, x):
    graph, state = nnx.split(module)
    pure = nnx.as_pure(state)
    return st.find_groups(lambda s, x: nnx.merge(graph, s)(x), pure, x), pure


def halves(found, groups=None):
    return {g.name: np.arange(g.units) >= g.units // 2 for g in groups or found.groups}


def test_an_nnx_convnet_is_refitted():
    module, x = Convnet(nnx.Rngs(0)), jnp.ones((2, 4, 4, 2))
    found, state = analysed(module, x)
    units = halves(found)
    small, apply = st.compact(found, state, units)
    new = st.refit(module, small)
    assert new.first.out_features == 4 and new.depth.feature_group_count == 4
    assert new.group.num_groups == 2 and new.norm.num_features == 4 and new.out.in_features == 4
    assert module.first.out_features == 8
    assert st.check_same(jax.jit(lambda x: apply(small, x)), nnx.jit(new), x) < 1e-5


@pytest.mark.parametrize("kv", [None, 2])
def test_heads_of_attention_are_refitted(kv):
    module, x = Attention(nnx.Rngs(0), kv), jnp.array([[1, 4, 6]])
    found, state = analysed(module, x)
    heads = [g for g in found.groups if g.units == (kv or 4)]
    small, apply = st.compact(found, state, halves(found, heads[:1]))
    new = st.refit(module, small)
    assert new.attend.num_heads == 2
    assert st.check_same(jax.jit(lambda x: apply(small, x)), nnx.jit(new), x) < 1e-5


def test_the_drift_of_a_smaller_head_is_refused():
    module, x = Attention(nnx.Rngs(0)), jnp.array([[1, 4, 6]])
    found, state = analysed(module, x)
    sizes = [g for g in found.groups if any("attend" in s.leaf for s in g.slots) and g.units == 2]
    small, apply = st.compact(found, state, halves(found, sizes))
    new = st.refit(module, small)
    with pytest.raises(ValueError, match="formula uses a width that changed"):
        st.check_same(jax.jit(lambda x: apply(small, x)), nnx.jit(new), x)


class Scaled(nnx.Module):
    def __init__(self):
        self.width = 4
        self.kernel = nnx.Param(jnp.ones((4, 4)))


def test_a_module_of_unknown_kind_is_refused_by_its_place():
    module = nnx.List([Scaled()])
    with pytest.raises(ValueError, match="`module` has at '0' a Scaled"):
        st.refit(module, {0: {"kernel": jnp.ones((4, 2))}})


class Linen(nn.Module):
    width: int
    norm: bool = False

    @nn.compact
    def __call__(self, x):
        h = nn.Dense(self.width)(x)
        return nn.Dense(2)(nn.relu(nn.LayerNorm()(h) if self.norm else h))


@pytest.fixture(scope="module")
def linen():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), "float32")
    params = Linen(6).init(jax.random.key(0), x)
    found = st.find_groups(Linen(6).apply, params, x)
    return *st.compact(found, params, halves(found)), x


def test_a_linen_module_is_rebuilt(linen):
    small, apply, x = linen
    st.check_fits(Linen(3).init, small, jax.random.key(0), x)
    gap = st.check_same(lambda x: apply(small, x), lambda x: Linen(3).apply(small, x), x)
    assert gap < 1e-5


def test_the_wrong_config_is_refused_by_its_leaf(linen):
    small, _, x = linen
    with pytest.raises(ValueError, match=r"'params/Dense_0/bias' has shape \(3,\).*has \(4,\)"):
        st.check_fits(Linen(4).init, small, jax.random.key(0), x)


def test_the_drift_of_a_narrower_norm_is_refused():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), "float32")
    params = Linen(6, norm=True).init(jax.random.key(0), x)
    found = st.find_groups(Linen(6, norm=True).apply, params, x)
    small, apply = st.compact(found, params, halves(found))
    st.check_fits(Linen(3, norm=True).init, small, jax.random.key(0), x)
    with pytest.raises(ValueError, match="formula uses a width that changed"):
        st.check_same(lambda x: apply(small, x), lambda x: Linen(3, norm=True).apply(small, x), x)
