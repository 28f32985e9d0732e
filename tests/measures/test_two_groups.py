"""A classifier of two Gaussian groups against its exact errors."""

import numpy as np
import pytest
from scipy import special

from lth_jax.measures import two_groups as t


@pytest.mark.parametrize(("minority", "strength"), [(0.1, 2.0), (0.3, 1.0), (0.45, 3.0)])
def test_many_examples_err_as_computed(minority, strength):
    """Seed 0; 10¹⁴ examples leave noise of 1e-7. Pruning removes the minority's weights."""
    shares = np.array([1 - minority, minority])
    before = special.ndtr(-strength * shares / np.linalg.norm(shares))
    drawn = t.pruned_errors(np.random.default_rng(0), minority, strength=strength, n=10**14)
    np.testing.assert_allclose(drawn, (before, (special.ndtr(-strength), 0.5)), atol=1e-6)


def test_errors_of_drawn_examples():
    """Monte Carlo, seed 0, 200,000 examples per group: four standard errors."""
    rng = np.random.default_rng(0)
    means, w = rng.normal(size=(2, 5)) / 2, rng.normal(size=5)
    y = rng.choice([-1, 1], size=200_000)
    for mean, error in zip(means, t.group_errors(w, means), strict=True):
        wrong = (y[:, None] * mean + rng.normal(size=(len(y), 5))) @ w * y < 0
        assert wrong.mean() == pytest.approx(error, abs=4 * np.sqrt(0.25 / len(y)))


def test_groups_of_one_size_are_alike():
    """400 draws, seed 0: the mean gap is within four standard errors of 0."""
    rng = np.random.default_rng(0)
    gaps = np.array([[e.gap for e in t.pruned_errors(rng, 0.5)] for _ in range(400)])
    assert (np.abs(gaps.mean(axis=0)) < 4 * gaps.std(axis=0) / 20).all()


def test_the_parts_of_errors():
    errors = t.Errors(0.1, 0.3)
    assert errors.gap == pytest.approx(0.2)
    assert errors.overall(0.25) == pytest.approx(0.15)
