"""Arrays of users keep their values or are refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.data import from_arrays
from lth_jax.data.datasets import fingerprint


@pytest.mark.parametrize("numbers", [[3_000_000_000, 1], [-(2**40), 1], [2**31, 2**31]])
def test_integers_that_jax_would_wrap_are_refused(numbers):
    x = np.array(numbers * 10, np.int64).reshape(-1, 1)
    with pytest.raises(ValueError, match=r"holds integers from .* lie between -2147483648"):
        from_arrays((x, np.zeros(20, int)))


def test_integers_that_fit_stay():
    x = np.array([2**31 - 1, -(2**31)] * 10, np.int64).reshape(-1, 1)
    train = from_arrays((x, np.zeros(20, np.uint64))).train
    assert set(np.asarray(train.x).ravel()) <= {2**31 - 1, -(2**31)}


def test_half_precision_has_a_fingerprint():
    x = np.arange(40.0).reshape(20, 2)
    found = [fingerprint(jnp.asarray(x, t)) for t in (jnp.bfloat16, jnp.float16, jnp.float32)]
    assert len(set(found)) == 3
    splits = from_arrays((np.asarray(jnp.asarray(x, jnp.bfloat16)), np.arange(20) % 2))
    assert splits.train.x.dtype == jnp.bfloat16 and len(fingerprint(*splits)) == 64
