"""Lines between children whose outcome is known, on a model that is a formula."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax import lottery, trees
from lth_jax.landscape import barrier, hessian
from lth_jax.lottery import Splits
from lth_jax.lottery.curvature import (
    first_blocks,
    hessian_at,
    mean_over,
    relative_sharpness_at,
    training_loss,
)
from lth_jax.lottery.stability import between, between_children, error_barriers, member_at
from lth_jax.population import Trainer, squared_error
from lth_jax.types import Batch, Model

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
DATA = Splits(*(Batch(jnp.asarray(X), jnp.asarray(X[:, :1])),) * 3)
ALPHAS = jnp.linspace(0.0, 1.0, 5)
HYPER = {"learning_rate": 0.1}
PARAMS = {"w": jnp.array([[1.0], [2.0], [3.0]])}
MASK = {"w": jnp.array([[True], [False], [True]])}


def apply(params, state, x, *, key=None, train):
    """A linear model whose outputs are divided by their spread: a BatchNorm without a gain."""
    out = x @ params["w"]
    spread = jnp.std(out)
    if train:
        return out / spread, {"spread": 0.5 * state["spread"] + 0.5 * spread}
    return out / state["spread"], state


def trainer_of(model):
    return Trainer(
        model=model,
        make_optimizer=lambda hyper: optax.adam(hyper["learning_rate"]),
        loss=squared_error,
        metrics={"loss": squared_error},
        schedule=lambda step: 1.0,
        order=lambda key, step, n: jnp.zeros((n, 2), jnp.int32),
        eval_every=2,
    )


def plain(params, state, x, *, key=None, train):
    return x @ params["w"], state


NORMED = trainer_of(Model(lambda key, x: (PARAMS, {"spread": jnp.float32(1.0)}), apply))
LINEAR = trainer_of(Model(lambda key, x: (PARAMS, {}), plain))


def member(trainer, w, state):
    return member_at(trainer, HYPER, {"w": jnp.asarray(w)}, state, MASK, KEY)


def test_a_member_starts_on_its_mask_with_a_fresh_optimizer():
    found = member(LINEAR, PARAMS["w"], {})
    np.testing.assert_array_equal(found.params["w"], [[1.0], [0.0], [3.0]])
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(found.opt_state))
    assert bool(found.alive) and found.hyper["learning_rate"] == jnp.float32(0.1)


def test_a_line_of_a_convex_loss_has_the_values_of_the_formula():
    first, second = (
        member(LINEAR, [[1.0], [0.0], [0.0]], {}),
        member(LINEAR, [[-1.0], [0.0], [2.0]], {}),
    )
    found = between(LINEAR, first, second, DATA, ALPHAS)
    expected = [
        np.mean(0.5 * (X @ ((1 - a) * first.params["w"] + a * second.params["w"]) - X[:, :1]) ** 2)
        for a in np.asarray(ALPHAS)
    ]
    np.testing.assert_allclose(found["test"]["loss"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["train"]["loss"], expected, rtol=1e-5, atol=1e-6)


def test_statistics_are_renewed_along_the_line():
    first, second = (
        member(NORMED, w, {"spread": jnp.float32(9.0)}) for w in ([[1.0]] * 3, [[4.0]] * 3)
    )
    renewal = trees.stack([DATA.train] * 24)
    stale = between(NORMED, first, second, DATA, ALPHAS)["test"]["loss"]
    fresh = between(NORMED, first, second, DATA, ALPHAS, renewal)["test"]["loss"]
    np.testing.assert_allclose(fresh, fresh[0], rtol=1e-4)  # its scale is normalised away
    assert np.ptp(stale) > 0.01


def test_pairs_are_those_of_each_start():
    weights = [[[0.0], [0.0], [i + 0.0]] for i in range(6)]
    members = trees.stack([member(LINEAR, w, {}) for w in weights])
    found = between_children(LINEAR, members, 3, DATA, ALPHAS)["test"]["loss"]
    assert found.shape == (2, 3, 5)
    first, second = (member(LINEAR, weights[i], {}) for i in (3, 5))
    alone = between(LINEAR, first, second, DATA, ALPHAS)
    np.testing.assert_allclose(found[1, 1], alone["test"]["loss"], rtol=1e-5)


def test_children_that_are_the_same_have_no_barrier():
    members = trees.stack([member(LINEAR, PARAMS["w"], {})] * 2)
    found = between_children(LINEAR, members, 2, DATA, ALPHAS)["test"]["loss"]
    np.testing.assert_allclose(barrier(found), 0, atol=1e-6)


def test_one_child_has_nobody_to_be_compared_with():
    with pytest.raises(ValueError, match="`children` is 1; a line needs at least 2"):
        between_children(LINEAR, trees.stack([member(LINEAR, PARAMS["w"], {})]), 1, DATA, ALPHAS)


@pytest.mark.parametrize("key", [None, KEY], ids=["evaluate", "train"])
@pytest.mark.slow
def test_curvature_is_that_of_the_parameters_in_the_mode_that_the_key_names(key):
    loss, state = training_loss(NORMED, key), {"spread": jnp.float32(2.0)}
    blocks = first_blocks(DATA.train, 9, block=5)
    operator = hessian_at(loss, PARAMS, state, MASK, blocks)
    assert operator.size == 2
    expected = jax.hessian(lambda w: mean_over(loss, blocks)({"w": w}, state))(PARAMS["w"])
    kept = np.flatnonzero(np.asarray(MASK["w"]))
    np.testing.assert_allclose(
        np.stack([operator(row) for row in jnp.eye(2)]),
        np.asarray(expected).reshape(3, 3)[np.ix_(kept, kept)],
        atol=1e-5,
    )


def test_the_sharpness_of_a_member_is_that_of_its_mask_and_rate():
    one = member(LINEAR, PARAMS["w"], {})
    blocks = first_blocks(DATA.train, 12, block=5)
    gram = X.T.astype(np.float64) @ X / 12
    top = np.linalg.eigvalsh(gram[np.ix_([0, 2], [0, 2])])[-1]
    loss = training_loss(LINEAR, None)
    assert relative_sharpness_at(loss, one, blocks, KEY) == pytest.approx(top * 0.1 / 2, rel=1e-4)
    diverged = one._replace(alive=jnp.array(False))
    assert np.isnan(relative_sharpness_at(loss, diverged, blocks, KEY))


def test_modes_differ_where_there_is_a_state():
    state = {"spread": jnp.float32(2.0)}
    values = [
        training_loss(NORMED, key)({"params": PARAMS, "state": state}, DATA.train)
        for key in (None, KEY)
    ]
    assert abs(values[0] - values[1]) > 1e-3


def test_a_mean_over_unequal_blocks_counts_examples():
    loss = training_loss(LINEAR, None)
    blocks = first_blocks(DATA.train, 12, block=7)
    whole = loss({"params": PARAMS, "state": {}}, DATA.train)
    assert mean_over(loss, blocks)(PARAMS, {}).item() == pytest.approx(float(whole), rel=1e-5)
    operator = hessian(loss, {"params": PARAMS, "state": {}}, blocks, leaves="params/*")
    assert operator.size == 3


def test_error_barriers_are_those_of_the_lines_between_two_children():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    task = lottery.Task(
        nn.Dense(3), (x, x.argmax(axis=1)), optimizer=optax.sgd(0.1), batch_size=8, steps=1
    )
    params = {
        "kernel": rng.normal(size=(4, 3, 3)).astype(np.float32),
        "bias": np.zeros((4, 3), np.float32),
    }
    params["kernel"][3] = params["kernel"][2]  # the second pair is of one network
    found = error_barriers(task, params, {}, 3)
    test, (a, b) = task.data.test, params["kernel"][:2]
    errors = [np.mean((test.x @ k).argmax(axis=1) != test.y) for k in (a, (a + b) / 2, b)]
    expected = max(errors) - (errors[0] + errors[2]) / 2
    np.testing.assert_allclose(found, [expected, 0.0], atol=1e-6)
