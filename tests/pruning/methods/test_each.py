"""What single methods compute: their papers' equations, and identities with the library's parts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax import trees
from lth_jax.layouts import Layout
from lth_jax.pruning import masks, methods, schedules, scopes, supermask
from lth_jax.pruning.methods import Inputs
from lth_jax.pruning.methods._parts import cubic_count, events_in
from lth_jax.pruning.methods.alternating import Phases, phases
from lth_jax.pruning.transforms import Events
from tests.pruning.methods.problem import DENSITIES, PARAMS, PRUNABLE, count_of, results
from tests.thinning import thinned

DRAW = np.random.default_rng(0)
WEIGHTS = {"kernel": jnp.asarray(DRAW.normal(size=(8, 4)), jnp.float32), "bias": jnp.ones(4)}
GRADS = {"kernel": jnp.asarray(DRAW.normal(size=(8, 4)), jnp.float32), "bias": jnp.full(4, 0.5)}
USE = {"kernel": True, "bias": False}
ONES = masks.ones_like(WEIGHTS)
INPUTS = Inputs(ONES, jnp.int32(10), jax.random.key(0))


def one_update(method, inner, grads=GRADS, params=WEIGHTS, inputs=INPUTS):
    """The states before and after one update, and the parameters after it."""

    @jax.jit
    def program(inputs):
        tx = method.transform(inner, inputs)
        before = tx.init(params)
        updates, after = tx.update(grads, before, params)
        return before, after, optax.apply_updates(params, updates)

    return program(inputs)


def through(network, mask_scores):
    """The network of mask scores, and their gradient for `GRADS` at the network."""
    used, pull = jax.vjp(network, mask_scores)
    return used, pull(GRADS)


def allclose(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), a, b)


@pytest.mark.parametrize("events", [Events(1, 0, 7), Events(3, 2, 12), Events(5, 0, 30)])
def test_the_count_at_an_event_is_the_cubic_schedules(events):
    number = len(range(events.begin, events.end, events.every))
    schedule = schedules.cubic(number, 7 / 32)
    for i in range(number + 2):
        step = jnp.int32(events.begin + i * events.every)
        found = int(cubic_count(jnp.int32(7), WEIGHTS, USE, step, events))
        # Counts of the schedule may differ by one where a sum lies at a half.
        assert abs(found - 32 * schedule(i + 1)) < 0.5 + 1e-4
        assert i < number - 1 or found == 7


def test_counts_per_layer_of_a_stack_fall_layer_by_layer():
    params = {"w": jnp.zeros((2, 5, 4)), "b": jnp.zeros(3)}
    count, use = {"w": jnp.array([4, 12]), "b": jnp.int32(3)}, {"w": True, "b": False}
    first = cubic_count(count, params, use, jnp.int32(0), Events(1, 0, 2))
    assert first["w"].tolist() == [6, 13] and first["b"] == 3


def test_events_of_a_training():
    assert events_in(100_000, None) == Events(100, 100, 75_000)
    assert events_in(7, None) == Events(1, 1, 5)
    assert events_in(1, None) == Events(1, 0, 1)
    assert events_in(50, Events(10)) == Events(10, 0, 50)
    with pytest.raises(ValueError, match=r"`events` is .* none lies in the 50 steps"):
        events_in(50, Events(10, begin=50))
    with pytest.raises(ValueError, match="`steps` must be a whole number of at least 1, but is 0"):
        methods.gradual(prunable=USE, steps=0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rigl", {"fraction": 1.5}, "`fraction` must lie in"),
        ("sparse_evolution", {"fraction": 0.0}, "`fraction` must lie in"),
        ("straight_through", {"events": Events(0)}, "`every` must be at least 1, but is 0"),
        ("iterative_n_m", {"events": Events(-1)}, "`every` must be at least 1, but is -1"),
        ("iterative_n_m", {"n": 5}, "`n` must lie in"),
        ("movement", {"events": Events(0)}, "`every` must be at least 1, but is 0"),
        ("gradual", {"events": Events(begin=9)}, "none lies in the 9 steps"),
    ],
)
def test_bad_options_are_refused_when_the_method_is_built(name, options, message):
    with pytest.raises(ValueError, match=message):
        methods.METHODS[name](prunable=USE, scope=scopes.globally(), steps=9, **options)


def test_the_phases_of_the_paper():
    found = phases(100, 0.1, 0.05, 0.1, 0.15)
    assert found == Phases((10, 20, 30, 40, 50, 60, 70, 85), (15, 25, 35, 45, 55, 65, 75))
    for steps in (1, 2, 3, 5, 11, 40, 999):
        sparse, dense = phases(steps, 0.1, 0.05, 0.1, 0.15)
        assert sparse[-1] < steps and (not dense or dense[-1] < sparse[-1])
        assert not set(sparse) & set(dense)
    with pytest.raises(ValueError, match="leave time for a sparse phase between"):
        methods.alternating(prunable=USE, steps=100, warmup=0.5, last_dense=0.5)


def test_alternating_is_dense_and_sparse_in_turn():
    (_, (seen, _)), _ = results("alternating")
    counts = [int(count_of(density)) for density in DENSITIES]
    times = phases(40, 0.1, 0.05, 0.1, 0.15)
    kept = jax.vmap(jax.vmap(lambda m: masks.count_kept(m, PRUNABLE)))(seen)
    for member, count in enumerate(counts):
        now, wanted = trees.size(PARAMS) - 6 - 4 - 12, []
        full = now
        for step in range(40):
            now = count if step in times.sparse else full if step in times.dense else now
            wanted.append(now)
        assert kept[member].tolist() == wanted


def test_sparse_refined_gradients_decay_what_is_pruned():
    method = methods.iterative_n_m(prunable=USE, n=1, m=4, decay=0.1)
    before, after, params = one_update(method, optax.sgd(0.5))
    pruned = ~before.mask["kernel"]
    refined = GRADS["kernel"] + 0.1 * jnp.where(pruned, WEIGHTS["kernel"], 0)
    allclose(params["kernel"], WEIGHTS["kernel"] - 0.5 * refined)
    allclose(params["bias"], WEIGHTS["bias"] - 0.5 * GRADS["bias"])
    assert int(before.mask["kernel"].sum()) == 8  # one of four, though 10 may be kept
    for mask in (before.mask, after.mask):
        assert mask["kernel"].reshape(2, 4, 4).sum(1).max() == 1
    best = jnp.abs(params["kernel"]).reshape(2, 4, 4)
    assert bool((jnp.argmax(best, 1) == jnp.argmax(after.mask["kernel"].reshape(2, 4, 4), 1)).all())


def test_movement_scores_accumulate_and_pruned_weights_stay():
    options = {"score_optimizer": optax.sgd(0.5), "steps": 9, "events": Events(1, 0, 1)}
    method = methods.movement(prunable=USE, **options)
    _, after, params = one_update(method, optax.sgd(0.1))
    movement = -0.5 * GRADS["kernel"] * WEIGHTS["kernel"]
    allclose(after.scores["kernel"], movement)
    order = np.argsort(-np.asarray(movement).ravel())
    assert set(np.flatnonzero(after.mask["kernel"])) == set(order[:10])
    tx = method.transform(optax.sgd(0.1), INPUTS)
    updates, later = jax.jit(lambda s, p: tx.update(GRADS, s, p))(after, params)
    pruned = ~after.mask["kernel"]
    assert bool((updates["kernel"][pruned] == 0).all())
    assert bool((updates["kernel"][~pruned] != 0).all())
    assert bool((later.scores["kernel"] != after.scores["kernel"]).all())
    allclose(updates["bias"], -0.1 * GRADS["bias"])
    allclose(method.effective(params, after)["kernel"][pruned], 0)


def test_soft_thresholds_follow_the_gradient_of_the_shrinking():
    params = {"kernel": jnp.asarray(DRAW.normal(size=(2, 4, 3)), jnp.float32), "bias": jnp.ones(3)}
    grads = {"kernel": jnp.asarray(DRAW.normal(size=(2, 4, 3)), jnp.float32), "bias": jnp.ones(3)}
    layouts = {"kernel": Layout((1,), (2,), stacked=(0,))}
    method = methods.soft_threshold(prunable=USE, layouts=layouts, init=-1.0, decay=0.1)
    inputs = Inputs(masks.ones_like(params), jnp.int32(1), jax.random.key(0))
    before, after, moved = one_update(method, optax.sgd(0.5), grads, params, inputs)

    def shrunk(w, s):
        cut = jax.nn.sigmoid(s)[:, None, None]
        return jnp.where(jnp.abs(w) > cut, w - jnp.sign(w) * cut, 0)

    w, s = params["kernel"], jnp.full(2, -1.0)
    allclose(method.effective(params, before), {"kernel": shrunk(w, s), "bias": params["bias"]})
    to_w, to_s = jax.grad(lambda w, s: jnp.vdot(shrunk(w, s), grads["kernel"]), (0, 1))(w, s)
    allclose(after.scores["kernel"], s - 0.5 * (to_s + 0.1 * s))
    allclose(moved, {"kernel": w - 0.5 * to_w, "bias": params["bias"] - 0.5})
    weights, mask = method.final(moved, after)
    assert bool((mask["kernel"] == (weights["kernel"] != 0)).all()) and bool(mask["bias"].all())
    jax.tree.map(np.testing.assert_array_equal, mask, after.mask)
    assert 0 < int(mask["kernel"].sum()) < 24


@pytest.mark.parametrize("rescale", [pytest.param(False, marks=pytest.mark.slow), True])
def test_supermasks_follow_the_gradient_through_the_librarys_bernoulli(rescale):
    method = methods.supermask(prunable=USE, init=0.3, rescale=rescale)
    before, after, params = one_update(method, optax.sgd(0.5))
    key = jax.random.fold_in(INPUTS.key, 0)

    def network(scores):
        soft = supermask.bernoulli(key, scores, prunable=USE)
        if rescale:
            soft["kernel"] = supermask.rescale(soft)["kernel"]
        return supermask.effective(WEIGHTS, soft)

    used, (to_scores, *_) = jax.jit(through, static_argnums=0)(network, before.scores)
    allclose(method.effective(WEIGHTS, before), used)
    allclose(after.scores, jax.tree.map(lambda s, g: s - 0.5 * g, before.scores, to_scores))
    jax.tree.map(np.testing.assert_array_equal, params, WEIGHTS)  # no weight moves
    assert bool((before.mask["kernel"] != after.mask["kernel"]).any())  # drawn anew
    weights, mask = method.final(params, after)
    np.testing.assert_array_equal(mask["kernel"], after.scores["kernel"] > 0)
    kept = mask["kernel"]
    scale = 1 / np.mean(kept) if rescale else 1
    allclose(weights["kernel"], jnp.where(kept, scale * WEIGHTS["kernel"], 0))


def test_edge_popup_follows_the_gradient_of_the_librarys():
    method = methods.edge_popup(prunable=USE)
    before, after, params = one_update(method, optax.sgd(0.5))

    def network(scores):
        soft = supermask.edge_popup(scores, INPUTS.count, scope=scopes.globally(), prunable=USE)
        return supermask.effective(WEIGHTS, soft)

    drawn = supermask.init_scores(INPUTS.key, WEIGHTS, prunable=USE)
    allclose(before.scores, drawn)
    used, (to_scores, *_) = jax.jit(through, static_argnums=0)(network, drawn)
    allclose(method.effective(WEIGHTS, before), used)
    allclose(after.scores, jax.tree.map(lambda s, g: s - 0.5 * g, drawn, to_scores))
    jax.tree.map(np.testing.assert_array_equal, params, WEIGHTS)


@pytest.mark.parametrize(
    "name", thinned(["gradual", "movement", "edge_popup", "straight_through"], 4)
)
def test_scores_that_cannot_decide_keep_the_mask_and_are_counted(name):
    """Weights and gradients that are not finite, and those that are all equal."""
    method = methods.METHODS[name](prunable=USE, scope=scopes.globally(), steps=1)
    bad = {"kernel": jnp.full((8, 4), jnp.nan), "bias": jnp.ones(4)}
    params = bad if name in ("gradual", "straight_through") else WEIGHTS
    before, after, _ = one_update(method, optax.sgd(0.1), bad, params)
    assert int(after.undecided) == 1  # straight-through's from `init` on
    np.testing.assert_array_equal(after.mask["kernel"], before.mask["kernel"])
