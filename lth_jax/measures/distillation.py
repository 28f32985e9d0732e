"""Distillation in least squares, where the effect of a teacher is known exactly."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lth_jax.legal import check_name
from lth_jax.measures.generalization import planted_regression

TEACHERS = ("truth", "dense", "stranger")
"""The teachers of `student_risks`."""


def student_risks(rng: np.random.Generator, teacher: str, **data: Any) -> tuple[float, float]:
    """Excess risks of two students in a random regression: fitted to labels, and to a teacher.

    With targets `(1 − w) y + w E[y | x]` the noise shrinks by `1 − w`, so the expected risk of k
    features is `(1 − w)² σ² k / (n − k − 1)` for Gaussian features (inverse Wishart).

    Args:
      rng: source of the data; noise has variance 1.
      teacher: `"truth"`, `E[y | x]`, from which the student recovers the weights exactly;
        `"dense"`, the least-squares fit on all features, which gives exactly the same student as
        the labels, since a projection onto all features does not change the projection onto some of
        them; `"stranger"`, the truth for other examples.
      **data: arguments of `generalization.planted_regression`; the student uses the relevant
        features only.

    Raises:
      ValueError: for an unknown `teacher`.

    >>> labels, taught = student_risks(np.random.default_rng(0), "truth")
    >>> labels > 0.01 and taught < 1e-12
    True
    """
    x, w, y = planted_regression(rng, **data)
    matter = int(np.count_nonzero(w))
    answers = {
        "truth": lambda: x @ w,
        "dense": lambda: x @ np.linalg.lstsq(x, y, rcond=None)[0],
        "stranger": lambda: rng.permutation(x @ w),
    }
    check_name("teacher", teacher, TEACHERS)

    def risk(targets: NDArray[np.float64]) -> float:
        fitted = np.linalg.lstsq(x[:, :matter], targets, rcond=None)[0]
        return float(np.sum((fitted - w[:matter]) ** 2))

    return risk(y), risk(answers[teacher]())
