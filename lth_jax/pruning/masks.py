"""Masks: boolean trees shaped like the parameters, True = kept."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax import trees
from lth_jax.pruning.checks import check_mask, check_params, check_prunable
from lth_jax.types import Key, Mask, Params, Prunable


def prunable_leaves(
    params: Params, predicate: Callable[[str, jax.Array], bool] | None = None
) -> Prunable:
    """Says, leaf by leaf, what may ever be pruned.

    Args:
      params: tree of floating-point arrays.
      predicate: `(name, leaf) -> bool`, with names as in `trees.path_name`. By default leaves of at
        least two axes: the kernels of dense and convolutional layers and embeddings, but no biases
        and no normalisation scales; those of flax's attention layers have two axes, and are known
        by their names.

    Returns:
      A tree of Python booleans of the structure of `params`.

    Raises:
      TypeError: a leaf is not a floating-point array.
      ValueError: there is no leaf, a leaf is empty, or nothing is prunable.

    >>> prunable_leaves({"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)})
    {'bias': False, 'kernel': True}
    """
    check_params(params)
    predicate = predicate or _is_kernel
    prunable = trees.map_named(lambda name, leaf: bool(predicate(name, leaf)), params)
    check_prunable(prunable, params)
    return prunable


def _is_kernel(name: str, leaf: jax.Array) -> bool:
    return leaf.ndim >= 2 and name.rpartition("/")[2] not in ("bias", "scale")


def ones_like(params: Params) -> Mask:
    """The mask that keeps everything.

    >>> ones_like({"w": jnp.zeros(2)})["w"].tolist()
    [True, True]
    """
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)


def apply_mask(mask: Mask, params: Params) -> Params:
    """`params` where kept, exactly 0 elsewhere (also where a parameter is inf or NaN).

    Raises:
      ValueError: `mask` has another structure or another shape somewhere.
      TypeError: a leaf of `mask` is not boolean.

    >>> apply_mask({"w": jnp.array([True, False])}, {"w": jnp.array([1.5, jnp.nan])})["w"].tolist()
    [1.5, 0.0]
    """
    check_mask(mask, params)
    return jax.tree.map(lambda m, p: jnp.where(m, p, jnp.zeros_like(p)), mask, params)


def _prunable_items(mask: Mask, prunable: Prunable) -> dict[str, jax.Array]:
    """The mask's prunable leaves by name."""
    chosen = check_prunable(prunable, mask)
    named = zip(trees.names(mask), jax.tree.leaves(mask), strict=True)
    return {name: leaf for (name, leaf), use in zip(named, chosen, strict=True) if use}


def count_kept(mask: Mask, prunable: Prunable) -> jax.Array:
    """How many prunable weights the mask keeps (int32 scalar).

    >>> count_kept({"w": jnp.array([True, False, True])}, {"w": True}).item()
    2
    """
    leaves = _prunable_items(mask, prunable).values()
    return sum((jnp.sum(leaf, dtype=jnp.int32) for leaf in leaves), start=jnp.int32(0))


def density(mask: Mask, prunable: Prunable) -> jax.Array:
    """The fraction of prunable weights that the mask keeps (float32 scalar).

    >>> density({"w": jnp.array([True, False])}, {"w": True}).item()
    0.5
    """
    size = sum(leaf.size for leaf in _prunable_items(mask, prunable).values())
    return count_kept(mask, prunable).astype(jnp.float32) / jnp.float32(size)


def density_per_leaf(mask: Mask, prunable: Prunable) -> dict[str, jax.Array]:
    """The fraction kept of each prunable leaf, by its name (float32 scalars).

    >>> mask = {"a": jnp.array([True, False]), "b": jnp.array([True])}
    >>> {k: v.item() for k, v in density_per_leaf(mask, {"a": True, "b": False}).items()}
    {'a': 0.5}
    """
    items = _prunable_items(mask, prunable).items()
    return {name: jnp.mean(leaf, dtype=jnp.float32) for name, leaf in items}


def distance(mask: Mask, other: Mask, prunable: Prunable) -> jax.Array:
    """The fraction of prunable weights on which two masks differ (float32 scalar).

    The Hamming distance over the number of prunable weights (You et al., 2020, section 3.2).

    >>> a, b = {"w": jnp.array([True, False])}, {"w": jnp.array([True, True])}
    >>> distance(a, b, {"w": True}).item()
    0.5
    """
    check_mask(other, mask, "other")
    return density(jax.tree.map(jnp.not_equal, mask, other), prunable)


def collapsed(mask: Mask, prunable: Prunable) -> list[str]:
    """The names of the prunable leaves of which nothing is kept: layer collapse.

    Reads values, so call it outside of `jax.jit`.

    >>> collapsed({"a": jnp.array([False, False]), "b": jnp.array([True])}, {"a": True, "b": True})
    ['a']
    """
    items = _prunable_items(mask, prunable).items()
    return [name for name, leaf in items if not bool(leaf.any())]


def shuffle(key: Key, mask: Mask, *, prunable: Prunable) -> Mask:
    """Permutes each prunable leaf of the mask within itself: the layerwise shuffle control.

    The count of every leaf is preserved exactly; which weights are kept is uniform and
    independent between leaves (Frankle et al., 2021, "Pruning Neural Networks at Initialization").

    >>> mask = {"w": jnp.arange(6).reshape(2, 3) < 2}
    >>> shuffle(jax.random.key(0), mask, prunable={"w": True})["w"].sum().item()
    2
    """
    chosen = check_prunable(prunable, mask)
    leaves, structure = jax.tree.flatten(mask)
    shuffled = [
        _permute(jax.random.fold_in(key, i), leaf) if use else leaf
        for i, (leaf, use) in enumerate(zip(leaves, chosen, strict=True))
    ]
    return jax.tree.unflatten(structure, shuffled)


def shuffle_globally(key: Key, mask: Mask, *, prunable: Prunable) -> Mask:
    """Permutes the mask over all prunable leaves together: only the total count is preserved.

    >>> mask = {"a": jnp.ones(2, bool), "b": jnp.zeros(4, bool)}
    >>> moved = shuffle_globally(jax.random.key(0), mask, prunable={"a": True, "b": True})
    >>> sum(leaf.sum().item() for leaf in moved.values())
    2
    """
    chosen = check_prunable(prunable, mask)
    leaves, structure = jax.tree.flatten(mask)
    flat = [leaf.reshape(-1) for leaf, use in zip(leaves, chosen, strict=True) if use]
    ends = [sum(leaf.size for leaf in flat[: i + 1]) for i in range(len(flat) - 1)]
    parts = iter(jnp.split(_permute(key, jnp.concatenate(flat)), ends))
    moved = [
        next(parts).reshape(leaf.shape) if use else leaf
        for leaf, use in zip(leaves, chosen, strict=True)
    ]
    return jax.tree.unflatten(structure, moved)


def _permute(key: Key, leaf: Any) -> jax.Array:
    return jax.random.permutation(key, leaf.reshape(-1)).reshape(leaf.shape)
