"""Layers of trained networks: ALPS against SparseGPT, and what reconstruction is worth."""

import jax
import jax.numpy as jnp
import optax
import pytest
from sklearn.datasets import load_digits

import lth_jax as lth
from lth_jax import reconstruct, trees
from lth_jax.models.adapters import from_linen
from lth_jax.reconstruct import find_layers, prune

NETWORKS = {
    "mlp": (dict(features=(100, 50, 10)), (64,)),
    "convnet": (dict(stages=((8,), (16,)), hidden=(64,)), (8, 8, 1)),
    "transformer_encoder": (dict(width=32, hidden=64, layers=2), (8, 8)),
}
STEPS = 200


def digits(shape):
    data = load_digits()
    return jnp.asarray(data.images.reshape(-1, *shape) / 16, jnp.float32), jnp.asarray(data.target)


def trained(name):
    """A network trained on digits: its function, its parameters, calibration batches, a test."""
    options, shape = NETWORKS[name]
    x, y = digits(shape)
    model = from_linen(lth.models.NETWORKS[name](**options))
    params, state = model.init(jax.random.key(0), x[:2])
    optimizer = optax.adam(3e-3)

    def f(params, x):
        return model.apply(params, state, x, train=False)[0]

    def loss(params, rows):
        return optax.softmax_cross_entropy_with_integer_labels(f(params, x[rows]), y[rows]).mean()

    def step(carry, rows):
        params, slots = carry
        updates, slots = optimizer.update(jax.grad(loss)(params, rows), slots)
        return (optax.apply_updates(params, updates), slots), None

    rows = jax.random.randint(jax.random.key(1), (STEPS, 64), 0, 1200)
    params, _ = jax.jit(lambda c: jax.lax.scan(step, c, rows)[0])((params, optimizer.init(params)))

    def accuracy(params):
        return float((f(params, x[1200:]).argmax(-1) == y[1200:]).mean())

    return f, params, [x[:500], x[500:1000]], accuracy


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_alps_beats_sparse_gpt_on_the_layers_of_a_trained_network(name):
    f, params, batches, accuracy = trained(name)
    assert accuracy(params) > 0.85
    better, pairs = [], 0
    for density in (0.5, 0.3, 0.1):
        alps, sparse_gpt, wanda = (
            prune(f, params, batches, method=method, density=density, inputs="dense")
            for method in (reconstruct.alps(), reconstruct.sparse_gpt(), reconstruct.wanda())
        )
        rows = list(zip(alps[2], sparse_gpt[2], wanda[2], strict=True))
        print(name, density, accuracy(params), *(accuracy(m[0]) for m in (alps, sparse_gpt, wanda)))
        for a, s, w in rows:
            print(a.name, a.inputs, a.outputs, a.error, s.error, w.error)
        better += [a.error <= s.error for a, s, _ in rows]
        pairs += len(rows)
    assert sum(better) >= 0.95 * pairs
    assert accuracy(alps[0]) > accuracy(wanda[0])
