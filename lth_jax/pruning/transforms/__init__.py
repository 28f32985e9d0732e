"""Sparse training as optax transformations.

There are two kinds. `mask_updates` and `masked(inner)` take the mask as an argument of each update.
The others hold their mask as `SparseState.mask` in the optimizer's state (`optax.tree.get(state,
"mask")`): it is constant in `static_sparse` and `masked(inner, mask)`, and revised at events in
`gradual`, `sparse_evolution`, `rigl` and `straight_through`.

At pruned weights, the inner optimizer receives zeros, and the weights and its per-weight slots are
exactly 0 after each update. A regrown weight starts with newly initialised slots. Two
transformations are exceptions: `mask_updates` masks updates only; the weights of `straight_through`
are latent, and the network uses `effective_params`.
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
