"""Sparse leaves: BCOO arrays, and N:M values packed with their indices."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

from lth_jax import trees
from lth_jax.exchange.errors import ExchangeError
from lth_jax.layouts import DENSE, Layout
from lth_jax.pruning.checks import check_mask
from lth_jax.types import Mask, Params


class Packed(NamedTuple):
    """An N:M leaf: of every `m` neighbouring inputs at most `n` are kept.

    Attributes:
      values: `(layers, window, inputs / m, n, outputs)`; 0 where a group keeps fewer.
      indices: uint8 like `values`, the position of each value in its group, rising within a group.
      m: size of a group.
      layout: the axes of the leaf.
      shape: its shape.
    """

    values: np.ndarray
    indices: np.ndarray
    m: int
    layout: Layout
    shape: tuple[int, ...]


def to_bcoo(params: Params, mask: Mask) -> Any:
    """The parameters with pruned leaves as `jax.experimental.sparse.BCOO` matrices.

    Args:
      params: tree of arrays.
      mask: tree like `params`, True = kept; leaves without a pruned weight stay dense. A kept
        weight is stored even if it is 0.

    Raises:
      ExchangeError: a leaf has a dtype that JAX would convert, such as float64.
      ValueError: `mask` does not fit `params`.
      TypeError: a leaf of `mask` is not bool.

    >>> found = to_bcoo({"w": np.eye(3, dtype=np.float32)}, {"w": np.eye(3, dtype=bool)})
    >>> found["w"].nse, found["w"].todense().tolist()[0]
    (3, [1.0, 0.0, 0.0])
    """
    check_mask(jax.tree.map(np.asarray, mask), params)

    def one(name: str, leaf: Any, keep: Any) -> Any:
        leaf, keep = np.asarray(leaf), np.asarray(keep)
        return leaf if keep.all() else bcoo(name, leaf[keep], np.argwhere(keep), leaf.shape)

    return trees.map_named(one, params, mask)


def bcoo(name: str, data: Any, indices: Any, shape: tuple[int, ...]) -> sparse.BCOO:
    """A BCOO array; raises `ExchangeError` if JAX would convert its dtype."""
    if jnp.asarray(data[:0]).dtype != data.dtype:
        raise ExchangeError(
            f"'{name}' has dtype {data.dtype}, which JAX converts to "
            f"{jnp.asarray(data[:0]).dtype}; convert it first."
        )
    where = indices.astype(np.int32)
    return sparse.BCOO((data, where), shape=shape, indices_sorted=True, unique_indices=True)


def pack_nm(leaf: Any, mask: Any, n: int, m: int, layout: Layout = DENSE) -> Packed:
    """The kept values of an N:M leaf and their positions in their groups.

    Groups lie along the inputs, as in `granularity.n_m(n, m)`; sparse tensor cores use 2:4.

    Args:
      leaf: array.
      mask: bool, shaped like `leaf`.
      n: number of values that a group keeps at most.
      m: size of a group, up to 256.
      layout: the axes of the leaf.

    Raises:
      ExchangeError: `m` does not divide the inputs, or a group keeps more than `n`.
      ValueError: `mask` has another shape than `leaf`.
      TypeError: `mask` is not bool.

    >>> leaf = np.array([[1.0], [0.0], [0.0], [4.0]])
    >>> packed = pack_nm(leaf, leaf != 0, 2, 4)
    >>> packed.values.ravel().tolist(), packed.indices.ravel().tolist()
    ([1.0, 4.0], [0, 3])
    """
    leaf, keep = np.asarray(leaf), np.asarray(mask)
    check_mask({"leaf": keep}, {"leaf": leaf})
    layers, window, inputs, outputs = layout.matrix_shape(leaf.shape)
    if not 1 <= n <= m <= 256:
        raise ExchangeError(f"`n` and `m` are {n} and {m}; 1 <= n <= m <= 256 is needed.")
    if inputs % m:
        raise ExchangeError(f"a leaf with {inputs} inputs has no groups of {m}")
    groups = (layers, window, inputs // m, m, outputs)
    values, flags = (np.transpose(x, layout.order).reshape(groups) for x in (leaf, keep))
    counts = flags.sum(3)
    if (counts > n).any():
        layer, cell, group, output = np.argwhere(counts > n)[0]
        raise ExchangeError(
            f"of the inputs {group * m} to {group * m + m - 1} of output {output} it keeps "
            f"{counts[layer, cell, group, output]}, where {n}:{m} allows {n}"
        )
    kept_first = np.argsort(~flags, axis=3, kind="stable")[:, :, :, :n]
    indices = np.sort(kept_first, axis=3)
    values = np.take_along_axis(np.where(flags, values, np.zeros((), leaf.dtype)), indices, 3)
    return Packed(values, indices.astype(np.uint8), m, layout, leaf.shape)


def unpack_nm(packed: Packed) -> np.ndarray:
    """The dense leaf of packed values, bit for bit.

    >>> unpack_nm(pack_nm(np.eye(4), np.eye(4, dtype=bool), 1, 4)).tolist()[1]
    [0.0, 1.0, 0.0, 0.0]
    """
    layout, shape = packed.layout, packed.shape
    layers, window, inputs, outputs = layout.matrix_shape(shape)
    groups = np.zeros((layers, window, inputs // packed.m, packed.m, outputs), packed.values.dtype)
    np.put_along_axis(groups, packed.indices.astype(np.int64), packed.values, 3)
    moved = groups.reshape([shape[axis] for axis in layout.order])
    return np.ascontiguousarray(np.transpose(moved, np.argsort(layout.order)))


def to_dense(tree: Any) -> Any:
    """The tree with dense arrays in place of `BCOO` and `Packed` leaves.

    >>> to_dense({"w": pack_nm(np.eye(4), np.eye(4, dtype=bool), 1, 4)})["w"].shape
    (4, 4)
    """

    def one(leaf: Any) -> Any:
        if isinstance(leaf, sparse.BCOO):
            return np.asarray(leaf.todense())
        return unpack_nm(leaf) if isinstance(leaf, Packed) else leaf

    return jax.tree.map(one, tree, is_leaf=lambda x: isinstance(x, sparse.BCOO | Packed))
