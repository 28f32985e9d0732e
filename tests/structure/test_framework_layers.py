"""Layers of Flax, Equinox and Haiku, each between two dense ones: removed is masked."""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from lth_jax import structure as st
from lth_jax.models import as_model
from tests.thinning import sampled

WIDTH, TIME = 4, 3
VECTORS = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
SEQUENCES = np.random.default_rng(1).normal(size=(2, TIME, 5)).astype(np.float32)
IMAGES = np.random.default_rng(2).normal(size=(2, 4, 4, 3)).astype(np.float32)
CHANNELS_FIRST = IMAGES.transpose(0, 3, 1, 2)


class LinenCell(nn.Module):
    cell: nn.Module

    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.Dense(WIDTH)(x))
        h = jnp.asarray(nn.RNN(self.cell)(h))[:, -1]
        return nn.Dense(2)(h.reshape(len(h), -1))


class LinenImages(nn.Module):
    @nn.compact
    def __call__(self, x):
        video = nn.Conv(WIDTH, (1, 1))(x)[:, None].repeat(2, axis=1)
        h = jnp.asarray(nn.RNN(nn.ConvLSTMCell(3, (3, 3)))(video))[:, -1]
        h = nn.ConvTranspose(WIDTH, (2, 2), strides=(2, 2))(h)
        return nn.Dense(2)(nn.relu(nn.InstanceNorm()(h)).mean((1, 2)))


class NnxCell(nnx.Module):
    def __init__(self, cell, rngs):
        self.first, self.out = nnx.Linear(5, WIDTH, rngs=rngs), nnx.Linear(3, 2, rngs=rngs)
        self.rnn = nnx.RNN(cell(WIDTH, 3, rngs=rngs), rngs=rngs)

    def __call__(self, x):
        return self.out(self.rnn(nnx.relu(self.first(x)))[:, -1])


class EquinoxCell(eqx.Module):
    first: eqx.nn.Linear
    cell: eqx.Module
    out: eqx.nn.Linear

    def __init__(self, cell, key):
        a, b, c = jax.random.split(key, 3)
        self.first, self.cell = eqx.nn.Linear(5, WIDTH, key=a), cell(WIDTH, 3, key=b)
        self.out = eqx.nn.Linear(3, 2, key=c)

    def __call__(self, x):
        start = jnp.zeros(3)
        start = (start, start) if isinstance(self.cell, eqx.nn.LSTMCell) else start
        h = jax.vmap(lambda x: jax.nn.relu(self.first(x)))(x)
        h, _ = jax.lax.scan(lambda h, x: (self.cell(x, h), None), start, h)
        return self.out(h[0] if isinstance(h, tuple) else h)


class EquinoxBlock(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    scale: eqx.nn.RMSNorm
    out: eqx.nn.MLP

    def __init__(self, key):
        a, b, c = jax.random.split(key, 3)
        self.first, self.norm = eqx.nn.Linear(5, 6, key=a), eqx.nn.LayerNorm(6)
        self.attention = eqx.nn.MultiheadAttention(2, 6, use_output_bias=True, key=b)
        self.scale, self.out = eqx.nn.RMSNorm(6), eqx.nn.MLP(6, 2, 7, 1, key=c)

    def __call__(self, x):
        h = jax.vmap(self.first)(x)
        n = jax.vmap(self.norm)(h)
        return self.out(self.scale((h + self.attention(n, n, n)).mean(0)))


def equinox_images(key):
    a, b, c, d = jax.random.split(key, 4)
    return eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(3, WIDTH, 3, padding=1, key=a),
            eqx.nn.GroupNorm(2, WIDTH),
            eqx.nn.Lambda(eqx.nn.PReLU()),  # takes no key
            eqx.nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH, key=b),
            eqx.nn.MaxPool2d(2, 2),
            eqx.nn.ConvTranspose2d(WIDTH, 3, 2, stride=2, key=c),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.AdaptiveAvgPool2d(1),
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(3, 2, key=d),
        ]
    )


def haiku_block(x):
    h = jax.nn.relu(hk.Linear(6)(x))
    init = hk.initializers.VarianceScaling(1.0)
    h = h + hk.MultiHeadAttention(2, 3, model_size=6, w_init=init)(h, h, h)
    h = hk.RMSNorm(-1)(h)
    core = hk.GRU(3)
    return hk.Linear(2)(hk.dynamic_unroll(core, h, core.initial_state(len(h)), time_major=False)[1])


def haiku_images(x, is_training):
    h = jax.nn.relu(hk.BatchNorm(True, True, 0.9)(hk.Conv2D(WIDTH, 3)(x), is_training))
    h = hk.max_pool(hk.DepthwiseConv2D(1, 3)(h), (2, 2, 1), (2, 2, 1), "SAME")
    return hk.Linear(2)(jax.nn.relu(hk.GroupNorm(2)(h)).mean((1, 2)))


# The network, its inputs, and the units of its groups: exact ones, then the others.
LAYERS = {
    "linen SimpleCell": (lambda: LinenCell(nn.SimpleCell(3)), SEQUENCES, [3, 4], []),
    "linen MGUCell": (lambda: LinenCell(nn.MGUCell(3)), SEQUENCES, [3, 4], []),
    "linen LSTMCell": (lambda: LinenCell(nn.LSTMCell(3)), SEQUENCES, [3, 4], []),
    "linen ConvLSTMCell": (LinenImages, IMAGES, [3, 4, 4], []),
    "nnx SimpleCell": (lambda: lambda rngs: NnxCell(nnx.SimpleCell, rngs), SEQUENCES, [3, 4], []),
    "nnx GRUCell": (lambda: lambda rngs: NnxCell(nnx.GRUCell, rngs), SEQUENCES, [3, 4], []),
    "nnx OptimizedLSTMCell": (
        lambda: lambda rngs: NnxCell(nnx.OptimizedLSTMCell, rngs), SEQUENCES, [3, 4], []),
    "equinox GRUCell": (
        lambda: lambda key: EquinoxCell(eqx.nn.GRUCell, key), SEQUENCES, [3, 4], []),
    "equinox LSTMCell": (
        lambda: lambda key: EquinoxCell(eqx.nn.LSTMCell, key), SEQUENCES, [3, 4], []),
    "equinox attention": (lambda: lambda key: EquinoxBlock(key), SEQUENCES, [2, 7], [6]),
    "equinox images": (lambda: lambda key: equinox_images(key), CHANNELS_FIRST, [2, 3], []),
    "haiku attention": (lambda: hk.transform(haiku_block), SEQUENCES, [2, 3, 6], []),
    "haiku images": (lambda: hk.transform_with_state(haiku_images), IMAGES, [2], []),
}  # fmt: skip
FAST = ("equinox attention",)


@pytest.mark.parametrize("name", [*FAST, *sampled([n for n in LAYERS if n not in FAST], 2)])
def test_removed_is_masked(name, compare_units, random_units):
    make, x, exact, inexact = LAYERS[name]
    model = as_model(make())
    params, state = jax.jit(model.init)(jax.random.key(0), x)
    rng = np.random.default_rng(3)
    variables = jax.tree.map(
        lambda v: np.asarray(v) + rng.uniform(0.1, 0.3, v.shape).astype(v.dtype),
        {"params": params, "state": state},
    )

    def apply(variables, x):
        return model.apply(variables["params"], variables["state"], x, train=False)[0]

    found = st.find_groups(apply, variables, x)
    assert found.unknown == ()
    assert sorted(g.units for g in found.groups if g.exact) == exact
    assert sorted(g.units for g in found.groups if not g.exact) == inexact
    compare_units(found, apply, (x,), random_units(found), variables)
