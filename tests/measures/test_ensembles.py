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
    nll = e.cross_entropy_ambiguity(LOGITS, LABELS)
    together = calibration.negative_log_likelihood(e.geometric(LOGITS), LABELS)
    assert nll.ensemble == pytest.approx(together)
    assert brier.diversity > 0
    assert nll.diversity > 0


def test_clones_have_no_diversity():
    clones = np.repeat(LOGITS[:1], 3, axis=0)
    assert e.brier_ambiguity(clones, LABELS).diversity == pytest.approx(0, abs=1e-15)
    assert e.cross_entropy_ambiguity(clones, LABELS).diversity == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(e.mixture(clones), e.geometric(clones))


def test_both_means_are_distributions():
    for mean in (e.mixture, e.geometric):
        np.testing.assert_allclose(np.exp(mean(LOGITS)).sum(axis=1), 1.0)


@pytest.mark.parametrize("n", [50, 200])
def test_block_regressions_err_as_computed(n):
    """400 draws, seed 0; within four standard errors of the exact means."""
    rng = np.random.default_rng(0)
    drawn = np.array([e.block_errors(rng, n) for _ in range(400)])
    error = drawn.std(axis=0, ddof=1) / np.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - e.expected_block_errors(n, 40, 2)) < 4 * error).all()


def test_what_cannot_be_an_ensemble():
    with pytest.raises(ValueError, match="`logits` must have shape"):
        e.mixture(LOGITS[0])
    with pytest.raises(ValueError, match="`labels` must have shape"):
        e.brier_ambiguity(LOGITS, LABELS[1:])
    with pytest.raises(ValueError, match="`features` is 40"):
        e.expected_block_errors(41, 40, 2)


def test_the_fitted_temperature_undoes_a_scale():
    sharp = calibration.fit_temperature(LOGITS[0], LABELS)
    assert calibration.fit_temperature(3 * LOGITS[0], LABELS) == pytest.approx(3 * sharp, rel=1e-3)
    best = calibration.negative_log_likelihood(LOGITS[0] / sharp, LABELS)
    for factor in (0.9, 1.1):
        beside = calibration.negative_log_likelihood(LOGITS[0] / (factor * sharp), LABELS)
        assert beside > best
