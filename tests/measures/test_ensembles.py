"""Ensembles against their identities and against regressions with known errors."""

import numpy as np
import pytest

from lth_jax.measures import calibration
from lth_jax.measures import ensembles as e

RNG = np.random.default_rng(0)
LOGITS, LABELS = 2 * RNG.normal(size=(5, 60, 4)), RNG.integers(0, 4, 60)


def test_members_less_diversity_is_the_ensembles_loss():
    brier = e.brier_ambiguity(LOGITS, LABELS)
    assert brier.ensemble == pytest.approx(calibration.brier_score(e.mixture(LOGITS), LABELS))
    assert brier.diversity > 0


def test_clones_have_no_diversity():
    clones = np.repeat(LOGITS[:1], 3, axis=0)
    assert e.brier_ambiguity(clones, LABELS).diversity == pytest.approx(0, abs=1e-15)


def test_the_mean_is_a_distribution():
    np.testing.assert_allclose(np.exp(e.mixture(LOGITS)).sum(axis=1), 1.0)


@pytest.mark.parametrize("n", [50, 200])
def test_block_regressions_err_as_computed(n):
    """400 draws, seed 0; within four standard errors of the exact means (inverse Wishart).

    Of 40 features with signal 2 and noise 1, each of two blocks has signal 1, and the mean divides
    its weights by 2.
    """
    rng = np.random.default_rng(0)
    drawn = np.array([e.block_errors(rng, n) for _ in range(400)])
    error = drawn.std(axis=0, ddof=1) / np.sqrt(len(drawn))
    exact = 40 / (n - 41), 2 * (1 / 4 + 2 * 20 / (n - 21) / 4)
    assert (np.abs(drawn.mean(axis=0) - exact) < 4 * error).all()


def test_what_cannot_be_an_ensemble():
    with pytest.raises(ValueError, match="`logits` must have shape"):
        e.mixture(LOGITS[0])
    with pytest.raises(ValueError, match="`labels` must have shape"):
        e.brier_ambiguity(LOGITS, LABELS[1:])


def test_the_fitted_temperature_undoes_a_scale():
    sharp = calibration.fit_temperature(LOGITS[0], LABELS)
    assert calibration.fit_temperature(3 * LOGITS[0], LABELS) == pytest.approx(3 * sharp, rel=1e-3)
    best = calibration.negative_log_likelihood(LOGITS[0] / sharp, LABELS)
    for factor in (0.9, 1.1):
        beside = calibration.negative_log_likelihood(LOGITS[0] / (factor * sharp), LABELS)
        assert beside > best


def test_specialisation_is_the_spread_of_the_interaction_and_ignores_overall_skill():
    rng = np.random.default_rng(5)
    y = np.repeat(np.arange(10), 4000)

    def members(skill, spread):
        own = np.clip(skill[:, None] + spread * rng.normal(size=(len(skill), 10)), 0, 1)
        right = rng.random((len(skill), len(y))) < own[:, y]
        return np.eye(10)[np.where(right, y, (y + 1) % 10)]

    skill = np.linspace(0.3, 0.7, 8)
    noise = 100 * np.sqrt(0.23 / 4000)
    assert e.specialisation(members(skill, 0.0), y) == pytest.approx(noise, rel=0.2)
    assert e.specialisation(members(skill, 0.06), y) == pytest.approx(6.0, rel=0.25)
    with pytest.raises(ValueError, match="one member"):
        e.specialisation(np.zeros((1, 4, 2)), [0, 1, 0, 1])
