"""Calibration against its definitions, on cases with known results."""

import numpy as np
import pytest

from lth_jax.measures import calibration as c

RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(size=(200, 4)) * 2, RNG.integers(0, 4, 200)
P = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)


def test_likelihood_and_brier_are_their_formulas():
    nll = -np.log(P[np.arange(200), LABELS]).mean()
    brier = ((P - np.eye(4)[LABELS]) ** 2).sum(1).mean()
    assert c.negative_log_likelihood(LOGITS, LABELS) == pytest.approx(nll, rel=1e-12)
    assert c.brier_score(LOGITS, LABELS) == pytest.approx(brier, rel=1e-12)


def test_log_probabilities_serve_as_logits():
    for f in (c.negative_log_likelihood, c.brier_score, c.expected_calibration_error):
        assert f(np.log(P), LABELS) == pytest.approx(f(LOGITS, LABELS), rel=1e-12)


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_calibration_error_bin_by_bin(bins):
    confidence, right = P.max(1), P.argmax(1) == LABELS
    expected = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    found = c.expected_calibration_error(LOGITS, LABELS, bins=bins)
    assert found == pytest.approx(expected, rel=1e-12)


def test_sure_and_right_is_perfect_and_sure_and_wrong_is_worst():
    sure = np.log(np.eye(2)[[0, 1]] + 1e-300)
    scores = (c.expected_calibration_error, c.brier_score)
    assert [f(sure, [0, 1]) for f in scores] == pytest.approx([0, 0])
    assert [f(sure, [1, 0]) for f in scores] == pytest.approx([1, 2])


def test_a_classifier_with_true_probabilities_is_calibrated():
    """Of 100 examples with predicted probability 0.8 for class 0, 80 are of class 0."""
    logits = np.log(np.tile([0.8, 0.2], (100, 1)))
    labels = np.repeat([0, 1], [80, 20])
    assert c.expected_calibration_error(logits, labels) == pytest.approx(0, abs=1e-12)
    found = c.reliability(logits, labels, bins=10)
    assert found.counts.tolist() == [0] * 7 + [100, 0, 0]
    assert np.isnan(found.accuracy[:7]).all() and found.accuracy[7] == 0.8


def test_huge_logits_are_no_trouble():
    assert c.negative_log_likelihood(np.float32([[1e30, 0.0]]), [0]) == 0


@pytest.mark.parametrize(
    ("logits", "labels", "bins", "message"),
    [
        (LOGITS, LABELS[:5], 15, r"`logits` must have shape \(n, classes\) and `labels` \(n,\)"),
        (LOGITS, LABELS + 1, 15, "`labels` must be integers from 0 to 3"),
        (LOGITS, LABELS.astype(float), 15, "`labels` must be integers from 0 to 3"),
        (np.zeros((0, 4)), np.zeros(0, int), 15, "got .*0, 4"),
        (LOGITS, LABELS, 0, "`bins` must be at least 1, got 0"),
    ],
)
def test_bad_input_is_refused(logits, labels, bins, message):
    with pytest.raises(ValueError, match=message):
        c.reliability(logits, labels, bins=bins)
