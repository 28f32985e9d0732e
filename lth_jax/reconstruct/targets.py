"""How many weights each layer keeps: from a density, counts, a pattern or a mask."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.pruning.checks import check_count, check_fraction, check_mask, same_structure
from lth_jax.pruning.topk import largest
from lth_jax.reconstruct.keep import Keep, Pattern
from lth_jax.reconstruct.layers import Layer
from lth_jax.types import Mask, Params

Targets = list[Keep]
"""For each layer a `Pattern`, or what each of its groups keeps, along a first axis."""


def from_density(
    layers: Sequence[Layer], density: float, per: Literal["layer", "output"]
) -> Targets:
    """The same share of each layer or output, rounded half up; at least 1 weight is kept."""
    check_fraction("density", density)
    if per == "output":
        return [
            np.full((x.groups, x.outputs), _round(density * x.inputs), np.int32) for x in layers
        ]
    return [_divided(_round(density * x.size), x.groups) for x in layers]


def from_pattern(layers: Sequence[Layer], pattern: Sequence[int]) -> Targets:
    """The same pattern in each layer."""
    if not isinstance(pattern, tuple | list) or len(pattern) != 2:
        raise ValueError(f"`pattern` must be a pair (n, m), but is {pattern!r}.")
    n, m = pattern
    found = Pattern(n, m)
    for layer in layers:
        if layer.inputs % m:
            raise ValueError(
                f"`pattern` is {n}:{m}, but {m} does not divide the {layer.inputs} inputs of "
                f"'{layer.name}'; mark it as not prunable."
            )
    return [found] * len(layers)


def from_mask(layers: Sequence[Layer], mask: Mask, params: Params) -> Targets:
    """The mask of each layer."""
    check_mask(mask, params)
    leaves = jax.tree.leaves(mask)
    return [layer.read(leaves[layer.leaf]) for layer in layers]


def from_counts(layers: Sequence[Layer], counts: Any, params: Params) -> Targets:
    """A count for each leaf, or for each of its layers, shared equally by a layer's groups."""
    if not same_structure(counts, params):
        raise ValueError(
            "`counts` must be one number for all layers, or a tree like `params` with a number for "
            f"each leaf (a vector for a leaf of several layers), but has {trees.names(counts)[:3]}."
        )
    leaves = jax.tree.leaves(counts)
    beside: defaultdict[int, list[Layer]] = defaultdict(list)
    for layer in sorted(layers, key=lambda layer: layer.first):
        beside[layer.leaf].append(layer)
    found = []
    for layer in layers:
        own = np.asarray(leaves[layer.leaf])
        together = beside[layer.leaf]
        allowed = ((), (1,)) if len(together) == 1 else ((len(together),),)
        if own.shape not in allowed:
            raise ValueError(
                f"`counts` at '{layer.name}' has shape {own.shape}, but the leaf holds "
                f"{len(together)} layer(s)."
            )
        count = own.reshape(-1)[together.index(layer)]
        check_count(f"counts[{layer.name}]", count, layer.size)
        found.append(_divided(int(count), layer.groups))
    return found


def from_costs(layers: Sequence[Layer], costs: Sequence[jax.Array], count: int) -> Targets:
    """One count for all layers: the weights compete by the cost of removing each alone.

    Args:
      layers: the layers.
      costs: for each layer `(groups, inputs, outputs)`.
      count: weights kept in all layers together; the most costly weight of each layer is kept.
    """
    check_global(layers, count)
    # The most costly weight comes first: no layer is emptied.
    scores = [c.at[jnp.unravel_index(jnp.argmax(c), c.shape)].set(jnp.inf) for c in costs]
    live = [jnp.ones(c.shape, bool) for c in costs]
    kept = largest(scores, live, jnp.int32(count))
    return [np.asarray(mask.sum((1, 2), dtype=jnp.int32)) for mask in kept]


def check_global(layers: Sequence[Layer], count: Any) -> None:
    """Raises unless one count for all layers leaves at least one weight in each."""
    check_count("counts", count, sum(layer.size for layer in layers))
    if count < len(layers):
        raise ValueError(
            f"`counts` is {int(count)}, fewer than the {len(layers)} layers, each of which keeps "
            "at least one weight."
        )


def _round(amount: float) -> int:
    return max(1, math.floor(amount + 0.5))


def _divided(count: int, groups: int) -> np.ndarray:
    share, rest = divmod(count, groups)
    return np.array([share + (k < rest) for k in range(groups)], np.int32)
