"""Scores of units, counts, choices, and units as a granularity of the pruner."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import structure as st
from lth_jax.pruning import masks, scopes
from lth_jax.pruning.prune import prune


def apply(p, x):
    h = jnp.tanh(x @ p["in"])
    return jnp.tanh(h @ p["w"] + h) @ p["out"]  # one group, twice in `w`


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    shapes = {"in": (3, 6), "w": (6, 6), "out": (6, 2)}
    params = {k: jnp.asarray(rng.normal(size=s), "float32") for k, s in shapes.items()}
    return st.find_groups(apply, params, jnp.ones((1, 3))), params


@pytest.fixture(scope="module")
def two_layers():
    rng = np.random.default_rng(0)
    shapes = {"a": (3, 8), "b": (8, 6), "c": (6, 2)}
    params = {k: jnp.asarray(rng.normal(size=s), "float32") for k, s in shapes.items()}
    found = st.find_groups(
        lambda p, x: jax.nn.relu(jax.nn.relu(x @ p["a"]) @ p["b"]) @ p["c"],
        params,
        jnp.ones((1, 3)),
    )
    return found, params


@pytest.mark.parametrize("reduce", [jnp.sum, jnp.mean])
def test_every_weight_of_a_unit_is_counted_once(case, reduce):
    found, params = case
    (group,) = found.groups
    scores = jax.tree.map(jnp.square, params)
    got = st.score_units(found, scores, reduce)[group.name]
    for u in range(group.units):
        others = {group.name: np.arange(group.units) != u}
        mask = st.expand(found, others)
        owned = [np.asarray(s)[~np.asarray(m)] for s, m in
                 zip(jax.tree.leaves(scores), jax.tree.leaves(mask), strict=True)]  # fmt: skip
        np.testing.assert_allclose(got[u], reduce(np.concatenate(owned)), rtol=1e-5)


def test_batch_norm_scales_can_be_the_score(two_layers):
    found, params = two_layers
    only = {k: jnp.zeros_like(p) for k, p in params.items()} | {"c": jnp.abs(params["c"])}
    got = st.score_units(found, only)
    np.testing.assert_array_equal(got["a:1"], 0)
    np.testing.assert_allclose(got["b:1"], np.abs(params["c"]).sum(1), rtol=1e-6)


def test_unit_masks_and_leaf_masks_are_inverse(two_layers):
    found, _ = two_layers
    rng = np.random.default_rng(2)
    for _ in range(5):
        units = {g.name: rng.permutation(g.units) < g.units // 2 for g in found.groups}
        back = st.units_of(found, st.expand(found, units))
        for name, flags in units.items():
            np.testing.assert_array_equal(back[name], flags)


def test_counts_are_multiples_and_never_none(two_layers):
    found, _ = two_layers
    assert st.unit_counts(found, 0.5) == {"a:1": 4, "b:1": 3}
    assert st.unit_counts(found, 0.01) == {"a:1": 1, "b:1": 1}
    assert st.unit_counts(found, 0.5, multiple=4) == {"a:1": 4, "b:1": 4}
    assert st.unit_counts(found, 0.9, multiple=8) == {"a:1": 8, "b:1": 6}
    assert st.unit_counts(found, {"b:1": 0.5}) == {"a:1": 8, "b:1": 3}


def test_the_best_units_are_kept_exactly_so_many(two_layers):
    found, params = two_layers
    scores = st.score_units(found, jax.tree.map(jnp.square, params))
    kept = jax.jit(st.keep_best)(scores, {"a:1": jnp.int32(3), "b:1": jnp.int32(2)})
    for name, k in [("a:1", 3), ("b:1", 2)]:
        assert set(np.flatnonzero(kept[name])) == set(np.argsort(-scores[name])[:k])


def test_global_competition_empties_no_group():
    scores = {"a": jnp.arange(8.0), "b": 100 + jnp.arange(8.0)}
    assert st.global_counts(scores, 0.5) == {"a": 1, "b": 8}
    assert st.global_counts(scores, 0.75, multiple=2) == {"a": 4, "b": 8}


def test_units_are_a_granularity_of_the_pruner(two_layers):
    found, params = two_layers
    prunable = st.prunable(found)
    assert prunable == {"a": True, "b": True, "c": True}
    scope = scopes.globally()
    pruner = prune(
        lambda params, mask, **_: jax.tree.map(jnp.square, params), scope, st.granularity(found)
    )
    count = scope.counts(params, 0.5, prunable=prunable)
    mask = pruner(params, masks.ones_like(params), count, prunable=prunable)
    units = st.units_of(found, mask)
    assert any(not flags.all() for flags in units.values())
    jax.tree.map(np.testing.assert_array_equal, mask, st.expand(found, units))
    small, compact = st.compact(found, params, units)
    x = jnp.ones((1, 3))
    wide = jax.nn.relu(jax.nn.relu(x @ (params["a"] * mask["a"])) @ (params["b"] * mask["b"]))
    np.testing.assert_allclose(compact(small, x), wide @ (params["c"] * mask["c"]), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda f: st.unit_counts(f, 0.0), r"`density` at 'a:1' must be in \(0, 1\]"),
        (lambda f: st.unit_counts(f, 0.5, multiple=0), "`multiple` must be at least 1"),
        (lambda f: st.unit_counts(f, {"z": 0.5}), "`density` names 'z'"),
        (lambda f: st.global_counts({"a": jnp.ones(2)}, 2.0), "`density`"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(two_layers, call, match):
    with pytest.raises(ValueError, match=match):
        call(two_layers[0])
