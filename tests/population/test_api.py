"""Populations in a few lines: seeds, masks and numbers side by side."""

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from lth_jax import trees
from lth_jax.population import Plan, Task, initial, measure, train

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
    with pytest.raises(ValueError, match="`start` is 10"):
        train(TASK, initial(TASK, 2), start=10, plan=Plan(2))
