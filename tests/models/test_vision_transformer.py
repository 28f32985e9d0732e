"""Networks over patches, against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lth_jax.models import Mixer, VisionTransformer, from_linen
from lth_jax.models.vision_transformer import patches

X = jnp.float32(np.random.default_rng(0).normal(size=(2, 4, 6, 3)))


def test_a_dense_layer_on_patches_is_a_convolution():
    kernel = jnp.float32(np.random.default_rng(1).normal(size=(2, 2, 3, 5)))
    expected = lax.conv_general_dilated(
        X, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    ours = patches(X, 2) @ kernel.reshape(-1, 5)
    np.testing.assert_allclose(ours, expected.reshape(2, 6, 5), atol=1e-5)


def test_patches_must_cover_the_image():
    with pytest.raises(
        ValueError, match=r"sides that the patch size 4 divides, got \(2, 4, 6, 3\)"
    ):
        patches(X, 4)


def layer_norm(x, p):
    x = np.asarray(x, np.float64)
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return normal * p["scale"] + p["bias"]


def perceptron(x, first, second):
    return (
        np.asarray(jax.nn.gelu(x @ first["kernel"] + first["bias"])) @ second["kernel"]
        + second["bias"]
    )


def test_mixer_is_its_formula(filled):
    model = from_linen(Mixer(width=4, layers=1, patch_hidden=3, hidden=5, classes=2))
    params, state = filled(model, X)
    block = params["MixerBlock_0"]
    h = np.asarray(patches(X, 2) @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
    mixed = layer_norm(h, block["LayerNorm_0"]).swapaxes(1, 2)
    h = h + perceptron(mixed, block["Dense_0"], block["Dense_1"]).swapaxes(1, 2)
    h = h + perceptron(layer_norm(h, block["LayerNorm_1"]), block["Dense_2"], block["Dense_3"])
    expected = layer_norm(h, params["LayerNorm_0"]).mean(1) @ params["Dense_1"]["kernel"]
    out, _ = jax.jit(lambda p: model.apply(p, state, X, train=False))(params)
    np.testing.assert_allclose(out, expected + params["Dense_1"]["bias"], atol=1e-4)


def test_vision_transformer_reads_its_class_token(filled):
    """Without attention, the logits are a function of the token and its position."""
    model = from_linen(VisionTransformer(width=4, heads=2, layers=1, hidden=6, classes=2))
    params, state = filled(model, X)
    block = params["TransformerBlock_0"]
    silent = jax.tree.map(jnp.zeros_like, block["Attention_0"]["out"])
    deaf = block | {"Attention_0": block["Attention_0"] | {"out": silent}}
    h = np.asarray(params["class_token"] + params["positions"][0])
    h = h + perceptron(layer_norm(h, block["LayerNorm_1"]), block["Dense_0"], block["Dense_1"])
    head = params["Dense_1"]
    expected = layer_norm(h, params["LayerNorm_0"]) @ head["kernel"] + head["bias"]
    apply = jax.jit(lambda p: model.apply(p, state, X, train=False)[0])
    np.testing.assert_allclose(
        apply(params | {"TransformerBlock_0": deaf}), np.stack([expected] * 2), atol=1e-4
    )
    assert not np.allclose(*apply(params), atol=1e-3)
