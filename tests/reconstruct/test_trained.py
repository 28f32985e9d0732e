"""Layers of trained networks: ALPS against SparseGPT, and what reconstruction is worth."""

import jax
import jax.numpy as jnp
import optax
import pytest
from sklearn.datasets import load_digits

import lth_jax as lth
from lth_jax import reconstruct
from lth_jax.models.adapters import from_linen
from lth_jax.reconstruct import prune

NETWORKS = {
    "mlp": (dict(features=(100, 50, 10)), (64,)),
    "convnet": (dict(stages=((8,), (16,)), hidden=(64,)), (8, 8, 1)),
    "transformer_encoder": (dict(width=32, hidden=64, layers=2), (8, 8)),
}
STEPS = 120


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

    return f, params, [x[:600]], accuracy


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_alps_beats_sparse_gpt_on_the_layers_of_a_trained_network(name):
    f, params, batches, accuracy = trained(name)
    assert accuracy(params) > 0.85
    methods = reconstruct.alps(), reconstruct.sparse_gpt(), reconstruct.sparse_gpt(block=16)
    better = []
    for density in (0.5, 0.2):
        (pruned, _, alps), *others = (
            prune(f, params, batches, method=method, density=density, inputs="dense")
            for method in methods
        )
        for _, _, other in others:
            better += [a.error <= b.error for a, b in zip(alps, other, strict=True)]
    assert sum(better) >= 0.95 * len(better)
    plain, _, _ = prune(f, params, batches, method=reconstruct.wanda(), density=0.2)
    assert accuracy(pruned) > accuracy(plain) + 0.05
