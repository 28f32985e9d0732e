"""The support of a curvature matrix: conversion between vectors and trees of weights."""

from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.landscape.checks import check_boolean
from lth_jax.types import Mask, Params


def vector_dtype(params: Params) -> Any:
    """The dtype of vectors on a support: float64 if any leaf is, else float32.

    >>> vector_dtype({"a": jnp.ones(1, jnp.bfloat16), "b": jnp.ones(1)})
    dtype('float32')
    """
    wide = any(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(params))
    return jnp.dtype(jnp.float64 if wide else jnp.float32)


def split(tree: Any, like: Params) -> tuple[Any, Any]:
    """Splits a tree where `like` is floating-point: two trees, filled with None.

    >>> split({"w": 1, "n": 2}, {"w": jnp.ones(1), "n": jnp.arange(1)})
    ({'n': None, 'w': 1}, {'n': 2, 'w': None})
    """

    def part(chosen: bool) -> Any:
        return jax.tree.map(
            lambda leaf, p: leaf if jnp.issubdtype(p.dtype, jnp.floating) == chosen else None,
            tree,
            like,
        )

    return part(True), part(False)


def merge(first: Any, second: Any) -> Any:
    """The inverse of `split`."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, first, second, is_leaf=lambda leaf: leaf is None
    )


def find(params: Params, mask: Mask | None, pattern: str) -> tuple[Any, jax.Array]:
    """The position of each weight in vectors, and of each vector entry among the weights.

    Both directions are gathers: XLA's scatter is serial on a CPU.

    Args:
      params: a tree of arrays.
      mask: concrete boolean tree like `params`; None for all True.
      pattern: pattern of leaf names, as in `fnmatch`.

    Returns:
      `(places, kept)`: int32 tree like `params`, with the number of kept weights outside the
      support; int32 `[size]`, positions in the ravelled parameters.

    Raises:
      TypeError: if a leaf of `mask` is not boolean.
      ValueError: if the trees differ, no leaf matches `pattern`, or no weight is left.

    >>> find({"w": jnp.ones(3)}, {"w": jnp.array([True, False, True])}, "*")[1].tolist()
    [0, 2]
    """
    if mask is None:
        mask = jax.tree.map(lambda p: np.ones(p.shape, bool), params)
    trees.check_same_structure("mask", mask, "params", params)
    check_boolean("mask", mask)
    names = trees.names(params)
    if not any(fnmatchcase(name, pattern) for name in names):
        raise ValueError(f"`leaves` '{pattern}' matches none of the leaves {names}.")
    chosen = [
        np.asarray(leaf) & fnmatchcase(name, pattern)
        for name, leaf in zip(names, jax.tree.leaves(mask), strict=True)
    ]
    flat = np.concatenate([leaf.ravel() for leaf in chosen])
    if not flat.any():
        raise ValueError(f"`mask` keeps no weight of the leaves that match '{pattern}'.")
    kept = np.flatnonzero(flat)
    places = np.where(flat, np.cumsum(flat) - 1, kept.size).astype(np.int32)
    ends = np.cumsum([leaf.size for leaf in chosen])[:-1]
    pieces = [
        jnp.asarray(piece.reshape(leaf.shape))
        for piece, leaf in zip(np.split(places, ends), chosen, strict=True)
    ]
    tree = jax.tree.unflatten(jax.tree.structure(params), pieces)
    return tree, jnp.asarray(kept, jnp.int32)


@jax.jit
def expand(v: jax.Array, places: Any, params: Params) -> Params:
    """The tree like `params` that holds `v` on the support and 0 elsewhere."""
    if v.size == trees.size(params):  # full support: a gather would only copy
        return unravel(v, params)

    def leaf(at: jax.Array, p: jax.Array) -> jax.Array:
        return v.at[at].get(mode="fill", fill_value=0).astype(p.dtype)

    return jax.tree.map(leaf, places, params)


@partial(jax.jit, static_argnums=2)
def contract(tree: Params, kept: jax.Array, dtype: Any) -> jax.Array:
    """The entries of a tree on the support, as a vector."""
    flat = ravel(tree, dtype)
    return flat if flat.size == kept.size else flat.at[kept].get(mode="promise_in_bounds")


def ravel(tree: Params, dtype: Any) -> jax.Array:
    """All entries as one vector.

    Each leaf is written in place. XLA:CPU (jax 0.10) fuses a concatenation into its users and
    recomputes the source of every entry, which took more than a quarter of a Lanczos step.
    """
    joined, first = jnp.zeros(trees.size(tree), dtype), 0
    for leaf in jax.tree.leaves(tree):
        joined = jax.lax.dynamic_update_slice(joined, leaf.ravel().astype(dtype), (first,))
        first += leaf.size
    return joined


def unravel(flat: jax.Array, params: Params) -> Params:
    """The tree like `params` of a vector of all entries; the inverse of `ravel`."""
    ends = np.cumsum([leaf.size for leaf in jax.tree.leaves(params)])[:-1]
    pieces = jax.tree.unflatten(jax.tree.structure(params), jnp.split(flat, ends))
    return jax.tree.map(lambda piece, p: piece.reshape(p.shape).astype(p.dtype), pieces, params)
