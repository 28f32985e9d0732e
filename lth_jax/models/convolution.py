"""A convolution that is fast on every platform, also in loops, and differentiable to any order.

XLA's CPU backend is fast for one layout only. Inside a `lax.scan` it folds the transposes of a
gradient into other layouts, and a step is tens of times slower than outside the loop. A `vmap` over
kernels becomes a grouped convolution, which is also slow on CPUs. A convolution is bilinear in
inputs and kernel. Its two gradients are bilinear too, and the gradients of each of the three are
the other two. So three primitives are closed under differentiation, forward, reverse and mixed.
Each takes `(batch, *space, channels)` and `(*space, channels / groups, features)`, with an axis of
members first in both or neither. The lowering depends on the platform: on CPUs the fast layout, one
member after the other; elsewhere XLA's own convolution under `vmap`.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.typing import ArrayLike, DTypeLike

FEW_CHANNELS, SHORT = 4, 72
"""Limits for matrix products of patches, which are faster on CPUs up to `FEW_CHANNELS` input
channels or `SHORT` numbers per patch (16 channels × window 3, or 8 × (3, 3))."""

LANES = 4
"""Rows of patches are padded to a multiple of this length.

Products with rows of 27 take up to twice as long as with rows of 28.
"""


class Geometry(NamedTuple):
    """The static parameter of the primitives: all of a convolution but its operands.

    Channels and batch sizes are read from the operands, so one geometry serves several sizes.

    Attributes:
      inputs: spatial shape of the inputs.
      kernel: spatial shape of the kernel.
      outputs: spatial shape of the outputs.
      strides: step of the window, per spatial axis.
      padding: zeros before and after, per spatial axis; negative ones crop.
      input_dilation: distance between input positions, per spatial axis.
      kernel_dilation: distance between kernel positions, per spatial axis.
      groups: number of groups of channels.
      precision: as in `lax.conv_general_dilated`.
    """

    inputs: tuple[int, ...]
    kernel: tuple[int, ...]
    outputs: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    input_dilation: tuple[int, ...]
    kernel_dilation: tuple[int, ...]
    groups: int
    precision: Any


def conv_general_dilated(
    lhs: ArrayLike,
    rhs: ArrayLike,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
    out_sharding: Any = None,
) -> jax.Array:
    """Equal to `jax.lax.conv_general_dilated` up to rounding, and fast in loops on CPUs.

    `y[n, p, o] = Σ_{k, i} x[n, p · strides + k · rhs_dilation - padding, i] w[k, i, o]`

    Flax's layers accept it as `conv_general_dilated=`. Arguments, layouts and errors are those of
    JAX's function. Cases that the primitives do not cover are passed to it unchanged: grouped
    batches, an output type other than the operands', types that are not floating, empty arrays,
    explicit shardings.

    >>> from flax import linen as nn
    >>> layer = nn.Conv(8, (3, 3), conv_general_dilated=conv_general_dilated)
    >>> layer.apply({"params": {"kernel": jnp.ones((3, 3, 2, 8)), "bias": jnp.zeros(8)}},
    ...             jnp.ones((2, 16, 16, 2))).shape
    (2, 16, 16, 8)
    """
    stock = partial(
        lax.conv_general_dilated,
        window_strides=window_strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
        out_sharding=out_sharding,
    )
    x, w = jnp.asarray(lhs), jnp.asarray(rhs)
    out = jax.eval_shape(stock, x, w)  # raises the errors of JAX's function
    explicit = out_sharding is not None or any(any(jax.typeof(a).sharding.spec) for a in (x, w))
    if batch_group_count > 1 or explicit or not _covered(x, w, out):
        return stock(x, w)
    numbers = lax.conv_dimension_numbers(x.shape, w.shape, dimension_numbers)
    ones = (1,) * (x.ndim - 2)
    to_x, to_w, to_y = _channels_last(numbers)
    x, w = _vary_alike(x.transpose(to_x), w.transpose(to_w))
    dilation = tuple(rhs_dilation or ones)
    geometry = Geometry(
        inputs=x.shape[1:-1],
        kernel=w.shape[:-2],
        outputs=tuple(out.shape[axis] for axis in to_y[1:-1]),
        strides=tuple(window_strides),
        padding=_explicit_padding(padding, x.shape[1:-1], w.shape[:-2], window_strides, dilation),
        input_dilation=tuple(lhs_dilation or ones),
        kernel_dilation=dilation,
        groups=feature_group_count,
        precision=precision,
    )
    y = conv_p.bind(x, w, geometry=geometry)
    return y.transpose(sorted(range(y.ndim), key=to_y.__getitem__))


def _covered(x: jax.Array, w: jax.Array, out: jax.ShapeDtypeStruct) -> bool:
    same_type = jnp.issubdtype(x.dtype, jnp.floating) and x.dtype == w.dtype == out.dtype
    return same_type and x.ndim > 2 and 0 not in (*x.shape, *w.shape, *out.shape)


def _channels_last(numbers: lax.ConvDimensionNumbers) -> tuple[tuple[int, ...], ...]:
    """Permutations of inputs, kernel and outputs into the layout of the primitives."""
    (n, c, *space), (o, i, *window), (out_n, out_c, *out_space) = numbers
    return (n, *space, c), (*window, i, o), (out_n, *out_space, out_c)


def _explicit_padding(
    padding: Any,
    inputs: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
) -> tuple[tuple[int, int], ...]:
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(inputs, _reach(kernel, dilation), strides, padding)
    return tuple((int(low), int(high)) for low, high in padding)


def _reach(cells: Sequence[int], distances: Sequence[int]) -> list[int]:
    """The extent of this many positions at these distances, per axis."""
    return [(n - 1) * d + 1 for n, d in zip(cells, distances, strict=True)]


def _vary_alike(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Inside `shard_map`: marks both operands as varying over the mesh axes of either."""
    axes_x, axes_w = _varying_axes(x), _varying_axes(w)

    def cast(a: jax.Array, missing: frozenset[str]) -> jax.Array:
        return lax.pcast(a, tuple(sorted(missing)), to="varying") if missing else a

    return cast(x, axes_w - axes_x), cast(w, axes_x - axes_w)


def _varying_axes(x: jax.Array) -> frozenset[str]:
    kind: Any = jax.typeof(x)  # some versions keep the axes in `mat`, others in `vma`
    return kind.mat.varying if hasattr(kind, "mat") else kind.vma


# What every primitive computes: XLA's own forms, used on all platforms but the CPU.


def _stock_conv(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    space = "DHW"[-len(geometry.kernel) :]
    return lax.conv_general_dilated(
        x,
        w,
        geometry.strides,
        geometry.padding,
        geometry.input_dilation,
        geometry.kernel_dilation,
        (f"N{space}C", f"{space}IO", f"N{space}C"),
        geometry.groups,
        precision=geometry.precision,
    )


def _stock_input_gradient(g: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    like = jax.typeof(g).update(shape=_input_shape(g.shape, w.shape, geometry))
    return jax.linear_transpose(lambda x: _stock_conv(x, w, geometry), like)(g)[0]


def _stock_kernel_gradient(x: jax.Array, g: jax.Array, geometry: Geometry) -> jax.Array:
    like = jax.typeof(x).update(shape=_kernel_shape(x.shape, g.shape, geometry))
    return jax.linear_transpose(lambda w: _stock_conv(x, w, geometry), like)(g)[0]


# Shapes of the results, from those of the operands.


def _members(shape: tuple[int, ...], geometry: Geometry) -> tuple[int, ...]:
    return shape[: -len(geometry.kernel) - 2]


def _output_shape(x: tuple[int, ...], w: tuple[int, ...], geometry: Geometry) -> tuple[int, ...]:
    n = x[-len(geometry.kernel) - 2]
    return (*_members(x, geometry), n, *geometry.outputs, w[-1])


def _input_shape(g: tuple[int, ...], w: tuple[int, ...], geometry: Geometry) -> tuple[int, ...]:
    n = g[-len(geometry.kernel) - 2]
    return (*_members(g, geometry), n, *geometry.inputs, w[-2] * geometry.groups)


def _kernel_shape(x: tuple[int, ...], g: tuple[int, ...], geometry: Geometry) -> tuple[int, ...]:
    return (*_members(x, geometry), *geometry.kernel, x[-1] // geometry.groups, g[-1])


# The forms for XLA's CPU backend.


def _cpu_conv(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    if not _is_small(x, geometry):
        return _cpu_direct(x, w, geometry)
    patches, kernel = _patches(x, geometry), w.reshape(-1, w.shape[-1])
    kernel = jnp.pad(kernel, ((0, patches.shape[-1] - len(kernel)), (0, 0)))
    outputs = _output_shape(x.shape, w.shape, geometry)
    return _product(patches, kernel, geometry).reshape(outputs)


def _cpu_direct(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """XLA's convolution, without its CPU backend's error for cropping one side and padding another.

    Padding by (-2, 1) gave wrong numbers in jax 0.10.2; gradients can need such padding where the
    convolution itself does not.
    """
    if any(side < 0 for sides in geometry.padding for side in sides):
        x = _padded(x, geometry)
        ones = (1,) * len(geometry.kernel)
        geometry = geometry._replace(padding=((0, 0),) * len(ones), input_dilation=ones)
    return _stock_conv(x, w, geometry)


def _padded(x: jax.Array, geometry: Geometry) -> jax.Array:
    borders = [(*p, d - 1) for p, d in zip(geometry.padding, geometry.input_dilation, strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *borders, (0, 0, 0)])


def _cpu_input_gradient(g: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """The transposed convolution: `g`, dilated by the strides, with the flipped kernel."""
    *kernel, i, o = w.shape
    groups = geometry.groups
    flipped = jnp.flip(w, tuple(range(len(kernel)))).reshape(*kernel, i, groups, o // groups)
    flipped = jnp.swapaxes(flipped, -1, -3).reshape(*kernel, o // groups, i * groups)
    inputs, window, outputs = _reaches(geometry)
    lows = [k - 1 - low for k, (low, _) in zip(window, geometry.padding, strict=True)]
    sides = zip(lows, inputs, window, outputs, strict=True)
    transposed = geometry._replace(
        inputs=geometry.outputs,
        outputs=geometry.inputs,
        strides=geometry.input_dilation,
        padding=tuple((low, i + k - 1 - o - low) for low, i, k, o in sides),
        input_dilation=geometry.strides,
    )
    return _cpu_conv(g, lax.optimization_barrier(flipped), transposed)


def _cpu_kernel_gradient(x: jax.Array, g: jax.Array, geometry: Geometry) -> jax.Array:
    """The correlation of the inputs with the outputs' gradient; the batch acts as channels."""
    if _is_small(x, geometry):
        shape = _kernel_shape(x.shape, g.shape, geometry)
        gradient = _over_rows(_patches(x, geometry), g.reshape(-1, g.shape[-1]), geometry)
        return gradient[: math.prod(shape[:-1])].reshape(shape)
    n, *space, channels = x.shape
    groups = geometry.groups
    images = jnp.moveaxis(x.reshape(n, *space, groups, channels // groups), (-1, 0), (0, -1))
    images = images.reshape(channels // groups, *space, groups * n)
    sides = zip(geometry.padding, *_reaches(geometry), strict=True)
    correlation = geometry._replace(
        strides=geometry.kernel_dilation,
        padding=tuple((low, o + k - 1 - i - low) for (low, _), i, k, o in sides),
        kernel_dilation=geometry.strides,
    )
    windows = lax.optimization_barrier(jnp.moveaxis(g, 0, -2))
    out = _cpu_direct(lax.optimization_barrier(images), windows, correlation)
    return jnp.moveaxis(lax.optimization_barrier(out), 0, -2)


def _reaches(geometry: Geometry) -> tuple[list[int], list[int], list[int]]:
    """The extents of inputs, kernel and outputs on their common grid."""
    return (
        _reach(geometry.inputs, geometry.input_dilation),
        _reach(geometry.kernel, geometry.kernel_dilation),
        _reach(geometry.outputs, geometry.strides),
    )


def _is_small(x: jax.Array, geometry: Geometry) -> bool:
    channels, patch = x.shape[-1], math.prod(geometry.kernel) * x.shape[-1]
    return geometry.groups == 1 and (channels <= FEW_CHANNELS or patch <= SHORT)


def _patches(x: jax.Array, geometry: Geometry) -> jax.Array:
    """Every window as a row padded with zeros: `(batch · outputs, kernel · channels + zeros)`.

    Works axis by axis, the last first, so that each copy moves longer runs than the previous one:
    half the time of gathering every position separately.
    """
    cells = _padded(x, geometry)
    reach = _reach(geometry.outputs, geometry.strides)
    for axis in reversed(range(len(geometry.kernel))):
        starts = [i * geometry.kernel_dilation[axis] for i in range(geometry.kernel[axis])]
        shifted = [
            lax.slice_in_dim(cells, start, start + reach[axis], geometry.strides[axis], axis + 1)
            for start in starts
        ]
        if axis == 0:
            missing = -sum(part.shape[-1] for part in shifted) % LANES
            shifted.append(jnp.zeros((*shifted[0].shape[:-1], missing), x.dtype))
        cells = jnp.concatenate(shifted, axis=-1)
    return cells.reshape(-1, cells.shape[-1])


def _over_rows(patches: jax.Array, g: jax.Array, geometry: Geometry) -> jax.Array:
    """`patchesᵀ g` with the narrower operand first, which halves the time if that is `g`.

    The barrier keeps XLA from swapping them back.
    """
    if g.shape[-1] >= patches.shape[-1]:
        return _product(patches.T, g, geometry)
    return lax.optimization_barrier(_product(g.T, patches, geometry)).T


def _product(a: jax.Array, b: jax.Array, geometry: Geometry) -> jax.Array:
    """The matrix product, accumulated in float32 or wider, as in convolutions."""
    wide = a.dtype if a.dtype.itemsize >= 4 else jnp.float32
    out = jnp.matmul(a, b, precision=geometry.precision, preferred_element_type=wide)
    return out.astype(a.dtype)


# The primitives.


def _primitive(
    name: str, shape: Callable, stock: Callable, cpu: Callable, free: tuple[tuple[int, int], ...]
) -> Primitive:
    """Makes a bilinear primitive with its shape rule, lowerings and batching rule.

    `free` gives, for each operand, the axis that the other operand does not share and its position
    in the result. If only that operand has a batch axis, it is folded into this axis.
    """
    p = Primitive(name)
    p.def_impl(jax.jit(p.bind, static_argnames="geometry"))
    p.def_abstract_eval(
        lambda a, b, *, geometry: a.update(shape=shape(a.shape, b.shape, geometry), weak_type=False)
    )

    def one_after_the_other(a: jax.Array, b: jax.Array, *, geometry: Geometry) -> jax.Array:
        if not _members(a.shape, geometry):
            return cpu(a, b, geometry)
        return lax.map(lambda pair: cpu(*pair, geometry), (a, b))

    def all_at_once(a: jax.Array, b: jax.Array, *, geometry: Geometry) -> jax.Array:
        f = partial(stock, geometry=geometry)
        return jax.vmap(f)(a, b) if _members(a.shape, geometry) else f(a, b)

    mlir.register_lowering(p, mlir.lower_fun(one_after_the_other, False), platform="cpu")
    mlir.register_lowering(p, mlir.lower_fun(all_at_once, False))
    batching.primitive_batchers[p] = partial(_batch, p, free)
    return p


def _batch(
    p: Primitive,
    free: tuple[tuple[int, int], ...],
    operands: Sequence[jax.Array],
    axes: Sequence[Any],
    *,
    geometry: Geometry,
) -> tuple[jax.Array, int]:
    if None not in axes:
        return _batch_both(p, operands, axes, geometry), 0
    which = 0 if axes[1] is None else 1
    if geometry.groups == 1 or free[which][0] == 0:
        return _fold(p, operands, which, axes[which], free[which], geometry)
    count = operands[which].shape[axes[which]]
    other = jnp.broadcast_to(operands[1 - which], (count, *operands[1 - which].shape))
    both = (operands[0], other) if which == 0 else (other, operands[1])
    return _batch_both(p, both, [0 if axis is None else axis for axis in axes], geometry), 0


def _batch_both(
    p: Primitive, operands: Sequence[jax.Array], axes: Sequence[Any], geometry: Geometry
) -> jax.Array:
    a, b = (jnp.moveaxis(x, axis, 0) for x, axis in zip(operands, axes, strict=True))
    outer = _members(a.shape, geometry)
    a, b = (x.reshape(math.prod(outer), *x.shape[len(outer) :]) for x in (a, b))
    out = p.bind(a, b, geometry=geometry)
    return out.reshape(*outer, *out.shape[1:])


def _fold(
    p: Primitive,
    operands: Sequence[jax.Array],
    which: int,
    axis: int,
    free: tuple[int, int],
    geometry: Geometry,
) -> tuple[jax.Array, int]:
    """Folds the batch axis of one operand into its free axis, and unfolds it in the result."""
    other = operands[1 - which]
    rank = len(geometry.kernel) + 2
    into, out_of = (other.ndim - rank + position % rank for position in free)
    x = jnp.moveaxis(operands[which], axis, into)
    count, size = x.shape[into : into + 2]
    x = x.reshape(*x.shape[:into], count * size, *x.shape[into + 2 :])
    out = p.bind(*((x, other) if which == 0 else (other, x)), geometry=geometry)
    return out.reshape(*out.shape[:out_of], count, size, *out.shape[out_of + 1 :]), out_of


conv_p = _primitive("conv", _output_shape, _stock_conv, _cpu_conv, ((0, 0), (-1, -1)))
"""`(inputs, kernel) -> outputs`."""

input_gradient_p = _primitive(
    "conv_input_gradient",
    _input_shape,
    _stock_input_gradient,
    _cpu_input_gradient,
    ((0, 0), (-2, -1)),
)
"""`(gradient of the outputs, kernel) -> gradient of the inputs`."""

kernel_gradient_p = _primitive(
    "conv_kernel_gradient",
    _kernel_shape,
    _stock_kernel_gradient,
    _cpu_kernel_gradient,
    ((-1, -2), (-1, -1)),
)
"""`(inputs, gradient of the outputs) -> gradient of the kernel`."""

ad.defbilinear(
    conv_p,
    lambda g, x, w, **geometry: input_gradient_p.bind(g, w, **geometry),
    lambda g, x, w, **geometry: kernel_gradient_p.bind(x, g, **geometry),
)
ad.defbilinear(
    input_gradient_p,
    lambda x, g, w, **geometry: conv_p.bind(x, w, **geometry),
    lambda x, g, w, **geometry: kernel_gradient_p.bind(x, g, **geometry),
)
ad.defbilinear(
    kernel_gradient_p,
    lambda w, x, g, **geometry: input_gradient_p.bind(g, w, **geometry),
    lambda w, x, g, **geometry: conv_p.bind(x, w, **geometry),
)
