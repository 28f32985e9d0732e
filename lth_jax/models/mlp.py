"""Multilayer perceptrons: a plain one, such as LeNet-300-100, and a residual one."""

from collections.abc import Sequence

import jax
from flax import linen as nn

from lth_jax.models.layers import (
    Activation,
    Dropout,
    Initialization,
    as_floats,
    dense,
    fan_in_uniform,
    glorot_normal,
)


def flatten(x: jax.Array) -> jax.Array:
    """Flattens every example: `(batch, ...) -> (batch, n)`.

    >>> flatten(jax.numpy.zeros((2, 28, 28))).shape
    (2, 784)
    """
    return as_floats(x).reshape(x.shape[0], -1)


class MLP(nn.Module):
    """A multilayer perceptron: `h ← φ(h W + b)` in all layers but the last, which is linear.

    The defaults are LeNet-300-100 for ten classes with Gaussian Glorot kernels, the network of
    LeCun et al. (1998) as trained by Frankle and Carbin (2019): 266,200 weights and 410 biases on
    28x28 images. Inputs of shape `(batch, ...)` are flattened; the output has shape `(batch,
    features[-1])`.

    Attributes:
      features: width of every layer, including the output.
      activation: φ.
      initialization: how kernels and biases are drawn.
      dropout: probability of dropping a hidden unit in training.

    >>> from lth_jax.models.adapters import from_linen
    >>> model = from_linen(MLP((8, 3)))
    >>> x = jax.numpy.zeros((1, 4))
    >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> params["Dense_0"]["kernel"].shape, state
    ((4, 8), {})
    """

    features: Sequence[int] = (300, 100, 10)
    activation: Activation = nn.relu
    initialization: Initialization = glorot_normal
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(batch, ...)` to logits `(batch, features[-1])`."""
        h = flatten(x)
        for width in self.features[:-1]:
            h = self.activation(dense(h, width, self.initialization))
            h = Dropout(self.dropout)(h, train=train)
        return dense(h, self.features[-1], self.initialization)


class ResidualMLP(nn.Module):
    """A residual perceptron: `h = φ(x W + b)`, then `h ← h + φ(h W + b)` per block, then linear.

    The defaults are the network of the lottery tickets on MNIST-1D, 40-500-500-10 with
    PyTorch's default initialization: 275,000 weights and 1,010 biases. Source: Greydanus
    and Kobak (2024), "Scaling down deep learning with MNIST-1D".

    Attributes:
      width: units in each hidden layer.
      blocks: number of residual layers.
      classes: number of outputs.
      activation: φ.
      initialization: how kernels and biases are drawn.

    >>> from lth_jax.models.adapters import from_linen
    >>> model = from_linen(ResidualMLP(width=8, classes=3))
    >>> x = jax.numpy.zeros((1, 40))
    >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> [params[name]["kernel"].shape for name in sorted(params)]
    [(40, 8), (8, 8), (8, 3)]
    """

    width: int = 500
    blocks: int = 1
    classes: int = 10
    activation: Activation = nn.relu
    initialization: Initialization = fan_in_uniform

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(batch, ...)` to logits `(batch, classes)`, the same in training and evaluation."""
        del train
        h = self.activation(dense(flatten(x), self.width, self.initialization))
        for _ in range(self.blocks):
            h = h + self.activation(dense(h, self.width, self.initialization))
        return dense(h, self.classes, self.initialization)
