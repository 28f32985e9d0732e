"""Parts of a user's own, named in a config as `tests.experiments.own:NAME`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lth_jax.pruning import methods, scopes


class Net(nn.Module):
    width: int = 6

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(self.width)(x)))


class NnxNet(nnx.Module):
    def __init__(self, width=6, *, rngs):
        self.first, self.second = nnx.Linear(5, width, rngs=rngs), nnx.Linear(width, 3, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(width, rngs=rngs), nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x):
        return self.second(self.dropout(self.norm(nnx.relu(self.first(x)))))


def eqx_net(width=6, *, key):
    import equinox as eqx

    return eqx.nn.MLP(5, 3, width_size=width, depth=1, key=key)


def one_number(outputs, targets):
    return outputs.mean()


def data(examples=80):
    x = np.random.default_rng(0).normal(size=(examples, 5)).astype(np.float32)
    return x, np.arange(examples) % 3


def outputs(examples=80):
    x, _ = data(examples)
    return {"train": (x, x[:, :3]), "test": (x[:9], x[:9, :3])}


def huber(out, y):
    return optax.losses.huber_loss(out, y).mean(axis=-1)


def largest_error(out, y):
    return jnp.abs(out - y).max(axis=-1)


def sgd(hyper):
    return optax.sgd(hyper["learning_rate"], momentum=hyper["momentum"])


def halves(steps):
    return optax.piecewise_constant_schedule(1.0, {steps // 2: 0.5})


def largest(params, mask, *, key=None, batches=None, initial=None):
    return jax.tree.map(jnp.abs, params)


def gradient(loss):
    def criterion(params, mask, *, key=None, batches=None, initial=None):
        return jax.tree.map(jnp.abs, jax.grad(loss)(params, batches[0]))

    return criterion


def everywhere():
    return scopes.globally(minimum=1)


def thirds(level):
    return (2 / 3) ** level


def negated(mask, dense, fresh, *, key, prunable, layouts=None):
    return mask, dense._replace(params=jax.tree.map(jnp.negative, dense.params))


def slow_rigl(*, prunable, layouts, scope, steps, fraction=0.2):
    return methods.rigl(
        prunable=prunable, layouts=layouts, scope=scope, steps=steps, fraction=fraction
    )


def broken(width):
    raise ValueError("no such width")


def absent(path="nowhere.npy"):
    return np.load(path)


def holed():
    x, y = data()
    x[7, 2] = np.nan
    return {"train": (x, y), "test": (x[:6], y[:6])}


class Careless(Net):
    def __call__(self, x):
        return super().__call__(x[self.column])


def careless(out, y):
    return helper(out)[y]


def helper(out):
    return {}["scale"] * out
