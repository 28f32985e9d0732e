"""Iterative pruning with rewinding in a plain Flax and optax loop."""

import flax.linen as nn
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import lth_jax as lth

x, y = load_digits(return_X_y=True)
x, x_test, y, y_test = x[400:] / 16, x[:400] / 16, y[400:], y[:400]
model = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(10)])
initial = model.init(jax.random.key(0), x)["params"]
tx = lth.masked(optax.adam(3e-3))  # takes the mask at each update


@jax.jit
def step(params, opt_state, mask, x, y):
    """One update of the weights that the mask keeps."""

    def loss(params):
        logits = model.apply({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params, mask=mask)
    return optax.apply_updates(params, updates), opt_state


prunable, scope = lth.prunable_leaves(initial), lth.globally()
prune, mask = lth.prune(lth.magnitude(), scope), lth.ones_like(initial)
for level in range(4):
    params = lth.apply_mask(mask, initial)  # rewind
    opt_state = tx.init(params)
    for rows in np.random.default_rng(0).integers(len(x), size=(200, 64)):
        params, opt_state = step(params, opt_state, mask, x[rows], y[rows])
    accuracy = (model.apply({"params": params}, x_test).argmax(-1) == y_test).mean()
    print(f"density {lth.density(mask, prunable=prunable):.3f}, accuracy {accuracy:.3f}")
    count = scope.counts(initial, 0.5 ** (level + 1), prunable=prunable)
    mask = prune(params, mask, count, prunable=prunable)
