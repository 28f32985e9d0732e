"""Granularities: units against norms computed by hand, and whole units removed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import layouts
from lth_jax.pruning import granularity, masks, scopes
from lth_jax.pruning.prune import prune

PARAMS = {
    "conv": {"kernel": jax.random.normal(jax.random.key(0), (3, 3, 4, 8)), "bias": jnp.ones(8)},
    "dense": {"kernel": jax.random.normal(jax.random.key(1), (8, 12))},
}
PRUNABLE = masks.prunable_leaves(PARAMS)
LAYOUTS = {"conv/kernel": layouts.conv(2)}
ONES = masks.ones_like(PARAMS)
SCORES = jax.tree.map(jnp.abs, PARAMS)
KERNEL = np.abs(np.asarray(PARAMS["conv"]["kernel"]))
DENSE = np.abs(np.asarray(PARAMS["dense"]["kernel"]))


def magnitude(params, mask, **_):
    return jax.tree.map(jnp.abs, params)


@pytest.mark.parametrize(
    ("units", "conv", "dense"),
    [
        (granularity.weights, KERNEL, DENSE),
        (granularity.rows(), KERNEL.sum((0, 1, 3)), DENSE.sum(1)),
        (granularity.columns(), KERNEL.sum((0, 1, 2)), DENSE.sum(0)),
        (granularity.kernels(granularity.l2), np.sqrt((KERNEL**2).sum((0, 1))), DENSE),
        (granularity.columns(jnp.max), KERNEL.max((0, 1, 2)), DENSE.max(0)),
        (
            granularity.blocks(2, 4, granularity.l1),
            KERNEL.reshape(9, 2, 2, 2, 4).sum((2, 4)),
            DENSE.reshape(4, 2, 3, 4).sum((1, 3)),
        ),
    ],
)
def test_units_are_scored_by_their_weights(units, conv, dense):
    found = units.to_units(SCORES, ONES, prunable=PRUNABLE, layouts=LAYOUTS)
    np.testing.assert_allclose(found.scores["conv"]["kernel"].squeeze(), conv, rtol=1e-6)
    np.testing.assert_allclose(found.scores["dense"]["kernel"].squeeze(), dense, rtol=1e-6)
    assert found.sizes["conv"]["kernel"] * conv.size == KERNEL.size
    assert found.sizes["dense"]["kernel"] * dense.size == DENSE.size


@pytest.mark.parametrize(
    ("units", "view", "inner"),
    [
        (granularity.rows(), (9, 4, 8), (0, 2)),
        (granularity.output_channels(), (9, 4, 8), (0, 1)),
        (granularity.kernels(), (9, 4, 8), (0,)),
        (granularity.blocks(2, 2), (9, 2, 2, 4, 2), (2, 4)),
    ],
)
def test_units_go_whole_the_fewest_best_that_hold_the_count(units, view, inner):
    scope = scopes.layerwise()
    pruner = jax.jit(
        lambda mask, count: prune(magnitude, scope, units)(
            PARAMS, mask, count, prunable=PRUNABLE, layouts=LAYOUTS
        )
    )
    mask = ONES
    for density in (0.6, 0.3):
        count = scope.counts(PARAMS, density, prunable=PRUNABLE)
        mask, before = pruner(mask, count), mask
        new = np.asarray(mask["conv"]["kernel"]).reshape(view)
        whole = new.all(inner)
        np.testing.assert_array_equal(whole, new.any(inner))
        size = new.size // whole.size
        assert whole.sum() == -(-int(count["conv"]["kernel"]) // size)
        assert not (mask["conv"]["kernel"] & ~before["conv"]["kernel"]).any()
        norms = KERNEL.reshape(view).sum(inner)
        assert norms[whole].min() > norms[~whole].max()


@pytest.mark.parametrize(
    ("n", "m", "along"), [(2, 4, "inputs"), (1, 4, "outputs"), (4, 8, "outputs"), (4, 4, "inputs")]
)
def test_n_m_keeps_exactly_the_best_n_of_every_m(n, m, along):
    params = {"w": jax.random.randint(jax.random.key(5), (3, 16, 8), 0, 4).astype(jnp.float32)}
    scope = scopes.globally()
    count = scope.counts(params, n / m, prunable={"w": True})
    pruner = prune(magnitude, scope, granularity.n_m(n, m, along))
    layout, axis = layouts.conv(1), -2 if along == "inputs" else -1
    mask = jax.jit(lambda m: pruner(params, m, count, prunable={"w": True}, layouts={"w": layout}))(
        {"w": params["w"] > -1}
    )
    mask = mask["w"]
    groups = np.moveaxis(np.asarray(mask), axis, -1).reshape(-1, m)
    values = np.moveaxis(np.asarray(params["w"]), axis, -1).reshape(-1, m)
    assert (groups.sum(1) == n).all() and mask.sum() == count
    order = np.argsort(-values, axis=1, kind="stable")[:, :n]
    assert np.take_along_axis(groups, order, 1).all()


def test_a_small_count_is_sparser_than_the_pattern():
    scope = scopes.globally()
    pruner = prune(magnitude, scope, granularity.n_m(1, 2))
    mask = jax.jit(
        lambda mask: pruner(PARAMS, mask, jnp.int32(50), prunable=PRUNABLE, layouts=LAYOUTS)
    )(ONES)
    assert masks.count_kept(mask, PRUNABLE) == 50
    assert np.asarray(mask["dense"]["kernel"]).reshape(4, 2, 12).sum(1).max() <= 1


NETWORK = {
    "in": jnp.array([[1.0, 5.0, 2.0], [1.0, 5.0, 2.0]]),
    "out": jnp.array([[9.0], [1.0], [1.0]]),
}
HIDDEN = {"in": {1: np.arange(3)}, "out": {0: np.arange(3)}}


def test_groups_remove_a_hidden_unit_from_all_its_leaves():
    prunable = {"in": True, "out": True}
    pruner = prune(magnitude, scopes.globally(), granularity.groups(HIDDEN))
    prune_to = jax.jit(
        lambda count: pruner(NETWORK, masks.ones_like(NETWORK), count, prunable=prunable)
    )
    for count, units in [(6, [True, True, False]), (3, [False, True, False]), (9, [True] * 3)]:
        mask = prune_to(jnp.int32(count))  # scores 11, 11, 5: position decides, then norm
        want = [True, False, False] if count == 3 else units
        assert mask["in"].tolist() == [want, want] and mask["out"].ravel().tolist() == want


def test_weights_between_two_groups_need_both_and_count_once():
    square = {"w": jnp.ones((2, 2))}
    units = granularity.groups({"w": {0: np.array([0, 1]), 1: np.array([2, 3])}})
    found = units.to_units(square, masks.ones_like(square), prunable={"w": True})
    assert found.sizes.tolist() == [0, 0, 2, 2]
    kept = units.to_leaves(
        jnp.array([True, False, True, True]), masks.ones_like(square), prunable={"w": True}
    )
    assert kept["w"].tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize(
    ("units", "params", "words"),
    [
        (granularity.n_m(2, 4), {"w": jnp.ones((6, 4))}, r"'w' of shape \(6, 4\) has 6 inputs"),
        (granularity.blocks(2, 3), {"w": jnp.ones((4, 4))}, "choose a divisor of 4"),
        (granularity.rows(), {"a": jnp.ones(4)}, "rows` needs the layout of 'a'"),
        (
            granularity.groups(HIDDEN),
            {"in": jnp.ones((2, 4)), "out": jnp.ones((3, 1))},
            "axis 1 of",
        ),
        (
            granularity.groups({"in": {0: np.array([0, -1])}}),
            {"in": jnp.ones((2, 2))},
            "assign every index",
        ),
        (granularity.groups(HIDDEN), {"in": jnp.ones((2, 3))}, "there is no such leaf"),
    ],
)
def test_leaves_that_do_not_fit_are_named(units, params, words):
    prunable = jax.tree.map(lambda _: True, params)
    with pytest.raises(ValueError, match=words):
        units.to_units(params, masks.ones_like(params), prunable=prunable)


def test_impossible_granularities_are_refused():
    with pytest.raises(ValueError, match="n:m is 5:4"):
        granularity.n_m(5, 4)
    with pytest.raises(ValueError, match="every group from 0 to 2"):
        granularity.groups({"w": {0: np.array([0, 2])}})
    for nothing in ({}, {"w": {}}):
        with pytest.raises(ValueError, match="`members` names no axis"):
            granularity.groups(nothing)
