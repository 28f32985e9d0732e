"""Plain convolutional networks: stages of convolutions and pooling, then dense layers."""

from collections.abc import Sequence

import jax
from flax import linen as nn

from lth_jax.models.layers import Dropout, Initialization, conv, dense, glorot_normal, max_pool
from lth_jax.models.mlp import flatten


class ConvNet(nn.Module):
    """Stages of 3-wide convolutions with ReLU and 2-wide max pooling, then dense layers.

    The Conv-2, Conv-4 and Conv-6 of Frankle and Carbin (2019), scaled-down VGGs, all have
    `hidden=(256, 256)`; their `stages` are `[(64, 64)]`, `[(64, 64), (128, 128)]` and `[(64, 64),
    (128, 128), (256, 256)]`: 4.3, 2.4 and 2.3 million weights on CIFAR-10 (the paper states 1.7 for
    the last, but the same 1.1 million in its convolutions). They are `conv2`, `conv4` and `conv6`
    of `networks.NETWORKS`; the defaults are much smaller. Inputs have shape `(batch, *space,
    channels)` with any number of spatial axes: images `(28, 28, 1)`, signals `(40, 1)`.

    Attributes:
      stages: widths of the convolutions in each stage.
      hidden: widths of the dense hidden layers.
      classes: number of outputs.
      initialization: how kernels and biases are drawn.
      dropout: probability of dropping a dense hidden unit in training.

    >>> from lth_jax.models.adapters import from_linen
    >>> model = from_linen(ConvNet([(4,), (8,)], hidden=(), classes=3))
    >>> x = jax.numpy.zeros((1, 8, 8, 1))
    >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> [params[name]["kernel"].shape for name in sorted(params)]
    [(3, 3, 1, 4), (3, 3, 4, 8), (32, 3)]
    """

    stages: Sequence[Sequence[int]] = ((16, 16), (32, 32))
    hidden: Sequence[int] = (64,)
    classes: int = 10
    initialization: Initialization = glorot_normal
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(batch, *space, channels)` to logits `(batch, classes)`."""
        for stage in self.stages:
            for width in stage:
                x = nn.relu(conv(x, width, self.initialization))
            x = max_pool(x)
        h = flatten(x)
        for width in self.hidden:
            h = nn.relu(dense(h, width, self.initialization))
            h = Dropout(self.dropout)(h, train=train)
        return dense(h, self.classes, self.initialization)
