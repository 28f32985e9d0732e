"""Initializations, and the layers of which all networks here consist."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike

from lth_jax.models.convolution import conv_general_dilated
from lth_jax.types import Key

Activation = Callable[[jax.Array], jax.Array]
Initializer = Callable[..., jax.Array]
Norm = Callable[..., jax.Array]
"""A normalisation that a compact module calls: `norm(x, train=train)`."""


class Initialization(NamedTuple):
    """The distributions of a layer's initial kernel and bias.

    Attributes:
      kernel: an initializer, which reads the fan-in from the kernel's shape.
      bias: `fan_in -> initializer`, because the bias's shape does not give the fan-in.
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
"""Kernels and biases from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default.

Source: LeCun, Bottou, Orr and Müller (1998), as in `torch.nn.Linear` and `torch.nn.Conv2d`."""


def as_floats(x: jax.Array) -> jax.Array:
    """Inputs as floats: uint8 images `(batch, height, width, channels)` are divided by 255.

    Others stay as they are.

    >>> as_floats(jnp.full((1, 1, 1, 2), 255, jnp.uint8)).tolist()
    [[[[1.0, 1.0]]]]
    """
    return x / jnp.float32(255) if x.dtype == jnp.uint8 and x.ndim == 4 else x


def dense(
    x: jax.Array, features: int, initialization: Initialization, *, name: str | None = None
) -> jax.Array:
    """Adds a `nn.Dense` to the calling compact module: `x W + b`, `(..., n) -> (..., features)`."""
    kernel, bias = initialization
    return nn.Dense(features, kernel_init=kernel, bias_init=bias(x.shape[-1]), name=name)(x)


def read_sequence(x: jax.Array, vocabulary: int | None, width: int) -> jax.Array:
    """A sequence as vectors: tokens by a `nn.Embed` of the calling module, numbers as rows.

    Args:
      x: integers `(batch, time)`, or floats `(batch, time, ...)`.
      vocabulary: number of tokens; None if `x` holds numbers.
      width: size of the embedding.

    Returns:
      `(batch, time, width)` for tokens; `(batch, time, n)` for numbers, further axes flattened.

    Raises:
      ValueError: if `vocabulary` is given for numbers or missing for tokens.
    """
    if jnp.issubdtype(x.dtype, jnp.integer) != (vocabulary is not None):
        raise ValueError(
            f"`vocabulary` must be a number for integer inputs and None for others, got "
            f"{vocabulary} for {x.dtype}."
        )
    if vocabulary is not None:
        return nn.Embed(vocabulary, width)(x)
    return x.reshape(*x.shape[:2], -1)


def conv(
    x: jax.Array,
    features: int,
    initialization: Initialization,
    *,
    kernel_size: int = 3,
    stride: int = 1,
    use_bias: bool = True,
) -> jax.Array:
    """Adds a `nn.Conv` to the calling compact module, over as many axes as the input has.

    `(batch, *space, n) -> (batch, *⌈space / stride⌉, features)` for odd `kernel_size`, with equal
    padding on both sides, as in the papers (XLA's 'SAME' is asymmetric under strides).

    Args:
      x: `(batch, *space, n)`.
      features: number of output channels.
      initialization: distributions of kernel and bias.
      kernel_size: width of the window along every spatial axis.
      stride: step of the window along every spatial axis.
      use_bias: whether the layer has a bias.

    Raises:
      ValueError: if `x` has no spatial axis between batch and channels.
    """
    space = x.ndim - 2
    if space < 1:
        raise ValueError(f"`x` must have shape (batch, *space, channels), got {x.shape}.")
    kernel, bias = initialization
    return nn.Conv(
        features,
        (kernel_size,) * space,
        strides=(stride,) * space,
        padding=[((kernel_size - 1) // 2, kernel_size // 2)] * space,
        use_bias=use_bias,
        kernel_init=kernel,
        bias_init=bias(kernel_size**space * x.shape[-1]),
        conv_general_dilated=conv_general_dilated,
    )(as_floats(x))


class Dropout(nn.Module):
    """`x · b / (1 − p)` with b ~ Bernoulli(1 − p) per entry in training, and `x` in evaluation.

    Equal to `nn.Dropout` bit for bit, but p may be traced, so that networks with different p can
    share one compiled program. Source: Srivastava et al. (2014).

    Attributes:
      rate: p, in [0, 1); the Python number 0 draws no random numbers.

    >>> x, key = jnp.ones(1000), jax.random.key(0)
    >>> half = jax.jit(lambda p: Dropout(p).apply({}, x, train=True, rngs={"dropout": key}))(0.5)
    >>> sorted(set(half.tolist()))
    [0.0, 2.0]
    """

    rate: float | jax.Array

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Drops entries of `x`, of any shape, in training."""
        if not train or (isinstance(self.rate, float | int) and self.rate == 0):
            return x
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, x.shape)
        return jnp.where(kept, x / jnp.asarray(1 - self.rate, x.dtype), 0)


def batch_norm(x: jax.Array, *, train: bool) -> jax.Array:
    """Adds a `nn.BatchNorm` (momentum 0.9) to the calling compact module; a `Norm`.

    `γ (x - μ) / sqrt(σ² + ε) + β` per channel, with ε = 10⁻⁵. In training, μ and σ² are the mean
    and the biased variance over batch and space, and their running means m and v become
    `0.9 m + 0.1 μ` and `0.9 v + 0.1 σ²`. In evaluation, m and v replace μ and σ². Source: Ioffe and
    Szegedy (2015).

    Args:
      x: `(batch, *space, channels)`, of any dtype.
      train: whether to use the statistics of the batch, and to update the running means.

    Returns:
      An array like `x`, in float32 or the dtype of `x` if that is wider. γ and β, in `params`, and
      m and v, in `batch_stats`, are float32 `(channels,)`.

    Raises:
      flax.errors.FlaxError: the caller is not a compact method of a module.

    >>> class Net(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x, *, train):
    ...         return batch_norm(x, train=train)
    >>> out, _ = Net().init_with_output(jax.random.key(0), jnp.array([[1.0], [3.0]]), train=True)
    >>> out.round(3).tolist()
    [[-1.0], [1.0]]
    """
    return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)


def group_norm(x: jax.Array, *, train: bool) -> jax.Array:
    """Adds a `nn.GroupNorm` to the calling compact module; a `Norm` without running statistics.

    `γ (x - μ) / sqrt(σ² + ε) + β` with ε = 10⁻⁶. The mean μ and the biased variance σ² are those
    of each example's groups of 16 channels (of all, if there are fewer), over channels and space,
    in training and evaluation alike. Source: Wu and He (2018), table 3.

    Args:
      x: `(batch, *space, channels)`, of any dtype.
      train: not used; every `Norm` takes it.

    Returns:
      An array like `x`, in float32 or the dtype of `x` if that is wider. γ and β, in `params`, are
      float32 `(channels,)`.

    Raises:
      ValueError: if the number of channels is above 16 and not a multiple of 16.
      flax.errors.FlaxError: the caller is not a compact method of a module.

    >>> class Net(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x, *, train):
    ...         return group_norm(x, train=train)
    >>> out, _ = Net().init_with_output(jax.random.key(0), jnp.array([[1.0, 3.0]]), train=True)
    >>> out.round(3).tolist()
    [[-1.0, 1.0]]
    """
    del train
    size = min(16, x.shape[-1])
    if x.shape[-1] % size:
        raise ValueError(f"`x` must have a multiple of 16 channels, got {x.shape[-1]}.")
    return nn.GroupNorm(num_groups=None, group_size=size)(x)


def max_pool(x: jax.Array) -> jax.Array:
    """The maxima of windows of two cells: `(batch, *space, n) -> (batch, *⌊space / 2⌋, n)`.

    Works axis by axis with the maxima of two strided slices: on CPUs a gradient step takes less
    than a tenth of the time of `nn.max_pool`. If both cells hold the maximum, the first gets the
    gradient.

    >>> max_pool(jnp.arange(5.0).reshape(1, 5, 1)).ravel().tolist()
    [1.0, 3.0]
    """
    for axis in range(1, x.ndim - 1):
        end = x.shape[axis] // 2 * 2
        x = _larger(*(lax.slice_in_dim(x, start, end, 2, axis) for start in (0, 1)))
    return x


@jax.custom_jvp
def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """`max(a, b)`, whose gradient does not compare an operand with the maximum.

    JAX's own gradient does. If XLA recomputes the operands for it with other rounding, neither is
    equal to the maximum and the gradient is lost (seen on CPUs without optimisation, jax 0.10.2).
    """
    return jnp.maximum(a, b)


@_larger.defjvp
def _larger_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    a, b = primals
    return _larger(a, b), jnp.where(a >= b, *tangents)
