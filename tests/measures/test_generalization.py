"""Draws of least squares against closed forms."""

import numpy as np
import pytest

from lth_jax.measures.generalization import least_squares_errors


def _expected_errors(n, k):
    """Mean training and test errors of least squares on k Gaussian features (inverse Wishart)."""
    return 1 - k / n, 1 + k / (n - k - 1)


@pytest.mark.parametrize(("which", "k"), [("dense", 40), ("oracle", 8)])
def test_draws_have_the_expected_errors(which, k):
    rng = np.random.default_rng(0)
    drawn = np.array([least_squares_errors(rng, which) for _ in range(800)])
    error = drawn.std(axis=0, ddof=1) / np.sqrt(len(drawn))
    assert np.abs(drawn.mean(axis=0) - _expected_errors(60, k)).max() < 5 * error.max()


def test_random_features_lose_the_signal():
    rng = np.random.default_rng(0)
    drawn = np.array([least_squares_errors(rng, "random") for _ in range(400)])
    # 8 · (1 − 8/40) of the signal is lost, and adds to the noise that is fitted.
    assert drawn[:, 1].mean() == pytest.approx((1 + 6.4) * (1 + 8 / 51), rel=0.1)


def test_what_cannot_be_asked():
    with pytest.raises(ValueError, match="`which` is 'some'"):
        least_squares_errors(np.random.default_rng(0), "some")
