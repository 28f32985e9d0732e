"""Teachers of least-squares students against exact risks; targets of equal entropy."""

import numpy as np
import pytest
from scipy import special

from lth_jax.measures import distillation as d

RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(size=(50, 4)), RNG.integers(0, 4, 50)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_mixed_entropy_is_that_of_each_mixed_distribution(weight):
    p = special.softmax(LOGITS, axis=1)
    mixed = (1 - weight) * np.eye(4)[LABELS] + weight * p
    expected = np.mean([-sum(q * np.log(q) for q in row if q > 0) for row in mixed])
    assert d.mixed_entropy(LOGITS, LABELS, weight) == pytest.approx(expected)


@pytest.mark.parametrize("entropy", [0.0, 0.4, 1.1, np.log(4)])
def test_smoothing_has_the_entropy_it_should(entropy):
    epsilon = d.matching_smoothing(entropy, 4)
    p = np.full(4, epsilon / 4)
    p[0] += 1 - epsilon
    assert special.entr(p).sum() == pytest.approx(entropy, abs=1e-9)


def test_no_smoothing_is_softer_than_uniform():
    with pytest.raises(ValueError, match="`entropy`"):
        d.matching_smoothing(1.5, 4)


def test_shuffled_answers_keep_the_labels_and_the_set_of_all():
    amiss = d.shuffled_answers(np.random.default_rng(1), LOGITS, LABELS)
    rows = np.arange(len(LABELS))
    np.testing.assert_array_equal(amiss[rows, LABELS], LOGITS[rows, LABELS])
    np.testing.assert_array_equal(np.sort(amiss), np.sort(LOGITS))
    assert (amiss != LOGITS).any(axis=1).mean() > 0.7  # 5 of 6 permutations move something


def test_students_of_labels_err_as_computed():
    """400 draws, seed 0; within four standard errors of 8/51."""
    rng = np.random.default_rng(0)
    risks = np.array([d.student_risks(rng, "truth")[0] for _ in range(400)])
    error = risks.std(ddof=1) / np.sqrt(len(risks))
    assert abs(risks.mean() - 8 / 51) < 4 * error


def test_the_dense_fit_teaches_what_the_labels_do():
    labels, taught = d.student_risks(np.random.default_rng(3), "dense")
    assert taught == pytest.approx(labels, rel=1e-9)


def test_the_true_function_is_the_best_teacher_and_an_unrelated_one_harms():
    assert d.student_risks(np.random.default_rng(3), "truth")[1] == pytest.approx(0, abs=1e-20)
    labels, taught = d.student_risks(np.random.default_rng(3), "stranger")
    assert taught > labels


def test_what_cannot_be_asked():
    with pytest.raises(ValueError, match="`teacher` is 'nobody'"):
        d.student_risks(np.random.default_rng(0), "nobody")
