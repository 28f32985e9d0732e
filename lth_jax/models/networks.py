"""All networks by name: families with small defaults, and the sizes of the literature."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lth_jax.models.convnet import ConvNet
from lth_jax.models.layers import glorot_normal, group_norm
from lth_jax.models.mlp import MLP, ResidualMLP
from lth_jax.models.recurrent import RecurrentNet, gru_cell, lstm_cell, tanh_cell
from lth_jax.models.resnet import ResNet
from lth_jax.models.transformer import Transformer
from lth_jax.models.vgg import VGG
from lth_jax.models.vision_transformer import Mixer, VisionTransformer
from lth_jax.models.wide_resnet import WideResNet
from lth_jax.registry import Registry

_FAMILIES: Mapping[str, Callable[..., Any]] = {
    "mlp": MLP,
    "residual_mlp": ResidualMLP,
    "residual_mlp_glorot": partial(ResidualMLP, initialization=glorot_normal),
    "convnet": ConvNet,
    "vgg": VGG,
    "resnet": ResNet,
    "wide_resnet": WideResNet,
    "wide_resnet_group_norm": partial(WideResNet, norm=group_norm),
    "rnn": partial(RecurrentNet, cell=tanh_cell),
    "gru": partial(RecurrentNet, cell=gru_cell),
    "lstm": partial(RecurrentNet, cell=lstm_cell),
    "transformer_encoder": Transformer,
    "transformer_decoder": partial(Transformer, causal=True, every_step=True),
    "vit": VisionTransformer,
    "mixer": Mixer,
}
_CONV = partial(ConvNet, hidden=(256, 256))
_IMAGENET = partial(ResNet, width=64, classes=1000, large_images=True)
_VIT = partial(VisionTransformer, patch=16, layers=12, classes=1000)
_SIZES: Mapping[str, Callable[..., Any]] = {
    "lenet_300_100": partial(MLP, features=(300, 100, 10)),
    "conv2": partial(_CONV, stages=((64, 64),)),
    "conv4": partial(_CONV, stages=((64, 64), (128, 128))),
    "conv6": partial(_CONV, stages=((64, 64), (128, 128), (256, 256))),
    "vgg11": partial(VGG, stages=((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2)),
    "vgg16": partial(VGG, stages=((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)),
    "vgg19": partial(VGG, stages=((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)),
    "resnet20": partial(ResNet, blocks=(3, 3, 3), width=16),
    "resnet32": partial(ResNet, blocks=(5, 5, 5), width=16),
    "resnet56": partial(ResNet, blocks=(9, 9, 9), width=16),
    "resnet18": partial(ResNet, blocks=(2, 2, 2, 2), width=64),
    "resnet18_imagenet": partial(_IMAGENET, blocks=(2, 2, 2, 2)),
    "resnet50": partial(_IMAGENET, blocks=(3, 4, 6, 3), bottleneck=True),
    "wrn_16_8": partial(WideResNet, blocks=(2, 2, 2), width=16, widening=8),
    "wrn_28_10": partial(WideResNet, blocks=(4, 4, 4), width=16, widening=10),
    "vit_tiny": partial(_VIT, width=192, heads=3, hidden=768),
    "vit_small": partial(_VIT, width=384, heads=6, hidden=1536),
    "vit_base": partial(_VIT, width=768, heads=12, hidden=3072),
    "mixer_small": partial(
        Mixer, patch=16, width=512, layers=8, patch_hidden=256, hidden=2048, classes=1000
    ),
}
NETWORKS: Registry[Callable[..., Any]] = Registry("network")
"""The function that makes the Linen module of each name; keywords override its defaults.

CIFAR sizes have ten classes, ImageNet sizes a thousand. All are Linen modules, because some
commands need the inputs of their layers (`wanda`), their attention, or modules of other widths
(refilled controls). Networks of other frameworks are used in the same runs as `Task(model, …)`, or
in a config as `package.module:name`.

>>> NETWORKS["resnet20"](classes=100).blocks
(3, 3, 3)
"""

for _name, _make in {**_FAMILIES, **_SIZES}.items():
    NETWORKS.register(_name, _make)
