"""Sparse training: masked means masked, events are exact, rare, and each member's own."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax import trees
from lth_jax.pruning import masks, schedules, scopes, transforms
from lth_jax.pruning.events import when
from lth_jax.pruning.prune import prune
from lth_jax.pruning.transforms import Events

PARAMS = {"w": jax.random.normal(jax.random.key(0), (6, 8)), "b": jnp.ones(8)}
PRUNABLE = masks.prunable_leaves(PARAMS)
ONES = masks.ones_like(PARAMS)
MASK = {"w": jax.random.bernoulli(jax.random.key(1), 0.4, (6, 8)), "b": ONES["b"]}
SCOPE = scopes.globally()
PRUNER = prune(lambda params, mask, **_: jax.tree.map(jnp.abs, params), SCOPE)
clipped = lambda inner: optax.chain(optax.clip_by_global_norm(0.5), inner)  # noqa: E731
PER_WEIGHT = {
    "sgd": optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1)),
    "momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.1),
    "adamw": optax.adamw(0.1, weight_decay=0.1),
    "lion": optax.lion(0.1, weight_decay=0.1),
    "rmsprop": optax.rmsprop(0.1, momentum=0.9, centered=True),
    "lamb": optax.lamb(0.1, weight_decay=0.1),
}
OTHERS = {
    "adagrad": optax.adagrad(0.1),
    "adafactor": optax.adafactor(0.1),
    "noisy": optax.noisy_sgd(0.1, key=0),
}


def grads_of(params, step):
    """Dense gradients that differ at every step."""
    target = jax.tree.map(
        lambda p: jnp.sin(step + jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params
    )
    return jax.tree.map(lambda p, t: p - t, params, target)


def run(tx, params, steps, **extra):
    """The parameters and states after each step."""

    def step(carry, i):
        params, state = carry
        updates, state = tx.update(grads_of(params, i), state, params, **extra)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state)

    return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(steps))[1]


def pruned_are_zero(mask, tree):
    shaped = [leaf for leaf in jax.tree.leaves(tree) if jnp.shape(leaf)[-2:] == mask["w"].shape]
    return len(shaped), all(bool((leaf[..., ~mask["w"]] == 0).all()) for leaf in shaped)


@pytest.mark.parametrize("name", [*PER_WEIGHT, *OTHERS])
def test_masked_means_masked(name):
    inner = clipped(PER_WEIGHT.get(name, OTHERS.get(name)))
    start = masks.apply_mask(MASK, PARAMS)
    params, state = jax.jit(lambda p: run(transforms.masked(inner), p, 4, mask=MASK))(start)
    assert pruned_are_zero(MASK, params) == (1, True)
    moved = (params["w"][-1] != start["w"])[MASK["w"]]
    assert bool(moved.all())
    if name in PER_WEIGHT:
        slots, zero = pruned_are_zero(MASK, state)
        assert zero and (slots > 0 or name == "sgd")


def test_clipping_sees_the_subnetworks_gradient():
    tx = transforms.masked(optax.clip_by_global_norm(1.0))
    grads = jax.tree.map(lambda p: jnp.full(p.shape, 7.0), PARAMS)
    start = masks.apply_mask(MASK, PARAMS)
    updates, _ = jax.jit(tx.update)(grads, tx.init(start), start, mask=MASK)
    assert optax.global_norm(updates) == pytest.approx(1.0, rel=1e-6)


def test_density_one_is_the_plain_optimizer():
    inner = clipped(optax.adamw(0.1))
    masked, plain = jax.jit(
        lambda p: (run(transforms.masked(inner), p, 3, mask=ONES)[0], run(inner, p, 3)[0])
    )(PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), masked, plain)


def test_a_missing_or_ill_fitting_mask_is_named():
    tx = transforms.masked(optax.sgd(0.1))
    with pytest.raises(TypeError, match="mask"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match="`mask` must have the structure"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, mask={"w": MASK["w"]})
    with pytest.raises(ValueError, match="`params` must be given"):
        owner = transforms.static_sparse(optax.sgd(0.1), lambda params: MASK)
        owner.update(PARAMS, owner.init(PARAMS))
    with pytest.raises(ValueError, match="holds no mask"):
        transforms.effective_params(PARAMS, optax.adam(0.1).init(PARAMS))


def owning(name):
    """A transformation of each kind over Adam, its events every 3 steps."""
    start = lambda params: MASK  # noqa: E731
    counts = trees.stack(
        [SCOPE.counts(PARAMS, schedules.cubic(3, 0.25)(i), prunable=PRUNABLE) for i in (1, 2, 3)]
    )
    events = Events(every=3, begin=2, end=9)
    adam = optax.adam(0.1)
    return {
        "static": lambda key: transforms.static_sparse(adam, start),
        "gradual": lambda key: transforms.gradual(adam, PRUNER, counts, events, prunable=PRUNABLE),
        "set": lambda key: transforms.sparse_evolution(
            adam, start, events, key=key, prunable=PRUNABLE
        ),
        "rigl": lambda key: transforms.rigl(adam, start, events, prunable=PRUNABLE),
    }[name]


@pytest.mark.parametrize("name", ["static", "gradual", "set", "rigl"])
def test_what_is_pruned_is_zero_after_every_step_and_masks_change_at_events_only(name):
    tx = owning(name)(jax.random.key(3))
    params, states = jax.jit(lambda p: run(tx, p, 12))(PARAMS)
    history = np.asarray(optax.tree.get(states, "mask")["w"])
    pruned = ~history
    assert (np.asarray(params["w"])[pruned] == 0).all()
    for slots in (optax.tree.get(states, "mu"), optax.tree.get(states, "nu")):
        assert (np.asarray(slots["w"])[pruned] == 0).all()
    changed = [i for i in range(1, 12) if (history[i] != history[i - 1]).any()]
    assert set(changed) <= {2, 5, 8}  # RigL may grow again just what it dropped
    assert (2 in changed) == (name != "static")
    kept = history.sum((1, 2)).tolist()
    if name == "gradual":
        sizes = [48 * schedules.cubic(3, 0.25)(i) for i in range(4)]
        want = [int(np.floor(s + 0.5)) for s in sizes]
        assert [kept[0], kept[2], kept[5], kept[8]] == want
        assert (history[1:] <= history[:-1]).all()
    else:
        assert set(kept) == {int(MASK["w"].sum())}


@pytest.mark.parametrize("name", ["set", "rigl"])
@pytest.mark.slow
def test_members_agree_with_single_runs_and_see_their_own_key(name):
    members = trees.stack([PARAMS, jax.tree.map(lambda p: 2 * p, PARAMS), PARAMS])
    keys = jax.random.split(jax.random.key(7), 3)
    one = jax.jit(lambda params, key: run(owning(name)(key), params, 6))
    together, states = jax.jit(jax.vmap(lambda params, key: run(owning(name)(key), params, 6)))(
        members, keys
    )
    for i in range(3):
        params, state = one(trees.index(members, i), keys[i])
        np.testing.assert_allclose(together["w"][i], params["w"], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(
            optax.tree.get(states, "mask")["w"][i], optax.tree.get(state, "mask")["w"]
        )
    final = optax.tree.get(states, "mask")["w"][:, -1]
    assert bool((final[0] != final[2]).any()) == (name == "set")


def test_rigl_drops_the_smallest_and_grows_the_steepest():
    mask = {"w": jnp.array([[True, True, True, True], [False, False, False, False]])}
    params = {"w": jnp.array([[4.0, -1.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]])}
    grads = {"w": jnp.array([[0.0, 0.5, 0.0, 0.0], [1.0, -9.0, 2.0, 0.0]])}
    tx = transforms.rigl(
        optax.sgd(0.0), lambda params: mask, Events(1, end=10), fraction=0.5, prunable={"w": True}
    )
    updates, state = jax.jit(tx.update)(grads, tx.init(params), params)
    assert optax.tree.get(state, "mask")["w"].tolist() == [
        [True, False, True, False],
        [False, True, True, False],
    ]
    assert optax.apply_updates(params, updates)["w"][0].tolist() == [4.0, 0.0, 3.0, 0.0]


@pytest.mark.parametrize("kind", ["masked", "gradual", "rigl"])
def test_the_inner_optimizer_never_sees_a_pruned_weight(kind):
    """A spy copies its parameters, gradients and slots; the state of `init` counts too."""
    seen = []

    def spy_on(params):
        jax.debug.callback(lambda *trees: seen.append(trees), *params)

    def init(params):
        return optax.TraceState(params)

    def update(grads, state, params):
        spy_on((params, grads, state.trace))
        return grads, optax.TraceState(jax.tree.map(jnp.ones_like, grads))

    spy = optax.GradientTransformation(init, update)
    counts = trees.stack([SCOPE.counts(PARAMS, d, prunable=PRUNABLE) for d in (0.5, 0.2)])
    tx = {
        "masked": transforms.masked(spy),
        "gradual": transforms.gradual(spy, PRUNER, counts, Events(1), prunable=PRUNABLE),
        "rigl": transforms.rigl(spy, lambda params: MASK, Events(1, end=9), prunable=PRUNABLE),
    }[kind]
    params, state = PARAMS, tx.init(PARAMS)
    assert kind != "rigl" or bool((state.inner.trace["w"][~MASK["w"]] == 0).all())
    for i in range(3):
        mask = {"w": jnp.roll(MASK["w"], i), "b": MASK["b"]}
        extra = {"mask": mask} if kind == "masked" else {}
        updates, state = tx.update(grads_of(params, i), state, params, **extra)
        params = optax.apply_updates(params, updates)
        jax.effects_barrier()
        pruned = ~(mask if kind == "masked" else state.mask)["w"]
        assert all((np.asarray(tree["w"])[pruned] == 0).all() for tree in (*seen[i], params))


def test_the_step_at_an_event_is_that_on_the_masked_weights():
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.lamb(0.1, weight_decay=0.1))
    counts = trees.stack([SCOPE.counts(PARAMS, 0.1, prunable=PRUNABLE)])
    tx = transforms.gradual(inner, PRUNER, counts, Events(9), prunable=PRUNABLE)
    found, state = tx.update(grads_of(PARAMS, 1), tx.init(PARAMS), PARAMS)
    start = masks.apply_mask(state.mask, PARAMS)
    grads = masks.apply_mask(state.mask, grads_of(PARAMS, 1))
    updates, _ = inner.update(grads, inner.init(start), start)
    kept = np.asarray(state.mask["w"])
    np.testing.assert_allclose(found["w"][kept], updates["w"][kept], rtol=1e-6)


def test_a_weight_that_grows_back_starts_anew():
    tx = transforms.masked(optax.rprop(0.1))
    params, state = {"w": jnp.ones(2)}, None
    state = tx.init(params)
    for keep in (True, False, True, True):
        mask = {"w": jnp.array([True, keep])}
        _, state = tx.update({"w": jnp.ones(2)}, state, params, mask=mask)
    assert optax.tree.get(state, "step_sizes")["w"][1] == pytest.approx(0.12)  # grown once


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
@pytest.mark.slow
def test_other_dtypes(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        params = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
        for inner in (optax.adagrad(0.1), optax.adam(0.1, mu_dtype=jnp.float32)):
            tx = transforms.rigl(inner, lambda params: MASK, Events(1, end=9), prunable=PRUNABLE)
            after, states = jax.jit(lambda p, tx=tx: run(tx, p, 3))(params)
            assert after["w"].dtype == dtype
            mask = optax.tree.get(states, "mask")["w"]
            assert bool((after["w"][~mask] == 0).all())
            for slots in jax.tree.leaves(states.inner):
                if slots.shape == mask.shape:
                    assert bool((slots[~mask] == 0).all())


def test_straight_through_lets_a_weight_come_back():
    count = jnp.int32(20)
    tx = transforms.straight_through(optax.sgd(0.5), PRUNER, count, prunable=PRUNABLE)
    params, states = jax.jit(lambda p: run(tx, p, 6))(PARAMS)
    history = np.asarray(optax.tree.get(states, "mask")["w"])
    assert set(history.sum((1, 2)).tolist()) == {20}
    assert (history[1:] & ~history[:-1]).any()
    best = jax.jit(jax.vmap(lambda latent: PRUNER(latent, ONES, count, prunable=PRUNABLE)))(params)
    np.testing.assert_array_equal(history, best["w"])


def test_an_event_runs_only_when_some_member_needs_it():
    runs = []

    def event(state, amount):
        jax.debug.callback(lambda: runs.append(1))
        return state + amount

    f = jax.jit(jax.vmap(lambda c, s, a: when(c, event, s, a), in_axes=(0, 0, None)))
    state = jnp.arange(3.0)
    quiet = f(jnp.array([False] * 3), state, 5.0)
    jax.effects_barrier()
    assert quiet.tolist() == [0.0, 1.0, 2.0] and runs == []
    loud = f(jnp.array([False, True, False]), state, 5.0)
    jax.effects_barrier()
    assert loud.tolist() == [0.0, 6.0, 2.0] and runs


def test_members_of_members_have_events_too():
    f = jax.jit(jax.vmap(jax.vmap(lambda c, s: when(c, lambda x: -x, s))))
    conditions = jnp.array([[True, False], [False, False]])
    assert f(conditions, jnp.ones((2, 2))).tolist() == [[-1.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize("name", ["gradual", "sparse_evolution", "rigl", "straight_through"])
def test_all_take_events(name):
    parameters = inspect.signature(getattr(transforms, name)).parameters
    assert parameters["events"].annotation is Events
    assert not {"every", "begin", "end"} & set(parameters)


@pytest.mark.parametrize(("end", "last"), [(2**31 - 1, 4), (5, 8)])
def test_gradual_pruning_ends_with_its_counts_or_its_events(end, last):
    counts, events = jnp.array([12, 8, 4]), Events(every=2, begin=1, end=end)
    tx = transforms.gradual(optax.sgd(0.1), PRUNER, counts, events, prunable=PRUNABLE)
    _, states = run(tx, PARAMS, 8)
    assert states.mask["w"].sum((1, 2)).tolist() == [48, 12, 12, 8, 8, last, last, last]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda tx, mask: transforms.masked(mask, tx),
            "`inner` is a dict; it must be an optimizer",
        ),
        (
            lambda tx, mask: transforms.static_sparse(tx, mask),
            "`start` is a dict; it must be a func",
        ),
        (
            lambda tx, mask: transforms.rigl(tx, lambda params: mask, 100, prunable={"w": True}),
            "`events` is 100; it must be `Events`, such as",
        ),
        (
            lambda tx, mask: transforms.gradual(tx, PRUNER, jnp.ones(3, int), 5, prunable=PRUNABLE),
            "`events` is 5; it must be `Events`, such as",
        ),
        (
            lambda tx, mask: transforms.straight_through(tx, PRUNER, 4, 5, prunable=PRUNABLE),
            "`events` is 5; it must be `Events`, such as",
        ),
        (
            lambda tx, mask: transforms.straight_through(
                0.1, PRUNER, 4, Events(2), prunable=PRUNABLE
            ),
            "`inner` is 0.1; it must be an optimizer",
        ),
    ],
)
def test_parts_of_a_wrong_type_are_named(make, message):
    mask = {"w": jnp.ones((3, 4), bool)}
    with pytest.raises(TypeError, match=re.escape(message)):
        make(optax.sgd(0.1), mask)
