"""Criteria of units."""

import fnmatch

import jax
import jax.numpy as jnp

from lth_jax import trees
from lth_jax.pruning.criteria._inputs import CRITERIA, Criterion, named, widen
from lth_jax.structure.groups import Structure
from lth_jax.types import Mask, Params, Scores


def norm_scales(structure: Structure, pattern: str = "*scale") -> Criterion:
    """|γ| of the normalisation layers of a unit; other weights score 0.

    With `granularity(structure)` a unit's score is the sum of the |γ| among its slices: network
    slimming (Liu et al., 2017), which also trains with an L1 penalty on γ.

    Args:
      structure: from `find_groups`.
      pattern: shell-style pattern of the names of scales; `scale` in Flax.

    Raises:
      ValueError: a group has no such leaf.

    >>> from lth_jax.structure.groups import find_groups
    >>> params = {"scale": jnp.array([2.0, -3.0]), "v": jnp.ones((2, 1)), "w": jnp.ones((3, 2))}
    >>> apply = lambda p, x: jnp.tanh(x @ p["w"] * p["scale"]) @ p["v"]
    >>> criterion = norm_scales(find_groups(apply, params, jnp.ones((1, 3))))
    >>> criterion(params, None)["scale"].tolist()
    [2.0, 3.0]
    """
    for group in structure.groups:
        if not any(fnmatch.fnmatchcase(slot.leaf, pattern) for slot in group.slots):
            raise ValueError(
                f"`structure` has the group '{group.name}' without a leaf that fits {pattern!r}; "
                "exclude it by `Structure.only`, or use another criterion."
            )

    @named("norm_scales")
    def criterion(params: Params, mask: Mask) -> Scores:
        del mask

        def score(name: str, leaf: jax.Array) -> jax.Array:
            found = fnmatch.fnmatchcase(name, pattern)
            return jnp.abs(widen(leaf)) if found else jnp.zeros(leaf.shape, jnp.float32)

        return trees.map_named(score, params)

    return criterion


CRITERIA.register("norm_scales", norm_scales)
