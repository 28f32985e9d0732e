"""How many units are kept: densities of weights, multiples, and no group emptied."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as s

from lth_jax import structure as st
from lth_jax.pruning import masks
from lth_jax.pruning.granularity import l2
from lth_jax.pruning.prune import prune

SHAPES = {"a": (3, 16), "b": (16, 12), "c": (12, 2)}
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
SIZE = sum(np.prod(shape) for shape in SHAPES.values())


def apply(p, x):
    return jax.nn.relu(jax.nn.relu(x @ p["a"]) @ p["b"]) @ p["c"]


@functools.cache
def structure():
    params = {k: jax.ShapeDtypeStruct(shape, jnp.float32) for k, shape in SHAPES.items()}
    return st.find_groups(apply, params, jnp.ones((1, 3)))


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    params = {k: jnp.asarray(rng.normal(size=shape), "float32") for k, shape in SHAPES.items()}
    return structure(), params


def squares(params, mask, **_):
    return jax.tree.map(jnp.square, params)


@functools.cache
def pruner_of(make, multiple=1, reduction=jnp.sum):
    """A scope, and a compiled `(params, mask, count) -> (mask, units)`."""
    found = structure()
    scope = make(found, multiple=multiple)
    pruner = prune(squares, scope, st.granularity(found, reduction))

    def run(params, mask, count):
        new = pruner(params, mask, count, prunable=st.prunable(found))
        return new, st.units_of(found, new)

    return scope, jax.jit(run, compiler_options=QUICK)


def pruned(case, make, density, params=None, **options):
    """The mask and the unit mask that a pruner of units makes."""
    found, own = case
    scope, run = pruner_of(make, **options)
    count = scope.counts(own, density, prunable=st.prunable(found))
    return run(own if params is None else params, masks.ones_like(own), count)


def kept(units):
    return {name: int(flags.sum()) for name, flags in units.items()}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(s.integers(1, 16), s.integers(1, 12), s.integers(0, 99))
def test_kept_weights_are_those_of_the_mask(case, n, m, seed):
    found, _ = case
    rng = np.random.default_rng(seed)
    units = {"a:1": rng.permutation(16) < n, "b:1": rng.permutation(12) < m}
    mask = st.expand(found, units)
    for prunable in ({"a": True, "b": True, "c": True}, {"a": False, "b": True, "c": False}):
        count = masks.count_kept(mask, prunable)
        assert st.kept_weights(found, {"a:1": n, "b:1": m}, prunable) == count


def test_a_group_twice_in_a_leaf_is_counted_on_both_axes():
    def recurrent(p, x):
        return jnp.tanh(jnp.tanh(x @ p["in"]) @ p["w"] + x @ p["in"]) @ p["out"]

    params = {"in": jnp.ones((3, 6)), "w": jnp.ones((6, 6)), "out": jnp.ones((6, 2))}
    found = st.find_groups(recurrent, params, jnp.ones((1, 3)))
    counts = {found.groups[0].name: 4}
    assert st.kept_weights(found, counts, dict.fromkeys(params, True)) == 3 * 4 + 4 * 4 + 4 * 2


def test_unit_counts_are_multiples_and_never_none(case):
    found, _ = case
    assert st.unit_counts(found, 0.5) == {"a:1": 8, "b:1": 6}
    assert st.unit_counts(found, 0.01) == {"a:1": 1, "b:1": 1}
    assert st.unit_counts(found, 0.5, multiple=4) == {"a:1": 8, "b:1": 8}
    assert st.unit_counts(found, 0.9, multiple=8) == {"a:1": 16, "b:1": 8}
    assert st.unit_counts(found, {"b:1": 0.5}) == {"a:1": 16, "b:1": 6}


@pytest.mark.parametrize("make", [st.by_group, st.across_groups])
@pytest.mark.parametrize("multiple", [1, 4])
def test_a_density_of_weights_is_met_from_below(case, make, multiple):
    found, _ = case
    prunable, last = st.prunable(found), 0
    for density in (0.02, 0.2, 0.5, 0.8, 1.0):
        mask, units = pruned(case, make, density, multiple=multiple)
        weights = int(masks.count_kept(mask, prunable))
        least = st.kept_weights(found, dict.fromkeys(units, multiple), prunable)
        assert weights <= max(density * SIZE, least) and weights >= last
        assert all(n % multiple == 0 and n > 0 for n in kept(units).values())
        last = weights
    assert last == SIZE


def test_the_next_step_would_be_too_much(case):
    found, _ = case
    _, units = pruned(case, st.across_groups, 0.5)
    for name, n in kept(units).items():
        more = kept(units) | {name: n + 1}
        wider = st.kept_weights(found, more, st.prunable(found))
        assert wider > 0.5 * SIZE or n == found[name].units


def test_per_group_the_best_units_stay(case):
    found, params = case
    scores = st.score_units(found, jax.tree.map(jnp.square, params))
    _, units = pruned(case, st.by_group, {"a:1": 0.25, "b:1": 0.5})
    assert kept(units) == {"a:1": 4, "b:1": 6}
    for name, n in kept(units).items():
        assert set(np.flatnonzero(units[name])) == set(np.argsort(-scores[name])[:n])


def test_across_groups_the_stronger_group_keeps_more(case):
    _, params = case
    louder = params | {"c": 100 * params["c"]}  # the second group's outgoing weights
    counts = [kept(pruned(case, st.across_groups, 0.3, p)[1]) for p in (params, louder)]
    assert counts[1]["b:1"] > counts[0]["b:1"] and counts[1]["a:1"] < counts[0]["a:1"]
    assert counts[1]["a:1"] >= 1


@pytest.mark.parametrize("reduction", [jnp.mean, jnp.max, l2])
def test_reductions_rank_units_by_their_slices(case, reduction):
    _, params = case
    _, units = pruned(case, st.by_group, {"a:1": 0.25}, reduction=reduction)
    into, out = jnp.square(params["a"]), jnp.square(params["b"])
    scores = reduction(into, axis=(0,), keepdims=False) + reduction(out, axis=(1,), keepdims=False)
    assert set(np.flatnonzero(units["a:1"])) == set(np.argsort(-scores)[:4])


@pytest.mark.parametrize("make", [st.by_group, st.across_groups])
def test_what_is_pruned_stays_pruned_for_every_member_of_a_population(case, make):
    found, params = case
    scope, run = pruner_of(make)
    counts = [scope.counts(params, d, prunable=st.prunable(found)) for d in (0.5, 0.2)]
    population = jax.tree.map(lambda p: jnp.stack([p, p[::-1], -p]), params)
    every = jax.vmap(run, in_axes=(0, 0, None))
    first, _ = every(population, masks.ones_like(population), counts[0])
    second, _ = every(jax.tree.map(jnp.flip, population), first, counts[1])
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert (a | ~b).all() and (a != b).any()


def test_structured_tickets_compact_to_the_masked_network(case):
    found, params = case
    mask, units = pruned(case, st.across_groups, 0.4)
    small, compact = st.compact(found, params, jax.tree.map(np.asarray, units))
    x = jnp.ones((1, 3))
    masked = jax.tree.map(jnp.multiply, mask, params)
    np.testing.assert_allclose(compact(small, x), apply(masked, x), atol=1e-5)


def test_strict_promotion_holds(case):
    with jax.numpy_dtype_promotion("strict"):
        pruned(case, st.by_group, 0.5, multiple=4)
        pruned(case, st.across_groups, 0.5, multiple=4)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda f: st.unit_counts(f, 0.0), r"`fraction` at 'a:1' must be in \(0, 1\]"),
        (lambda f: st.unit_counts(f, 0.5, multiple=0), "`multiple` must be at least 1"),
        (lambda f: st.unit_counts(f, {"z": 0.5}), "`fraction` names 'z'"),
        (lambda f: st.by_group(f, multiple=0), "`multiple` must be at least 1"),
        (lambda f: st.across_groups(f, multiple=-1), "`multiple` must be at least 1"),
        (lambda f: st.by_group(f).counts(f.params, 1.5, prunable=st.prunable(f)), "`density`"),
        (lambda f: f.only("z*"), r"`patterns` has 'z\*', which matches no group"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_a_sentence(case, call, match):
    with pytest.raises(ValueError, match=match):
        call(case[0])


def test_only_some_groups_may_lose_units(case):
    found, params = case
    some = found.only("b:*")
    assert [g.name for g in some.groups] == ["b:1"]
    assert st.prunable(some) == {"a": False, "b": True, "c": True}
    small, compact = st.compact(some, params, {"b:1": np.arange(12) < 5})
    assert {k: v.shape for k, v in small.items()} == {"a": (3, 16), "b": (16, 5), "c": (5, 2)}
    masked = params | {"b": params["b"].at[:, 5:].set(0)}
    x = jnp.ones((2, 3))
    np.testing.assert_allclose(compact(small, x), apply(masked, x), rtol=1e-5)
    with pytest.raises(ValueError, match="not groups"):
        st.compact(some, params, {"a:1": np.arange(16) < 5})
