"""Perceptrons against their formulas, sizes and initial distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lth_jax.models import layers
from lth_jax.models.adapters import from_linen
from lth_jax.models.mlp import MLP, ResidualMLP


def parts(params):
    """(kernels, biases) as flat arrays, in the order of the layers."""
    found = [params[name] for name in sorted(params)]
    return [layer["kernel"] for layer in found], [layer["bias"] for layer in found]


def test_mnist1d_network_has_the_authors_layers():
    params, _ = jax.eval_shape(
        from_linen(ResidualMLP()).init, jax.random.key(0), jnp.zeros((1, 40))
    )
    kernels, biases = parts(params)
    assert [k.shape for k in kernels] == [(40, 500), (500, 500), (500, 10)]
    assert [b.shape for b in biases] == [(500,), (500,), (10,)]


def test_mlp_is_its_formula(filled):
    model = from_linen(MLP((5, 4, 3), activation=jnp.tanh))
    x = jnp.float32(np.random.default_rng(1).normal(size=(6, 2, 2)))
    params, state = filled(model, x)
    (w1, w2, w3), (b1, b2, b3) = parts(params)
    expected = jnp.tanh(jnp.tanh(x.reshape(6, 4) @ w1 + b1) @ w2 + b2) @ w3 + b3
    np.testing.assert_allclose(
        model.apply(params, state, x, train=True)[0], expected, rtol=1e-5, atol=1e-6
    )


def test_residual_mlp_is_its_formula(filled):
    model = from_linen(ResidualMLP(width=5, blocks=2, classes=3))
    x = jnp.float32(np.random.default_rng(1).normal(size=(6, 4, 1)))
    params, state = filled(model, x)
    (w1, w2, w3, w4), (b1, b2, b3, b4) = parts(params)
    h = jax.nn.relu(x[..., 0] @ w1 + b1)
    h = h + jax.nn.relu(h @ w2 + b2)
    h = h + jax.nn.relu(h @ w3 + b3)
    np.testing.assert_allclose(
        model.apply(params, state, x, train=True)[0], h @ w4 + b4, rtol=1e-5, atol=1e-6
    )


def test_lenet_starts_gaussian_glorot():
    params, _ = jax.jit(from_linen(MLP()).init)(jax.random.key(0), jnp.zeros((1, 784)))
    kernels, biases = parts(params)
    assert all(not np.any(b) for b in biases)
    for kernel in kernels[:2]:
        expected = np.sqrt(2 / sum(kernel.shape))
        assert float(kernel.std()) == pytest.approx(expected, rel=0.03)
        fourth = float((kernel**4).mean()) / expected**4
        assert 2.0 < fourth < 3.0  # 3 for a Gaussian, 1.8 for a uniform, less when truncated


def test_mnist1d_network_starts_uniform_in_its_fan_in():
    params, _ = jax.jit(from_linen(ResidualMLP(blocks=0)).init)(
        jax.random.key(0), jnp.zeros((1, 40))
    )
    for kernel, bias in zip(*parts(params), strict=True):
        limit = kernel.shape[0] ** -0.5
        for draw in (kernel, bias):
            assert float(jnp.abs(draw).max()) <= limit * (1 + 1e-6)
        assert float(kernel.std()) == pytest.approx(limit / np.sqrt(3), rel=0.05)
        assert float(jnp.abs(bias).max()) > 0.5 * limit


def test_dropout_drops_hidden_units_in_training_only(filled):
    model = from_linen(MLP((64, 64), dropout=0.5))
    x = jnp.ones((1, 4))
    params, state = filled(model, x)
    params = jax.tree.map(jnp.ones_like, params) | {
        "Dense_1": {"kernel": jnp.eye(64), "bias": jnp.zeros(64)}
    }
    train = model.apply(params, state, x, key=jax.random.key(1), train=True)[0]
    np.testing.assert_allclose(np.unique(train), [0.0, 10.0])
    np.testing.assert_allclose(model.apply(params, state, x, train=False)[0], 5.0)


def test_dropout_is_flaxes():
    x, rngs = jnp.linspace(0, 1, 500), {"dropout": jax.random.key(3)}
    ours = layers.Dropout(0.3).apply({}, x, train=True, rngs=rngs)
    theirs = nn.Dropout(0.3, deterministic=False).apply({}, x, rngs=rngs)
    np.testing.assert_array_equal(ours, theirs)
