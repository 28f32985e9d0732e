"""Finds the per-weight slots in an optimizer's state and sets them to 0.

A slot is a floating-point leaf of the state that belongs to one parameter. Two kinds exist:

- In a subtree of the parameters' structure, at the parameter's place, with the parameter's shape
  as its last axes: moments, traces, copies of the weights, L-BFGS's memory with its leading axis.
  `optax.MaskedNode` may replace any part of the subtree (`optax.masked`, `optax.partition`).
- One vector for all weights, as `optax.flatten` makes, or a slot of parameters that are a single
  array. Such a leaf is a slot if its shape changes with the number of weights.

Statistics of whole rows and columns (Adafactor, SM3) belong to no single weight and are not slots.
`optax.tree.map_params` is not used: in optax 0.2.8 it fails for `masked`, `partition`, `muon` and
`sm3` when it maps a second tree.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import Literal

from lth_jax.pruning.transforms.zeros import EVERYWHERE, zeros_after
from lth_jax.types import Mask


def mask_slots(inner: optax.GradientTransformation, state: Any, mask: Mask) -> Any:
    """Sets the per-weight slots of pruned weights in an optimizer's state to 0.

    Slots are found by their place and shape in the state. Statistics that belong to no single
    weight (rows and columns of Adafactor and SM3) are unchanged.

    Args:
      inner: the optimizer that `state` belongs to; used only to recognise a vector of slots of all
        weights, as `optax.flatten` makes.
      state: its state; any pytree.
      mask: boolean arrays like the parameters; structure, shapes and dtypes are not checked.

    Returns:
      A state of the same structure, shapes and dtypes.

    Raises:
      AttributeError: a leaf of `mask` is not an array, or `inner` is used and is not an optimizer.
      ValueError: `inner` is used, and its state has another number of leaves than `state`.

    >>> inner = optax.trace(0.9)
    >>> state = optax.TraceState(trace={"w": jnp.array([1.0, 2.0])})
    >>> mask_slots(inner, state, {"w": jnp.array([True, False])}).trace["w"].tolist()
    [1.0, 0.0]
    """
    leaves = jax.tree.leaves(state)
    structure: Any = jax.tree.structure(state)
    masks = _slot_masks(inner, state, mask)
    pairs = zip(leaves, masks, strict=True)
    return structure.unflatten(
        [x if m is None else jnp.where(m, x, jnp.zeros_like(x)) for x, m in pairs]
    )


def slots_to_update(inner: optax.GradientTransformation, state: Any, mask: Mask) -> Any:
    """`mask_slots` that also initialises the slots of regrown weights.

    A pruned weight's slots are 0, and so are a new weight's moments and traces. Rprop's step size,
    Adagrad's accumulator and COCOB's scale start from other values and never reach 0 at a kept
    weight. A 0 in such a slot therefore marks a regrown weight and is replaced by the value that
    `inner.init` gives for a weight of 0. (From 0, Rprop would never move, and COCOB would divide 0
    by 0.)

    >>> inner, mask = optax.scale_by_rprop(0.1), {"w": jnp.array([True, True, False])}
    >>> state = inner.init({"w": jnp.zeros(3)})
    >>> state = state._replace(step_sizes={"w": jnp.array([0.5, 0.0, 0.0])})
    >>> [round(x, 1) for x in slots_to_update(inner, state, mask).step_sizes["w"].tolist()]
    [0.5, 0.1, 0.0]
    """
    leaves = jax.tree_util.tree_leaves_with_path(state)
    structure: Any = jax.tree.structure(state)
    fresh = _fresh_slots(inner, mask)

    def slot(path: Any, x: Any, m: Any) -> Any:
        if m is None:
            return x
        start = fresh.get(path)  # a leaf that `init` does not make has none
        kept = x if start is None else jnp.where(x == 0, start.astype(x.dtype), x)
        return jnp.where(m, kept, jnp.zeros_like(x))

    masks = _slot_masks(inner, state, mask)
    return structure.unflatten([slot(*at, m) for at, m in zip(leaves, masks, strict=True)])


def slots_after_update(
    inner: optax.GradientTransformationExtraArgs,
    given: tuple[Any, Any, Any],
    state: Any,
    mask: Mask,
    extra: Mapping[str, Any],
) -> Any:
    """`mask_slots` of the state after an update, whose inputs were 0 at pruned weights.

    Slots that the update itself leaves at 0 there, such as Adam's moments, are not masked again:
    with a masked copy of each moment XLA:CPU (jaxlib 0.10.2) computes the moments twice, which
    takes 16 % of a training step of LeNet-300-100.

    Args:
      inner: the optimizer.
      given: the gradients, state and parameters that its update had.
      state: the state after it.
      mask: boolean leaves like the parameters.
      extra: further arguments of the update.
    """
    structure: Any = jax.tree.structure(state)
    each, slots = jax.tree.leaves(mask), _slot_masks(inner, given[1], mask)
    place = {id(m): i for i, m in enumerate(each)}

    def labels(tree: Any, masks: Any) -> list[int | None]:
        pairs = zip(jax.tree.leaves(tree), masks, strict=True)
        return [
            place.get(id(m)) if m is not None and jnp.shape(x) == m.shape else None
            for x, m in pairs
        ]

    grads, before, params = given
    starts = [*labels(grads, each), *labels(before, slots), *labels(params, each)]
    try:
        traced = jax.make_jaxpr(lambda *inputs: inner.update(*inputs, **extra)[1])(*given)
        zeros = zeros_after(traced.jaxpr, starts)
    except jax.errors.ConcretizationTypeError:  # an optimizer for eager loops, which reads values
        zeros = [None] * structure.num_leaves

    def masked(x: Any, m: Any, zero: Any) -> Any:
        stays = zero is not None and zero in (EVERYWHERE, place.get(id(m)))
        return x if m is None or stays else jnp.where(m, x, jnp.zeros_like(x))

    masks = _slot_masks(inner, state, mask)
    parts = zip(jax.tree.leaves(state), masks, zeros, strict=True)
    return structure.unflatten([masked(*part) for part in parts])


def _fresh_slots(inner: optax.GradientTransformation, mask: Mask) -> dict[Any, jax.Array]:
    """The leaves of the state of weights that are all 0, by path; those that are 0 are left out.

    The jaxpr of `inner.init` shows which leaves are 0, so that optimizers whose slots all start at
    0 have no cost at run time.
    """
    params = jax.tree.map(lambda m: jnp.zeros(m.shape), mask)
    traced = jax.make_jaxpr(inner.init)(params).jaxpr
    made = {v: equation for equation in traced.eqns for v in equation.outvars}

    def is_zero(v: Any) -> bool:
        if isinstance(v, Literal):
            return bool(np.all(np.asarray(v.val) == 0))
        if v not in made:
            return v in traced.invars  # a copy of the weights
        same = made[v].primitive.name in ("broadcast_in_dim", "convert_element_type", "copy")
        return same and is_zero(made[v].invars[0])

    named = jax.tree_util.tree_leaves_with_path(inner.init(params))
    pairs = zip(named, traced.outvars, strict=True)
    return {path: x for (path, x), v in pairs if not is_zero(v)}


def _slot_masks(inner: optax.GradientTransformation, state: Any, mask: Mask) -> list[Any]:
    """The mask of each leaf of the state, which broadcasts against it; None if it is not a slot."""
    leaves = jax.tree.leaves(state)
    if _one_level(mask)[1] is None:  # the parameters are a single array
        masks, whole = [None] * len(leaves), mask
    else:
        masks, _ = _in_subtrees(state, mask)
        whole = jnp.concatenate([m.reshape(-1) for m in jax.tree.leaves(mask)])
    candidates = [m is None and _fits(x, whole) for x, m in zip(leaves, masks, strict=True)]
    if not any(candidates):
        return masks
    follows = _follows_the_size(inner, mask)
    rows = zip(masks, candidates, follows, strict=True)
    return [whole if candidate and moves else m for m, candidate, moves in rows]


def _in_subtrees(node: Any, mask: Mask) -> tuple[list[Any], bool]:
    """`_slot_masks` for slots in subtrees of the parameters' structure, and whether one exists.

    The innermost of nested subtrees counts: `optax.partition` with the parameters' names as labels
    has a dictionary of states with the same keys as the parameters.
    """
    if isinstance(node, optax.MaskedNode):
        return [], False
    children, kind = _one_level(node)
    if kind is None:
        return [None], False
    within = [_in_subtrees(child, mask) for child in children]
    if any(found for _, found in within) or not _has_structure(node, mask):
        return [m for masks, _ in within for m in masks], any(found for _, found in within)
    return _at_places(node, mask), True


def _has_structure(node: Any, mask: Mask) -> bool:
    """Whether a subtree has the containers of the mask, or `optax.MaskedNode` in their place."""
    parts, kind = _one_level(mask)
    if kind is None or isinstance(node, optax.MaskedNode):
        return True
    children, found = _one_level(node)
    return found == kind and all(
        _has_structure(child, part) for child, part in zip(children, parts, strict=True)
    )


def _at_places(node: Any, mask: Mask) -> list[Any]:
    """For every leaf of such a subtree the mask at its place, where it fits."""
    if isinstance(node, optax.MaskedNode):
        return []
    parts, kind = _one_level(mask)
    if kind is None:
        return [mask if _fits(leaf, mask) else None for leaf in jax.tree.leaves(node)]
    children, _ = _one_level(node)
    pairs = zip(children, parts, strict=True)
    return [m for child, part in pairs for m in _at_places(child, part)]


def _one_level(tree: Any) -> tuple[list[Any], Any]:
    """The children of a tree's root and the root's own structure, which is None for a leaf."""
    children, kind = jax.tree.flatten(tree, is_leaf=lambda node: node is not tree)
    leaf = len(children) == 1 and children[0] is tree
    return children, None if leaf else kind


def _fits(leaf: Any, mask: jax.Array) -> bool:
    """Whether a leaf is floating-point and its last axes are those of the mask."""
    dtype, shape = getattr(leaf, "dtype", None), jnp.shape(leaf)
    axes = len(shape) - mask.ndim
    return (
        dtype is not None
        and jnp.issubdtype(dtype, jnp.inexact)
        and axes >= 0
        and shape[axes:] == mask.shape
    )


def _follows_the_size(inner: optax.GradientTransformation, mask: Mask) -> list[bool]:
    """For each leaf of the state, whether its shape changes with one more weight.

    A vector of length ten need not belong to ten weights: L-BFGS may store ten steps.
    """
    shapes = [jax.ShapeDtypeStruct(m.shape, jnp.float32) for m in jax.tree.leaves(mask)]
    at = next((i for i, s in enumerate(shapes) if s.shape), None)
    structure: Any = jax.tree.structure(mask)
    here = jax.tree.leaves(jax.eval_shape(inner.init, structure.unflatten(shapes)))
    if at is None:
        return [True] * len(here)
    first, *rest = shapes[at].shape
    shapes[at] = jax.ShapeDtypeStruct((first + 1, *rest), jnp.float32)
    there = jax.tree.leaves(jax.eval_shape(inner.init, structure.unflatten(shapes)))
    return [a.shape != b.shape for a, b in zip(here, there, strict=True)]
