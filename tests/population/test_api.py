"""Populations in a few lines: seeds, masks and numbers side by side."""

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from lth_jax import lottery, trees
from lth_jax.population import Plan, Task, cross_entropy, initial, measure, train

X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
DATA = (X, (X[:, 0] > 0).astype(int))
TASK = Task(
    nn.Dense(2),
    DATA,
    optimizer=lambda h: optax.sgd(h["learning_rate"], momentum=0.9),
    batch_size=6,
    steps=10,
    eval_every=5,
    hyper={"learning_rate": 0.1},
)


def masks(n):
    kernel = np.random.default_rng(1).random((n, 4, 2)) < 0.5
    return {"kernel": kernel, "bias": np.ones((n, 2), bool)}


def test_masks_hold_through_training():
    members = initial(TASK, 3, masks=masks(3))
    trained, history = train(TASK, members, plan=Plan(3))
    assert np.all(np.asarray(trained.params["kernel"])[~masks(3)["kernel"]] == 0)
    assert history["step"].tolist() == [5, 10] and history["validation_accuracy"].shape == (2, 3)
    assert measure(TASK, trained)["accuracy"].shape == (3,)


def test_numbers_differ_between_members_and_equal_keys_give_equal_members():
    keys = jax.random.split(jax.random.key(3), 1)[np.zeros(3, int)]
    members = initial(TASK, keys, hyper={"learning_rate": [0.1, 0.1, 0.2]})
    trained, _ = train(TASK, members, plan=Plan(3))
    kernel = np.asarray(trained.params["kernel"])
    np.testing.assert_array_equal(kernel[0], kernel[1])
    assert not np.array_equal(kernel[0], kernel[2])


def test_members_of_two_replicates_train_on_their_own_examples():
    options = {"optimizer": optax.sgd(0.1), "batch_size": 6, "steps": 10, "eval_every": 5}
    shared = Task(nn.Dense(2), DATA, examples_per_replicate=12, **options)
    keys = jax.random.split(jax.random.key(3), 1)[np.zeros(2, int)]
    members = initial(shared, keys, hyper={"replicate": [0, 1]})
    assert members.hyper["replicate"].dtype == np.int32  # it is part of an index
    trained, _ = train(shared, members, plan=Plan(2))
    kernel = np.asarray(trained.params["kernel"])
    assert np.isfinite(kernel).all() and not np.array_equal(*kernel)


def test_a_member_trains_in_a_population_as_it_does_alone():
    members = initial(TASK, 3, masks=masks(3))
    together, _ = train(TASK, members, plan=Plan(3))
    alone, _ = train(TASK, trees.index(members, slice(1, 2)), plan=Plan(1))
    np.testing.assert_allclose(together.params["kernel"][1], alone.params["kernel"][0], rtol=1e-5)


def test_own_weights_and_one_mask_for_all():
    params = {"kernel": np.ones((4, 2), np.float32), "bias": np.zeros(2, np.float32)}
    mask = trees.index(masks(1), 0)
    members = initial(TASK, 2, params=params, masks=mask)
    kernel = np.broadcast_to(mask["kernel"].astype(np.float32), (2, 4, 2))
    np.testing.assert_array_equal(members.params["kernel"], kernel)


def test_training_goes_on_from_a_step():
    members = initial(TASK, 2)
    whole, _ = train(TASK, members, plan=Plan(2))
    half, _ = train(TASK, members, steps=5, plan=Plan(2))
    rest, _ = train(TASK, half, start=5, plan=Plan(2))
    np.testing.assert_array_equal(whole.params["kernel"], rest.params["kernel"])


@pytest.mark.slow
def test_a_plan_is_measured():
    trained, _ = train(TASK, initial(TASK, 2))
    assert trained.alive.all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hyper": {"learning_rate": [0.1, 0.2]}}, r"`hyper\['learning_rate'\]` has shape \(2,\)"),
        ({"masks": masks(2)}, "`masks` at 'bias' has shape"),
        ({"masks": {"kernel": np.ones((4, 2), bool)}}, "`masks` must have the structure"),
        ({"data_keys": jax.random.split(jax.random.key(0), 2)}, r"`data_keys` has shape \(2,\)"),
    ],
)
def test_bad_members_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        initial(TASK, 3, **options)


def test_bad_plans_are_refused():
    with pytest.raises(ValueError, match="`plan` is 'best'"):
        train(TASK, initial(TASK, 2), plan="best")
    with pytest.raises(ValueError, match="`start` must lie in 0 … 9, got 10"):
        train(TASK, initial(TASK, 2), start=10, plan=Plan(2))


FIXED = Task(nn.Dense(2), DATA, optimizer=optax.sgd(0.1), batch_size=6, steps=10)
WIDE = Task(nn.Dense(3), DATA, optimizer=optax.sgd(0.1), batch_size=6, steps=10)
NARROW = Task(nn.Dense(1), DATA, optimizer=optax.sgd(0.1), batch_size=6, steps=10)
ONES = {"kernel": np.ones((4, 2)), "bias": np.ones(2)}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: initial(TASK, 0), ValueError, "`keys` must lie in 1"),
        (lambda: initial(TASK, 2.0), TypeError, "`keys` must be an integer, got 2.0"),
        (lambda: initial(TASK, True), TypeError, "`keys` must be an integer, got True"),
        (lambda: initial(TASK, jax.random.key(0)), ValueError, r"`keys` has shape \(\)"),
        (
            lambda: initial(TASK, 2, hyper={"lr": 1.0}),
            ValueError,
            "`hyper` includes 'lr'; the task",
        ),
        (
            lambda: initial(FIXED, 2, hyper={"learning_rate": 1.0}),
            ValueError,
            "'learning_rate', which the task's `optimizer` does not read",
        ),
        (
            lambda: initial(TASK, 2, hyper={"learning_rate": "fast"}),
            TypeError,
            r"`hyper\['learning_rate'\]` is 'fast'",
        ),
        (
            lambda: initial(TASK, 2, params=jax.tree.map(lambda p: p.astype(int), ONES)),
            TypeError,
            "`params` at 'bias' has dtype int32; it must have float32",
        ),
        (lambda: initial(TASK, 2, masks=ONES), TypeError, "masks are boolean"),
        (lambda: initial(NARROW, 2), ValueError, "labels from 0 to 1 in 'train'.* below 1"),
        (
            lambda: train(WIDE, initial(TASK, 2), plan=Plan(2)),
            ValueError,
            "`members.params` at 'bias' has shape",
        ),
        (
            lambda: train(TASK, trees.index(initial(TASK, 2), 0), plan=Plan(1)),
            ValueError,
            "`members` is one member",
        ),
        (
            lambda: train(TASK, initial(TASK, 2), start=2.5, plan=Plan(2)),
            TypeError,
            "`start` must be an integer, got 2.5",
        ),
    ],
)
def test_bad_populations_are_refused_before_training(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_64_members_with_masks_rates_and_seeds_of_their_own():
    rates = np.geomspace(1e-3, 1.0, 64)
    members = initial(TASK, 64, hyper={"learning_rate": rates}, masks=masks(64))
    assert repr(members) == "Member(64 members)"
    seen = []
    trained, history = train(
        TASK,
        members,
        plan=Plan(24),
        on_segment=lambda step, m, r, i: seen.append((step, len(m.alive))),
    )
    assert not np.asarray(trained.params["kernel"])[~masks(64)["kernel"]].any()
    assert np.isfinite(history["train_loss"]).all() and len(seen) == 6
    alone, _ = train(TASK, trees.index(members, slice(63, 64)), plan=Plan(1))
    np.testing.assert_allclose(trained.params["kernel"][63], alone.params["kernel"][0], rtol=1e-5)


def test_calls_with_one_task_share_their_programs():
    traces = []

    def loss(out, y):
        traces.append(out.shape)
        return cross_entropy(out, y)

    task = TASK.replace(trainer=TASK.trainer._replace(loss=loss, metrics={"loss": loss}))

    def trained():
        members, _ = train(task, initial(task, 2, masks=masks(2)), plan=Plan(2))
        return measure(task, members)["loss"]

    first, once = trained(), len(traces)
    assert once
    np.testing.assert_array_equal(trained(), first)
    assert len(traces) == once


def test_a_learning_rate_that_the_optimizer_reads_must_be_given():
    options = {"optimizer": lambda h: optax.sgd(h["learning_rate"]), "batch_size": 6, "steps": 10}
    task = Task(nn.Dense(2), DATA, **options)
    message = "`hyper` lacks 'learning_rate', which the task's `optimizer` reads"
    with pytest.raises(ValueError, match=message):
        initial(task, 2)
    with pytest.raises(ValueError, match=message):
        lottery.run(task, lottery.imp(levels=1), replicates=1)
    assert initial(task, 2, hyper={"learning_rate": 0.1}).hyper["learning_rate"].shape == (2,)
    assert initial(Task(nn.Dense(2), DATA, hyper={"learning_rate": 0.1}, **options), 2)
