"""Modules of compact size: refitted and rebuilt ones meet the masked network, or are refused."""

import functools

import equinox as eqx
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


def rebuilt(module, found, params, units, *args, **options):
    """The module that `rebuild` gives and the compact parameters."""
    small, apply = st.compact(found, params, units)
    reference = functools.partial(jax.jit(apply), small)
    return st.rebuild(module, small, reference, *args, **options), small


def test_an_nnx_module_is_rebuilt_and_compared():
    module, x = Convnet(nnx.Rngs(0)), jnp.ones((2, 4, 4, 2))
    found, state = analysed(module, x)
    new, _ = rebuilt(module, found, state, halves(found), x)
    assert new.out.in_features == 4 and module.out.in_features == 8


def test_the_sizes_of_linen_layers_in_a_sequence_are_found_one_by_one():
    module = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(6), nn.relu, nn.Dense(2)])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), "float32")
    params = module.init(jax.random.key(0), x)
    found = st.find_groups(module.apply, params, x)
    sizes = {"params/layers_0/bias:0": 3, "params/layers_2/bias:0": 5}
    units = {name: np.arange(found[name].units) < n for name, n in sizes.items()}
    new, small = rebuilt(module, found, params, units, x)
    assert [layer.features for layer in new.layers[::2]] == [3, 5, 2]
    assert jax.tree.map(jnp.shape, new.init(jax.random.key(0), x)) == jax.tree.map(jnp.shape, small)


class Heads(nn.Module):
    """Attention whose layers are flat, so that shapes do not distinguish heads from features."""

    heads: int
    size: int

    @nn.compact
    def __call__(self, x, train):
        wide = [nn.Dense(self.heads * self.size, use_bias=False)(x) for _ in range(3)]
        q, k, v = (h.reshape(*x.shape[:-1], self.heads, self.size) for h in wide)
        mixed = jax.nn.dot_product_attention(q, k, v, scale=1.0)
        return nn.Dense(2)(
            nn.Dropout(0.5, deterministic=not train)(mixed.reshape(*x.shape[:-1], -1))
        )


@pytest.mark.parametrize(("prefer", "sizes"), [(st.major, (2, 4)), (st.minor, (4, 2))])
def test_sizes_with_the_same_shapes_are_told_apart_by_the_outputs(prefer, sizes):
    def call(module, x):
        return module(x, train=False)

    module = Heads(4, 4)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 4)), "float32")
    params = module.init(jax.random.key(0), x, False)
    apply = lambda p, x: module.apply(p, x, train=False)  # noqa: E731
    found = st.find_groups(apply, params, x, prefer=prefer)
    new, _ = rebuilt(module, found, params, halves(found), x, call=call)
    assert (new.heads, new.size) == sizes


class Fixed(nn.Module):
    out: int = 6

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.out)(nn.relu(nn.Dense(8)(x)))


def test_a_linen_module_with_a_size_in_its_code_is_refused_by_the_leaf():
    x = jnp.ones((1, 4))
    params = Fixed().init(jax.random.key(0), x)
    found = st.find_groups(Fixed().apply, params, x)
    with pytest.raises(
        ValueError,
        match=r"give leaf 'params/Dense_0/kernel' the shape \(4, 6\) \(closest: \(8, 6\)\)",
    ):
        rebuilt(Fixed(), found, params, halves(found), x)


def test_a_linen_module_that_drifts_is_refused():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), "float32")
    module = Linen(6, norm=True)
    params = module.init(jax.random.key(0), x)
    found = st.find_groups(module.apply, params, x)
    with pytest.raises(ValueError, match="formula uses a width that changed"):
        rebuilt(module, found, params, halves(found), x)


class Image(eqx.Module):
    layers: list
    attend: eqx.nn.MultiheadAttention
    out: eqx.nn.Linear

    def __init__(self, key):
        k = jax.random.split(key, 4)
        self.layers = [
            eqx.nn.Conv2d(2, 8, 3, key=k[0]),
            eqx.nn.GroupNorm(4, 8),
            eqx.nn.Conv2d(8, 8, 3, groups=8, padding=1, key=k[1]),
        ]
        self.attend = eqx.nn.MultiheadAttention(4, 8, key=k[2])
        self.out = eqx.nn.Linear(8, 3, key=k[3])

    def __call__(self, x):
        for layer in self.layers:
            x = jax.nn.relu(layer(x))
        x = x.reshape(len(x), -1).T
        return self.out((x + self.attend(x, x, x)).mean(0))


def equinox_case(module, x):
    params, static = eqx.partition(module, eqx.is_inexact_array)
    return st.find_groups(lambda p, x: jax.vmap(eqx.combine(p, static))(x), params, x), params


def per_example(module, x):
    return jax.vmap(module)(x)


def test_an_equinox_module_is_rebuilt_with_its_static_fields():
    module = Image(jax.random.key(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 5, 5)), "float32")
    found, params = equinox_case(module, x)
    new, _ = rebuilt(module, found, params, halves(found), x, call=per_example)
    conv, norm, depth = new.layers
    assert (conv.out_channels, norm.channels, norm.groups) == (4, 4, 2)
    assert (depth.groups, depth.in_channels, depth.out_channels) == (4, 4, 4)
    assert (new.attend.num_heads, new.attend.qk_size, new.attend.output_size) == (2, 2, 4)
    assert (new.out.in_features, new.out.out_features) == (4, 3)
    assert module.layers[1].channels == 8


class Gate(eqx.Module):
    weight: jax.Array
    width: int = eqx.field(static=True)

    def __call__(self, x, key=None):
        return x * self.weight


def test_equinox_parts_of_unknown_kind_are_refused_by_their_place():
    k = jax.random.split(jax.random.key(0))
    parts = [eqx.nn.Linear(3, 6, key=k[0]), Gate(jnp.ones(6), 6), eqx.nn.Linear(6, 2, key=k[1])]
    module, x = eqx.nn.Sequential(parts), jnp.ones((1, 3))
    found, params = equinox_case(module, x)
    with pytest.raises(ValueError, match=r"'.layers\[1\]' a Gate whose field 'width' cannot"):
        rebuilt(module, found, params, halves(found), x, call=per_example)


def test_an_equinox_cell_and_a_table_are_rebuilt():
    class Reader(eqx.Module):
        table: eqx.nn.Embedding
        norm: eqx.nn.RMSNorm
        cell: eqx.nn.GRUCell
        out: eqx.nn.Linear

        def __call__(self, tokens):
            xs = jax.vmap(self.table)(tokens)
            step = lambda h, x: (self.cell(x, h), None)  # noqa: E731
            h, _ = jax.lax.scan(step, jnp.zeros(self.cell.hidden_size), xs)
            return self.out(h)

    k = jax.random.split(jax.random.key(1), 3)
    module = Reader(
        eqx.nn.Embedding(5, 4, key=k[0]),
        eqx.nn.RMSNorm(4),
        eqx.nn.GRUCell(4, 6, key=k[1]),
        eqx.nn.Linear(6, 2, key=k[2]),
    )
    tokens = jnp.array([[1, 4, 2]])
    found, params = equinox_case(module, tokens)
    new, _ = rebuilt(module, found, params, halves(found), tokens, call=per_example)
    assert (new.table.embedding_size, new.cell.input_size, new.cell.hidden_size) == (2, 2, 3)


def test_other_objects_have_no_module():
    with pytest.raises(TypeError, match="got dict; use the compact function"):
        st.rebuild({}, {}, lambda x: x, jnp.ones(1))
