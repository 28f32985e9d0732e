"""The type `Granularity`, and the finest one: single weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lth_jax import text, trees
from lth_jax.layouts import Layout, Layouts, from_layers, resolve, to_layers
from lth_jax.registry import Registry
from lth_jax.types import Mask, Prunable, Scores

Reduction = Callable[..., jax.Array]
"""`(scores, axis, keepdims) -> scores`, as `jnp.sum`, `jnp.max`, `l1`, `l2`."""


@text.with_short_repr
class Units(NamedTuple):
    """Units and their scores: trees of one structure.

    Attributes:
      scores: the score of each unit; leaves that are not prunable are unchanged.
      mask: which units are alive.
      sizes: per leaf the number of weights in each unit: one number, or an array like the scores.
      prunable: static Python booleans.
      layers: per leaf the number of stacked layers; above 1, they are the first axis of the scores.
    """

    scores: Scores
    mask: Mask
    sizes: Any
    prunable: Prunable
    layers: Any


class Granularity(NamedTuple):
    """A pair of pure functions, both vmappable.

    Attributes:
      to_units: `(scores, mask, *, prunable, layouts=None) -> Units`.
      to_leaves: `(unit_mask, mask, *, prunable, layouts=None) -> mask`, a subset of `mask`.
      name: name in error messages and reprs.
    """

    to_units: Callable[..., Units]
    to_leaves: Callable[..., Mask]
    name: str = "a granularity"

    def __repr__(self) -> str:
        return f"Granularity({self.name})"


def l1(scores: jax.Array, axis: Any = None, keepdims: bool = False) -> jax.Array:
    """Σ|s|. For scores that are never negative this is `jnp.sum`.

    >>> l1(jnp.array([3.0, -4.0])).item()
    7.0
    """
    return jnp.sum(jnp.abs(scores), axis=axis, keepdims=keepdims)


def l2(scores: jax.Array, axis: Any = None, keepdims: bool = False) -> jax.Array:
    """The Euclidean norm √Σs².

    >>> l2(jnp.array([3.0, -4.0])).item()
    5.0
    """
    return jnp.sqrt(jnp.sum(jnp.square(scores), axis=axis, keepdims=keepdims))


def _weights_to_units(
    scores: Scores, mask: Mask, *, prunable: Prunable, layouts: Layouts | None = None
) -> Units:
    stacks = _stacks(mask, layouts)
    layers = trees.map_named(
        lambda name, m: stacks[name].layers(m.shape) if name in stacks else 1, mask
    )

    def first(name: str, leaf: jax.Array) -> jax.Array:
        return to_layers(leaf, stacks[name]) if name in stacks else leaf

    sizes = jax.tree.map(lambda _: 1, mask)
    return Units(
        trees.map_named(first, scores), trees.map_named(first, mask), sizes, prunable, layers
    )


def _weights_to_leaves(
    unit_mask: Mask, mask: Mask, *, prunable: Prunable, layouts: Layouts | None = None
) -> Mask:
    del prunable
    stacks = _stacks(mask, layouts)

    def back(name: str, u: jax.Array, m: jax.Array) -> jax.Array:
        return from_layers(u, stacks[name], m.shape) if name in stacks else u

    return trees.map_named(back, unit_mask, mask)


def _stacks(mask: Mask, layouts: Layouts | None) -> dict[str, Layout]:
    """The layouts of the leaves that stack layers."""
    known = resolve(mask, layouts) if layouts else {}
    return {name: layout for name, layout in known.items() if layout.stacked}


weights = Granularity(_weights_to_units, _weights_to_leaves, "weights")
"""Every weight is a separate unit."""

GRANULARITIES: Registry[Granularity | Callable[..., Granularity]] = Registry("granularity")
"""Granularities, or builders `reduction -> Granularity`, by name; configs use these names."""

GRANULARITIES.register("weights", weights)
