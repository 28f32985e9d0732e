"""Matrix products: which operand holds weights, and the rows that they multiply.

A rule describes a product as `Y[g] = X[g] W[g]` for g = 1 … groups: `rows` makes X `(groups, rows,
inputs)` from the operands, `matrix` makes W `(groups, inputs, outputs)` from the weights.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lth_jax.registry import Registry
from lth_jax.structure.graph import Op


class Product(NamedTuple):
    """A primitive as a matrix product.

    Attributes:
      rows: operands of the primitive -> `(groups, rows, inputs)`; it reads no weights.
      matrix: the operand that holds the weights -> `(groups, inputs, outputs)`; it only moves
        entries.
    """

    rows: Callable[[Sequence[Any]], jax.Array]
    matrix: Callable[[Any], jax.Array]


Rule = Callable[[Op, int], Product | None]
"""`(op, weights) -> product`: `weights` is the position of the operand that holds weights; None if
the operation is not a matrix product of that operand."""

RULES: Registry[Rule] = Registry("product rule")
"""The rules by the name of the primitive; `register` adds one for a user-defined primitive."""


def product_of(op: Op, weights: int) -> Product | None:
    """The operation as a product of one of its operands, if it is one."""
    rule = RULES.get(op.name)
    return rule(op, weights) if rule else None


def _dot_general(op: Op, weights: int) -> Product:
    contracted, batched = op.params["dimension_numbers"]
    data = 1 - weights

    def matrix(array: Any, side: int, inputs_first: bool) -> jax.Array:
        batch, summed = batched[side], contracted[side]
        free = tuple(a for a in range(array.ndim) if a not in {*batch, *summed})
        order = (*batch, *summed, *free) if inputs_first else (*batch, *free, *summed)
        groups, inputs = (math.prod(array.shape[a] for a in axes) for axes in (batch, summed))
        shape = (groups, inputs, -1) if inputs_first else (groups, -1, inputs)
        return jnp.transpose(array, order).reshape(shape)

    return Product(
        lambda operands: matrix(operands[data], data, False),
        lambda array: matrix(array, weights, True),
    )


def _ragged_dot(op: Op, weights: int) -> Product | None:
    numbers = op.params["ragged_dot_dimension_numbers"]
    plain = (((1,), (1,)), ((), ())), [0], [0]
    found = (
        numbers.dot_dimension_numbers,
        list(numbers.lhs_ragged_dimensions),
        list(numbers.rhs_group_dimensions),
    )
    if weights != 1 or found != plain:
        return None

    def rows(operands: Sequence[Any]) -> jax.Array:
        x, _, sizes = operands
        ends = jnp.cumsum(sizes)[:, None]
        row = jnp.arange(len(x))
        mine = (ends - sizes[:, None] <= row) & (row < ends)
        return jnp.where(mine[..., None], x, jnp.zeros((), x.dtype))

    return Product(rows, lambda array: array)


def _convolution(op: Op, weights: int) -> Product | None:
    p = op.params
    if weights != 1 or p["batch_group_count"] != 1:
        return None
    lhs, rhs, _ = p["dimension_numbers"]
    groups, dilations = p["feature_group_count"], (p["lhs_dilation"], p["rhs_dilation"])
    window = tuple(op.ins[1].shape[a] for a in rhs[2:])

    def rows(operands: Sequence[Any]) -> jax.Array:
        x = jnp.transpose(operands[0], lhs)
        return _patches(x, window, p["window_strides"], p["padding"], *dilations, groups)

    return Product(rows, lambda kernel: _kernel(jnp.transpose(kernel, rhs), groups))


def _own_convolution(op: Op, weights: int) -> Product | None:
    """The primitive of `lth_jax.models.convolution`: channels last, perhaps an axis of members."""
    if weights != 1:
        return None
    g = op.params["geometry"]
    rank = len(g.kernel)

    def rows(operands: Sequence[Any]) -> jax.Array:
        x = jnp.moveaxis(operands[0], -1, -1 - rank)
        members = x.reshape(-1, *x.shape[-2 - rank :])
        patches = [
            _patches(
                m, g.kernel, g.strides, g.padding, g.input_dilation, g.kernel_dilation, g.groups
            )
            for m in members
        ]
        return jnp.concatenate(patches)

    def matrix(kernel: Any) -> jax.Array:
        w = jnp.moveaxis(kernel, (-1, -2), (-2 - rank, -1 - rank))
        members = w.reshape(-1, *w.shape[-2 - rank :])
        return jnp.concatenate([_kernel(m, g.groups) for m in members])

    return Product(rows, matrix)


def _patches(
    x: jax.Array,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    input_dilation: Sequence[int],
    kernel_dilation: Sequence[int],
    groups: int,
) -> jax.Array:
    """All windows of `(batch, channels, *space)` as rows: `(groups, rows, channels · window)`."""
    # Padded here: XLA:CPU (0.10.2) is wrong where one side is cropped and another padded.
    edges = [(*p, d - 1) for p, d in zip(padding, input_dilation, strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), *edges])
    found = lax.conv_general_dilated_patches(
        x, window, strides, "VALID", rhs_dilation=kernel_dilation, precision=lax.Precision.HIGHEST
    )
    rows = jnp.moveaxis(found, 1, -1).reshape(-1, groups, found.shape[1] // groups)
    return jnp.swapaxes(rows, 0, 1)


def _kernel(w: jax.Array, groups: int) -> jax.Array:
    """A kernel `(outputs, channels, *window)` as `(groups, channels · window, outputs)`."""
    return jnp.swapaxes(w.reshape(groups, w.shape[0] // groups, -1), 1, 2)


RULES.register("dot_general", _dot_general)
RULES.register("ragged_dot_general", _ragged_dot)
RULES.register("conv_general_dilated", _convolution)
RULES.register("conv", _own_convolution)
