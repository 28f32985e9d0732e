"""Wide residual networks are their formula."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lth_jax.models import WideResNet, from_linen
from tests.models import by_hand

X = jnp.float32(np.random.default_rng(0).normal(size=(2, 4, 6, 3)))


def test_blocks_normalise_first(filled):
    """One block that changes the shape, one that does not."""
    model = from_linen(WideResNet(blocks=(0, 2), width=2, widening=2, classes=2))
    params, state = filled(model, X)

    def active(h, name, p, s):
        return nn.relu(by_hand.batch_norm(h, p[name], s[name]))

    def expected(p, s):
        h = by_hand.conv(X, p["Conv_0"])
        for i, stride in enumerate((2, 1)):
            bp, bs = p[f"PreActivationBlock_{i}"], s[f"PreActivationBlock_{i}"]
            a = active(h, "BatchNorm_0", bp, bs)
            inner = active(by_hand.conv(a, bp["Conv_0"], stride), "BatchNorm_1", bp, bs)
            shortcut = by_hand.conv(a, bp["Conv_2"], stride) if "Conv_2" in bp else h
            h = shortcut + by_hand.conv(inner, bp["Conv_1"])
        return by_hand.dense(active(h, "BatchNorm_0", p, s).mean((1, 2)), p["Dense_0"])

    ours, theirs = jax.jit(
        lambda p, s: (model.apply(p, s, X, train=False)[0], expected(p, s["batch_stats"]))
    )(params, state)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert set(params["PreActivationBlock_0"]) - set(params["PreActivationBlock_1"]) == {"Conv_2"}
