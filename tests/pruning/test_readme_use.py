"""The README's ten lines in a stranger's project, with Linen and with NNX."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import nnx

import lth_jax as lth

X, Y = jax.random.normal(jax.random.key(1), (32, 8)), jnp.arange(32) % 4


def cross_entropy(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, Y).mean()


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(nn.relu(nn.Dense(16)(x)))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.out = nnx.Linear(8, 16, rngs=rngs), nnx.Linear(16, 4, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.hidden(x)))


def test_linen():
    model = LinenNet()
    params = model.init(jax.random.key(0), X)["params"]

    def loss(params):
        return cross_entropy(model.apply({"params": params}, X))

    prunable, scope = lth.prunable_leaves(params), lth.globally()
    count = scope.counts(params, 0.2, prunable=prunable)
    mask = lth.prune(lth.magnitude(), scope)(
        params, lth.ones_like(params), count, prunable=prunable
    )
    params = lth.apply_mask(mask, params)
    tx = lth.masked(optax.adamw(1e-2))
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params, mask=mask)
        return optax.apply_updates(params, updates), state

    before = loss(params)
    for _ in range(20):
        params, state = step(params, state)
    assert loss(params) < before
    alive = jax.tree.map(lambda p: p != 0, params)
    assert lth.count_kept(alive, prunable) == count == round(0.2 * (8 * 16 + 16 * 4))


def test_nnx():
    model = NnxNet(nnx.Rngs(0))
    graphdef, params = nnx.split(model, nnx.Param)

    def loss(params):
        return cross_entropy(nnx.merge(graphdef, params)(X))

    prunable, scope = lth.prunable_leaves(params), lth.globally()
    count = scope.counts(params, 0.2, prunable=prunable)
    mask = lth.prune(lth.magnitude(), scope)(
        params, lth.ones_like(params), count, prunable=prunable
    )
    params = lth.apply_mask(mask, params)
    tx = lth.masked(optax.adamw(1e-2))
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params, mask=mask)
        return optax.apply_updates(params, updates), state

    before = loss(params)
    for _ in range(20):
        params, state = step(params, state)
    assert loss(params) < before
    nnx.update(model, params)
    kept = int((model.hidden.kernel[...] != 0).sum() + (model.out.kernel[...] != 0).sum())
    assert kept == count
