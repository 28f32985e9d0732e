"""One-shot masks of many networks, and how far they agree."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.studies.starts import Start
from lth_jax.measures.overlap import overlaps, total
from lth_jax.pruning import criteria, masks, scopes
from lth_jax.pruning.prune import prune

Named = dict[str, Any]


def largest(params: Named, density: float) -> Named:
    """The masks of the largest weights of each layer, network by network.

    Args:
      params: `{leaf: [n, …]}`.
      density: fraction of each layer kept.

    Returns:
      `{leaf: bool [n, …]}`; leaves that are not prunable are all True.
    """
    one = at(params, 0)
    prunable, scope = masks.prunable_leaves(one), scopes.layerwise()
    count = scope.counts(one, density, prunable=prunable)
    pruner = prune(criteria.magnitude(), scope)
    pruned = jax.vmap(lambda p: pruner(p, masks.ones_like(p), count, prunable=prunable))(params)
    return jax.tree.map(np.asarray, pruned)


def kappa(first: Named, second: Named) -> float:
    """Cohen's κ of two masks over all prunable weights, chance by layer."""
    prunable = jax.tree.map(lambda leaf: leaf.ndim >= 2, first)
    return total(overlaps(first, second, prunable=prunable).values()).kappa


def stacked(starts: Sequence[Start]) -> Named:
    """The parameters of many starts, network by network."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *(start.params for start in starts))


def at(tree: Any, i: int) -> Any:
    """The i-th network of a stack."""
    return jax.tree.map(lambda leaf: leaf[i], tree)
