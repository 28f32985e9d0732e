"""Scores of units, and their way to leaf masks and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import structure as st


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


def test_unit_masks_and_leaf_masks_are_inverse(two_layers):
    found, _ = two_layers
    population = {g.name: jnp.eye(g.units, dtype=bool)[:4] for g in found.groups}
    back = jax.jit(jax.vmap(lambda u: st.units_of(found, st.expand(found, u))))(population)
    jax.tree.map(np.testing.assert_array_equal, back, population)
    rng = np.random.default_rng(2)
    for _ in range(5):
        units = {g.name: rng.permutation(g.units) < g.units // 2 for g in found.groups}
        back = st.units_of(found, st.expand(found, units))
        for name, flags in units.items():
            np.testing.assert_array_equal(back[name], flags)


def test_masks_of_other_shapes_are_refused(two_layers):
    found, params = two_layers
    mask = jax.tree.map(lambda p: jnp.ones((*p.shape[:-1], 1), bool), params)
    some = dict.fromkeys(params, True)
    for call in (
        lambda: st.units_of(found, mask),
        lambda: st.random_units(found, jax.random.key(0), mask, some),
    ):
        with pytest.raises(ValueError, match="`mask`"):
            call()
