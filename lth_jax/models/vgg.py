"""VGG networks for small images, with a normalisation after each convolution."""

from collections.abc import Sequence

import jax
from flax import linen as nn

from lth_jax.models.layers import (
    Dropout,
    Initialization,
    Norm,
    batch_norm,
    conv,
    dense,
    he_normal,
    max_pool,
)


class VGG(nn.Module):
    """Stages of 3-wide convolutions, each with a normalisation and ReLU, with pooling in between.

    The stages are separated by 2-wide max pooling and followed by the mean over space and one dense
    layer. Frankle et al. (2020) and others use this form of Simonyan and Zisserman's (2015)
    networks on CIFAR-10, where three dense layers would have most of the weights. The defaults are
    a small one; `networks.NETWORKS` has `vgg11`, `vgg16` and `vgg19`: 9.2, 14.7 and 20.0 million
    weights. Inputs have shape `(batch, *space, channels)` with any number of spatial axes.

    Attributes:
      stages: widths of the convolutions in each stage.
      classes: number of outputs.
      initialization: distributions of the kernels and the output layer's bias.
      dropout: probability of dropping a feature before the dense layer in training.
      norm: the normalisation after each convolution.

    >>> from lth_jax.models.adapters import from_linen
    >>> model = from_linen(VGG([(4,), (8,)], classes=3))
    >>> x = jax.numpy.zeros((1, 8, 8, 1))
    >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> [params[name]["kernel"].shape for name in ("Conv_0", "Conv_1", "Dense_0")]
    [(3, 3, 1, 4), (3, 3, 4, 8), (8, 3)]
    """

    stages: Sequence[Sequence[int]] = ((8,), (16,), (32, 32))
    classes: int = 10
    initialization: Initialization = he_normal
    dropout: float = 0.0
    norm: Norm = batch_norm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(batch, *space, channels)` to logits `(batch, classes)`."""
        for i, stage in enumerate(self.stages):
            x = max_pool(x) if i else x
            for width in stage:
                x = conv(x, width, self.initialization, use_bias=False)
                x = nn.relu(self.norm(x, train=train))
        h = x.mean(axis=range(1, x.ndim - 1))
        h = Dropout(self.dropout)(h, train=train)
        return dense(h, self.classes, self.initialization)
