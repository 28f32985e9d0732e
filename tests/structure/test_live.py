"""Dead units: found, counted, and removed without a trace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import structure as st


def mlp(p, x):
    h = jax.nn.relu(x @ p["a"] + p["ba"])
    return jax.nn.relu(h @ p["b"] + p["bb"]) @ p["c"]


@jax.jit
@jax.grad
def gradient(p, mask, x):
    return mlp(jax.tree.map(jnp.multiply, mask, p), x).sum()


SHAPES = {"a": (3, 6), "ba": (6,), "b": (6, 5), "bb": (5,), "c": (5, 2)}


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    params = {k: jnp.asarray(rng.normal(size=s), "float32") for k, s in SHAPES.items()}
    return st.find_groups(mlp, params, jnp.ones((2, 3))), params


def full():
    return {k: np.ones(s, bool) for k, s in SHAPES.items()}


def test_a_full_mask_has_no_dead_units(case):
    found, _ = case
    assert all(flags.all() for flags in st.live_units(found, full()).values())
    prunable = {k: len(s) > 1 for k, s in SHAPES.items()}
    assert st.effective_density(found, full(), prunable) == 1.0


def test_death_travels_backwards(case):
    found, _ = case
    mask = full()
    mask["c"][1] = False  # unit 1 of the second layer is not read
    mask["b"][2] = False
    mask["b"][2, 1] = True  # unit 2 of the first layer is read by that one only
    units = st.live_units(found, mask)
    assert np.flatnonzero(~units["a:1"]).tolist() == [2]
    assert np.flatnonzero(~units["b:1"]).tolist() == [1]


def test_constant_units_are_dead_on_request(case):
    found, _ = case
    mask = full()
    mask["a"][:, 3] = False
    assert st.live_units(found, mask, constant_inputs=True)["a:1"].all()  # its bias is free
    mask["ba"][3] = False
    assert st.live_units(found, mask)["a:1"].all()
    units = st.live_units(found, mask, constant_inputs=True)
    assert np.flatnonzero(~units["a:1"]).tolist() == [3]


@pytest.mark.parametrize("density", [0.5, 0.25])
@pytest.mark.parametrize("constant_inputs", [False, True])
def test_removing_the_dead_changes_nothing(case, density, constant_inputs):
    found, params = case
    dead = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        mask = {k: rng.random(s) < density for k, s in SHAPES.items()}
        units = st.live_units(found, mask, constant_inputs=constant_inputs)
        if not all(flags.any() for flags in units.values()):
            continue
        dead += sum(int((~flags).sum()) for flags in units.values())
        masked = jax.tree.map(jnp.multiply, mask, params)
        small, apply = st.compact(found, masked, units)
        x = jnp.asarray(rng.normal(size=(4, 3)), "float32")
        np.testing.assert_allclose(apply(small, x), mlp(masked, x), atol=1e-6)
        wide = gradient(params, mask, x)
        for bias, layer in [("ba", "a:1"), ("bb", "b:1")]:  # what is never read learns nothing
            np.testing.assert_array_equal((wide[bias] * mask[bias])[~units[layer]], 0)
    assert dead


def test_dead_units_agree_with_a_count_by_hand(case):
    """Live = reached backwards from the outputs through kept weights."""
    found, _ = case
    for seed in range(5):
        rng = np.random.default_rng(seed)
        mask = full() | {k: rng.random(SHAPES[k]) < 0.3 for k in "abc"}
        second = mask["c"].any(1)
        first = (mask["b"] & second).any(1)
        units = st.live_units(found, mask)
        np.testing.assert_array_equal(units["b:1"], second)
        np.testing.assert_array_equal(units["a:1"], first)
        kept = mask["a"] & first, mask["b"] & first[:, None] & second, mask["c"] & second[:, None]
        prunable = {k: k in "abc" for k in SHAPES}
        total = sum(np.prod(SHAPES[k]) for k in "abc")
        np.testing.assert_allclose(
            st.effective_density(found, mask, prunable), sum(k.sum() for k in kept) / total
        )


def test_channels_on_a_residual_stream_live_while_one_reader_is_left():
    def apply(p, x):
        h = x @ p["in"]
        h = h + jnp.tanh(h @ p["up"]) @ p["down"]
        return h @ p["out"]

    shapes = {"in": (3, 4), "up": (4, 5), "down": (5, 4), "out": (4, 2)}
    params = {k: jnp.ones(s) for k, s in shapes.items()}
    found = st.find_groups(apply, params, jnp.ones((1, 3)))
    mask = {k: np.ones(s, bool) for k, s in shapes.items()}
    mask["out"][0] = False
    assert st.live_units(found, mask)["down:1"].all()
    mask["up"][0] = False
    assert st.live_units(found, mask)["down:1"].tolist() == [False, True, True, True]


def test_a_mask_of_other_shapes_is_refused(case):
    with pytest.raises(ValueError, match="`mask` at 'a' has shape"):
        st.live_units(case[0], full() | {"a": np.ones((2, 6), bool)})
