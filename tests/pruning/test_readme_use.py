"""The README's ten lines in a user's project, with Linen, NNX and Equinox."""

import equinox as eqx
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


def the_lines_of_the_readme(params, loss):
    """Prunes to 20 %, trains 20 steps; the trained parameters and how many weights they keep."""
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
    return params, round(0.2 * (8 * 16 + 16 * 4))


def test_linen():
    model = LinenNet()
    params = model.init(jax.random.key(0), X)["params"]
    params, kept = the_lines_of_the_readme(
        params, lambda params: cross_entropy(model.apply({"params": params}, X))
    )
    alive = jax.tree.map(lambda p: p != 0, params)
    assert lth.count_kept(alive, lth.prunable_leaves(params)) == kept


def test_nnx():
    model = NnxNet(nnx.Rngs(0))
    graphdef, params = nnx.split(model, nnx.Param)
    params, kept = the_lines_of_the_readme(
        params, lambda params: cross_entropy(nnx.merge(graphdef, params)(X))
    )
    nnx.update(model, params)
    layers = (model.hidden, model.out)
    assert sum(int((layer.kernel[...] != 0).sum()) for layer in layers) == kept


def test_equinox():
    model = eqx.nn.MLP(8, 4, width_size=16, depth=1, key=jax.random.key(0))
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    params, kept = the_lines_of_the_readme(
        params, lambda params: cross_entropy(jax.vmap(eqx.combine(params, rest))(X))
    )
    layers = eqx.combine(params, rest).layers
    assert sum(int((layer.weight != 0).sum()) for layer in layers) == kept
