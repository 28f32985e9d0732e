"""The pruner: its parts get what they need, and what does not fit is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.pruning import granularity, masks, scopes
from lth_jax.pruning.prune import prune

PARAMS = {"w": jax.random.normal(jax.random.key(0), (6, 8)), "b": jnp.ones(8)}
PRUNABLE = masks.prunable_leaves(PARAMS)
ONES = masks.ones_like(PARAMS)


def noise(params, mask, *, key=None, **_):
    return jax.tree.map(lambda p: jax.random.uniform(key, p.shape), params)


def test_members_draw_with_their_own_key_and_count():
    pruner = prune(noise, scopes.globally())
    keys, counts = jax.random.split(jax.random.key(1), 3), jnp.array([10, 10, 20], jnp.int32)
    one = jax.jit(lambda k, n: pruner(PARAMS, ONES, n, prunable=PRUNABLE, key=k))
    members = jax.jit(jax.vmap(one))(keys, counts)
    for i in range(3):
        np.testing.assert_array_equal(members["w"][i], one(keys[i], counts[i])["w"])
    assert members["w"].sum((1, 2)).tolist() == [10, 10, 20]
    assert bool((members["w"][0] != members["w"][1]).any())


def test_everything_reaches_the_criterion():
    seen = {}

    def spy(params, mask, **given):
        seen.update(given)
        return params

    prune(spy, scopes.globally(), granularity.rows())(
        PARAMS, ONES, jnp.int32(9), prunable=PRUNABLE, key="k", batches="b", initial="i"
    )
    assert seen == {"key": "k", "batches": "b", "initial": "i"}


@pytest.mark.parametrize(
    ("params", "mask", "error", "words"),
    [
        ({"w": jnp.ones((2, 2), int)}, {"w": jnp.ones((2, 2), bool)}, TypeError, "dtype int32"),
        (PARAMS, {"w": ONES["w"]}, ValueError, "`mask` must have the structure"),
        (PARAMS, PARAMS, TypeError, "masks are boolean"),
        ({}, {}, ValueError, "`params` has no leaves"),
    ],
)
def test_what_does_not_fit_is_named(params, mask, error, words):
    pruner = prune(lambda params, mask, **_: params, scopes.globally())
    with pytest.raises(error, match=words):
        pruner(params, mask, jnp.int32(1), prunable=jax.tree.map(lambda p: True, params))


def test_collections_need_a_prunable_of_their_own():
    variables = {"params": {"w": jnp.array([2.0, 1.0])}, "batch_stats": {"mean": jnp.ones(2)}}
    scope, words = scopes.globally(), "`params` holds the collections .*give the parameters alone"
    pruner = prune(lambda params, mask, **_: params, scope)
    some = {"params": {"w": True}, "batch_stats": {"mean": False}}
    count = scope.counts(variables, 0.5, prunable=some)
    mask = pruner(variables, masks.ones_like(variables), count, prunable=some)
    assert mask["params"]["w"].tolist() == [True, False] and mask["batch_stats"]["mean"].all()
    with pytest.raises(ValueError, match=words):
        masks.prunable_leaves(variables)
    with pytest.raises(ValueError, match=words):
        scope.counts(variables, 0.5, prunable=some["params"])
    for like in (variables, variables["params"]):
        with pytest.raises(ValueError, match=words):
            pruner(variables, masks.ones_like(like), count, prunable=some["params"])


@pytest.mark.slow
@pytest.mark.parametrize("build", [scopes.globally, scopes.layerwise])
def test_the_compiled_program_grows_no_faster_than_the_number_of_leaves(build):
    def size(leaves):
        params = {str(i): jnp.full((4, 4), float(i)) for i in range(leaves)}
        prunable, scope = dict.fromkeys(params, True), build()
        pruner, count = prune(noise, scope), scope.counts(params, 0.5, prunable=prunable)
        call = jax.jit(lambda mask, key: pruner(params, mask, count, prunable=prunable, key=key))
        return len(call.lower(masks.ones_like(params), jax.random.key(0)).compile().as_text())

    few, some, many = size(8), size(20), size(32)
    assert many - some < 1.15 * (some - few)
