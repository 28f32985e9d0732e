"""The shared layers against flax's own and against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lth_jax.models.adapters import from_linen
from lth_jax.models.layers import conv, fan_in_uniform, max_pool


class OneConv(nn.Module):
    """A single strided convolution."""

    @nn.compact
    def __call__(self, x, *, train):
        return conv(x, 16, fan_in_uniform, kernel_size=5, stride=2)


@pytest.mark.parametrize("shape", [(2, 9, 3), (2, 8, 6, 3), (2, 5, 4, 6, 2)], ids=str)
def test_max_pool_is_that_of_flax(shape):
    x = jnp.float32(np.random.default_rng(0).normal(size=shape))
    space = (2,) * (len(shape) - 2)

    def value_and_gradient(pool):
        return jax.jit(jax.value_and_grad(lambda x: (pool(x) ** 2).sum()))(x)

    ours = value_and_gradient(max_pool)
    theirs = value_and_gradient(lambda x: nn.max_pool(x, space, space))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
    np.testing.assert_array_equal(ours[1], theirs[1])


@pytest.mark.parametrize("level", [0, 2])
def test_max_pool_keeps_its_gradient_at_every_level_of_optimization(level):
    """XLA may compute a cell twice and round it unlike: neither is then equal to the maximum."""
    rng = np.random.default_rng(0)
    x, weights = (jnp.float32(rng.normal(size=shape)) for shape in ((3, 8, 8, 3), (3, 4, 4, 3)))
    scale, shift = jnp.float32([0.3, -0.7, 0.5]), jnp.float32([0.1, 0.2, -0.3])

    def value(shift):
        normal = (x - shift) * (jax.lax.rsqrt(jnp.abs(scale) + 1e-5) * scale) + shift
        return jnp.vdot(weights, max_pool(normal))

    options = {"xla_backend_optimization_level": level}
    found = jax.jit(jax.grad(value), compiler_options=options)(shift)
    slope = 1 - scale / np.sqrt(np.abs(scale) + 1e-5)
    np.testing.assert_allclose(found, weights.sum((0, 1, 2)) * slope, rtol=1e-4)


@pytest.mark.parametrize("space", [(40,), (9, 8)], ids=str)
def test_conv_spans_the_axes_of_its_input_and_knows_its_fan_in(space):
    model = from_linen(OneConv())
    x = jnp.ones((2, *space, 3))
    params, state = jax.jit(model.init)(jax.random.key(0), x)
    kernel, bias = params["Conv_0"]["kernel"], params["Conv_0"]["bias"]
    assert kernel.shape == (5,) * len(space) + (3, 16)
    limit = (5 ** len(space) * 3) ** -0.5
    for draw in (kernel, bias):
        assert 0.7 * limit < float(jnp.abs(draw).max()) <= limit * (1 + 1e-6)
    out, _ = jax.jit(lambda p: model.apply(p, state, x, train=False))(params)
    assert out.shape == (2, *(-(-size // 2) for size in space), 16)


def test_conv_without_a_spatial_axis_is_refused():
    with pytest.raises(ValueError, match=r"`x` must have shape \(batch, \*space, channels\)"):
        from_linen(OneConv()).init(jax.random.key(0), jnp.ones((2, 40)))
