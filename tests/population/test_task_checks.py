"""`Task.check` refuses losses that mix examples, wrong types and inputs that are not finite."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax import population
from lth_jax.types import Batch, Splits

X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)


def task(x=X, y=X[:, 0], loss=lambda out, y: (out[:, 0] - y) ** 2, data=None, **metrics):
    own = {"metrics": metrics} if metrics else {}
    made = population.Task(
        nn.Dense(1),
        (x, y) if data is None else data,
        loss=loss,
        optimizer=optax.sgd(0.1),
        batch_size=4,
        steps=4,
        **own,
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
def test_data_must_be_finite(bad):
    x = X.copy()
    x[3:, 1] = bad
    first = r"that are NaN or infinite, the first in example 3"
    with pytest.raises(ValueError, match=rf"`data` has inputs {first} at \(1,\); all must be"):
        task(x=x)
    with pytest.raises(ValueError, match=f"`data` has targets {first}; all must be"):
        task(y=x[:, 1])
    with pytest.raises(ValueError, match=f"`test` has inputs {first}"):
        task(data={"train": (X, X[:, 0]), "test": (x, X[:, 0])})
    on_device = Splits(*(Batch(jnp.asarray(x), jnp.asarray(X[:, 0])) for _ in range(3)))
    with pytest.raises(ValueError, match="`data` has inputs in 'train' that are NaN or infinite"):
        task(data=on_device)


def test_a_loss_is_a_function():
    with pytest.raises(TypeError, match=r"`loss` is 'mse'; it must be a function"):
        task(loss="mse")
    with pytest.raises(TypeError, match=r"`metrics\['own'\]` is 3; it must be a function"):
        task(own=3)
