"""The closed forms of least squares beside draws of it."""

import numpy as np
import pytest

from lth_jax.measures.generalization import (
    drawn_nested_errors,
    expected_errors,
    least_squares_errors,
    nested_errors,
)


@pytest.mark.parametrize(("which", "k"), [("dense", 40), ("oracle", 8)])
def test_draws_have_the_expected_errors(which, k):
    rng = np.random.default_rng(0)
    drawn = np.array([least_squares_errors(rng, which) for _ in range(800)])
    error = drawn.std(axis=0, ddof=1) / np.sqrt(len(drawn))
    assert np.abs(drawn.mean(axis=0) - expected_errors(60, k)).max() < 5 * error.max()


def test_random_features_lose_the_signal():
    rng = np.random.default_rng(0)
    drawn = np.array([least_squares_errors(rng, "random") for _ in range(400)])
    # 8 · (1 − 8/40) of the signal is lost, and adds to the noise that is fitted.
    assert drawn[:, 1].mean() == pytest.approx((1 + 6.4) * (1 + 8 / 51), rel=0.1)


def test_what_cannot_be_asked():
    with pytest.raises(ValueError, match="`k` is 59"):
        expected_errors(60, 59)
    with pytest.raises(ValueError, match="`which` is 'some'"):
        least_squares_errors(np.random.default_rng(0), "some")


def test_nested_errors_are_those_of_the_features_that_matter():
    errors = nested_errors(60, [1.0] * 8 + [0.0] * 32)
    assert errors[7] == pytest.approx(expected_errors(60, 8)[1])
    assert errors[39] == pytest.approx(expected_errors(60, 40)[1])
    assert errors[0] == pytest.approx(8 * (1 + 1 / 58))  # seven left out, and the noise
    assert np.isinf(nested_errors(3, [1.0, 1.0, 1.0])[1:]).all()


def test_the_best_number_of_features_rises_with_the_examples():
    weights = 2 / np.arange(1, 33)
    assert [int(np.argmin(nested_errors(n, weights))) + 1 for n in (40, 640)] == [9, 32]


def test_drawn_nested_errors_average_to_the_exact_ones():
    rng, weights, sizes = np.random.default_rng(5), 2 / np.arange(1, 17), [1, 4, 16]
    drawn = np.array([drawn_nested_errors(rng, 60, weights, sizes) for _ in range(600)])
    exact = nested_errors(60, weights)[np.array(sizes) - 1]
    spread = drawn.std(axis=0, ddof=1) / np.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - exact) < 4 * spread).all()
