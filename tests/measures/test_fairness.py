"""Confusion matrices per group against counts, and measures of them."""

import numpy as np
import pytest

from lth_jax.measures import fairness as f

RNG = np.random.default_rng(0)
LABELS, PREDICTIONS = RNG.integers(0, 3, 60), RNG.integers(0, 3, 60)
GROUPS = RNG.choice(["old", "young"], 60)


def test_confusion_counts_pairs():
    found = f.confusion(PREDICTIONS, LABELS, classes=4)
    for true in range(4):
        for said in range(4):
            assert found[true, said] == sum((LABELS == true) & (PREDICTIONS == said))


def test_groups_add_up_to_the_whole():
    per_group = f.confusion_per_group(PREDICTIONS, LABELS, GROUPS, classes=3)
    assert list(per_group) == ["old", "young"]
    whole = f.confusion(PREDICTIONS, LABELS, classes=3)
    np.testing.assert_array_equal(sum(per_group.values()), whole)
    for group, counts in per_group.items():
        here = GROUPS == group
        assert f.accuracy(counts) == np.mean(PREDICTIONS[here] == LABELS[here])


def test_accuracy():
    counts = [[3, 1, 0], [2, 2, 0], [0, 0, 0]]
    assert f.accuracy(counts) == 5 / 8
    assert np.isnan(f.accuracy(np.zeros((2, 2))))


def test_the_gap_is_that_of_best_and_worst():
    assert f.gap({0: 0.9, 1: 0.4, 2: np.nan, 3: 0.7}) == 0.5
    assert f.gap({0: 0.9}) == 0
    with pytest.raises(ValueError, match="`values` must hold a finite value"):
        f.gap({0: np.nan})


@pytest.mark.parametrize(
    ("predictions", "labels", "groups", "message"),
    [
        ([0, 3], [0, 1], [0, 0], "`predictions` must be a vector of integers from 0 to 2"),
        ([0, 1], [0, -1], [0, 0], "`labels` must be a vector of integers"),
        ([0.0, 1.0], [0, 1], [0, 0], "`predictions` must be a vector of integers"),
        ([0, 1], [0, 1], [0], "`groups` must have the shape of `labels`"),
    ],
)
def test_bad_input_is_refused(predictions, labels, groups, message):
    with pytest.raises(ValueError, match=message):
        f.confusion_per_group(predictions, labels, groups, classes=3)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="of one length, got 1 and 2"):
        f.confusion([0], [0, 1], classes=2)


def test_the_most_frequent_prediction_counts_votes():
    predictions = np.random.default_rng(0).integers(0, 4, (7, 50))
    expected = [np.bincount(column, minlength=4).argmax() for column in predictions.T]
    np.testing.assert_array_equal(f.modal(predictions, classes=4), expected)


def test_exemplars_are_where_the_populations_disagree():
    dense, pruned = np.array([[0, 1, 2]] * 3), np.array([[0, 1, 2], [0, 2, 1], [0, 2, 1]])
    found = f.pruning_identified(dense, pruned, classes=3)
    np.testing.assert_array_equal(found, [False, True, True])


def test_log_odds_are_those_of_the_definition():
    share = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(f.log_odds(share), np.log(share / (1 - share)), atol=1e-12)


def test_accuracies_of_the_groups():
    y, groups = np.array([0, 1, 2, 3]), np.array([0, 0, 0, 1])
    found = f.GroupAccuracy.of(np.array([[0, 1, 0, 3], [0, 1, 2, 0]]), y, groups)
    np.testing.assert_allclose(found.majority, [2 / 3, 1])
    np.testing.assert_allclose(found.minority, [1, 0])
    np.testing.assert_allclose(found.gap, [-100 / 3, 100])
    np.testing.assert_allclose(found.overall(0.1), [90 * 2 / 3 + 10, 90])
