"""Masks: prunable and kept weights, shuffles, and error messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import trees
from lth_jax.pruning import masks

PARAMS = {
    "dense": [jnp.arange(20.0).reshape(4, 5), jnp.ones(5)],
    "out": {"kernel": jnp.ones((5, 3)), "scale": jnp.ones(3)},
}
PRUNABLE = masks.prunable_leaves(PARAMS)
ALL = jnp.ones(3, bool)
MASK = {
    "dense": [jnp.arange(20).reshape(4, 5) % 3 == 0, jnp.ones(5, bool)],
    "out": {"kernel": jnp.arange(15).reshape(5, 3) < 2, "scale": ALL},
}


def test_biases_of_two_axes_are_no_kernels():
    """As flax's attention layers have them."""
    params = {"query": {"kernel": jnp.ones((4, 2, 2)), "bias": jnp.ones((2, 2))}}
    assert masks.prunable_leaves(params) == {"query": {"bias": False, "kernel": True}}


def test_kernels_are_prunable_and_vectors_are_not():
    assert PRUNABLE == {"dense": [True, False], "out": {"kernel": True, "scale": False}}


def test_a_predicate_sees_names():
    prunable = masks.prunable_leaves(PARAMS, lambda name, leaf: name.endswith("kernel"))
    assert jax.tree.leaves(prunable) == [False, False, True, False]


def test_absent_leaves_vanish():
    """An Equinox module's array part holds None where the module holds anything else."""
    params = {"weight": jnp.ones((2, 2)), "activation": None}
    assert masks.prunable_leaves(params) == {"weight": True, "activation": None}
    assert masks.ones_like(params)["activation"] is None


def test_only_prunable_weights_are_counted():
    assert masks.count_kept(MASK, PRUNABLE) == 7 + 2
    assert masks.density(MASK, PRUNABLE) == np.float32(9 / 35)
    by_leaf = masks.density_per_leaf(MASK, PRUNABLE)
    assert set(by_leaf) == {"dense/0", "out/kernel"}
    assert by_leaf["dense/0"] == np.float32(7 / 20)


def test_statistics_are_vmappable():
    population = trees.stack([MASK, masks.ones_like(PARAMS)])
    counts = jax.vmap(lambda m: masks.count_kept(m, PRUNABLE))(population)
    assert counts.tolist() == [9, 35]


def test_masked_entries_are_exactly_zero_even_where_not_finite():
    wild = jax.tree.map(lambda p: p.at[0].set(jnp.nan).at[-1].set(jnp.inf), PARAMS)
    none = jax.tree.map(jnp.zeros_like, MASK)
    cleared = masks.apply_mask(none, wild)
    assert all(bool((leaf == 0).all()) for leaf in jax.tree.leaves(cleared))


def test_masks_keep_the_dtype_under_strict_promotion():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    with jax.numpy_dtype_promotion("strict"):
        out = masks.apply_mask(MASK, params)
        masks.density(MASK, PRUNABLE)
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype(jnp.bfloat16)}


def test_the_layerwise_shuffle_keeps_counts_and_moves_every_leaf():
    moved = masks.shuffle(jax.random.key(0), MASK, prunable=PRUNABLE)
    for old, new, use in zip(*map(jax.tree.leaves, (MASK, moved, PRUNABLE)), strict=True):
        assert old.sum() == new.sum() and old.shape == new.shape
        assert bool((old != new).any()) == use


def test_the_global_shuffle_keeps_the_total_and_crosses_leaves():
    members = jax.vmap(lambda key: masks.shuffle_globally(key, MASK, prunable=PRUNABLE))(
        jax.random.split(jax.random.key(1), 32)
    )
    totals = jax.vmap(lambda m: masks.count_kept(m, PRUNABLE))(members)
    assert set(totals.tolist()) == {9}
    assert len(set(members["dense"][0].sum((1, 2)).tolist())) > 1
    assert bool(members["dense"][1].all() and members["out"]["scale"].all())


def test_shuffles_are_uniform():
    """Each place of a leaf of 4 is kept half of the time: 400 draws, 5 standard deviations."""
    mask = {"w": jnp.array([[True, True], [False, False]])}
    keys = jax.random.split(jax.random.key(2), 400)
    for f in (masks.shuffle, masks.shuffle_globally):
        drawn = jax.vmap(lambda key, f=f: f(key, mask, prunable={"w": True})["w"])(keys)
        assert np.abs(np.asarray(drawn).mean(0) - 0.5).max() < 5 * 0.5 / 20


def test_distance_counts_where_masks_differ():
    assert masks.distance(MASK, masks.ones_like(PARAMS), PRUNABLE) == np.float32(26 / 35)


def test_collapse_is_reported_by_name():
    gone = {"dense": MASK["dense"], "out": {"kernel": jnp.zeros((5, 3), bool), "scale": ALL}}
    assert masks.collapsed(MASK, PRUNABLE) == []
    assert masks.collapsed(gone, PRUNABLE) == ["out/kernel"]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: masks.prunable_leaves({}), ValueError, "`params` has no leaves"),
        (lambda: masks.prunable_leaves({"w": jnp.ones((0, 3))}), ValueError, "at 'w' is empty"),
        (lambda: masks.prunable_leaves({"w": jnp.ones((2, 2), int)}), TypeError, "dtype int32"),
        (lambda: masks.prunable_leaves({"w": [1.0]}), TypeError, "at 'w/0' has dtype float"),
        (lambda: masks.prunable_leaves({"b": jnp.ones(3)}), ValueError, "nothing to prune"),
        (lambda: masks.apply_mask({"w": MASK}, PARAMS), ValueError, "`mask` must have the struct"),
        (lambda: masks.apply_mask(PARAMS, PARAMS), TypeError, "at 'dense/0' has dtype float32"),
        (
            lambda: masks.apply_mask({"w": jnp.ones((2, 1), bool)}, {"w": jnp.ones((2, 2))}),
            ValueError,
            r"`mask` at 'w' has shape \(2, 1\)",
        ),
        (
            lambda: masks.density(MASK, {"w": True}),
            ValueError,
            "`prunable` must have the structure",
        ),
        (lambda: masks.density(MASK, MASK), TypeError, "static tree of Python booleans"),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
