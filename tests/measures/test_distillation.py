"""Teachers of least-squares students against exact risks."""

import numpy as np
import pytest

from lth_jax.measures import distillation as d


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
