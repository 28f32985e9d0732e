"""RigL as an optax transformation in a plain loop."""

import flax.linen as nn
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import lth_jax as lth

x, y = load_digits(return_X_y=True)
x, x_test, y, y_test = x[400:] / 16, x[:400] / 16, y[400:], y[:400]
model = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(10)])
params = model.init(jax.random.key(0), x)["params"]

prunable, scope = lth.prunable_leaves(params), lth.erk()
count = scope.counts(params, 0.1, prunable=prunable)
draw, ones = lth.prune(lth.random(), scope), lth.ones_like(params)
start = draw(params, ones, count, prunable=prunable, key=jax.random.key(1))
events = lth.Events(every=20, end=225)  # three quarters of the training
tx = lth.rigl(optax.adam(3e-3), lambda params: start, events, prunable=prunable)


@jax.jit
def step(params, opt_state, x, y):
    """One update; at an event, the mask changes first."""

    def loss(params):
        logits = model.apply({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


params, opt_state = lth.apply_mask(start, params), tx.init(params)
for rows in np.random.default_rng(0).integers(len(x), size=(300, 64)):
    params, opt_state = step(params, opt_state, x[rows], y[rows])
accuracy = (model.apply({"params": params}, x_test).argmax(-1) == y_test).mean()
print(f"accuracy {accuracy:.3f}", lth.summary(params, optax.tree.get(opt_state, "mask")), sep="\n")
