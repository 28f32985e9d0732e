"""Networks with made-up weights: compiling the real draws would take most of these tests' time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import trees


@pytest.fixture(scope="session")
def filled():
    """`(model, x) -> (params, state)`: arbitrary parameters, statistics as a network starts."""

    def fill(model, x):
        rng = np.random.default_rng(0)
        params, state = jax.eval_shape(model.init, jax.random.key(0), x)
        params = jax.tree.map(lambda leaf: jnp.float32(rng.normal(0, 0.3, leaf.shape)), params)
        start = {"mean": jnp.zeros, "var": jnp.ones}
        return params, trees.map_named(lambda n, s: start[n.split("/")[-1]](s.shape), state)

    return fill
