"""`Task.check` refuses losses that mix examples, wrong types and inputs that are not finite."""

import flax.linen as nn
import numpy as np
import optax
import pytest

from lth_jax import population

X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)


def task(x=X, y=X[:, 0], loss=lambda out, y: (out[:, 0] - y) ** 2, **metrics):
    own = {"metrics": metrics} if metrics else {}
    made = population.Task(
        nn.Dense(1), (x, y), loss=loss, optimizer=optax.sgd(0.1), batch_size=4, steps=4, **own
    )
    made.check()
    return made


def broadcast(out, y):
    return ((out - y) ** 2).mean(-1)  # (n, 1) and (n,) become (n, n)


def test_a_loss_of_each_example_passes():
    assert task()


def test_a_loss_whose_shapes_broadcast_is_refused():
    with pytest.raises(ValueError, match=r"`loss` mixes examples: .* \(1,\) .* targets \(\)\."):
        task(loss=broadcast)
    with pytest.raises(ValueError, match=r"`metrics\['own'\]` mixes examples"):
        task(own=broadcast)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_inputs_must_be_finite(bad):
    x = X.copy()
    x[:, 1] = bad
    with pytest.raises(ValueError, match="`data` has inputs in 'train' that are NaN or infinite"):
        task(x=x)


def test_a_loss_is_a_function():
    with pytest.raises(TypeError, match=r"`loss` is 'mse'; it must be a function"):
        task(loss="mse")
    with pytest.raises(TypeError, match=r"`metrics\['own'\]` is 3; it must be a function"):
        task(own=3)
