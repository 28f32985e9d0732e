"""The laboratory for the Lottery Ticket Hypothesis in JAX and Flax.

Here are the pruning transforms, which work on anybody's pytree. The other rooms
(`lth_jax.population`, `lth_jax.lottery`, …) are imported by name.
"""

from lth_jax import layouts
from lth_jax.pruning import criteria, granularity, schedules, supermask, transforms
from lth_jax.pruning.criteria import magnitude, random
from lth_jax.pruning.iterative import iterate
from lth_jax.pruning.masks import (
    apply_mask,
    collapsed,
    count_kept,
    density,
    density_per_leaf,
    ones_like,
    prunable_leaves,
    shuffle,
    shuffle_globally,
)
from lth_jax.pruning.prune import prune
from lth_jax.pruning.scopes import erk, globally, layerwise, per_leaf
from lth_jax.pruning.transforms import (
    effective_params,
    gradual,
    mask_updates,
    masked,
    rigl,
    sparse_evolution,
    static_sparse,
    straight_through,
)

__all__ = [
    "apply_mask",
    "collapsed",
    "count_kept",
    "criteria",
    "density",
    "density_per_leaf",
    "effective_params",
    "erk",
    "globally",
    "gradual",
    "granularity",
    "iterate",
    "layerwise",
    "layouts",
    "magnitude",
    "mask_updates",
    "masked",
    "ones_like",
    "per_leaf",
    "prunable_leaves",
    "prune",
    "random",
    "rigl",
    "schedules",
    "shuffle",
    "shuffle_globally",
    "sparse_evolution",
    "static_sparse",
    "straight_through",
    "supermask",
    "transforms",
]
