"""Scopes: exact counts on the host, exact selections anywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import layouts, trees
from lth_jax.pruning import masks, scopes

PARAMS = {
    "conv": {"kernel": jax.random.normal(jax.random.key(0), (3, 3, 4, 8)), "bias": jnp.zeros(8)},
    "hidden": {"kernel": 0.01 * jax.random.normal(jax.random.key(1), (32, 50))},
    "out": {"kernel": 9.0 * jax.random.normal(jax.random.key(2), (50, 10))},
}
PRUNABLE = masks.prunable_leaves(PARAMS)
LAYOUTS = {"conv/kernel": layouts.conv(2)}
ONES = masks.ones_like(PARAMS)
SCORES = jax.tree.map(jnp.abs, PARAMS)
TOTAL = 3 * 3 * 4 * 8 + 32 * 50 + 50 * 10
SELECT = {
    "globally": scopes.globally(),
    "globally, 5 at least": scopes.globally(minimum=5),
    "globally, 0.01 at least": scopes.globally(minimum=0.01),
    "layerwise": scopes.layerwise(),
    "erk": scopes.erk(),
}


def kept(mask):
    return int(masks.count_kept(mask, PRUNABLE))


def contained(small, large):
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a <= b).all()), small, large)))


@pytest.mark.parametrize("name", SELECT)
def test_levels_are_exact_nested_and_the_same_under_vmap(name):
    scope = SELECT[name]
    counts = [
        scope.counts(PARAMS, 0.5**level, prunable=PRUNABLE, layouts=LAYOUTS)
        for level in range(1, 5)
    ]

    @jax.jit
    @jax.vmap
    def select(count):
        return scope.select(SCORES, ONES, count, prunable=PRUNABLE)

    levels = trees.unstack(select(trees.stack(counts)))
    for count, level in zip(counts, levels, strict=True):
        per_leaf = isinstance(count, dict)
        want = sum(count[k]["kernel"] for k in PARAMS) if per_leaf else count
        assert kept(level) == want
        assert bool(level["conv"]["bias"].all())
    for small, large in zip(levels[1:], levels[:-1], strict=True):
        assert contained(small, large)


def test_a_global_scope_collapses_a_layer_only_without_a_minimum():
    bare, guarded = scopes.globally(), scopes.globally(minimum=3)
    count = bare.counts(PARAMS, 0.2, prunable=PRUNABLE)
    pick = jax.jit(
        lambda count: [s.select(SCORES, ONES, count, prunable=PRUNABLE) for s in (bare, guarded)]
    )
    without, with_minimum = pick(count)
    assert masks.collapsed(without, PRUNABLE) == ["hidden/kernel"]
    assert masks.collapsed(with_minimum, PRUNABLE) == []
    assert int(with_minimum["hidden"]["kernel"].sum()) == 3
    assert kept(without) == kept(with_minimum) == count


def test_a_minimum_that_the_count_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r"`minimum` of 9 in each of 3 layers needs 27"):
        scopes.globally(minimum=9).counts(PARAMS, 0.01, prunable=PRUNABLE)
    with pytest.raises(ValueError, match="`minimum` must be"):
        scopes.globally(minimum=-1)


def test_pruned_weights_stay_pruned_when_too_few_are_left():
    mask = {**ONES, "hidden": {"kernel": jnp.zeros((32, 50), bool)}}
    count = scopes.globally().counts(PARAMS, 1.0, prunable=PRUNABLE)
    new = jax.jit(lambda mask: scopes.globally().select(SCORES, mask, count, prunable=PRUNABLE))(
        mask
    )
    assert contained(new, mask) and contained(mask, new)


def test_counts_round_half_up_and_never_to_zero():
    params = {"w": jnp.zeros((5, 1)), "v": jnp.zeros((3, 1))}
    prunable = {"w": True, "v": True}
    counts = scopes.layerwise().counts(params, 0.5, prunable=prunable)
    assert counts == {"w": 3, "v": 2}
    assert scopes.layerwise().counts(params, 1e-9, prunable=prunable) == {"w": 1, "v": 1}
    assert scopes.globally().counts(params, 1e-9, prunable=prunable) == 1
    assert counts["w"].dtype == np.int32


def test_a_third_of_25_million_is_not_off_by_one():
    params = {"w": jax.ShapeDtypeStruct((25_000_000, 1), jnp.float32)}
    count = scopes.globally().counts(params, 1 / 3, prunable={"w": True})
    assert count == 8_333_333


def test_frankle_and_carbins_densities_of_lenet():
    """20 % per level, 10 % in the output layer: (265200·0.8ⁿ + 1000·0.9ⁿ)/266200."""
    shapes = {"0": (784, 300), "1": (300, 100), "out": (100, 10)}
    params = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in shapes.items()}
    prunable = {k: True for k in shapes}
    for level, percent in [(3, 51.3), (7, 21.1), (9, 13.5), (15, 3.6), (18, 1.9)]:
        density = scopes.per_leaf(params, 0.8**level, {"out": 0.9**level})
        count = scopes.layerwise().counts(params, density, prunable=prunable)
        assert round(100 * sum(jax.tree.leaves(count)) / 266200, 1) == percent


@pytest.mark.parametrize("density", [0.003, 0.05, 0.2, 0.5, 0.9, 1.0])
def test_erk_sums_to_the_asked_density(density):
    count = scopes.erk().counts(PARAMS, density, prunable=PRUNABLE, layouts=LAYOUTS)
    leaves = zip(*map(jax.tree.leaves, (count, PARAMS, PRUNABLE)), strict=True)
    pairs = [(int(k), leaf.size) for k, leaf, use in leaves if use]
    assert sum(k for k, _ in pairs) == int(density * TOTAL + 0.5)
    assert all(1 <= k <= size for k, size in pairs)
    assert count["conv"]["bias"] == 8


def test_erk_is_proportional_to_the_perimeter_where_nothing_is_full():
    count = scopes.erk().counts(PARAMS, 0.05, prunable=PRUNABLE, layouts=LAYOUTS)
    shares = np.array([count[k]["kernel"] for k in ("conv", "hidden", "out")], float)
    perimeters = np.array([3 + 3 + 4 + 8, 32 + 50, 50 + 10], float)
    wanted = perimeters / perimeters.sum() * shares.sum()
    assert np.abs(shares - wanted).max() <= 1


def test_erk_keeps_something_everywhere():
    params = {"a": jnp.zeros((1000, 1000)), "b": jnp.zeros((2, 1)), "c": jnp.zeros((2, 1))}
    count = scopes.erk().counts(params, 4e-6, prunable={k: True for k in params})
    assert sum(count.values()) == 4 and min(count.values()) == 1


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s: s.counts(PARAMS, 1.5, prunable=PRUNABLE), ValueError, "`density` must lie in"),
        (lambda s: s.counts(PARAMS, 0.0, prunable=PRUNABLE), ValueError, "`density` must lie in"),
        (
            lambda s: s.counts(PARAMS, float("nan"), prunable=PRUNABLE),
            ValueError,
            "`density` must lie in",
        ),
        (lambda s: s.counts(PARAMS, "half", prunable=PRUNABLE), TypeError, "`density` must be a"),
        (
            lambda s: s.select({"w": 0}, ONES, 3, prunable=PRUNABLE),
            ValueError,
            "`scores` must have the structure",
        ),
        (
            lambda s: s.select(
                jax.tree.map(lambda p: p * jnp.nan, PARAMS), ONES, 3, prunable=PRUNABLE
            ),
            ValueError,
            "`scores` at 'conv/kernel' has entries that are NaN or infinite",
        ),
        (
            lambda s: s.select(ONES, ONES, 3, prunable=PRUNABLE),
            TypeError,
            "`scores` at 'conv/bias' has dtype bool",
        ),
        (
            lambda s: s.select(SCORES, ONES, ONES, prunable=PRUNABLE),
            ValueError,
            "`count` must be one",
        ),
        (
            lambda s: scopes.layerwise().select(SCORES, ONES, 3, prunable=PRUNABLE),
            ValueError,
            "`count` must be a tree",
        ),
        (
            lambda s: scopes.erk().counts(PARAMS, 1e-4, prunable=PRUNABLE, layouts=LAYOUTS),
            ValueError,
            "fewer than the 3 prunable layers",
        ),
        (lambda s: scopes.per_leaf(PARAMS, 0.5, {"outt/*": 0.9}), ValueError, "fits no leaf"),
        (
            lambda s: s.counts(
                {"w": jax.ShapeDtypeStruct((2**16, 2**15), jnp.float32)}, 0.5, prunable={"w": True}
            ),
            ValueError,
            "2147483648 prunable weights",
        ),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call(scopes.globally())
