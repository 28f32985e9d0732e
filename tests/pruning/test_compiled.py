"""Eager calls run one program: same masks, same errors, nothing stale, no data held."""

import gc
import weakref

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lth_jax as lth
from lth_jax.pruning import criteria, granularity, scopes
from lth_jax.pruning.compiled import compiled, shared

KEY = jax.random.key(0)
PARAMS = {"w": jax.random.normal(KEY, (6, 8)), "b": jnp.ones(8)}
OTHER = jax.tree.map(lambda p: -2 * p + 1, PARAMS)
PRUNABLE = {"w": True, "b": False}
ONES = {"w": jnp.ones((6, 8), bool), "b": jnp.ones(8, bool)}
X = jnp.arange(12.0).reshape(2, 6)


def magnitude_of(params, mask, **_):
    return jax.tree.map(jnp.abs, params)


def loss(params, x):
    return jnp.sum((x @ params["w"] + params["b"]) ** 2)


def kept(pruner, count, params=PARAMS, **inputs):
    return pruner(params, ONES, count, prunable=PRUNABLE, **inputs)


def test_many_calls_share_one_trace():
    # One trace is the program; the other checks the first count, which no later one exceeds.
    criterion = chex.assert_max_traces(magnitude_of, n=2)
    pruner = lth.prune(lambda *args, **_: criterion(*args), lth.globally())
    for count in (20, np.int32(12), jnp.int32(3)):
        for params in (PARAMS, OTHER):
            mask = kept(pruner, count, params)
            assert int(mask["w"].sum()) == count
            best = jax.lax.top_k(jnp.abs(params["w"]).ravel(), int(count))[0].min()
            np.testing.assert_array_equal(mask["w"], jnp.abs(params["w"]) >= best)


def test_rounds_share_one_trace():
    criterion = chex.assert_max_traces(magnitude_of, n=1)
    pruner = lth.prune(lambda *args, **_: criterion(*args), lth.globally())
    rounds = lth.iterate(pruner, jnp.array([20, 9]))
    for params in (PARAMS, OTHER):
        assert int(rounds(params, ONES, prunable=PRUNABLE)["w"].sum()) == 9


PARTS = {
    "globally": (lth.random(), lth.globally(3), granularity.rows()),
    "erk": (criteria.snip(loss), lth.erk(), granularity.weights),
    "n_m": (criteria.large_init(), lth.globally(), granularity.n_m(2, 3)),
}


@pytest.mark.parametrize("name", PARTS)
def test_masks_are_those_under_jit(name):
    criterion, scope, units = PARTS[name]
    layouts = {"w": lth.layouts.DENSE}
    count = scope.counts(PARAMS, 0.4, prunable=PRUNABLE)
    pruner = lth.prune(criterion, scope, units)
    inputs = {"key": KEY, "batches": [X], "initial": OTHER, "layouts": layouts}
    inside = jax.jit(lambda p: kept(pruner, count, p, **inputs))(PARAMS)
    chex.assert_trees_all_equal(inside, kept(pruner, count, **inputs))


def test_nothing_is_stale():
    pruner = lth.prune(criteria.saliency(loss), lth.globally())
    first, second = (kept(pruner, 9, batches=[x]) for x in (X, X[:, ::-1]))
    assert (first["w"] != second["w"]).any()
    drawn = lth.prune(lth.random(), lth.globally())
    masks = [kept(drawn, 9, key=jax.random.key(i)) for i in (0, 1)]
    assert (masks[0]["w"] != masks[1]["w"]).any()
    both = lth.magnitude()(PARAMS, ONES), lth.magnitude()(OTHER, ONES)
    assert (both[0]["w"] != both[1]["w"]).any()
    every = pruner(PARAMS, ONES, 50, prunable={"w": True, "b": True}, batches=[X])
    assert int(every["w"].sum() + every["b"].sum()) == 50


BAD = {
    "large": (49, PARAMS, ValueError, "`count` is 49, but it must lie between 0 and 48 weights"),
    "negative": (-1, PARAMS, ValueError, "`count` is -1, but it must lie between 0 and 48"),
    "fraction": (0.2, PARAMS, TypeError, "`count` is 0.2, but it must be a whole number of"),
    "array fraction": (jnp.float32(0.5), PARAMS, TypeError, "`count` is 0.5, but it must be a"),
    "boolean": (True, PARAMS, TypeError, "`count` is True, but it must be a whole number"),
    "NaN": (9, {**PARAMS, "w": PARAMS["w"].at[0, 0].set(jnp.nan)}, ValueError, "NaN or infinite"),
    "equal": (
        9,
        {**PARAMS, "w": jnp.ones((6, 8))},
        ValueError,
        "all equal at 'w'; they do not determine a mask",
    ),
    "integers": (9, {**PARAMS, "w": jnp.ones((6, 8), int)}, TypeError, "at 'w' has dtype int32"),
    "shape": (9, {**PARAMS, "w": jnp.ones((6, 9))}, ValueError, "`mask` at 'w' has shape"),
}


@pytest.mark.parametrize("name", BAD)
def test_errors_name_values_though_a_program_is_there(name):
    count, params, error, words = BAD[name]
    pruner = lth.prune(lth.magnitude(), lth.globally())
    kept(pruner, 48)
    with pytest.raises(error, match=words) as caught:
        kept(pruner, count, params)
    assert caught.value.__context__ is None  # no error of a trace before it


def test_the_types_of_static_arguments_matter():
    pruner = lth.prune(lth.magnitude(), lth.globally())
    kept(pruner, 9)
    with pytest.raises(TypeError, match="`prunable` must be a static tree of Python booleans"):
        pruner(PARAMS, ONES, 9, prunable={"w": 1, "b": 0})


def test_select_refuses_by_values():
    scope = lth.globally()
    scope.select(PARAMS, ONES, 9, prunable=PRUNABLE)
    with pytest.raises(ValueError, match="`count` is 99"):
        scope.select(PARAMS, ONES, 99, prunable=PRUNABLE)
    bad = {**PARAMS, "w": PARAMS["w"].at[1, 1].set(jnp.inf)}
    with pytest.raises(ValueError, match="`scores` at 'w' has entries that are NaN or infinite"):
        scope.select(bad, ONES, 9, prunable=PRUNABLE)


def test_edge_popup_refuses_by_values():
    def call(params, count=9):
        return lth.supermask.edge_popup(params, count, scope=lth.globally(), prunable=PRUNABLE)

    assert float(call(PARAMS)["w"].sum()) == 9
    with pytest.raises(ValueError, match="`scores` at 'w' has entries that are NaN or infinite"):
        call({**PARAMS, "w": PARAMS["w"].at[1, 1].set(jnp.inf)})
    with pytest.raises(ValueError, match="`edge_popup` gives scores that are all equal at 'w'"):
        call({**PARAMS, "w": jnp.ones((6, 8))})
    with pytest.raises(ValueError, match="`count` is 99"):
        call(PARAMS, 99)


@pytest.mark.parametrize("scope", ["by_group", "across_groups"])
def test_scopes_of_units_refuse_by_values(scope):
    params = {"v": jnp.ones((8, 1)), "w": jnp.ones((3, 8))}
    apply = lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"]  # noqa: E731
    found = lth.structure.find_groups(apply, params, jnp.ones((1, 3)))
    count = {"v:0": 3} if scope == "by_group" else 12
    select = getattr(lth.structure, scope)(found).select
    scores, live = jnp.arange(8.0), jnp.ones(8, bool)
    for _ in range(2):
        assert select(scores, live, count, prunable=True).tolist() == [False] * 5 + [True] * 3
    with pytest.raises(ValueError, match="`scores` at 'v:0' has entries that are NaN or infinite"):
        select(scores.at[2].set(jnp.nan), live, count, prunable=True)
    with pytest.raises(ValueError, match="`count` is 99"):
        select(scores, live, jax.tree.map(lambda _: 99, count), prunable=True)


def test_criteria_may_read_values():
    def on_the_host(params, mask, **_):
        if float(params["w"].sum()) > 1e6:
            raise ValueError("these weights are too large")
        return jax.tree.map(lambda p: jnp.asarray(np.abs(np.asarray(p))), params)

    pruner = lth.prune(on_the_host, lth.globally())
    wanted = kept(lth.prune(magnitude_of, lth.globally()), 9)
    chex.assert_trees_all_equal(kept(pruner, 9), wanted)
    with pytest.raises(ValueError, match="these weights are too large"):
        kept(pruner, 9, jax.tree.map(lambda p: 1e9 * jnp.abs(p), PARAMS))


def test_a_trace_takes_the_pruner_in():
    pruner = lth.prune(lth.magnitude(), lth.globally())
    # Concrete arguments under a trace too, beside tracers that the criterion closes over.
    scaled = jax.jit(
        lambda x: kept(
            lth.prune(lambda p, m, **_: jax.tree.map(lambda w: x * w, p), lth.globally()), 9
        )
    )
    wanted = kept(lth.prune(lambda p, m, **_: p, lth.globally()), 9)
    chex.assert_trees_all_equal(scaled(2.0), wanted)
    assert "with_info" not in str(jax.make_jaxpr(lambda p: kept(pruner, 9, p))(PARAMS))


def test_equal_library_parts_share_a_pruner_and_data_are_not_held():
    build = lambda: lth.prune(lth.magnitude(), lth.globally(0), granularity.rows())  # noqa: E731
    assert build() is build()
    assert lth.globally(1) is not lth.globally(1.0)

    class Data:
        weight = 2.0

    def used():
        data = Data()
        closing = lambda p, m, **_: jax.tree.map(lambda w: data.weight * w, p)  # noqa: E731
        kept(lth.prune(closing, lth.globally()), 9)
        return weakref.ref(data)

    alive = used()
    gc.collect()
    assert alive() is None


def test_unhashable_arguments_build_anew():
    assert shared(lambda layouts: object())({}) is not None
    criterion = criteria.lamp(layouts={"w": lth.layouts.DENSE})
    assert criterion(PARAMS, ONES)["w"].shape == (6, 8)


def test_what_cannot_be_an_argument_of_a_program_runs_as_it_is():
    f = compiled(lambda params, mask=None: (params, mask))
    assert f("text", mask=[1.5]) == ("text", [1.5])
    with pytest.raises(TypeError, match="positional argument"):
        f(jnp.ones(1), jnp.ones(1), jnp.ones(1))


def test_functions_of_masks_share_one_trace():
    f = chex.assert_max_traces(lambda mask: jax.tree.map(jnp.logical_not, mask), n=1)
    program = compiled(lambda mask: f(mask))
    for _ in range(3):
        program(ONES)


@pytest.mark.parametrize("scope", [scopes.globally(), scopes.layerwise()], ids=str)
def test_counts_may_grow_from_call_to_call(scope):
    pruner = lth.prune(lth.magnitude(), scope)
    for density in (0.1, 0.9, 0.5, 1.0):
        count = scope.counts(PARAMS, density, prunable=PRUNABLE)
        mask = kept(pruner, count)
        assert int(mask["w"].sum()) == int(jax.tree.leaves(count)[-1])
