"""Removes hidden units from a network; the outputs equal those of the masked network."""

import flax.linen as nn
import jax
import numpy as np

import lth_jax as lth
from lth_jax import structure as st

x = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
model = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(32), nn.relu, nn.Dense(4)])
params = model.init(jax.random.key(0), x)["params"]


def apply(params, x):
    """The logits."""
    return model.apply({"params": params}, x)


found = st.find_groups(apply, params, x)  # traces the function without running it
print(found)
scope, prunable = st.by_group(found, multiple=8), st.prunable(found)
count = scope.counts(params, 0.25, prunable=prunable)
prune = lth.prune(lth.magnitude(), scope, st.granularity(found))
mask = prune(params, lth.ones_like(params), count, prunable=prunable)

small, small_apply = st.compact(found, params, st.units_of(found, mask))
same = np.allclose(small_apply(small, x), apply(lth.apply_mask(mask, params), x), atol=1e-5)
sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, small)]
print(f"{sizes[0]} weights before, {sizes[1]} after; same outputs: {same}")
