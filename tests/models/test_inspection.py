"""Outputs of layers, and the dead units that they show."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lth_jax.measures.activity import dead_units
from lth_jax.models import MLP, from_linen, layer_outputs
from lth_jax.models.vgg import VGG

X = jnp.float32(np.random.default_rng(0).normal(size=(6, 5)))


def test_outputs_of_dense_layers_are_pre_activations(filled):
    module = MLP((4, 3, 2))
    params, state = filled(from_linen(module), X)
    found = layer_outputs(module, params, state, X)
    assert list(found) == ["Dense_0", "Dense_1", "Dense_2"]
    h = X @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    np.testing.assert_allclose(found["Dense_0"], h, atol=1e-6)
    h = jax.nn.relu(h) @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
    np.testing.assert_allclose(found["Dense_1"], h, atol=1e-6)


def test_units_with_a_low_bias_are_dead(filled):
    module = MLP((4, 2))
    params, state = filled(from_linen(module), X)
    low = params["Dense_0"]["bias"].at[jnp.array([1, 3])].set(-100.0)
    params = params | {"Dense_0": params["Dense_0"] | {"bias": low}}
    found = dead_units(layer_outputs(module, params, state, X))
    assert found["Dense_0"].tolist() == [False, True, False, True]


def test_layers_of_a_class_are_found_by_it(filled):
    module = VGG(stages=((3,), (4,)), classes=2)
    x = jnp.ones((2, 4, 4, 1))
    params, state = jax.eval_shape(from_linen(module).init, jax.random.key(0), x)

    def look(params, state):
        return layer_outputs(module, params, state, x, layers=(nn.BatchNorm,))

    found = jax.eval_shape(look, params, state)
    shapes = {"BatchNorm_0": (2, 4, 4, 3), "BatchNorm_1": (2, 2, 2, 4)}
    assert {name: out.shape for name, out in found.items()} == shapes
