"""Convolutional networks: their formula, one and two spatial axes."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from lth_jax import trees
from lth_jax.models.adapters import from_linen
from lth_jax.models.convnet import ConvNet


def test_it_is_its_formula(filled):
    model = from_linen(ConvNet([(3, 4), (5,)], hidden=(6,), classes=2))
    x = jnp.float32(np.random.default_rng(1).normal(size=(2, 8, 8, 3)))
    params, state = filled(model, x)

    def expected(params, x):
        for name in ("Conv_0", "Conv_1", "Conv_2"):
            x = lax.conv_general_dilated(
                x,
                params[name]["kernel"],
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            x = nn.relu(x + params[name]["bias"])
            x = x if name == "Conv_0" else nn.max_pool(x, (2, 2), (2, 2))
        h = x.reshape(2, -1) @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
        return nn.relu(h) @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]

    ours, theirs = jax.jit(
        lambda p: (model.apply(p, state, x, key=None, train=True)[0], expected(p, x))
    )(params)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_signals_go_through_it_too():
    model = from_linen(ConvNet([(2,), (3,)], hidden=(), classes=4))
    params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 40, 1)))
    assert trees.size(params) == (3 * 1 * 2 + 2) + (3 * 2 * 3 + 3) + (10 * 3 * 4 + 4)
