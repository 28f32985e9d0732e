"""Curvature of networks as people write them: Linen and NNX, BatchNorm in both modes, outliers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

from lth_jax.landscape import extremes, hessian
from lth_jax.measures.spectra import outliers
from lth_jax.models.adapters import from_linen, from_nnx
from lth_jax.types import Batch

KEY = jax.random.key(0)


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(2, (3, 3), strides=2)(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(jnp.tanh(x))
        return nn.Dense(3)(x.reshape(len(x), -1))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 2, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = self.drop(jnp.tanh(self.norm(self.conv(x))))
        return self.dense(x.reshape(len(x), -1))


MODELS = {"linen": lambda: from_linen(LinenNet()), "nnx": lambda: from_nnx(NnxNet)}
IMAGES = np.random.default_rng(0).normal(size=(12, 4, 4, 1)).astype(np.float32)
LABELS = np.arange(12) % 3


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@pytest.mark.parametrize("framework", MODELS)
@pytest.mark.slow
def test_batch_norm_in_the_mode_that_the_loss_names(framework):
    model = MODELS[framework]()
    params, state = jax.jit(model.init)(KEY, IMAGES)
    data = Batch(IMAGES, LABELS)
    mask = jax.tree.map(lambda p: np.random.default_rng(1).random(p.shape) < 0.6, params)
    found = {}
    for train in (False, True):

        def loss(p, batch, train=train):
            return cross_entropy(model.apply(p, state, batch.x, key=KEY, train=train)[0], batch.y)

        operator = hessian(loss, params, [data], mask=mask)
        v = jax.random.normal(KEY, (operator.size,))
        found[train] = operator(v)
        plain = jax.jit(
            lambda t, loss=loss: jax.jvp(lambda p: jax.grad(loss)(p, data), (params,), (t,))
        )
        np.testing.assert_allclose(
            found[train], operator.contract(plain(operator.expand(v))[1]), atol=1e-5
        )
    assert np.abs(found[True] - found[False]).max() > 1e-2


def test_double_precision_is_kept():
    with jax.enable_x64(True):
        w = jnp.asarray(np.linspace(1, 2, 4), jnp.float64)
        operator = hessian(lambda w, x: jnp.mean(x) * jnp.sum(w**4), w, [np.ones(3)])
        assert operator.dtype == jnp.float64
        found = extremes(operator, KEY, tolerance=1e-12, exact_below=0)
    assert found.largest[0] == pytest.approx(12 * 4, rel=1e-13)
    assert found.smallest[0] == pytest.approx(12, rel=1e-13)


@pytest.mark.slow
def test_a_network_of_ten_classes_has_nine_outliers():
    """One less than the classes (Papyan, 2019), and so does its half once it is retrained."""
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    images = (x.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    data = Batch(images[:1000], y[:1000])

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            del train
            for width in (8, 16):
                x = nn.avg_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), (2, 2))
            return nn.Dense(10)(x.reshape(len(x), -1))

    model = from_linen(Net())
    params, _ = model.init(KEY, data.x)

    def loss(p, batch):
        return cross_entropy(model.apply(p, {}, batch.x, train=False)[0], batch.y)

    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(p, slots, mask):
        masked = jax.tree.map(lambda g, m: jnp.where(m, g, 0), jax.grad(loss)(p, data), mask)
        updates, slots = optimizer.update(masked, slots)
        return optax.apply_updates(p, updates), slots

    def train(p, mask, steps):
        slots = optimizer.init(p)
        for _ in range(steps):
            p, slots = step(p, slots, mask)
        return p

    def count(point, mask):
        batches = [Batch(data.x[:640], data.y[:640]), Batch(data.x[640:], data.y[640:])]
        found = extremes(hessian(loss, point, batches, mask=mask), KEY, k=16, steps=96)
        assert found.converged
        return outliers(found.largest)

    everything = jax.tree.map(lambda p: jnp.ones(p.shape, bool), params)
    params = train(params, everything, 150)
    assert count(params, everything) == 9

    half = jax.tree.map(lambda p: jnp.abs(p) >= jnp.median(jnp.abs(p)), params)
    ticket = jax.tree.map(lambda m, p: jnp.where(m, p, 0), half, params)
    assert count(train(ticket, half, 50), half) == 9
