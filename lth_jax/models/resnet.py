"""Residual networks of the CIFAR kind, with BatchNorm."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
from flax import linen as nn

from lth_jax.models.layers import Initialization, conv, dense, he_normal


class ResidualBlock(nn.Module):
    """`y = φ(x' + N(conv(D(φ(N(conv(x))))))`: two convolutions beside a shortcut `x'`.

    φ is ReLU, N BatchNorm, D dropout (as in Zagoruyko and Komodakis, 2016). Where the shape
    changes, the shortcut is `x' = N(conv(x))` with a 1-wide kernel; elsewhere `x' = x`.

    Attributes:
      width: channels that come out.
      stride: step of the first convolution, and of the shortcut.
      initialization: how kernels are drawn.
      dropout: chance for a cell between the convolutions to be dropped while training.
    """

    width: int
    stride: int = 1
    initialization: Initialization = he_normal
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(batch, *space, n)` to `(batch, *⌈space / stride⌉, width)`."""
        convolve = partial(conv, initialization=self.initialization, use_bias=False)
        norm = _batch_norm(train)
        h = nn.relu(norm()(convolve(x, self.width, stride=self.stride)))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = norm()(convolve(h, self.width))
        if x.shape != h.shape:
            x = norm()(convolve(x, self.width, kernel_size=1, stride=self.stride))
        return nn.relu(x + h)


class ResNet(nn.Module):
    """A residual network for small images: depth `6 n + 2` with three stages of `n` blocks.

    A convolution to `width` channels, then stages of residual blocks, each stage twice as wide
    and half as large as the one before, then the mean over space and a dense layer. The defaults
    are ResNet-8 at half width; `ResNet(blocks=(3, 3, 3), width=16)` is ResNet-20 as in the
    literature on lottery tickets (projection shortcuts; He et al. pad with zeros), 0.27 million
    weights. Inputs have shape `(batch, *space, channels)` with any number of spatial axes.
    `state` holds the running BatchNorm statistics (momentum 0.9).

    Source: He, Zhang, Ren and Sun (2016), "Deep residual learning for image recognition",
    section 4.2; Frankle, Dziugaite, Roy and Carbin (2020).

    Attributes:
      blocks: number of residual blocks in each stage.
      width: channels of the first stage.
      classes: number of outputs.
      initialization: how kernels and the output layer's bias are drawn.
      dropout: chance for a cell inside a block to be dropped while training.

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

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(batch, *space, channels)` to logits `(batch, classes)`."""
        x = conv(x, self.width, self.initialization, use_bias=False)
        x = nn.relu(_batch_norm(train)()(x))
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                width = self.width * 2**stage
                x = ResidualBlock(width, stride, self.initialization, self.dropout)(x, train=train)
        return dense(x.mean(axis=range(1, x.ndim - 1)), self.classes, self.initialization)


def _batch_norm(train: bool) -> Callable[[], nn.BatchNorm]:
    return partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
