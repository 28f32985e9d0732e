"""Masks: boolean trees shaped like the parameters, True = kept."""

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lth_jax import trees
from lth_jax.layouts import Layouts, from_layers, map_layers, resolve, to_layers
from lth_jax.legal import shown
from lth_jax.pruning.checks import check_alone, check_mask, check_params, check_prunable
from lth_jax.pruning.compiled import compiled
from lth_jax.types import Key, Mask, Params, Prunable


def prunable_leaves(
    params: Params, predicate: Callable[[str, jax.Array], bool] | None = None
) -> Prunable:
    """Which leaves may be pruned.

    By default, every leaf of two or more axes except elementwise parameters: biases, scales,
    offsets, gains, layer scales, and the parameters of normalisation layers. These are recognised
    by their name, by a layer with `Norm` in its class or name, by a bias of the same shape in the
    same layer, or, with three or more axes, by having only one axis longer than 1. A leaf of two or
    more axes called `kernel`, `w` or `embedding` is always prunable.

    Args:
      params: tree of floating-point arrays.
      predicate: `(name, leaf) -> bool`, with names as in `trees.path_name`; replaces the default.

    Returns:
      A tree of Python booleans of the structure of `params`.

    Raises:
      TypeError: a leaf is not a floating-point array, or `predicate` is not a function.
      ValueError: there is no leaf, a leaf is empty, nothing is prunable, or `params` holds other
        collections of Flax besides the parameters and there is no `predicate`.

    >>> prunable_leaves({"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)})
    {'bias': False, 'kernel': True}
    """
    check_params(params)
    if predicate is None:
        check_alone(params)
    elif not callable(predicate):
        raise TypeError(
            f"`predicate` is {shown(predicate)}; it must be a function `(name, leaf) -> bool`, "
            "such as `lambda name, leaf: 'Dense' in name`."
        )
    choose = predicate or _kernel_predicate(params)
    prunable = trees.map_named(lambda name, leaf: bool(choose(name, leaf)), params)
    check_prunable(prunable, params)
    return prunable


def matching(prunable: Prunable, patterns: Sequence[str]) -> Prunable:
    """The prunable leaves whose names match one of the patterns.

    Args:
      prunable: static tree of Python booleans.
      patterns: shell-style patterns (`*`, `?`, `[...]`) of the names of leaves.

    Raises:
      ValueError: a pattern matches no prunable leaf, or there is no pattern.

    >>> matching({"Conv_0": True, "Dense_0": True}, ["Conv_*"])
    {'Conv_0': True, 'Dense_0': False}
    """
    names = [name for name, use in trees.to_named(prunable).items() if use]
    found = {pattern: fnmatch.filter(names, pattern) for pattern in patterns}
    absent = [pattern for pattern in found if not found[pattern]]
    if absent or not found:
        raise ValueError(
            f"`patterns` is {list(patterns)}; each must match a prunable leaf, and there must be "
            f"one: the leaves are {names}."
        )
    chosen = {name for fits in found.values() for name in fits}
    return trees.map_named(lambda name, use: name in chosen, prunable)


_KERNEL = re.compile(r"(?:|.*_)kernel(?:_\d+)?|w|embeddings?")
_ELEMENTWISE = re.compile(
    r"(?:|.*_)(?:bias(?:es)?|scale|offset|gain|gamma|beta|slope)(?:_.*)?|ls_?\d*"
)
_NORM = re.compile(r".*norm(?!al).*|[blgri]n_?\d*|ln_.*|bn_.*")
_BIASES = ("bias", "offset", "beta")


def _kernel_predicate(params: Params) -> Callable[[str, jax.Array], bool]:
    """The default of `prunable_leaves`: `(name, leaf) -> bool`."""
    shapes = {name: leaf.shape for name, leaf in trees.to_named(params).items()}
    inside_norms = set(_in_norm_layers(params))

    def is_kernel(name: str, leaf: jax.Array) -> bool:
        parent, _, own = name.rpartition("/")
        if leaf.ndim < 2 or _ELEMENTWISE.fullmatch(own.lower()):
            return False
        if _KERNEL.fullmatch(own.lower()):
            return True
        in_norm = name in inside_norms or any(
            _NORM.fullmatch(part.lower()) for part in parent.split("/")
        )
        beside = [shapes.get(f"{parent}/{bias}".lstrip("/")) for bias in _BIASES]
        if own == "b" and f"{parent}/w".lstrip("/") in shapes:  # the bias of a Haiku layer
            return False
        is_vector = leaf.ndim > 2 and sum(size > 1 for size in leaf.shape) <= 1
        is_weight = own.lower() == "weight"
        return not (in_norm or leaf.shape in beside or (is_vector and not is_weight))

    return is_kernel


def _in_norm_layers(params: Params) -> Iterator[str]:
    """The names of the leaves in containers with "norm" in their class name (Equinox, NNX)."""

    def is_norm(node: Any) -> bool:
        return "norm" in type(node).__name__.lower() and not hasattr(node, "dtype")

    for path, node in jax.tree_util.tree_leaves_with_path(params, is_leaf=is_norm):
        if is_norm(node):
            for inner, _ in jax.tree_util.tree_leaves_with_path(node):
                yield trees.path_name((*path, *inner))


@compiled
def ones_like(params: Params) -> Mask:
    """The mask that keeps all weights.

    Raises:
      TypeError: a leaf is not an array.

    >>> ones_like({"w": jnp.zeros(2)})["w"].tolist()
    [True, True]
    """
    for name, leaf in zip(trees.names(params), jax.tree.leaves(params), strict=True):
        if not hasattr(leaf, "shape"):
            raise TypeError(f"`params` at '{name}' must be an array, got {type(leaf).__name__}.")
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)


@compiled
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


@compiled
def count_kept(mask: Mask, prunable: Prunable) -> jax.Array:
    """How many prunable weights the mask keeps (int32 scalar).

    Raises:
      ValueError: `prunable` has another structure than `mask`, or no True leaf.
      TypeError: a leaf of `prunable` is not a Python boolean.

    >>> count_kept({"w": jnp.array([True, False, True])}, {"w": True}).item()
    2
    """
    leaves = _prunable_items(mask, prunable).values()
    return sum((jnp.sum(leaf, dtype=jnp.int32) for leaf in leaves), start=jnp.int32(0))


@compiled
def density(mask: Mask, prunable: Prunable) -> jax.Array:
    """The fraction of prunable weights that the mask keeps (float32 scalar).

    Errors are those of `count_kept`.

    >>> density({"w": jnp.array([True, False])}, {"w": True}).item()
    0.5
    """
    size = sum(leaf.size for leaf in _prunable_items(mask, prunable).values())
    return jnp.divide(count_kept(mask, prunable).astype(jnp.float32), jnp.float32(size))


@compiled
def density_per_leaf(
    mask: Mask, prunable: Prunable, *, layouts: Layouts | None = None
) -> dict[str, jax.Array]:
    """The fraction kept of each prunable leaf, by its name (float32).

    A scalar, or a vector with one entry per layer where `layouts` declares stacked layers. Errors
    are those of `count_kept`.

    >>> mask = {"a": jnp.array([True, False]), "b": jnp.array([True])}
    >>> {k: v.item() for k, v in density_per_leaf(mask, {"a": True, "b": False}).items()}
    {'a': 0.5}
    """
    items = _prunable_items(mask, prunable).items()
    known = resolve(mask, layouts)

    def mean(layer: jax.Array) -> jax.Array:
        return jnp.mean(layer, dtype=jnp.float32)

    return {name: map_layers(mean, known.get(name), leaf) for name, leaf in items}


def distance(mask: Mask, other: Mask, prunable: Prunable) -> jax.Array:
    """The fraction of prunable weights on which two masks differ (float32 scalar).

    The Hamming distance over the number of prunable weights (You et al., 2020, section 3.2).

    >>> a, b = {"w": jnp.array([True, False])}, {"w": jnp.array([True, True])}
    >>> distance(a, b, {"w": True}).item()
    0.5
    """
    check_mask(other, mask, "other")
    return density(jax.tree.map(jnp.not_equal, mask, other), prunable)


def collapsed(mask: Mask, prunable: Prunable, *, layouts: Layouts | None = None) -> list[str]:
    """The names of the prunable leaves that keep no weight (layer collapse).

    A layer of a stack is named `leaf[index]`. Reads values, so call it outside of `jax.jit`. Errors
    are those of `count_kept`.

    >>> collapsed({"a": jnp.array([False, False]), "b": jnp.array([True])}, {"a": True, "b": True})
    ['a']
    """
    empty = []
    for name, kept in density_per_leaf(mask, prunable, layouts=layouts).items():
        if kept.ndim == 0:
            empty += [name] if float(kept) == 0 else []
        else:
            empty += [f"{name}[{i}]" for i, layer in enumerate(kept.tolist()) if layer == 0]
    return empty


@compiled
def shuffle(key: Key, mask: Mask, *, prunable: Prunable, layouts: Layouts | None = None) -> Mask:
    """Permutes the mask within each prunable layer: the layerwise shuffle control.

    The count of every layer is preserved exactly; which weights are kept is uniform and
    independent between layers (Frankle et al., 2021, "Pruning Neural Networks at Initialization").
    Errors are those of `count_kept`.

    >>> mask = {"w": jnp.arange(6).reshape(2, 3) < 2}
    >>> shuffle(jax.random.key(0), mask, prunable={"w": True})["w"].sum().item()
    2
    """
    chosen = check_prunable(prunable, mask)
    leaves, structure = jax.tree.flatten(mask)
    known = resolve(mask, layouts)

    def permuted(key: Key, name: str, leaf: jax.Array) -> jax.Array:
        layout = known.get(name)
        if layout is None or not layout.stacked:
            return _permute(key, leaf)
        keys = jax.random.split(key, layout.layers(leaf.shape))
        return from_layers(jax.vmap(_permute)(keys, to_layers(leaf, layout)), layout, leaf.shape)

    shuffled = [
        permuted(jax.random.fold_in(key, i), name, leaf) if use else leaf
        for i, (name, leaf, use) in enumerate(zip(trees.names(mask), leaves, chosen, strict=True))
    ]
    return jax.tree.unflatten(structure, shuffled)


@compiled
def shuffle_globally(key: Key, mask: Mask, *, prunable: Prunable) -> Mask:
    """Permutes the mask over all prunable leaves together: only the total count is preserved.

    Errors are those of `count_kept`.

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
