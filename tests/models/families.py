"""The smallest network of each family, with the data it reads: what other rooms are tried on."""

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.models import NETWORKS

IMAGES, TOKENS = (3, 8, 8, 1), (3, 4)
FAMILIES = {
    "mlp": ("mlp", {"features": (6, 4)}, IMAGES),
    "residual_mlp": ("residual_mlp", {"width": 6, "classes": 4}, IMAGES),
    "convnet": ("convnet", {"stages": ((2,), (3,)), "hidden": (5,), "classes": 4}, IMAGES),
    "vgg": ("vgg", {"stages": ((3,), (4,)), "classes": 4}, IMAGES),
    "resnet": ("resnet", {"blocks": (0, 1), "width": 2, "classes": 4}, IMAGES),
    "bottleneck": (
        "resnet50",
        {"blocks": (1,), "width": 2, "classes": 4},
        IMAGES,
    ),
    "wide_resnet": (
        "wide_resnet_group_norm",
        {"blocks": (0, 1), "width": 2, "widening": 2, "classes": 4},
        IMAGES,
    ),
    "rnn": ("rnn", {"width": 4, "classes": 4}, IMAGES),
    "gru": ("gru", {"width": 4, "classes": 4, "vocabulary": 4}, TOKENS),
    "lstm": ("lstm", {"width": 4, "classes": 4, "vocabulary": 4, "every_step": True}, TOKENS),
    "untied": ("rnn", {"width": 4, "classes": 4, "vocabulary": 4, "tied": False}, TOKENS),
    "encoder": (
        "transformer_encoder",
        {"width": 6, "heads": 3, "hidden": 5, "layers": 1, "classes": 4},
        IMAGES,
    ),
    "decoder": (
        "transformer_decoder",
        {"width": 6, "heads": 3, "hidden": 5, "layers": 1, "classes": 4, "vocabulary": 4},
        TOKENS,
    ),
    "vit": (
        "vit",
        {"patch": 4, "width": 6, "heads": 3, "hidden": 5, "layers": 1, "classes": 4},
        IMAGES,
    ),
    "mixer": (
        "mixer",
        {"patch": 4, "width": 6, "patch_hidden": 3, "hidden": 5, "layers": 1, "classes": 4},
        IMAGES,
    ),
}
"""`{family: (name, options, shape of a batch)}`."""


def family(name):
    """`(Linen module, batch)` of a family."""
    network, options, shape = FAMILIES[name]
    rng = np.random.default_rng(0)
    if shape == TOKENS:
        return NETWORKS[network](**options), jnp.int32(rng.integers(0, 4, shape))
    return NETWORKS[network](**options), jnp.float32(rng.normal(size=shape))


def fill(model, x, seed=1):
    """`(params, state)`: made-up weights, for compiling the real draws takes longer than a test."""
    rng = np.random.default_rng(seed)
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)

    def draw(name, leaf):
        return jnp.float32(
            rng.uniform(0.5, 1, leaf.shape)
            if name.endswith("var")
            else rng.normal(0, 0.4, leaf.shape)
        )

    return trees.map_named(draw, params), trees.map_named(draw, state)
