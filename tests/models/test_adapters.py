"""Both adapters make pure functions that work under jit, vmap, grad and scan."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from lth_jax import trees
from lth_jax.models.adapters import as_model, from_linen, from_nnx
from tests.foreign import Nnx

WIDTH = 32
X = jnp.float32(np.random.default_rng(7).normal(size=(6, 4)))


class LinenNet(nn.Module):
    """BatchNorm, and two dropout layers of one shape."""

    @nn.compact
    def __call__(self, x, *, train):
        h = nn.BatchNorm(use_running_average=not train)(nn.Dense(WIDTH)(x))
        first = nn.Dropout(0.5, deterministic=not train)(jnp.ones_like(h))
        second = nn.Dropout(0.5, deterministic=not train)(jnp.ones_like(h))
        return {"logits": nn.Dense(3)(h * first), "first": first, "second": second}


class NNXNet(nnx.Module):
    """The same in NNX; what it sows must not change the state's structure."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(4, WIDTH, rngs=rngs), nnx.Linear(WIDTH, 3, rngs=rngs)])
        self.norm = nnx.BatchNorm(WIDTH, rngs=rngs)
        self.drops = nnx.List([nnx.Dropout(0.5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)])

    def __call__(self, x):
        h = self.norm(self.layers[0](x))
        self.seen = nnx.Intermediate(h)
        first, second = (drop(jnp.ones_like(h)) for drop in self.drops)
        return {"logits": self.layers[1](h * first), "first": first, "second": second}


@functools.cache
def model_of(kind):
    return from_linen(LinenNet()) if kind == "linen" else from_nnx(NNXNet)


@functools.cache
def member_step(kind):
    """`(params, state, key) -> (params, state, out)`: one step of gradient descent, jitted."""
    model = model_of(kind)

    def loss(params, state, key):
        out, state = model.apply(params, state, X, key=key, train=True)
        return (out["logits"] ** 2).mean(), (state, out)

    def step(params, state, key):
        grads, (state, out) = jax.grad(loss, has_aux=True)(params, state, key)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), state, out

    return step


@functools.cache
def population(kind):
    """Three members with the same parameters and different keys, and their first step."""
    params, state = model_of(kind).init(jax.random.key(0), X)
    params, state = trees.stack([params] * 3), trees.stack([state] * 3)
    keys = jax.random.split(jax.random.key(1), 3)
    return keys, params, state, jax.jit(jax.vmap(member_step(kind)))(params, state, keys)


both = pytest.mark.parametrize("kind", ["linen", "nnx"])


@both
def test_params_and_state_are_plain_dicts_of_arrays(kind):
    params, state = model_of(kind).init(jax.random.key(0), X)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((params, state)))
    assert type(params) is dict and type(state) is dict
    assert trees.size(params) == (4 * WIDTH + WIDTH) + 2 * WIDTH + (WIDTH * 3 + 3)
    assert trees.size(state) == 2 * WIDTH


@both
def test_init_follows_its_key_and_works_under_vmap(kind):
    init = jax.vmap(lambda key: model_of(kind).init(key, X)[0])
    kernels = [
        leaf
        for leaf in jax.tree.leaves(init(jax.random.split(jax.random.key(3), 2)))
        if leaf.ndim == 3
    ]
    assert len(kernels) == 2
    assert all(not np.array_equal(kernel[0], kernel[1]) for kernel in kernels)


@both
def test_members_agree_with_single_runs(kind):
    keys, params, state, together = population(kind)
    alone = jax.jit(member_step(kind))(trees.index(params, 1), trees.index(state, 1), keys[1])
    for a, b in zip(jax.tree.leaves(trees.index(together, 1)), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@both
def test_dropout_differs_by_member_and_layer_and_repeats_by_key(kind):
    keys, params, state, (_, _, out) = population(kind)
    masks = [out[name][i] for name in ("first", "second") for i in range(3)]
    for i, a in enumerate(masks):
        assert 0.2 < float((a == 0).mean()) < 0.8
        assert not any(np.array_equal(a, b) for b in masks[i + 1 :])
    again = jax.jit(jax.vmap(member_step(kind)))(params, state, keys)[2]
    np.testing.assert_array_equal(again["first"], out["first"])


def test_flax_attention_drops_its_own_weights_per_member():
    model = from_nnx(
        lambda rngs: nnx.MultiHeadAttention(2, 4, dropout_rate=0.5, decode=False, rngs=rngs)
    )
    params, state = model.init(jax.random.key(0), X[None])
    keys = jax.random.split(jax.random.key(1), 3)

    @jax.jit
    @jax.vmap
    def members(key):
        return model.apply(params, state, X[None], key=key, train=True)[0]

    out = members(keys)
    assert all(not np.allclose(out[i], out[i - 1]) for i in range(3))
    np.testing.assert_array_equal(members(keys), out)


@both
def test_state_moves_in_training_only_and_keeps_its_structure(kind):
    _, params, state, (_, moved, _) = population(kind)
    trees.check_same_structure("moved", moved, "state", state)
    assert not any(
        np.allclose(a, b)
        for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(state), strict=True)
    )
    out, same = model_of(kind).apply(trees.index(params, 0), trees.index(state, 0), X, train=False)
    assert same is not None and jnp.all(out["first"] == 1) and jnp.all(out["second"] == 1)
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(trees.index(state, 0)), strict=True):
        np.testing.assert_array_equal(a, b)


@both
def test_a_scan_carries_params_and_state(kind):
    keys, params, state, _ = population(kind)
    step = member_step(kind)

    def body(carry, key):
        params, state, _ = step(*carry, key)
        return (params, state), None

    start = trees.index(params, 0), trees.index(state, 0)
    scanned, _ = jax.jit(lambda start: jax.lax.scan(body, start, keys))(start)
    for key in keys:
        start = jax.jit(step)(*start, key)[:2]
    for a, b in zip(jax.tree.leaves(scanned), jax.tree.leaves(start), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_module_without_state_or_streams_needs_neither():
    model = from_nnx(lambda rngs: nnx.Linear(4, 2, rngs=rngs))
    params, state = model.init(jax.random.key(0), X)
    out, state = model.apply(params, state, X, train=True)
    assert state == {}
    np.testing.assert_allclose(out, X @ params["kernel"] + params["bias"], rtol=1e-5)


def test_foreign_parameters_are_refused_by_nnx():
    model = from_nnx(lambda rngs: nnx.Linear(4, 2, rngs=rngs))
    with pytest.raises(ValueError, match="weights"):
        model.apply({"weights": jnp.zeros((4, 2))}, {}, X, train=False)


@pytest.mark.parametrize(
    "make", [Nnx, functools.partial(Nnx, width=5), lambda rngs: Nnx(rngs=rngs)]
)
def test_a_class_and_a_partial_of_it_are_models(make):
    model = as_model(make)
    params, _ = model.init(jax.random.key(0), jnp.ones((1, 4, 4, 1)))
    assert params["hidden"]["kernel"].shape[0] == 16
