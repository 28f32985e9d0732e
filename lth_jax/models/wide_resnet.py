"""Wide residual networks with pre-activation blocks."""

from collections.abc import Sequence
from functools import partial

import jax
from flax import linen as nn

from lth_jax.models.layers import Dropout, Initialization, Norm, batch_norm, conv, dense, he_normal
from lth_jax.models.resnet import ResidualBlock


class PreActivationBlock(ResidualBlock):
    """`y = x' + conv(D(φ(N(conv(a)))))` with `a = φ(N(x))`: normalised before each convolution.

    Where the shape changes, the shortcut is `x' = conv(a)` with a 1-wide kernel; elsewhere
    `x' = x`. φ is ReLU, N the normalisation, D dropout. The fields are those of `ResidualBlock`.
    """

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(batch, *space, n)` to `(batch, *⌈space / stride⌉, width)`."""
        convolve = partial(conv, initialization=self.initialization, use_bias=False)
        active = nn.relu(self.norm(x, train=train))
        h = convolve(active, self.width, stride=self.stride)
        h = nn.relu(self.norm(h, train=train))
        h = Dropout(self.dropout)(h, train=train)
        h = convolve(h, self.width)
        if x.shape != h.shape:
            x = convolve(active, self.width, kernel_size=1, stride=self.stride)
        return x + h


class WideResNet(nn.Module):
    """WRN-d-k: depth `d = 6 n + 4` in three stages of n blocks, `widening` k times as wide.

    A convolution to `width` channels, stages of pre-activation blocks of `k · width · 2ˢ` channels
    in stage s, a last normalisation, the mean over space and a dense layer. WRN-28-10 is
    `blocks=(4, 4, 4), width=16, widening=10`, 36.5 million parameters; the defaults are WRN-10-1 at
    half width. `norm=group_norm` needs no running statistics. Inputs have shape
    `(batch, *space, channels)` with any number of spatial axes.

    Source: Zagoruyko and Komodakis (2016), "Wide residual networks", table 1.

    Attributes:
      blocks: number of blocks in each stage.
      width: channels of the first convolution.
      widening: k.
      classes: number of outputs.
      initialization: distributions of the kernels and the output layer's bias.
      dropout: probability of dropping a value inside a block in training.
      norm: the normalisation before each convolution.

    >>> from lth_jax.models.adapters import from_linen
    >>> from lth_jax.models.layers import group_norm
    >>> model = from_linen(WideResNet(blocks=(1,), norm=group_norm))
    >>> x = jax.numpy.zeros((1, 8, 8, 3))
    >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> sorted(params), state
    (['Conv_0', 'Dense_0', 'GroupNorm_0', 'PreActivationBlock_0'], {})
    """

    blocks: Sequence[int] = (1, 1, 1)
    width: int = 8
    widening: int = 1
    classes: int = 10
    initialization: Initialization = he_normal
    dropout: float = 0.0
    norm: Norm = batch_norm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(batch, *space, channels)` to logits `(batch, classes)`."""
        x = conv(x, self.width, self.initialization, use_bias=False)
        for stage, count in enumerate(self.blocks):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                width = self.widening * self.width * 2**stage
                block = PreActivationBlock(
                    width, stride, self.initialization, self.dropout, self.norm
                )
                x = block(x, train=train)
        x = nn.relu(self.norm(x, train=train))
        return dense(x.mean(axis=range(1, x.ndim - 1)), self.classes, self.initialization)
