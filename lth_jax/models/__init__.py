"""Networks configured by arguments, and the adapters that turn any network into a `Model`."""

from lth_jax.models.adapters import (
    as_model,
    from_equinox,
    from_haiku,
    from_keras,
    from_linen,
    from_nnx,
    to_keras,
)
from lth_jax.models.convnet import ConvNet
from lth_jax.models.convolution import conv_general_dilated
from lth_jax.models.inspection import attention_probabilities, layer_outputs
from lth_jax.models.layers import batch_norm, fan_in_uniform, glorot_normal, group_norm, he_normal
from lth_jax.models.mlp import MLP, ResidualMLP
from lth_jax.models.networks import NETWORKS
from lth_jax.models.precision import compute_in
from lth_jax.models.recurrent import RecurrentNet, gru_cell, lstm_cell, tanh_cell
from lth_jax.models.resnet import ResNet
from lth_jax.models.transformer import Transformer
from lth_jax.models.vgg import VGG
from lth_jax.models.vision_transformer import Mixer, VisionTransformer
from lth_jax.models.wide_resnet import WideResNet
from lth_jax.registry import import_modules

import_modules(__name__, __path__)  # every module registers its parts

__all__ = [
    "MLP",
    "NETWORKS",
    "VGG",
    "ConvNet",
    "Mixer",
    "RecurrentNet",
    "ResNet",
    "ResidualMLP",
    "Transformer",
    "VisionTransformer",
    "WideResNet",
    "as_model",
    "attention_probabilities",
    "batch_norm",
    "compute_in",
    "conv_general_dilated",
    "fan_in_uniform",
    "from_equinox",
    "from_haiku",
    "from_keras",
    "from_linen",
    "from_nnx",
    "glorot_normal",
    "group_norm",
    "gru_cell",
    "he_normal",
    "layer_outputs",
    "lstm_cell",
    "tanh_cell",
    "to_keras",
]
