"""Trains one ticket at sixteen learning rates under one compiled program."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import lth_jax as lth
from lth_jax import lottery, population

x, y = load_digits(return_X_y=True)
task = lottery.Task(
    nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(10)]),
    (x / 16, y),
    optimizer=lambda hyper: optax.adam(hyper["learning_rate"]),
    hyper={"learning_rate": 3e-3},
    batch_size=64,
    steps=100,
)

dense, _ = population.train(task, population.initial(task, 1), plan=population.Plan(1))
params = jax.tree.map(lambda leaf: leaf[0], dense.params)
prunable, scope = lth.prunable_leaves(params), lth.globally()
count = scope.counts(params, 0.1, prunable=prunable)
prune = lth.prune(lth.magnitude(), scope)
mask = prune(params, lth.ones_like(params), count, prunable=prunable)

rates = np.geomspace(1e-4, 1, 16)
key = jnp.repeat(jax.random.split(jax.random.key(0), 1), 16)
members = population.initial(task, key, hyper={"learning_rate": rates}, masks=mask)
members, history = population.train(task, members, plan=population.Plan(16))
for rate, accuracy in zip(rates, population.measure(task, members)["accuracy"], strict=True):
    print(f"rate {rate:.4f}, accuracy {accuracy:.3f}")
