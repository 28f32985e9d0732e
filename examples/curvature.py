"""The largest eigenvalue of the Hessian on a ticket's weights, and the largest stable step size."""

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import lth_jax as lth
from lth_jax import landscape

x, y = load_digits(return_X_y=True)
x = jnp.asarray(x / 16, jnp.float32)
keys = jax.random.split(jax.random.key(0))
params = {
    "hidden": {"kernel": jax.random.normal(keys[0], (64, 32)) / 8},
    "out": {"kernel": jax.random.normal(keys[1], (32, 10)) / 6},
}


def loss(params, batch):
    """The mean cross-entropy of a batch."""
    inputs, labels = batch
    logits = jnp.tanh(inputs @ params["hidden"]["kernel"]) @ params["out"]["kernel"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


prunable, scope = lth.prunable_leaves(params), lth.globally()
prune, ones = lth.prune(lth.magnitude(), scope), lth.ones_like(params)
for density in (1.0, 0.5, 0.1):
    mask = prune(params, ones, scope.counts(params, density, prunable=prunable), prunable=prunable)
    point = lth.apply_mask(mask, params)
    operator = landscape.hessian(loss, point, [(x, jnp.asarray(y))], mask=mask)
    ends = landscape.extremes(operator, jax.random.key(1))
    edge = landscape.step_sizes(ends).edge
    print(f"density {density}: λmax {ends.largest[0]:.3f}, gradient descent up to {edge:.3f}")
