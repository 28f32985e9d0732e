"""Rounds of pruning without training in between."""

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.layouts import Layout
from lth_jax.pruning import criteria, masks, scopes
from lth_jax.pruning.iterative import in_rounds, iterate
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


def test_rounds_fall_exponentially_to_the_count():
    params = {"w": jnp.arange(40.0).reshape(8, 5), "v": jnp.arange(10.0).reshape(2, 5)}
    prunable, pruner = {"w": True, "v": True}, prune(criteria.random(), scopes.globally())
    key, ones, count = jax.random.key(5), masks.ones_like(params), jnp.int32(2)
    expected = iterate(pruner, jnp.array([17, 6, 2], jnp.int32))
    found = in_rounds(pruner, 3)(params, ones, count, prunable=prunable, key=key)
    jax.tree.map(
        np.testing.assert_array_equal, found, expected(params, ones, prunable=prunable, key=key)
    )
    assert in_rounds(pruner, 1) is pruner


def test_rounds_reach_the_count_of_each_leaf_and_are_traceable():
    params = {"w": jnp.arange(40.0).reshape(8, 5), "v": jnp.arange(10.0).reshape(2, 5)}
    prunable, scope = {"w": True, "v": True}, scopes.layerwise()
    pruner = in_rounds(prune(criteria.magnitude(), scope), 4)
    ones = masks.ones_like(params)
    stacked = jax.tree.map(lambda a: jnp.array([a, a // 2]), {"w": 10, "v": 4})
    found = jax.vmap(lambda k: pruner(params, ones, k, prunable=prunable))(stacked)
    kept = {name: m.reshape(2, -1).sum(1).tolist() for name, m in found.items()}
    assert kept == {"w": [10, 5], "v": [4, 2]}


def test_counts_of_stacked_layers_fall_from_the_live_weights_of_each():
    params = {"w": jnp.arange(40.0).reshape(2, 5, 4)}
    layouts = {"w": Layout(inputs=(1,), outputs=(2,), stacked=(0,))}
    mask = {"w": jnp.ones((2, 5, 4), bool).at[1, 2:].set(False)}  # 20 and 8 weights
    seen = []

    def scores(params, mask, **_):
        jax.debug.callback(lambda m: seen.append(m["w"].sum((1, 2)).tolist()), mask, ordered=True)
        return params

    pruner = in_rounds(prune(scores, scopes.layerwise()), 3)
    count = {"w": jnp.array([2, 1])}
    found = pruner(params, mask, count, prunable={"w": True}, layouts=layouts)
    assert [*seen, found["w"].sum((1, 2)).tolist()] == [[20, 8], [9, 4], [4, 2], [2, 1]]
