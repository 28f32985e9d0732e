"""Every adapter computes the same as its framework, with pure functions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.frameworks import CASES, DRAWS, FRAMEWORKS, TIME, N, example

X = jnp.float32(np.random.default_rng(3).normal(size=(N, TIME, 4)))
KEY, OTHER, RNG = (jax.random.key(i) for i in (5, 6, 7))

# The kinds that failed once; to compile all cases takes half a minute.
FAST = [
    (framework, name) for framework in ("equinox", "haiku") for name in ("batch_norm", "dropout")
]
FAST += [("linen", "stack"), ("nnx", "stack"), ("nnx", "recurrent"), ("nnx", "compiled")]


@functools.cache
def results(framework, name):
    """Everything about one case, in one compiled function."""
    case = FRAMEWORKS[framework](name)
    model = case.model

    def loss(params, state, key):
        out, state = model.apply(params, state, X, key=key, train=True)
        return jnp.mean(out**2), (out, state)

    @jax.jit
    def everything():
        params, state = model.init(KEY, example(X))
        keys = jnp.stack([RNG, OTHER, RNG])
        step = jax.vmap(jax.grad(loss, has_aux=True), in_axes=(None, None, 0))
        grads, (trained, moved) = step(params, state, keys)
        evaluated, kept = model.apply(params, state, X, train=False)
        plain_evaluated, plain_trained = case.plain(KEY, X, RNG)
        return {
            "params": params,
            "state": (state, kept, moved),
            "grads": grads,
            "evaluated": (evaluated, plain_evaluated),
            "trained": (trained, plain_trained),
        }

    return everything(), case.same_draws or name not in DRAWS


matrix = pytest.mark.parametrize(
    ("framework", "name"),
    [
        pytest.param(framework, name, marks=[pytest.mark.slow] * ((framework, name) not in FAST))
        for framework in FRAMEWORKS
        for name in CASES
    ],
)


@matrix
def test_outputs_are_those_that_the_framework_gives(framework, name):
    found, same_draws = results(framework, name)
    evaluated, plain_evaluated = found["evaluated"]
    np.testing.assert_allclose(evaluated, plain_evaluated, rtol=1e-5, atol=1e-6)
    trained, plain_trained = found["trained"]
    if same_draws:
        np.testing.assert_allclose(trained[0], plain_trained, rtol=1e-5, atol=1e-6)
    differs = not np.allclose(trained[0], evaluated)
    assert differs == (name in DRAWS | {"batch_norm"})


@matrix
def test_training_moves_parameters_and_statistics(framework, name):
    found, _ = results(framework, name)
    gradients = jax.tree.leaves(found["grads"])
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert sum(bool(np.any(gradient)) for gradient in gradients) >= 3
    state, kept, moved = found["state"]
    jax.tree.map(np.testing.assert_array_equal, state, kept)
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b[0]), state, moved)
    assert any(jax.tree.leaves(changed)) == (name == "batch_norm")


@matrix
def test_members_draw_by_their_keys(framework, name):
    first, other, again = results(framework, name)[0]["trained"][0]
    np.testing.assert_array_equal(first, again)
    assert np.allclose(first, other) == (name not in DRAWS)
