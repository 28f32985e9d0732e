"""Sparse training as optax transformations.

Two kinds. `mask_updates` and `masked(inner)` take the mask as an argument of each update: the mask
belongs to the caller. The others own their mask, as `SparseState.mask` in the optimizer's state
(`optax.tree.get(state, "mask")`), and revise it at events: `static_sparse` and
`masked(inner, mask)` never, `gradual`, `sparse_evolution`, `rigl` and `straight_through` at some.

The inner optimizer never sees a pruned weight, and the weights and its per-weight slots are exactly
0 there after each update. A weight that grows back starts with the slots of a new weight. Two are
exceptions: `mask_updates` masks updates only; the weights of `straight_through` are latent, and
`effective_params` are what the network computes with.
"""

from lth_jax.pruning.transforms.dynamic import gradual, rigl, sparse_evolution, straight_through
from lth_jax.pruning.transforms.slots import mask_slots
from lth_jax.pruning.transforms.subnetwork import (
    Events,
    SparseState,
    Start,
    Transform,
    effective_params,
    mask_updates,
    masked,
    static_sparse,
)

__all__ = [
    "Events",
    "SparseState",
    "Start",
    "Transform",
    "effective_params",
    "gradual",
    "mask_slots",
    "mask_updates",
    "masked",
    "rigl",
    "sparse_evolution",
    "static_sparse",
    "straight_through",
]
