"""VGG is its formula."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lth_jax.models import VGG, from_linen
from tests.models import by_hand

X = jnp.float32(np.random.default_rng(0).normal(size=(2, 4, 6, 3)))


def test_it_pools_between_its_stages_and_averages_at_the_end(filled):
    model = from_linen(VGG(((2, 3), (4,)), classes=2))
    params, state = filled(model, X)

    def expected(p, s):
        h = X
        for i in range(3):
            h = nn.max_pool(h, (2, 2), (2, 2)) if i == 2 else h
            h = by_hand.conv(h, p[f"Conv_{i}"])
            h = nn.relu(by_hand.batch_norm(h, p[f"BatchNorm_{i}"], s[f"BatchNorm_{i}"]))
        return by_hand.dense(h.mean((1, 2)), p["Dense_0"])

    ours, theirs = jax.jit(
        lambda p, s: (model.apply(p, s, X, train=False)[0], expected(p, s["batch_stats"]))
    )(params, state)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
