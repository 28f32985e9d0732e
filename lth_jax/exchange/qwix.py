"""Masked weights as the quantised blocks of qwix."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.coding.quantize import Quantized, integers, quantize_along
from lth_jax.exchange.errors import ExchangeError
from lth_jax.extras import needed_by
from lth_jax.layouts import Layout, Layouts, resolve
from lth_jax.pruning.checks import check_mask
from lth_jax.types import Mask, Params


def to_qwix(
    params: Params,
    mask: Mask,
    *,
    bits: int = 8,
    block: int | None = None,
    layouts: Layouts | None = None,
) -> Any:
    """The parameters with pruned leaves as `qwix.QArray`, quantised by blocks of inputs.

    The weights of a block, `block` neighbouring inputs of one output, share a scale
    s = max|w| / (2**(bits−1) − 1), and code = round(w / s). Pruned weights have code 0, so
    `qwix.dequantize` gives exactly 0 for them.

    Args:
      params: tree of floats.
      mask: tree like `params`, True = kept; leaves without a pruned weight stay as they are.
      bits: 2 to 8; the codes are int8.
      block: length of a block along the last axis of the inputs; the whole axis by default.
      layouts: leaf name to layout, for kernels of more than two axes.

    Raises:
      ExchangeError: `block` does not divide the inputs of a pruned leaf, or its layout is unknown.
      ValueError: `bits` is not 2 to 8, or `mask` does not fit `params`.
      TypeError: a leaf of `mask` is not bool.
      lth_jax.extras.MissingExtraError: qwix is not installed.

    >>> w = jnp.array([[1.0, 0.5], [3.0, -127.0]])
    >>> found = to_qwix({"w": w}, {"w": w != 3})["w"]
    >>> found.qvalue.tolist(), found.scale.shape
    ([[127, 0], [0, -127]], (1, 2))
    """
    with needed_by("`to_qwix`", "qwix"):
        from qwix import QArray
    check_mask(jax.tree.map(np.asarray, mask), params)
    integers(bits)
    known = resolve(params, layouts)

    def one(name: str, leaf: Any, keep: Any) -> Any:
        if np.all(keep):
            return leaf
        if name not in known:
            raise ExchangeError(
                f"The layout of '{name}', of shape {leaf.shape}, is needed: pass `layouts`."
            )
        kept = jnp.where(jnp.asarray(keep), jnp.asarray(leaf), 0)
        codes, scale = _by_blocks(name, kept, known[name], bits, block)
        return QArray(qvalue=codes, scale=scale)

    return trees.map_named(one, params, mask)


def _by_blocks(
    name: str, leaf: jax.Array, layout: Layout, bits: int, block: int | None
) -> Quantized:
    """Codes like `leaf`, and scales with an entry for each block along the last input axis."""
    axis = layout.inputs[-1]
    length = leaf.shape[axis]
    size = length if block is None else block
    if size < 1 or length % size:
        raise ExchangeError(f"`block` is {block}; it must divide the {length} inputs of '{name}'.")
    cut = leaf.reshape(*leaf.shape[:axis], length // size, size, *leaf.shape[axis + 1 :])
    codes, scale = quantize_along(cut, bits, (axis + 1,))
    return Quantized(codes.reshape(leaf.shape), jnp.squeeze(scale, axis + 1))


def from_qwix(tree: Any) -> Any:
    """The tree with float32 arrays, code · scale, in place of each `qwix.QArray`.

    Raises:
      lth_jax.extras.MissingExtraError: qwix is not installed.

    >>> w = jnp.array([[1.0], [0.0]])
    >>> from_qwix(to_qwix({"w": w}, {"w": w != 0}))["w"].tolist()
    [[1.0], [0.0]]
    """
    with needed_by("`from_qwix`", "qwix"):
        from qwix import QArray, dequantize

    def one(leaf: Any) -> Any:
        return dequantize(leaf) if isinstance(leaf, QArray) else leaf

    return jax.tree.map(one, tree, is_leaf=lambda x: isinstance(x, QArray))
