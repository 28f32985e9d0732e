"""Residual networks, with two or three convolutions per block, for small images and large ones."""

from collections.abc import Sequence
from functools import partial

import jax
from flax import linen as nn

from lth_jax.models.layers import Dropout, Initialization, Norm, batch_norm, conv, dense, he_normal


class ResidualBlock(nn.Module):
    """`y = φ(x' + N(conv(D(φ(N(conv(x))))))`: two convolutions and a shortcut `x'`.

    φ is ReLU, N the normalisation, D dropout (as in Zagoruyko and Komodakis, 2016). Where the
    shape changes, the shortcut is `x' = N(conv(x))` with a 1-wide kernel; elsewhere `x' = x`.

    Attributes:
      width: number of output channels.
      stride: step of the first convolution, and of the shortcut.
      initialization: distribution of the kernels.
      dropout: probability of dropping a value between the convolutions in training.
      norm: N.
    """

    width: int
    stride: int = 1
    initialization: Initialization = he_normal
    dropout: float = 0.0
    norm: Norm = batch_norm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(batch, *space, n)` to `(batch, *⌈space / stride⌉, width)`."""
        convolve = partial(conv, initialization=self.initialization, use_bias=False)
        norm = partial(self.norm, train=train)
        h = nn.relu(norm(convolve(x, self.width, stride=self.stride)))
        h = Dropout(self.dropout)(h, train=train)
        h = norm(convolve(h, self.width))
        if x.shape != h.shape:
            x = norm(convolve(x, self.width, kernel_size=1, stride=self.stride))
        return nn.relu(x + h)


class BottleneckBlock(ResidualBlock):
    """A residual block of 1-wide, 3-wide and 1-wide convolutions, with `4 width` output channels.

    The fields are those of `ResidualBlock`. Dropout is before the last convolution, and the 3-wide
    convolution has the stride, as in current implementations ("v1.5"); in He et al. (2016) the
    first convolution has it.
    """

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(batch, *space, n)` to `(batch, *⌈space / stride⌉, 4 width)`."""
        convolve = partial(conv, initialization=self.initialization, use_bias=False)
        norm = partial(self.norm, train=train)
        h = nn.relu(norm(convolve(x, self.width, kernel_size=1)))
        h = nn.relu(norm(convolve(h, self.width, stride=self.stride)))
        h = Dropout(self.dropout)(h, train=train)
        h = norm(convolve(h, 4 * self.width, kernel_size=1))
        if x.shape != h.shape:
            x = norm(convolve(x, 4 * self.width, kernel_size=1, stride=self.stride))
        return nn.relu(x + h)


class ResNet(nn.Module):
    """A residual network: a first convolution, stages of residual blocks, mean over space, dense.

    Each stage is twice as wide and half as large as the one before. The defaults are ResNet-8 at
    half width. `ResNet(blocks=(3, 3, 3), width=16)` is ResNet-20 as in the literature on lottery
    tickets (projection shortcuts; He et al. use zero padding), 0.27 million weights; in general
    three stages of n blocks have depth `6 n + 2`. With `large_images=True` the first convolution is
    7-wide with step 2, and 3-wide max pooling with step 2 follows it: `blocks=(2, 2, 2, 2),
    width=64` is ResNet-18, and `blocks=(3, 4, 6, 3), width=64, bottleneck=True` ResNet-50. Inputs
    have shape `(batch, *space, channels)` with any number of spatial axes. `state` holds the
    running BatchNorm statistics.

    Source: He, Zhang, Ren and Sun (2016), "Deep residual learning for image recognition",
    table 1 and section 4.2; Frankle, Dziugaite, Roy and Carbin (2020).

    Attributes:
      blocks: number of residual blocks in each stage.
      width: channels of the first stage (inside its blocks, where these are bottlenecks).
      classes: number of outputs.
      initialization: distributions of the kernels and the output layer's bias.
      dropout: probability of dropping a value inside a block in training.
      bottleneck: blocks of three convolutions instead of two.
      large_images: whether the first layers reduce the image's sides to a quarter.
      norm: the normalisation after each convolution.

    >>> from lth_jax.models.adapters import from_linen
    >>> model = from_linen(ResNet(blocks=(1,), width=4))
    >>> params, state = jax.eval_shape(
    ...     model.init, jax.random.key(0), jax.numpy.zeros((1, 8, 8, 3))
    ... )
    >>> sorted(params), sorted(state)
    (['BatchNorm_0', 'Conv_0', 'Dense_0', 'ResidualBlock_0'], ['batch_stats'])
    """

    blocks: Sequence[int] = (1, 1, 1)
    width: int = 8
    classes: int = 10
    initialization: Initialization = he_normal
    dropout: float = 0.0
    bottleneck: bool = False
    large_images: bool = False
    norm: Norm = batch_norm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(batch, *space, channels)` to logits `(batch, classes)`."""
        x = self._stem(x, train)
        block = BottleneckBlock if self.bottleneck else ResidualBlock
        for stage, count in enumerate(self.blocks):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                width = self.width * 2**stage
                layer = block(width, stride, self.initialization, self.dropout, self.norm)
                x = layer(x, train=train)
        return dense(x.mean(axis=range(1, x.ndim - 1)), self.classes, self.initialization)

    def _stem(self, x: jax.Array, train: bool) -> jax.Array:
        size, stride = (7, 2) if self.large_images else (3, 1)
        first = partial(conv, kernel_size=size, stride=stride, use_bias=False)
        x = nn.relu(self.norm(first(x, self.width, self.initialization), train=train))
        if not self.large_images:
            return x
        space = x.ndim - 2
        return nn.max_pool(x, (3,) * space, (2,) * space, [(1, 1)] * space)
