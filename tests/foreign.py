"""The same small network, with BatchNorm and dropout, in every framework: nothing is the house's.

It classifies images `(4, 4, 1)` into three classes: dense, BatchNorm, ReLU, dropout, dense.
"""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

from lth_jax.types import Model

WIDTH, CLASSES, RATE = 8, 3, 0.3


class Linen(nn.Module):
    width: int = WIDTH

    @nn.compact
    def __call__(self, x, train=False):
        h = nn.Dense(self.width)(x.reshape(len(x), -1))
        h = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(h))
        return nn.Dense(CLASSES)(nn.Dropout(RATE, deterministic=not train)(h))


class Nnx(nnx.Module):
    def __init__(self, width=WIDTH, *, rngs):
        self.hidden, self.norm = nnx.Linear(16, width, rngs=rngs), nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(RATE, rngs=rngs)
        self.out = nnx.Linear(width, CLASSES, rngs=rngs)

    def __call__(self, x):
        h = nnx.relu(self.norm(self.hidden(x.reshape(len(x), -1))))
        return self.out(self.dropout(h))


class Equinox(eqx.Module):
    hidden: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    out: eqx.nn.Linear

    def __init__(self, key, width):
        a, b = jax.random.split(key)
        self.hidden = eqx.nn.Linear(16, width, key=a)
        self.norm = eqx.nn.BatchNorm(width, axis_name="batch", mode="batch")
        self.dropout, self.out = eqx.nn.Dropout(RATE), eqx.nn.Linear(width, CLASSES, key=b)

    def __call__(self, x, state, *, key=None):
        h, state = self.norm(self.hidden(x.reshape(-1)), state)
        return self.out(self.dropout(jax.nn.relu(h), key=key)), state


def equinox(width=WIDTH, *, key):
    return eqx.nn.make_with_state(Equinox)(key, width)


def haiku(width=WIDTH):
    def net(x, is_training):
        h = hk.Linear(width)(x.reshape(len(x), -1))
        h = jax.nn.relu(hk.BatchNorm(True, True, 0.9)(h, is_training))
        return hk.Linear(CLASSES)(hk.dropout(hk.next_rng_key(), RATE, h) if is_training else h)

    return hk.transform_with_state(net)


def plain(width=WIDTH):
    """A `Model` over a plain dictionary, with a running mean as its state."""

    def init(key, x):
        a, b = jax.random.split(key)
        inputs = x[0].size
        params = {
            "hidden": {
                "kernel": jax.random.normal(a, (inputs, width)) / 4,
                "bias": jnp.zeros(width),
            },
            "out": {"kernel": jax.random.normal(b, (width, CLASSES)) / 3},
        }
        return params, {"mean": jnp.zeros(width)}

    def apply(params, state, x, *, key=None, train=False):
        h = x.reshape(len(x), -1) @ params["hidden"]["kernel"] + params["hidden"]["bias"]
        mean = h.mean(axis=0) if train else state["mean"]
        h = jax.nn.relu(h - mean)
        if train:
            h = jnp.where(jax.random.bernoulli(key, 1 - RATE, h.shape), h / (1 - RATE), 0.0)
        return h @ params["out"]["kernel"], {"mean": 0.9 * state["mean"] + 0.1 * mean}

    return Model(init, apply)


NETWORKS = {
    "linen": Linen,
    "nnx": lambda: Nnx,
    "equinox": lambda: equinox,
    "haiku": haiku,
    "plain": plain,
}
"""The networks as `Task` takes them."""


def data(examples=80):
    """Images whose class depends on their pixels."""
    x = np.random.default_rng(0).normal(size=(examples, 4, 4, 1)).astype(np.float32)
    return x, (x[:, 0, 0, 0] > 0).astype(int) + (x[:, 1, 1, 0] > 0.5)
