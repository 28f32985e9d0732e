from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lth_jax.data import in_order, indices, order

KEY = jax.random.key(7)
draw = jax.jit(indices, static_argnames=("steps", "batch_size", "size"))


def permutations(size, n, seed=0):
    """The first epoch of `n` keys, each as one batch of everything."""
    keys = jax.random.split(jax.random.key(seed), n)
    first = jax.vmap(lambda key: indices(key, 0, steps=1, batch_size=size, size=size)[0])
    return np.asarray(jax.jit(first)(keys))


def p_values(drawn):
    """Chi-square tests of uniformity: positions, successive pairs, first-to-last distance."""
    n, size = drawn.shape
    positions = np.stack([np.bincount(column, minlength=size) for column in drawn.T])
    chi = ((positions - n / size) ** 2 / (n / size)).sum()
    pairs = np.bincount(drawn[:, 0] * size + drawn[:, 1], minlength=size**2).reshape(size, size)
    distance = np.bincount((drawn[:, -1] - drawn[:, 0]) % size, minlength=size)
    return [
        stats.chi2.sf(chi, (size - 1) ** 2),
        stats.chisquare(pairs[~np.eye(size, dtype=bool)]).pvalue,
        stats.chisquare(distance[1:]).pvalue,
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 16, 97, 4999])
def test_every_epoch_is_a_permutation(size):
    epochs = draw(KEY, 0, steps=3, batch_size=size, size=size)
    assert (np.sort(epochs, axis=1) == np.arange(size)).all()
    if size > 20:  # three equal orders of so many examples do not happen by chance
        assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(size=st.integers(2, 5000), seed=st.integers(0, 2**31 - 1))
def test_every_epoch_is_a_permutation_at_any_size(size, seed):
    epoch = draw(jax.random.key(seed), 1, steps=1, batch_size=size, size=size)[0]
    assert (np.sort(epoch) == np.arange(size)).all()


@pytest.mark.parametrize("size", [5, 9, 12])
def test_orders_are_uniform(size):
    drawn = permutations(size, 30_000)
    assert (np.sort(drawn, axis=1) == np.arange(size)).all()
    assert min(p_values(drawn)) > 1e-3


def test_the_uniformity_test_sees_a_weak_order(monkeypatch):
    monkeypatch.setattr(order, "_DOUBLE_ROUNDS", 2)
    assert min(p_values(permutations(9, 30_000))) < 1e-6


def test_long_orders_look_random_and_unrelated():
    size, n = 1000, 300
    drawn = permutations(size, n)
    fixed = (drawn == np.arange(size)).sum()
    assert stats.poisson.cdf(fixed, n) > 1e-3 and stats.poisson.sf(fixed, n) > 1e-3
    successive = [np.corrcoef(row[:-1], row[1:])[0, 1] for row in drawn]
    assert abs(np.mean(successive)) < 4 / np.sqrt(size * n)
    assert np.std(successive) * np.sqrt(size) == pytest.approx(1, abs=0.2)
    quarter = np.bincount(drawn[:, :250].ravel() // 250, minlength=4)
    assert stats.chisquare(quarter).pvalue > 1e-3
    between_keys = np.corrcoef(drawn)[~np.eye(n, dtype=bool)]
    assert np.abs(between_keys).max() < 6 / np.sqrt(size)
    assert np.std(between_keys) * np.sqrt(size) == pytest.approx(1, abs=0.05)


@pytest.fixture(scope="module")
def ten_epochs():
    """Steps 0 … 29 of three examples each, out of ten."""
    return np.asarray(draw(KEY, 0, steps=30, batch_size=3, size=10))


@pytest.mark.parametrize("step", [0, 2, 5, 27])
def test_windows_agree_across_epochs(ten_epochs, step):
    window = draw(KEY, step, steps=3, batch_size=3, size=10)
    assert (window == ten_epochs[step : step + 3]).all()


def test_what_no_full_batch_is_left_for_is_dropped(ten_epochs):
    epochs = ten_epochs.reshape(10, 9).tolist()
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert len({(set(range(10)) - set(epoch)).pop() for epoch in epochs}) > 1


def test_vmapped_keys_draw_what_each_draws_alone():
    window = {"steps": 3, "batch_size": 3, "size": 10}
    keys = jax.random.split(KEY, 4)
    together = jax.jit(jax.vmap(lambda key: indices(key, 11, **window)))(keys)
    assert (together == jnp.stack([draw(key, 11, **window) for key in keys])).all()


def test_the_largest_size_does_not_overflow():
    size = 2**31 - 1
    drawn = np.asarray(draw(KEY, 3, steps=2, batch_size=1000, size=size))
    assert drawn.dtype == np.int32
    assert drawn.min() >= 0 and len(np.unique(drawn)) == drawn.size
    assert stats.kstest(drawn.ravel() / size, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("batches", [indices, in_order])
def test_strict_dtype_promotion_holds(batches):
    with jax.numpy_dtype_promotion("strict"):
        window = partial(batches, steps=3, batch_size=2, size=7)
        rows = jax.eval_shape(window, KEY, jnp.int32(4))
    assert rows.shape == (3, 2) and rows.dtype == jnp.int32


def test_in_order_repeats_the_data_as_they_lie():
    rows = in_order(KEY, 1, steps=4, batch_size=2, size=6)
    assert rows.tolist() == [[2, 3], [4, 5], [0, 1], [2, 3]]


@pytest.mark.parametrize("batches", [indices, in_order])
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"steps": 0}, ValueError, "`steps` must lie in 1"),
        ({"batch_size": 11}, ValueError, "`batch_size` must not exceed .* 10: 11"),
        ({"size": 2**31}, ValueError, "`size` must lie in 1"),
        ({"batch_size": 2.0}, TypeError, "`batch_size` must be an integer, got 2.0"),
        ({"step": 1.5}, TypeError, "`step` must be an integer, got 1.5"),
        ({"steps": True}, TypeError, "`steps` must be an integer, got True"),
    ],
)
def test_bad_numbers_are_refused(batches, wrong, error, message):
    with pytest.raises(error, match=message):
        batches(KEY, **{"step": 0, "steps": 1, "batch_size": 2, "size": 10, **wrong})
