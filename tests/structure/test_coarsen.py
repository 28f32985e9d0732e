"""Refilled and random masks of units, and criteria that score units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import structure as st
from lth_jax.pruning import criteria, masks
from lth_jax.pruning.prune import prune

SHAPES = {"a": (4, 12), "bias": (12,), "b": (12, 8), "scale": (8,), "c": (8, 2)}
PRUNABLE = {name: len(shape) > 1 for name, shape in SHAPES.items()}


def apply(p, x):
    h = jax.nn.relu(x @ p["a"] + p["bias"])
    return jax.nn.relu(h @ p["b"] * p["scale"]) @ p["c"]


@pytest.fixture(scope="module")
def found():
    params = {k: jnp.ones(shape) for k, shape in SHAPES.items()}
    return st.find_groups(apply, params, jnp.ones((1, 4)))


@pytest.fixture(scope="module")
def refill(found):
    return jax.jit(lambda m: st.refill(found, m, PRUNABLE))


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=shape), "float32") for k, shape in SHAPES.items()}


def ticket(density, seed=0):
    rng = np.random.default_rng(seed)
    return {
        k: jnp.asarray(rng.random(shape) < density if PRUNABLE[k] else np.ones(shape, bool))
        for k, shape in SHAPES.items()
    }


@pytest.mark.parametrize("density", [0.1, 0.3, 0.7])
def test_a_refilled_ticket_is_whole_units_and_no_heavier(found, refill, density):
    mask = ticket(density)
    filled = refill(mask)
    units = st.units_of(found, filled)
    again = st.expand(found, units)
    for name, use in PRUNABLE.items():
        np.testing.assert_array_equal(filled[name], again[name] if use else True)
    assert masks.count_kept(filled, PRUNABLE) <= masks.count_kept(mask, PRUNABLE)
    assert masks.count_kept(filled, PRUNABLE) >= 0.6 * masks.count_kept(mask, PRUNABLE)
    assert all(0 < flags.sum() < flags.size for flags in units.values())


def test_the_fullest_units_are_refilled(found, refill):
    mask = ticket(0.3)
    units = st.units_of(found, refill(mask))
    held = np.asarray(mask["a"]).sum(0) + np.asarray(mask["b"]).sum(1)
    kept = np.asarray(units["a:1"])
    assert held[kept].min() >= held[~kept].max()


def test_a_dense_mask_is_full_already_and_an_empty_group_keeps_one_unit(found, refill):
    dense = ticket(1.0)
    jax.tree.map(np.testing.assert_array_equal, refill(dense), dense)
    hollow = dense | {"b": jnp.zeros((12, 8), bool), "c": jnp.zeros((8, 2), bool)}
    units = st.units_of(found, refill(hollow))
    assert units["b:1"].sum() == 1


def test_refilling_a_population_is_refilling_its_members(refill):
    tickets = [ticket(0.2, seed) for seed in range(3)]
    together = jax.vmap(refill)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *tickets))
    for i, mask in enumerate(tickets):
        alone = refill(mask)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a, b[i]), alone, together)


def test_random_units_have_the_same_shape_and_other_places(found, refill):
    mask = st.refill(found, ticket(0.3), PRUNABLE)
    drawn = [st.random_units(found, jax.random.key(k), mask, PRUNABLE) for k in range(6)]
    counts = {name: int(flags.sum()) for name, flags in st.units_of(found, mask).items()}
    places = set()
    for one in drawn:
        units = st.units_of(found, one)
        assert {name: int(flags.sum()) for name, flags in units.items()} == counts
        assert masks.count_kept(one, PRUNABLE) == masks.count_kept(mask, PRUNABLE)
        assert one["bias"].all() and one["scale"].all()
        places.add(tuple(np.flatnonzero(units["a:1"]).tolist()))
    assert len(places) > 1


def test_norm_scales_rank_the_units_they_scale(found):
    some, params = found.only("b:1"), weights()
    scope = st.by_group(some)
    prunable = st.prunable(some)
    pruner = prune(st.norm_scales(some), scope, st.granularity(some))
    mask = pruner(params, masks.ones_like(params), {"b:1": np.int32(3)}, prunable=prunable)
    kept = np.asarray(st.units_of(some, mask)["b:1"])
    assert set(np.flatnonzero(kept)) == set(np.argsort(-np.abs(params["scale"]))[:3].tolist())
    assert mask["a"].all()
    criterion = st.norm_scales(some)
    assert criterion.__name__ == "norm_scales" and criterion.needs == ()
    half = jax.tree.map(lambda w: jnp.asarray(w, jnp.bfloat16), params)
    scores = criterion(half, masks.ones_like(half))
    assert {leaf.dtype for leaf in jax.tree.leaves(scores)} == {jnp.dtype("float32")}


def test_a_group_without_a_norm_has_no_scale(found):
    with pytest.raises(ValueError, match=r"the group 'a:1' without a leaf that fits '\*scale'"):
        st.norm_scales(found)


def test_activation_norms_rank_the_units_by_what_they_say(found):
    params, x = weights(), jnp.asarray(np.random.default_rng(1).normal(size=(9, 4)), "float32")

    def inputs(p, x):
        h = jax.nn.relu(x @ p["a"] + p["bias"])
        return criteria.squared_inputs(lambda w, h: h @ w["b"], {"b": p["b"]}, h)

    some = found.only("a:1")
    pruner = prune(criteria.activation_norms(inputs), st.by_group(some), st.granularity(some))
    mask = pruner(params, masks.ones_like(params), {"a:1": np.int32(5)},
                  prunable=st.prunable(some), batches=[x])  # fmt: skip
    said = np.square(np.asarray(jax.nn.relu(x @ params["a"] + params["bias"]))).sum(0)
    assert set(np.flatnonzero(st.units_of(some, mask)["a:1"])) == set(np.argsort(-said)[:5])
