"""Masks of dense blocks from masks of weights, by grouping rows and columns."""

import jax
import jax.numpy as jnp

from lth_jax import trees
from lth_jax.layouts import Layout, Layouts, require, resolve
from lth_jax.pruning.compiled import compiled
from lth_jax.types import Key, Mask, Prunable


@compiled
def regroup(
    mask: Mask, prunable: Prunable, *, height: int = 16, layouts: Layouts | None = None
) -> Mask:
    """A mask of dense blocks that contains as many of a ticket's weights as possible.

    IMP-Regroup (Chen et al., 2022, "Coarsening the granularity"): each kernel is a matrix with a
    row for each output. Rows are grouped greedily into groups of `height`: the remaining row with
    the most weights, and the rows of highest Jaccard similarity to its support. A group with some
    of its columns is a dense block. Over all groups, the columns with most of the ticket's weights
    are kept, while the kernel keeps no more weights than in the ticket. Weights outside the blocks
    are pruned. At least one column of one group is kept. The paper partitions a hypergraph and
    tunes two thresholds instead. Pure, so it can be vmapped.

    Args:
      mask: a ticket's mask of single weights.
      prunable: which leaves are regrouped; the others are unchanged.
      height: rows of a block, at least 1; a kernel of fewer outputs is one group.
      layouts: the meaning of the kernels' axes (`lth_jax.layouts`); each stacked layer is a
        separate matrix.

    Raises:
      ValueError: `height` is below 1, or a prunable leaf has no layout.

    >>> mask = {"w": jnp.array([[1, 0, 1, 0], [0, 1, 0, 1], [0, 1, 0, 0]], bool)}
    >>> regroup(mask, {"w": True}, height=2)["w"].astype(int).tolist()
    [[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0]]
    """
    if height < 1:
        raise ValueError(f"`height` is {height}; a block has at least 1 row.")

    known = resolve(mask, layouts)

    def leaf(name: str, m: jax.Array, use: bool) -> jax.Array:
        if not use:
            return m
        layout = require(known, name, m.shape, "`regroup`")
        blocks = jax.vmap(lambda matrix: _blocks(matrix, height))(_matrices(m, layout))
        return _matrices_back(blocks, layout, m.shape)

    return trees.map_named(leaf, mask, prunable)


@compiled
def shuffle_blocks(
    key: Key, mask: Mask, prunable: Prunable, *, layouts: Layouts | None = None
) -> Mask:
    """Permutes rows and columns of each kernel's mask at random, which moves the blocks.

    Args:
      key: a typed key.
      mask: from `regroup`.
      prunable: which leaves are shuffled; the others are unchanged.
      layouts: as in `regroup`.

    >>> mask = {"w": jnp.eye(4, dtype=bool)}
    >>> shuffle_blocks(jax.random.key(0), mask, {"w": True})["w"].sum(axis=0).tolist()
    [1, 1, 1, 1]
    """
    leaves, tree = jax.tree.flatten(mask)
    keys = jax.tree.unflatten(tree, [jax.random.fold_in(key, i) for i in range(len(leaves))])
    known = resolve(mask, layouts)

    def permuted(key: Key, matrix: jax.Array) -> jax.Array:
        rows, columns = jax.random.split(key)
        shuffled = jax.random.permutation(rows, matrix, axis=0)
        return jax.random.permutation(columns, shuffled, axis=1)

    def leaf(name: str, key: Key, m: jax.Array, use: bool) -> jax.Array:
        if not use:
            return m
        layout = require(known, name, m.shape, "`shuffle_blocks`")
        matrices = _matrices(m, layout)
        each = jax.random.split(key, len(matrices)) if layout.stacked else key[None]
        return _matrices_back(jax.vmap(permuted)(each, matrices), layout, m.shape)

    return trees.map_named(leaf, keys, mask, prunable)


def _matrices(m: jax.Array, layout: Layout) -> jax.Array:
    """`(layers, outputs, window and inputs)`."""
    layers, window, inputs, outputs = layout.matrix_shape(m.shape)
    return layout.to_matrix(m).reshape(layers, window * inputs, outputs).swapaxes(1, 2)


def _matrices_back(matrices: jax.Array, layout: Layout, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of `_matrices`."""
    return layout.from_matrix(matrices.swapaxes(1, 2), shape)


def _blocks(support: jax.Array, height: int) -> jax.Array:
    """The dense blocks of one matrix: the columns of each group with most weights."""
    group = _groups(support, min(height, len(support)))
    number = -(-len(support) // height)
    held = jax.ops.segment_sum(support.astype(jnp.float32), group, number)
    rows = jnp.bincount(group, length=number)
    best_first = jnp.argsort(-(held / rows[:, None].astype(jnp.float32)).ravel())
    heights = jnp.repeat(rows, support.shape[1])[best_first]
    fits = (jnp.cumsum(heights) <= support.sum()).at[0].set(True)
    chosen = jnp.zeros(held.size, bool).at[best_first].set(fits)
    return chosen.reshape(held.shape)[group]


def _groups(support: jax.Array, height: int) -> jax.Array:
    """The group of each row of a matrix: int32 `[rows]`."""
    rows = support.astype(jnp.float32)
    sizes = rows.sum(1)

    def gather(number: jax.Array, group: jax.Array) -> jax.Array:
        left = group < 0
        seed = jnp.argmax(jnp.where(left, sizes, -1.0))
        shared = rows @ rows[seed]
        either = sizes + sizes[seed] - shared
        near = jnp.where(left, shared / jnp.maximum(either, 1.0), -1.0).at[seed].set(2.0)
        nearest = jax.lax.top_k(near, height)[1]
        return group.at[nearest].set(jnp.where(left[nearest], number, group[nearest]))

    start = jnp.full(len(rows), -1, jnp.int32)
    return jax.lax.fori_loop(0, -(-len(rows) // height), gather, start)
