"""Refinement: a block's weights come to restore the dense network's outputs, under their mask."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax import reconstruct
from lth_jax.reconstruct import refine

KEYS = jax.random.split(jax.random.key(3), 5)
DENSE = {
    "first": jax.random.normal(KEYS[0], (6, 8)),
    "bias": jnp.ones(8),
    "second": jax.random.normal(KEYS[1], (4, 8)),
}
BATCHES = list(jax.random.normal(KEYS[2], (2, 24, 6)))
MASK = {
    name: jax.random.bernoulli(KEYS[3], 0.5, leaf.shape) if leaf.ndim > 1 else leaf > 0
    for name, leaf in DENSE.items()
}
PRUNED = jax.tree.map(jnp.multiply, DENSE, MASK)
STACK = {"w": jax.random.normal(KEYS[4], (3, 6, 6))}


def mlp(params, x):
    return jax.nn.relu(x @ params["first"] + params["bias"]) @ params["second"].T


def stack(params, x):
    return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, params["w"])[0]


def share(new, old):
    return float(jnp.mean(jnp.sum((new - old) ** 2, (1, 2)) / jnp.sum(old**2, (1, 2))))


def test_a_linear_block_comes_to_its_least_squares_fit():
    def f(params, x):
        return x @ params["first"]

    dense, mask = {"first": DENSE["first"]}, {"first": MASK["first"]}
    x, options = BATCHES[0], {"dense": dense, "blocks": [["first"]], "steps": 400}
    pruned = {"first": PRUNED["first"]}
    new, report = refine(f, pruned, mask, [x], optimizer=optax.adam(3e-2), **options)
    exact, _ = reconstruct.refit(damping=0)(dense["first"], x.T @ x, mask["first"])
    np.testing.assert_allclose(new["first"], exact, atol=1e-3)
    assert report[0].error < report[0].before


def test_blocks_are_trained_one_by_one_with_the_inputs_of_the_refined_network():
    blocks = [["first"], ["second"]]
    new, report = refine(mlp, PRUNED, MASK, BATCHES, dense=DENSE, blocks=blocks, steps=40)
    x = jnp.stack(BATCHES)
    hidden = [jax.nn.relu(x @ p["first"] + 1) for p in (DENSE, PRUNED, new)]
    np.testing.assert_allclose(report[0].before, share(hidden[1], hidden[0]), rtol=1e-4)
    np.testing.assert_allclose(report[0].error, share(hidden[2], hidden[0]), rtol=1e-4)
    between = hidden[2] @ PRUNED["second"].T  # the second block follows the refined first one
    outputs = [hidden[0] @ DENSE["second"].T, mlp(new, x)]
    np.testing.assert_allclose(report[1].before, share(between, outputs[0]), rtol=1e-4)
    np.testing.assert_allclose(report[1].error, share(outputs[1], outputs[0]), rtol=1e-4)
    assert all(block.error < block.before for block in report)
    np.testing.assert_array_equal(new["bias"], DENSE["bias"])
    for name, mask in MASK.items():
        assert not np.asarray(new[name])[~np.asarray(mask)].any()
    assert "0." in repr(report) and [block.layers for block in report] == [("first",), ("second",)]


def test_layers_of_a_stack_are_refined_in_their_places_and_others_stay():
    pruned, mask, _ = reconstruct.prune(
        stack, STACK, BATCHES, method=reconstruct.magnitude(), density=0.5
    )
    options = {"dense": STACK, "blocks": [["w[1]", "w[2]"]], "steps": 30}
    new, report = refine(stack, pruned, mask, BATCHES, **options)
    np.testing.assert_array_equal(new["w"][0], pruned["w"][0])
    assert (new["w"][1:] != pruned["w"][1:]).any((1, 2)).all()
    x = jnp.stack(BATCHES)
    want, got = (jax.vmap(stack, (None, 0))(p, x) for p in (STACK, new))
    np.testing.assert_allclose(report[0].error, share(got, want), rtol=1e-4)
    again, _ = refine(stack, pruned, mask, BATCHES, **options)
    np.testing.assert_array_equal(new["w"], again["w"])


def test_a_block_that_does_not_improve_keeps_its_weights():
    options = {"dense": DENSE, "blocks": [["*"]], "steps": 3}
    new, report = refine(mlp, PRUNED, MASK, BATCHES, optimizer=optax.sgd(1e6), **options)
    jax.tree.map(np.testing.assert_array_equal, new, PRUNED)
    assert report[0].error == report[0].before > 0


def test_bfloat16_networks_keep_their_dtype_and_batches_may_differ_in_length():
    low = [jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree) for tree in (PRUNED, DENSE)]
    batches = [BATCHES[0].astype(jnp.bfloat16), BATCHES[1][:7].astype(jnp.bfloat16)]
    options = {"dense": low[1], "blocks": [["*"]], "steps": 40}
    new, report = refine(mlp, low[0], MASK, batches, optimizer=optax.adam(1e-2), **options)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(new))
    assert report[0].error < report[0].before


BAD = [
    ({"blocks": []}, "`blocks` is empty"),
    ({"blocks": [[]]}, "`blocks[0]` is empty"),
    ({"blocks": [["first"], ["third"]]}, "`blocks[1]` has 'third', but no layer has such a name"),
    ({"blocks": [["second"], ["first"]]}, "`blocks[1]` must follow after all uses of the layers"),
    ({"blocks": [["*"], ["second"]]}, "`blocks[1]` must follow after all uses of the layers"),
    ({"blocks": ["first"]}, "`blocks` must be a list of lists of names, but is ['first']"),
    ({"steps": 0}, "`steps`"),
    ({"dense": {"first": DENSE["first"]}}, "`dense` must be a tree like `params`"),
    ({"dense": DENSE | {"bias": jnp.full(8, jnp.nan)}}, "`dense` gives outputs of `blocks[0]`"),
    ({"batches": []}, "`batches` is empty"),
]


@pytest.mark.parametrize(("changes", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_input_is_named_in_one_sentence(changes, words):
    options = {"batches": BATCHES, "dense": DENSE, "blocks": [["*"]], "steps": 1} | changes
    with pytest.raises((ValueError, TypeError)) as error:
        refine(mlp, PRUNED, MASK, options.pop("batches"), **options)
    assert words in str(error.value)
