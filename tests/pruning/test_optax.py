"""All of optax under every transformation: slots are 0 where pruned, or there is an error."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax import trees
from lth_jax.pruning import masks, scopes, transforms
from lth_jax.pruning.prune import prune
from lth_jax.pruning.transforms import Events
from tests.pruning.optax_list import ALL, NEEDS, PER_EXAMPLE, builders
from tests.thinning import sampled, thinned

# No two leaves share their last axes, so a slot is recognised by its shape alone.
PARAMS = {
    "k": jax.random.normal(jax.random.key(0), (4, 7)),
    "b": jax.random.normal(jax.random.key(1), (5,)),
}
MASK = {
    "k": jax.random.bernoulli(jax.random.key(2), 0.5, (4, 7)),
    "b": jnp.array([True, False, True, True, False]),
}
PRUNABLE = {"k": True, "b": True}
START = lambda params: MASK  # noqa: E731
SCOPE = scopes.globally()
PRUNER = prune(lambda params, mask, **_: jax.tree.map(jnp.abs, params), SCOPE)
COUNTS = trees.stack([SCOPE.counts(PARAMS, d, prunable=PRUNABLE) for d in (0.6, 0.3)])
EVENTS = Events(every=1, begin=1, end=3)
SPARSE = {
    "masked": lambda inner: transforms.masked(inner, MASK),
    "static": lambda inner: transforms.static_sparse(inner, START),
    "gradual": lambda inner: transforms.gradual(
        inner, PRUNER, COUNTS, Events(every=2, begin=1), prunable=PRUNABLE
    ),
    "set": lambda inner: transforms.sparse_evolution(
        inner, START, EVENTS, key=jax.random.key(3), fraction=0.5, prunable=PRUNABLE
    ),
    "rigl": lambda inner: transforms.rigl(inner, START, EVENTS, prunable=PRUNABLE),
}
REFUSED = {
    "lookahead": "updates two copies of the weights",
    "galore": "rotated basis",
    "scale_by_galore": "rotated basis",
    "measure_with_ema": "`updates of inner` must have the structure of `params`",
}
OWN_FAULT = ("monitor",)  # its state changes its structure, so that no scan can carry it
STEPS = 4


def loss(params):
    target = jax.tree.map(lambda p: jnp.sin(jnp.arange(p.size, dtype=p.dtype)), params)
    apart = jax.tree.map(lambda p, t: p - t.reshape(p.shape), params, target)
    return 0.05 * sum(jnp.vdot(a, a) for a in jax.tree.leaves(apart))


def step(name, tx, params, state, **extra):
    """One update with whatever the optimizer of this name needs."""
    value, grads = jax.value_and_grad(loss)(params)
    known = {
        "value": value,
        "grad": grads,
        "value_fn": loss,
        "obj_fn": loss,
        "grad_fn": lambda params, i: jax.grad(loss)(params),
    }
    extra |= {argument: known[argument] for argument in NEEDS.get(name, ())}
    if name in PER_EXAMPLE:
        grads = jax.tree.map(lambda g: jnp.stack([g, g / 2]), grads)
    updates, state = tx.update(grads, state, params, **extra)
    return optax.apply_updates(params, updates), state


def run(name, tx, params, extras):
    """Parameters and state after each step; `extras` has the steps first."""

    def body(carry, extra):
        carry = step(name, tx, *carry, **extra)
        return carry, carry

    return jax.lax.scan(body, (params, tx.init(params)), extras, length=STEPS)[1]


def largest_pruned(mask, tree):
    """The largest magnitude at a pruned weight in all leaves shaped like one, leading axes apart.

    The first axis of `mask` and `tree` are the steps.
    """
    flat = [mask[name].reshape(STEPS, -1) for name in ("b", "k")]
    found = [0.0]
    for m in (mask["k"], mask["b"], jnp.concatenate(flat, 1)):
        axes = m.ndim - 1
        for leaf in jax.tree.leaves(tree):
            if jnp.issubdtype(leaf.dtype, jnp.inexact) and leaf.shape[1:][-axes:] == m.shape[1:]:
                keep = m.reshape(STEPS, *[1] * (leaf.ndim - m.ndim), *m.shape[1:])
                found.append(float(jnp.max(jnp.where(keep, 0, jnp.abs(leaf)))))
    return max(found)


def check(name, mask, params, state):
    assert largest_pruned(mask, params) == 0
    assert largest_pruned(mask, state) == 0
    for leaf in jax.tree.leaves(params):
        assert bool(jnp.isfinite(leaf).all())
    moved = any(bool((leaf[-1] != leaf[0]).any()) for leaf in jax.tree.leaves(params))
    # With the arguments of the list, `selective_transform` alone moves nothing either.
    assert moved or name in ("set_to_zero", "selective_transform")


# The masks of a caller: they shrink, grow, and change everywhere.
CALLERS = jax.tree.map(lambda m: jnp.stack([m, m & jnp.roll(m, 1), m, ~m]), MASK)
OWNERS = ("gradual", "set", "rigl")
SOME = ("adagrad", "cocob", "flatten adagrad", "labels like the names", "muon", "rprop", "sam")


def test_the_list_is_the_whole_of_optax():
    assert len(builders()) > 120
    assert {"adam", "partition", "MultiSteps", "monitor", "muon", "dog", "sophia"} <= set(ALL)


@pytest.mark.parametrize("name", thinned(sorted(ALL), 6, slow=4))
def test_every_optimizer_is_traced_or_refused(name):
    def init_and_update(make):
        tx = make(ALL[name])
        return jax.eval_shape(lambda params: step(name, tx, params, tx.init(params)), PARAMS)

    if name in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name]):
            init_and_update(SPARSE["masked"])
    elif name in PER_EXAMPLE:
        with pytest.raises(ValueError, match=r"`grads` at 'b' has shape \(2, 5\)"):
            init_and_update(SPARSE["rigl"])
    else:
        params, _ = init_and_update(SPARSE["rigl"])
        assert jax.tree.structure(params) == jax.tree.structure(PARAMS)


@pytest.mark.parametrize("name", SOME)
def test_pruned_weights_and_slots_are_zero(name):
    by_caller, owned = transforms.masked(ALL[name]), SPARSE["rigl"](ALL[name])

    @jax.jit
    def both(params):
        return run(name, by_caller, params, {"mask": CALLERS}), run(name, owned, params, {})

    ours, theirs = both(PARAMS)
    check(name, CALLERS, *ours)
    check(name, optax.tree.get(theirs[1], "mask"), *theirs)


# In a chain with `mask_updates` these get the argument `mask`, and refuse it.
REFUSES_EXTRA = ("lbfgs", "sam", "sam, opaque")
REFUSES_EXTRA += ("scale_by_backtracking_linesearch", "scale_by_zoom_linesearch")
WORKING = sorted(set(ALL) - set(REFUSED) - set(OWN_FAULT))


@pytest.mark.parametrize("name", sampled(WORKING, 8))
def test_masks_of_the_caller(name):
    masked = transforms.masked(ALL[name])
    chained = optax.chain(transforms.mask_updates(), ALL[name], transforms.mask_updates())

    @jax.jit
    def both(params, mask):
        still = jax.tree.map(lambda m: jnp.broadcast_to(m, (STEPS, *m.shape)), mask)
        start = masks.apply_mask(mask, params)
        return (
            run(name, masked, params, {"mask": CALLERS}),
            run(name, chained, start, {"mask": still}),
            still,
        )

    if name in REFUSES_EXTRA:
        with pytest.raises(TypeError, match="mask"):
            both(PARAMS, MASK)
        ours = jax.jit(lambda params: run(name, masked, params, {"mask": CALLERS}))(PARAMS)
        check(name, CALLERS, *ours)
        return
    ours, (params, _), still = both(PARAMS, MASK)
    check(name, CALLERS, *ours)
    assert largest_pruned(still, params) == 0


PAIRS = [(name, kind) for name in WORKING for kind in sorted(SPARSE)]


@pytest.mark.parametrize(("name", "kind"), sampled(PAIRS, 26))
def test_masks_in_the_state(name, kind):
    if name in PER_EXAMPLE and kind == "rigl":
        return  # refused; tested above
    tx = SPARSE[kind](ALL[name])
    params, state = jax.jit(lambda params: run(name, tx, params, {}))(PARAMS)
    history = optax.tree.get(state, "mask")
    check(name, history, params, state)
    changed = any(bool((m[1:] != m[:-1]).any()) for m in history.values())
    # RigL may grow what it has just dropped, and does where updates lack their sign.
    assert changed == (kind in OWNERS) or kind == "rigl"


@pytest.mark.parametrize("name", sampled(sorted({*WORKING, "galore", "scale_by_galore"}), 12))
def test_latent_weights(name):
    tx = transforms.straight_through(ALL[name], PRUNER, jnp.int32(15), Events(2), prunable=PRUNABLE)
    params, state = jax.jit(lambda params: run(name, tx, params, {}))(PARAMS)
    kept = jax.vmap(lambda m: masks.count_kept(m, PRUNABLE))(state.mask)
    assert kept.tolist() == [15] * STEPS
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params))
    plain, _ = jax.jit(lambda params: run(name, ALL[name], params, {}))(PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), params, plain)
