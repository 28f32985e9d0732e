"""What every method of the registry promises."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lth_jax import trees
from lth_jax.layouts import DENSE
from lth_jax.pruning import masks, scopes
from lth_jax.pruning.criteria import magnitude
from lth_jax.pruning.methods import METHODS, Inputs, Method
from lth_jax.pruning.methods.method import COMMON
from lth_jax.pruning.prune import prune
from lth_jax.pruning.transforms import masked
from tests.pruning.methods.problem import (
    LAYOUTS,
    ONES,
    OPTIMIZERS,
    PARAMS,
    PRUNABLE,
    STEPS,
    built,
    grads_of,
    member,
    programs,
    results,
    run,
)
from tests.thinning import sampled, thinned

NAMES = sorted(METHODS)
# One compiled population per method serves most tests; one of them in the fast tier.
SOME = thinned(NAMES, len(NAMES), slow=3)
EVENTFUL = ("alternating", "gradual", "movement", "rigl", "sparse_evolution", "straight_through")

STACK = PARAMS["stack"]
STACK_OPTIONS = {
    "prunable": {"kernel": True, "bias": False},
    "layouts": {"kernel": LAYOUTS["stack/kernel"]},
}


def on_stack(name, scope, steps):
    """A method for one stack of layers, and inputs that suit it."""
    count = jax.tree.map(jnp.asarray, scope.counts(STACK, 0.3, **STACK_OPTIONS))
    method = METHODS[name](scope=scope, steps=steps, **STACK_OPTIONS)
    ones = masks.ones_like(STACK)
    large = prune(magnitude(), scope)(STACK, ones, count, **STACK_OPTIONS)
    return method, Inputs(ones if method.starts_dense else large, count, jax.random.key(0))


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, _plain(a), _plain(b))


def _plain(tree):
    def leaf(x):
        key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if key else x)

    return jax.tree.map(leaf, tree)


def close(a, b):
    """To 1e-6; to some units in the last place of half precision."""

    def leaf(x, y):
        half = x.dtype.itemsize == 2
        at = {"rtol": 2e-2, "atol": 2e-2} if half else {"rtol": 1e-5, "atol": 1e-6}
        np.testing.assert_allclose(x.astype(np.float64), y.astype(np.float64), **at)

    jax.tree.map(leaf, _plain(a), _plain(b))


@pytest.mark.parametrize("name", NAMES)
def test_a_builder_takes_the_common_keywords_and_options_with_defaults(name):
    found = inspect.signature(METHODS[name]).parameters
    assert set(COMMON) <= set(found)
    method = built(name)
    assert isinstance(method, Method) and method.name == name
    assert hash(method) != hash(METHODS[name](prunable=PRUNABLE, steps=9))
    assert repr(method) == f"Method('{name}')"


@pytest.mark.parametrize("name", SOME)
def test_structure_dtypes_counts_and_zeros(name):
    method = built(name)
    ((params, state), (seen, used)), _ = results(name)
    members = trees.stack([member(method, i) for i in range(3)])
    final, mask = jax.vmap(method.final)(params, state)
    for tree in (params, final, jax.vmap(method.effective)(params, state)):
        assert jax.tree.structure(tree) == jax.tree.structure(PARAMS)
        for leaf, like in zip(jax.tree.leaves(tree), jax.tree.leaves(PARAMS), strict=True):
            assert leaf.dtype == like.dtype and leaf.shape == (3, *like.shape)
            assert bool(jnp.isfinite(leaf).all())
    assert jax.tree.structure(mask) == jax.tree.structure(PARAMS)
    assert state.step.tolist() == [STEPS] * 3 and state.undecided.tolist() == [0] * 3
    for use, m, w in zip(*map(jax.tree.leaves, (PRUNABLE, mask, final)), strict=True):
        assert m.dtype == bool and (use or bool(m.all()))
        assert bool((w[~m] == 0).all())
    kept = jax.vmap(lambda m: masks.count_kept(m, PRUNABLE))(mask).tolist()
    if method.exact:
        assert kept == members.count.tolist()
        same(mask, state.mask)
    assert all(0 < k < 176 for k in kept)
    # What the network computes with is 0 outside the mask of the state, after each step.
    for m, w in zip(jax.tree.leaves(seen), jax.tree.leaves(used), strict=True):
        assert bool((w[~m] == 0).all())
    if name in EVENTFUL:
        changed = seen["dense"]["kernel"][:, 1:] != seen["dense"]["kernel"][:, :-1]
        assert bool(changed.any((1, 2, 3)).all())


@pytest.mark.parametrize("name", SOME)
def test_a_member_of_a_population_is_the_run_alone(name):
    together, alone = results(name)
    one = (trees.index(together[0], 1), trees.index(together[1], 1))
    close(one, alone)
    same(one[1][0], alone[1][0])  # the masks after each step


@pytest.mark.parametrize("name", SOME)
def test_a_run_repeats_bit_for_bit(name):
    alone, _ = programs(name)
    same(alone(member(built(name), 1)), results(name)[1])


@pytest.mark.parametrize("name", SOME)
def test_members_differ_by_their_key_alone_where_the_method_draws(name):
    ((_, state), _), _ = results(name)
    alike = jax.tree.map(lambda x: bool((x[1] == x[2]).all()), _plain(state.mask))
    draws = name in ("edge_popup", "supermask", "sparse_evolution")
    # Members 1 and 2 have one count; masks that members start with differ by themselves.
    expected = not draws and built(name).starts_dense
    assert all(jax.tree.leaves(alike)) == expected


# Each of the optimizers with another scope.
WITH = {
    "momentum": scopes.layerwise(),
    "adam": scopes.erk(),
    "adamw": scopes.globally(minimum=1),
}


@pytest.mark.parametrize(
    ("name", "optimizer"), sampled([(name, one) for name in NAMES for one in WITH], 2)
)
def test_counts_are_exact_under_other_optimizers_and_scopes(name, optimizer):
    method, inputs = on_stack(name, WITH[optimizer], 20)
    (params, state), _ = jax.jit(lambda i: run(method, OPTIMIZERS[optimizer], i, 20, STACK))(inputs)
    final, mask = method.final(params, state)
    assert bool((final["kernel"][~mask["kernel"]] == 0).all()) and bool(mask["bias"].all())
    kept = mask["kernel"].sum((1, 2))
    if method.exact and optimizer != "adamw":
        assert kept.tolist() == inputs.count["kernel"].tolist()
    elif method.exact:
        assert kept.sum() == inputs.count and kept.min() >= 1
    assert bool(jnp.isfinite(final["kernel"]).all())


CONTAINERS = {
    "dict": jax.tree.structure(PARAMS),
    "lists": jax.tree.structure([[0, 0], [0, 0], [0, 0]]),
    "state": jax.tree.structure(
        nnx.State(jax.tree.map(nnx.Param, PARAMS, is_leaf=lambda x: hasattr(x, "shape")))
    ),
}


def one_step(name, structure):
    """The program of `init`, one update, `effective` and `final`, on bare leaves."""
    into = structure.unflatten
    prunable = into(jax.tree.leaves(PRUNABLE))
    known = {"dense/kernel": DENSE, "half/kernel": DENSE} | LAYOUTS
    places = zip(trees.names(PARAMS), trees.names(prunable), strict=True)
    layouts = {there: known[here] for here, there in places if here in known}
    method = METHODS[name](prunable=prunable, layouts=layouts, scope=scopes.globally(), steps=STEPS)

    def program(leaves, mask, count, key):
        params, inputs = into(leaves), Inputs(into(mask), count, key)
        tx = method.transform(OPTIMIZERS["adam"], inputs)
        state = tx.init(params)
        grads = grads_of(method.effective(params, state), 0)
        updates, state = tx.update(grads, state, params, step=jnp.int32(0))
        params = optax.apply_updates(params, updates)
        return [jax.tree.leaves(t) for t in (params, state, *method.final(params, state))]

    leaves = [jax.tree.leaves(PARAMS), jax.tree.leaves(ONES), jnp.int32(44), jax.random.key(0)]
    return jax.jit(program).lower(*leaves).as_text()


@pytest.mark.parametrize("name", thinned(NAMES, 4))
def test_containers_make_no_difference(name):
    first, *others = (one_step(name, structure) for structure in CONTAINERS.values())
    assert all(first == other for other in others)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_jitted_is_eager(name):
    method, inputs = on_stack(name, scopes.globally(), 2)
    inner = OPTIMIZERS["momentum"]  # Adam makes steps of gradients that differ by rounding only

    def program(inputs):
        """Two updates, without a scan, which would compile its body."""
        params = masks.apply_mask(inputs.mask, STACK)
        tx = method.transform(inner, inputs)
        state = tx.init(params)
        for i in range(2):
            grads = grads_of(method.effective(params, state), i)
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params, state, method.final(params, state)

    close(jax.jit(program)(inputs), program(inputs))


@pytest.mark.parametrize("name", thinned(EVENTFUL, 4))
def test_events_of_a_population_are_conditional(name):
    """A conditional whose condition differs between members would compute both branches."""
    method = built(name)
    members = trees.stack([member(method, i) for i in range(3)])

    def update(inputs, state):
        return method.transform(OPTIMIZERS["momentum"], inputs).update(PARAMS, state, PARAMS)

    def init(inputs):
        return method.transform(OPTIMIZERS["momentum"], inputs).init(PARAMS)

    states = jax.eval_shape(jax.vmap(init), members)
    assert "cond[" in str(jax.make_jaxpr(jax.vmap(update))(members, states))


@pytest.mark.parametrize("name", NAMES)
def test_the_step_of_the_caller_decides_the_events(name):
    method = built(name)
    tx = method.transform(OPTIMIZERS["adam"], member(method, 1))
    state = jax.eval_shape(tx.init, PARAMS)
    shape = jax.eval_shape(lambda s: tx.update(PARAMS, s, PARAMS, step=7)[1], state)
    assert jax.tree.structure(shape) == jax.tree.structure(state)
    after = jax.jit(lambda s: tx.update(PARAMS, s, PARAMS, step=7)[1].step).lower(state)
    assert "%arg" not in after.as_text()  # it does not depend on the state
    with pytest.raises(ValueError, match="`params` must be given to `update`"):
        jax.eval_shape(lambda s: tx.update(PARAMS, s), state)


def test_static_is_the_masked_optimizer_to_the_bit():
    method, inner = built("static"), OPTIMIZERS["adamw"]
    inputs = member(method, 1)

    def step(carry, i):
        params, state = carry
        tx = masked(inner, inputs.mask)
        updates, state = tx.update(grads_of(params, i), state, params)
        return (optax.apply_updates(params, updates), state), None

    start = masks.apply_mask(inputs.mask, PARAMS)
    plain = jax.jit(
        lambda: jax.lax.scan(
            step, (start, masked(inner, inputs.mask).init(start)), jnp.arange(STEPS)
        )
    )
    same(plain()[0], jax.jit(lambda: run(method, inner, inputs)[0])())


def test_a_builder_of_another_signature_is_refused():
    with pytest.raises(ValueError, match="'rigl' is already registered"):
        METHODS.register("rigl", METHODS["rigl"])
    with pytest.raises(TypeError, match="missing: steps; without defaults: rate"):
        METHODS.register("mine", lambda *, prunable, layouts, scope, rate: None)
    assert "mine" not in METHODS
