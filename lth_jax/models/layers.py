"""Initializations and the two weighted layers that all networks here are made of."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from lth_jax.types import Key

Activation = Callable[[jax.Array], jax.Array]
Initializer = Callable[..., jax.Array]


class Initialization(NamedTuple):
    """How a layer's kernel and bias are drawn.

    Attributes:
      kernel: an initializer that reads the fan-in off the kernel's shape.
      bias: `fan_in -> initializer`; a bias's own shape does not tell its layer's fan-in.
    """

    kernel: Initializer
    bias: Callable[[int], Initializer]


def _zero_bias(fan_in: int) -> Initializer:
    del fan_in
    return nn.initializers.zeros_init()


def _uniform_bias(fan_in: int) -> Initializer:
    limit = fan_in**-0.5

    def init(key: Key, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


glorot_normal = Initialization(nn.initializers.glorot_normal(), _zero_bias)
"""Kernels from N(0, 2 / (fan_in + fan_out)), truncated at two deviations; biases zero.

Source: Glorot and Bengio (2010); the Gaussian Glorot of Frankle and Carbin (2019)."""

he_normal = Initialization(nn.initializers.he_normal(), _zero_bias)
"""Kernels from N(0, 2 / fan_in), truncated at two deviations; biases zero.

Source: He, Zhang, Ren and Sun (2015)."""

fan_in_uniform = Initialization(
    nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"), _uniform_bias
)
"""Kernels and biases from U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what PyTorch's layers do unasked.

Source: LeCun, Bottou, Orr and Müller (1998), as in `torch.nn.Linear` and `torch.nn.Conv2d`."""


def dense(x: jax.Array, features: int, initialization: Initialization) -> jax.Array:
    """Adds a `nn.Dense` to the calling compact module: `x W + b`, `(..., n) -> (..., features)`."""
    kernel, bias = initialization
    return nn.Dense(features, kernel_init=kernel, bias_init=bias(x.shape[-1]))(x)
