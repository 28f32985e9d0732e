"""The optimizers that configs name, against their definitions."""

import jax.numpy as jnp
import numpy as np

from lth_jax.population import OPTIMIZERS


def test_nesterov_looks_ahead_with_an_l2_penalty():
    rate, decay, momentum = 0.1, 0.01, 0.9
    hyper = {"learning_rate": rate, "weight_decay": decay, "momentum": momentum}
    found = {name: OPTIMIZERS[name](hyper) for name in ("sgd", "nesterov")}
    w = jnp.array([1.0, -2.0])
    states = {name: one.init(w) for name, one in found.items()}
    velocity = np.zeros(2)
    for grad in ([0.5, 0.25], [-1.0, 0.5], [0.25, 2.0]):
        g = np.array(grad) + decay * np.array(w)
        velocity = momentum * velocity + g
        expected = {"sgd": -rate * velocity, "nesterov": -rate * (momentum * velocity + g)}
        for name, one in found.items():
            moves, states[name] = one.update(jnp.array(grad), states[name], w)
            np.testing.assert_allclose(moves, expected[name], rtol=1e-5)
