"""Rounds of pruning without training in between."""

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.pruning import criteria, masks, scopes
from lth_jax.pruning.iterative import iterate
from lth_jax.pruning.prune import prune


def test_rounds_are_a_loop_over_the_pruner_with_a_key_for_each():
    params = {"w": jnp.zeros((6, 5))}
    prunable, counts = {"w": True}, jnp.array([20, 11, 4], jnp.int32)
    pruner = prune(criteria.random(), scopes.globally())
    step = jax.jit(lambda m, k, key: pruner(params, m, k, prunable=prunable, key=key))
    key, mask = jax.random.key(5), masks.ones_like(params)
    for i, count in enumerate(counts):
        mask = step(mask, count, jax.random.fold_in(key, i))
    together = iterate(pruner, counts)(params, masks.ones_like(params), prunable=prunable, key=key)
    np.testing.assert_array_equal(together["w"], mask["w"])
