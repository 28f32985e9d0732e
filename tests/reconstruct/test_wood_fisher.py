"""WoodFisher against its definition in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lth_jax as lth
from lth_jax.layouts import Layout
from lth_jax.reconstruct import wood_fisher

KEYS = jax.random.split(jax.random.key(0), 4)
PARAMS = {
    "a": {"kernel": jax.random.normal(KEYS[0], (3, 4)), "bias": jnp.ones(4)},
    "b": {"kernel": jax.random.normal(KEYS[1], (4, 2))},
}
BATCHES = [
    (jax.random.normal(KEYS[2], (20, 3)), jax.random.normal(KEYS[3], (20, 2))),
    (jax.random.normal(KEYS[3], (12, 3)), jax.random.normal(KEYS[2], (12, 2))),
]


def loss(params, batch):
    x, y = batch
    h = jnp.tanh(x @ params["a"]["kernel"] + params["a"]["bias"])
    return jnp.mean(jnp.sum((h @ params["b"]["kernel"] - y) ** 2, axis=-1))


def fisher(block):
    """The damped blocks of a/kernel in float64, from the gradients of single examples."""
    x, y = (jnp.concatenate(parts) for parts in zip(*BATCHES, strict=True))
    grads = [
        jax.grad(loss)(PARAMS, (x[i : i + 1], y[i : i + 1]))["a"]["kernel"] for i in range(len(x))
    ]
    rows = np.float64(jnp.stack(grads)).reshape(len(x), -1, block)
    whole = np.einsum("nbi,nbj->bij", rows, rows) / len(x)
    return whole + 0.01 * np.mean(np.diagonal(whole, axis1=1, axis2=2)) * np.eye(block)


@pytest.mark.parametrize("block", [4, 12, 64])
@pytest.mark.slow
def test_scores_and_update_are_those_of_the_definition(block):
    prunable = jax.tree.map(lambda _: False, PARAMS)
    prunable["a"]["kernel"] = True
    pruned, mask = wood_fisher(
        loss, PARAMS, BATCHES, density=11 / 12, prunable=prunable, block=block
    )
    block = min(block, 12)  # a block may be longer than the leaf
    w = np.float64(PARAMS["a"]["kernel"]).reshape(-1, block)
    inverse = np.linalg.inv(fisher(block))
    costs = w**2 / (2 * np.diagonal(inverse, axis1=1, axis2=2))
    b, p = np.unravel_index(np.argmin(costs), costs.shape)
    w[b] -= w[b, p] / inverse[b, p, p] * inverse[b, :, p]
    assert int(jnp.argmin(mask["a"]["kernel"])) == b * block + p
    assert lth.count_kept(mask, prunable) == 11
    np.testing.assert_allclose(pruned["a"]["kernel"].ravel(), w.ravel(), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(pruned["b"]["kernel"], PARAMS["b"]["kernel"])


@pytest.mark.slow
def test_counts_are_exact_over_all_leaves_and_blocks_need_not_divide():
    prunable = lth.prunable_leaves(PARAMS)
    pruned, mask = wood_fisher(loss, PARAMS, BATCHES, density=0.4, block=5)
    assert lth.count_kept(mask, prunable) == 8
    jax.tree.map(lambda p, m: np.testing.assert_array_equal(p[~m], 0), pruned, mask)
    assert mask["a"]["bias"].all() and all(jnp.isfinite(x).all() for x in jax.tree.leaves(pruned))


def test_patterns_keep_the_best_of_each_group():
    prunable = jax.tree.map(lambda leaf: leaf.shape == (4, 2), PARAMS)
    pruned, mask = wood_fisher(
        loss,
        PARAMS,
        BATCHES,
        density=0.5,
        prunable=prunable,
        scope=lth.layerwise(),
        granularity=lth.granularity.n_m(1, 2),
        block=8,
    )
    kept = np.asarray(mask["b"]["kernel"]).reshape(2, 2, 2)
    np.testing.assert_array_equal(kept.sum(axis=1), 1)
    np.testing.assert_array_equal(np.asarray(pruned["b"]["kernel"]) != 0, mask["b"]["kernel"])


def test_scopes_get_the_layouts():
    params = {"kernel": jax.random.normal(KEYS[0], (3, 3, 1, 4))}
    layouts = {"kernel": Layout((2,), (3,), window=(0, 1))}
    _, mask = wood_fisher(
        lambda params, x: jnp.mean((x @ params["kernel"].reshape(9, 4)) ** 2),
        params,
        [jax.random.normal(KEYS[1], (20, 9))],
        density=0.5,
        scope=lth.erk(),
        layouts=layouts,
    )
    assert int(mask["kernel"].sum()) == 18


BAD = {
    "batches": (dict(batches=[]), "`batches` must be a list"),
    "block": (dict(block=0), "`block` must be at least 1"),
    "damping": (dict(damping=0), "`damping` must be positive"),
    "zero": (dict(loss=lambda p, b: 0.0 * loss(p, b)), "'a/kernel' are NaN, infinite or all 0"),
    "density": (dict(density=2), "`density`"),
}


@pytest.mark.parametrize("changes, words", BAD.values(), ids=BAD)
def test_bad_input_is_named(changes, words):
    given = dict(loss=loss, params=PARAMS, batches=BATCHES, density=0.5) | changes
    with pytest.raises(ValueError, match=words):
        wood_fisher(**given)
