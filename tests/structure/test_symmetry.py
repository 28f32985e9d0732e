"""Units that change places leave the function as it is, and can be found again."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lth_jax import structure as st


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3))(x))
        y = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(5, (3, 3))(x)))
        x = x + nn.Conv(6, (3, 3))(y)
        x = x.reshape(len(x), -1, 6)
        x = x + nn.MultiHeadDotProductAttention(num_heads=3, qkv_features=6)(x, x)
        return nn.Dense(3)(x.mean(1))


forward: Any = jax.jit(Net().apply)


@pytest.fixture(scope="module")
def case():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 2)), "float32")
    params = jax.jit(Net().init)(jax.random.key(1), x)
    return st.find_groups(Net().apply, params, x), params, x


def shuffled(found, seed=0):
    rng = np.random.default_rng(seed)
    return {g.name: rng.permutation(g.units) for g in found.groups}


def test_the_function_does_not_notice(case):
    found, params, x = case
    moved = st.permute(found, params, shuffled(found))
    same = jax.tree.map(np.array_equal, moved, params)["params"]
    assert not any(layer["kernel"] for layer in (same["Conv_0"], same["Conv_1"], same["Dense_0"]))
    np.testing.assert_allclose(forward(moved, x), forward(params, x), atol=1e-5)


def test_the_order_is_found_again(case):
    found, params, _ = case
    moved = st.permute(found, params, shuffled(found))
    orders = st.match(found, params, moved)
    back = st.permute(found, moved, orders)
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_matching_never_agrees_less_than_before(case):
    found, params, x = case
    other = jax.jit(Net().init)(jax.random.key(2), x)
    near = st.permute(found, other, st.match(found, params, other))

    def agreement(a, b):
        return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)))

    assert agreement(params, near) > agreement(params, other)


def test_masks_move_along(case):
    found, params, x = case
    rng = np.random.default_rng(3)
    mask = jax.tree.map(lambda p: jnp.asarray(rng.random(p.shape) < 0.5), params)
    orders = shuffled(found)
    moved = jax.tree.map(
        jnp.multiply, st.permute(found, mask, orders), st.permute(found, params, orders)
    )
    masked = jax.tree.map(jnp.multiply, mask, params)
    np.testing.assert_allclose(forward(moved, x), forward(masked, x), atol=1e-5)


def test_places_with_a_meaning_stay():
    def apply(p, x):
        return jnp.tanh((x @ p["w"]) * jnp.arange(1.0, 5.0)) @ p["v"]

    params = {"w": jnp.ones((3, 4)), "v": jnp.ones((4, 2))}
    found = st.find_groups(apply, params, jnp.ones((1, 3)))
    with pytest.raises(ValueError, match="whose order matters"):
        st.permute(found, params, {found.groups[0].name: np.arange(4)})
    assert st.match(found, params, params) == {}


def test_orders_that_are_no_permutations_are_refused(case):
    found, params, _ = case
    name = found.groups[0].name
    with pytest.raises(ValueError, match="must be a permutation"):
        st.permute(found, params, {name: np.zeros(found[name].units, int)})


def perceptron(p, x):
    h = jnp.tanh(x @ p["a"] + p["bias"])
    return jnp.tanh(h @ p["b"] + h @ p["c"][:, : p["b"].shape[1]]) @ p["out"]


def perceptron_of(widths, seed=0):
    rng = np.random.default_rng(seed)
    n, m = widths
    shapes = {"a": (3, n), "bias": (n,), "b": (n, m), "c": (n, m), "out": (m, 2)}
    params = {k: jnp.asarray(rng.normal(size=s), "float32") for k, s in shapes.items()}
    return st.find_groups(perceptron, params, jnp.ones((1, 3))), params


def test_units_are_found_again_in_a_wider_network():
    large, params = perceptron_of((9, 7))
    small, _ = perceptron_of((5, 4))
    rng = np.random.default_rng(1)
    hidden = {g.name: rng.permutation(large[g.name].units)[: g.units] for g in small.groups}
    target = st.transplant(large, params, small, hidden)
    assert {k: v.shape for k, v in target.items()} == small.shapes
    found = st.match_across(large, params, small, target)
    for name, order in hidden.items():
        np.testing.assert_array_equal(found[name], order)


def test_a_transplant_computes_what_the_chosen_units_compute():
    large, params = perceptron_of((9, 7))
    small, _ = perceptron_of((5, 4))
    flags = {g.name: np.arange(large[g.name].units) % 2 == 0 for g in small.groups}
    orders = {name: np.flatnonzero(f) for name, f in flags.items()}
    narrow = st.transplant(large, params, small, orders)
    masked = jax.tree.map(jnp.multiply, st.expand(large, flags), params)
    x = jnp.ones((2, 3))
    np.testing.assert_allclose(perceptron(narrow, x), perceptron(masked, x), atol=1e-5)


@pytest.mark.parametrize(
    ("widths", "message"), [((9, 7), "'a:1' has 9 units"), ((5, 8), "'b:1' has 8 units")]
)
def test_networks_that_do_not_fit_are_refused(widths, message):
    large, params = perceptron_of((6, 7))
    small, target = perceptron_of(widths)
    with pytest.raises(ValueError, match=f"the group {message} in `small`, but only"):
        st.match_across(large, params, small, target)


def test_parameters_of_another_network_are_refused_by_name():
    found, params = perceptron_of((6, 7))
    for name, given in [("target", ({}, params)), ("params", (params, {}))]:
        with pytest.raises(ValueError, match=f"`{name}`"):
            st.match(found, *given)


def test_leaves_of_other_lengths_are_refused():
    large, params = perceptron_of((6, 7))
    other = {k: jnp.ones(large.shapes[k]) for k in params} | {"a": jnp.ones((4, 6))}
    small = st.find_groups(perceptron, other, jnp.ones((1, 4)))
    with pytest.raises(ValueError, match=r"the leaf 'a' has the shape \(4, 6\) in `small`"):
        st.transplant(large, params, small, {})


def test_other_groups_slices_and_leaves_are_refused():
    x = jnp.ones((1, 3))

    def structure_of(apply, **params):
        return st.find_groups(apply, params, x)

    hidden = {"a": jnp.ones((3, 6)), "b": jnp.ones((6, 2))}
    large = structure_of(lambda p, x: x @ p["a"] @ p["b"] + p["bias"], **hidden, bias=jnp.ones(2))

    def refused(small, message):
        with pytest.raises(ValueError, match=message):
            st.transplant(large, {**hidden, "bias": jnp.ones(2)}, small, {})

    other = structure_of(lambda p, x: x @ p["y"] @ p["z"], y=hidden["a"], z=hidden["b"])
    refused(other, "`small` has the group 'y:1', but `large` has no such group")
    scaled = structure_of(lambda p, x: (x @ p["a"] * p["s"]) @ p["b"], **hidden, s=jnp.ones(6))
    refused(scaled, "'a:1' differ: a:1, b:0, s:0 in `small`, a:1, b:0 in `large`")
    refused(structure_of(lambda p, x: x @ p["a"] @ p["b"], **hidden), "`small` has no such leaf")
