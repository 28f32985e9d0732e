"""Scores that cannot decide are found for every criterion, and no mask is made by position."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lth_jax as lth
from lth_jax import trees
from lth_jax.pruning import criteria, masks, scopes
from lth_jax.pruning.iterative import iterate
from lth_jax.pruning.prune import prune
from lth_jax.pruning.scores import is_bad
from tests.thinning import thinned

PARAMS = {"a": {"w": np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)}}
PARAMS["b"] = {"w": np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)}
PARAMS = jax.tree.map(jnp.asarray, PARAMS)
INITIAL = jax.tree.map(lambda w: 0.5 * jnp.roll(w, 1) - w, PARAMS)
PRUNABLE, ONES = {"a": {"w": True}, "b": {"w": True}}, masks.ones_like(PARAMS)
BATCHES = [jnp.asarray(np.random.default_rng(2).normal(size=(5, 4)), jnp.float32)]
COUNT = jnp.int32(20)


def network(params, x):
    return jax.nn.relu(x @ params["a"]["w"]) @ params["b"]["w"]


def loss(params, x):
    return jnp.mean(jnp.square(network(params, x)))


def inputs(params, x):
    hidden = jax.nn.relu(x @ params["a"]["w"])
    sums = {"a/w": (x, params["a"]["w"]), "b/w": (hidden, params["b"]["w"])}
    return {n: jnp.square(h).sum(0)[:, None] * jnp.ones_like(w) for n, (h, w) in sums.items()}


MADE = {
    "by_group": lambda: criteria.by_group(criteria.saliency(loss), (1.0,)),
    "movement_pruning": lambda: (
        lambda params, mask, **_: criteria.movement_pruning(params)(params, mask)
    ),
    "synflow": lambda: criteria.synflow(network, jnp.ones((1, 4))),
    **{
        name: functools.partial(getattr(criteria, name), loss)
        for name in ("saliency", "snip", "grasp", "fisher", "obd")
    },
    **{
        name: functools.partial(getattr(criteria, name), inputs)
        for name in ("wanda", "activation_norms")
    },
}
NOT_CRITERIA = {
    "CRITERIA",
    "Criterion",
    "MovementState",
    "linen_inputs",
    "nnx_inputs",
    "squared_inputs",
    "track_movement",
}
NAMES = sorted(set(criteria.__all__) - NOT_CRITERIA)
BLIND = {"random"}  # does not read the weights


def made(name):
    return MADE.get(name, getattr(criteria, name))()


def run(name, params, how, initial=INITIAL):
    pruner = prune(made(name), scopes.globally())

    def one(params, initial):
        given = {"key": jax.random.key(0), "batches": BATCHES, "initial": initial}
        return pruner.with_info(params, ONES, COUNT, prunable=PRUNABLE, **given)

    if how == "eager":
        return one(params, initial)
    if how == "jit":
        return jax.jit(one)(params, initial)
    both = trees.stack([(params, initial), (PARAMS, INITIAL)])
    mask, info = jax.jit(jax.vmap(one))(*both)
    assert not bool(jax.vmap(is_bad)(info)[1])  # the other member is pruned as if alone
    assert int(lth.count_kept(jax.tree.map(lambda m: m[1], mask), PRUNABLE)) == 20
    return jax.tree.map(lambda leaf: leaf[0], (mask, info))


SEEING = [n for n in NAMES if n not in BLIND]
CASES = [
    (name, value, how)
    for name in SEEING
    for value in (np.nan, np.inf)
    for how in ("jit", "vmap", "eager")
]


@pytest.mark.parametrize(("name", "value", "how"), thinned(CASES, 7, slow=3))
def test_a_weight_that_is_no_number_decides_nothing(name, value, how):
    wild = jax.tree.map(lambda w: w, PARAMS)
    wild["a"]["w"] = wild["a"]["w"].at[0, 0].set(value)
    initial = wild if "init" in name and "final" not in name else INITIAL
    if name in ("large_init", "small_init"):
        initial = wild
    mask, info = run(name, wild, how, initial)
    if bool(is_bad(info)):
        jax.tree.map(np.testing.assert_array_equal, mask, ONES)
    else:  # the criterion orders this weight: its scores are finite
        assert int(lth.count_kept(mask, PRUNABLE)) == 20
        assert not info["nonfinite"].any()


@pytest.mark.parametrize(
    ("name", "how"),
    thinned([(name, how) for name in SEEING for how in ("jit", "eager")], 5, slow=3),
)
def test_scores_that_are_all_equal_decide_nothing(name, how):
    rest = jax.tree.map(jnp.zeros_like, PARAMS)
    pruner = prune(made(name), scopes.layerwise())
    given = {"key": jax.random.key(0), "batches": [jnp.zeros((5, 4))], "initial": rest}
    count = {"a": {"w": jnp.int32(3)}, "b": {"w": jnp.int32(18)}}

    def one(params):
        return pruner.with_info(params, ONES, count, prunable=PRUNABLE, **given)

    mask, info = (jax.jit(one) if how == "jit" else one)(rest)
    if name == "lamp":  # ranks equal weights by their place: the paper's definition
        return
    assert info["undecided"].tolist() == [True, False]  # the second leaf keeps all
    jax.tree.map(np.testing.assert_array_equal, mask, ONES)
    with pytest.raises(ValueError, match="all equal at 'a/w'; they do not determine a mask"):
        pruner(rest, ONES, count, prunable=PRUNABLE, **given)


@pytest.mark.parametrize(
    ("name", "dtype"),
    thinned([(name, dtype) for name in NAMES for dtype in (jnp.float16, jnp.bfloat16)], 3, slow=3),
)
def test_half_precision_ranks_as_float32_does(name, dtype):
    # Rounded first, so that both see the same weights; activations of 300 overflow float16 squared.
    half = jax.tree.map(lambda w: w.astype(dtype), PARAMS)
    initial = jax.tree.map(lambda w: w.astype(dtype), INITIAL)
    wide, wide_initial = (jax.tree.map(lambda w: w.astype(jnp.float32), t) for t in (half, initial))
    batch = (300 * BATCHES[0]).astype(dtype)

    def scores(params, initial, batch):
        given = {"key": jax.random.key(0), "batches": [batch], "initial": initial}
        return made(name)(params, ONES, **given)

    found = jax.jit(scores)(half, initial, batch)
    expected = jax.jit(scores)(wide, wide_initial, batch.astype(jnp.float32))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=1e-5)
        assert np.isfinite(a).all()


def test_an_eager_call_names_criterion_and_leaf():
    wild = {**PARAMS, "b": {"w": PARAMS["b"]["w"].at[1].set(jnp.inf)}}
    pruner = prune(criteria.magnitude(), scopes.globally())
    with pytest.raises(ValueError, match=r"`magnitude` gives .* NaN or infinite at 'b/w';"):
        pruner(wild, ONES, COUNT, prunable=PRUNABLE)
    dead = {**ONES, "b": {"w": ONES["b"]["w"].at[1].set(False)}}
    mask = pruner(wild, dead, COUNT, prunable=PRUNABLE)  # what is pruned has no say
    assert int(lth.count_kept(mask, PRUNABLE)) == 20


def test_units_whose_sums_overflow_are_counted():
    big = jax.tree.map(lambda w: jnp.abs(w) * 1e38, PARAMS)
    pruner = prune(criteria.magnitude(), scopes.globally(), lth.granularity.columns())
    _, info = jax.jit(lambda p: pruner.with_info(p, ONES, COUNT, prunable=PRUNABLE))(big)
    assert info["nonfinite"].tolist() == [0, 0]
    assert info["nonfinite_units"].sum() > 0


def test_rounds_add_up_what_they_find():
    wild = {**PARAMS, "a": {"w": PARAMS["a"]["w"].at[0, 0].set(jnp.nan)}}
    rounds = iterate(prune(criteria.magnitude(), scopes.globally()), jnp.array([30, 20]))
    mask, info = jax.jit(lambda p: rounds.with_info(p, ONES, prunable=PRUNABLE))(wild)
    assert info["nonfinite"].tolist() == [2, 0]
    jax.tree.map(np.testing.assert_array_equal, mask, ONES)
    with pytest.raises(ValueError, match="`magnitude` gives scores that are NaN"):
        rounds(wild, ONES, prunable=PRUNABLE)


def test_edge_popup_does_not_choose_by_position():
    flat = {"w": jnp.ones(6)}
    popup = functools.partial(
        lth.supermask.edge_popup, scope=scopes.globally(), prunable={"w": True}
    )
    assert np.isnan(jax.jit(lambda s: popup(s, jnp.int32(3)))(flat)["w"]).all()
    with pytest.raises(ValueError, match="`edge_popup` gives scores that are all equal at 'w'"):
        popup(flat, jnp.int32(3))
