"""The transformations in flax's own containers, as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import lth_jax as lth
from lth_jax import trees
from lth_jax.pruning.transforms import Events, static_sparse

X = jax.random.normal(jax.random.key(0), (8, 4))
SCOPE = lth.globally()
PRUNER = lth.prune(lth.magnitude(), SCOPE)


def loss(model):
    return jnp.mean((model(X) - 1.0) ** 2)


def pure(state):
    """The arrays of an `nnx.State` in plain dictionaries."""
    return nnx.to_pure_dict(state)


def makers(params):
    """A transformation of each kind for these parameters, its trees in their containers."""
    prunable, adam = lth.prunable_leaves(params), optax.adam(0.1)
    count = SCOPE.counts(params, 0.5, prunable=prunable)
    mask = PRUNER(params, lth.ones_like(params), count, prunable=prunable)
    counts, events = trees.stack([count]), Events(every=2)
    return {
        "masked": lth.masked(adam, mask),
        "static": static_sparse(adam, lambda params: mask),
        "gradual": lth.gradual(adam, PRUNER, counts, Events(), prunable=prunable),
        "set": lth.sparse_evolution(
            adam, lambda params: mask, events, key=jax.random.key(1), prunable=prunable
        ),
        "rigl": lth.rigl(adam, lambda params: mask, events, prunable=prunable),
        "straight through": lth.straight_through(adam, PRUNER, count, prunable=prunable),
    }


@pytest.mark.parametrize("kind", ["masked", "static", "gradual", "set", "rigl", "straight through"])
@pytest.mark.slow
def test_nnx_optimizer_is_the_run_on_plain_trees(kind):
    model = nnx.Linear(4, 6, rngs=nnx.Rngs(0))
    _, start = nnx.split(model, nnx.Param)
    optimizer = nnx.Optimizer(model, makers(start)[kind], wrt=nnx.Param)
    plain = pure(start)
    tx = makers(plain)[kind]
    state = tx.init(plain)

    def plain_loss(params):
        return jnp.mean((X @ params["kernel"] + params["bias"] - 1.0) ** 2)

    for _ in range(3):
        optimizer.update(model, nnx.grad(loss)(model))
        updates, state = tx.update(jax.grad(plain_loss)(plain), state, plain)
        plain = optax.apply_updates(plain, updates)
    found = pure(nnx.state(model, nnx.Param))
    for name, leaf in plain.items():
        np.testing.assert_allclose(found[name], leaf, rtol=1e-5, atol=1e-6)
    if kind != "straight through":
        assert int((found["kernel"] != 0).sum()) == 12


def test_nnx_optimizer_passes_a_mask_on():
    model = nnx.Linear(4, 6, rngs=nnx.Rngs(0))
    mask = jax.tree.map(lambda p: jnp.abs(p) > 0.3, nnx.state(model, nnx.Param))
    mask["bias"] = jax.tree.map(jnp.ones_like, mask["bias"])
    optimizer = nnx.Optimizer(model, lth.masked(optax.adamw(0.1)), wrt=nnx.Param)
    optimizer.update(model, nnx.grad(loss)(model), mask=mask)
    kept = pure(mask)["kernel"]
    assert bool(((model.kernel[...] != 0) == kept).all())


def test_train_state_applies_gradients():
    params = {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "b": jnp.ones(2)}
    mask = {"w": jnp.eye(2, dtype=bool), "b": jnp.ones(2, bool)}
    tx = lth.masked(optax.adamw(0.1), mask)
    state = TrainState.create(apply_fn=None, params=params, tx=tx)
    state = jax.jit(lambda state: state.apply_gradients(grads=params))(state)
    assert (state.params["w"] == 0).tolist() == [[False, True], [True, False]]
    bare = TrainState.create(apply_fn=None, params=params, tx=lth.masked(optax.adam(0.1)))
    with pytest.raises(TypeError, match=r"`mask` must be given: as `masked\(inner, mask\)`"):
        bare.apply_gradients(grads=params)
    with pytest.raises(TypeError, match="`update` takes no `mask` here"):
        tx.update(params, tx.init(params), params, mask=mask)


def test_lookahead_around_a_masked_optimizer():
    mask = {"w": jnp.array([True, False])}
    tx = optax.lookahead(lth.masked(optax.sgd(0.1), mask), sync_period=2, slow_step_size=0.5)
    params = optax.LookaheadParams.init_synced({"w": jnp.array([1.0, 0.0])})
    state = tx.init(params)
    for _ in range(4):
        updates, state = tx.update({"w": jnp.ones(2)}, state, params)
        params = optax.apply_updates(params, updates)
    for weights in params:
        assert weights["w"][1] == 0 and weights["w"][0] < 1
