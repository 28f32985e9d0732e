"""Distillation: label smoothing of equal entropy, and exact results for least squares."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from lth_jax.measures.generalization import planted_regression

TEACHERS = ("truth", "dense", "stranger")
"""The teachers of `toy_error`."""


def mixed_entropy(logits: ArrayLike, labels: ArrayLike, weight: float) -> float:
    """The mean entropy of `(1 − w) y + w softmax(v)` over examples, in nats.

    Args:
      logits: the teacher's, `(n, classes)`.
      labels: `(n,)` integers.
      weight: of the teacher, in [0, 1].

    >>> f"{mixed_entropy([[0.0, 0.0]], [0], 0.5):.4f}"  # of (3/4, 1/4)
    '0.5623'
    """
    p = special.softmax(np.asarray(logits, np.float64), axis=1)
    mixed = (1 - weight) * np.eye(p.shape[1])[np.asarray(labels)] + weight * p
    return float(special.entr(mixed).sum(axis=1).mean())


def matching_smoothing(entropy: float, classes: int) -> float:
    """The ε at which smoothed labels `(1 − ε) y + ε / C` have a given entropy.

    A teacher's predictions also act as smoothed labels (Yuan et al., 2020, "Revisiting knowledge
    distillation via label smoothing regularization"); this smoothing has the same entropy without
    information about the example.

    Args:
      entropy: in nats, from 0 to `log classes`.
      classes: C, at least 2.

    Raises:
      ValueError: no such ε exists.

    >>> f"{matching_smoothing(0.5623351446, 2):.4f}"
    '0.5000'
    """
    if not 0 <= entropy <= np.log(classes):
        raise ValueError(f"`entropy` is {entropy}; it must lie in [0, log {classes}].")

    def excess(epsilon: float) -> float:
        rest = np.full(classes - 1, epsilon / classes)
        return float(special.entr(1 - rest.sum()) + special.entr(rest).sum() - entropy)

    return float(optimize.brentq(excess, 0.0, 1.0))


def shuffled_answers(
    rng: np.random.Generator, logits: ArrayLike, labels: ArrayLike
) -> NDArray[np.float64]:
    """A teacher's logits with those of the wrong classes permuted for each example.

    This keeps the confidence in the label and removes the information about similar classes.

    Args:
      rng: source of the permutations.
      logits: `(n, classes)`.
      labels: `(n,)` integers.

    >>> shuffled_answers(np.random.default_rng(0), [[5.0, 1.0, 1.0]], [0]).tolist()
    [[5.0, 1.0, 1.0]]
    """
    answers = np.array(logits, np.float64)
    wrong = np.arange(answers.shape[1]) != np.asarray(labels)[:, None]
    rest = answers[wrong].reshape(len(answers), -1)
    answers[wrong] = rng.permuted(rest, axis=1).ravel()
    return answers


def student_risks(rng: np.random.Generator, teacher: str, **data: Any) -> tuple[float, float]:
    """Excess risks of a student of the labels and of one of a teacher, in a random regression.

    With targets `(1 − w) y + w E[y | x]` the noise shrinks by `1 − w`, so the expected risk of k
    features is `(1 − w)² σ² k / (n − k − 1)` for Gaussian features (inverse Wishart).

    Args:
      rng: source of the data; noise has variance 1.
      teacher: `"truth"`, `E[y | x]`, from which the student recovers the weights exactly;
        `"dense"`, the least-squares fit on all features, which gives exactly the same student as
        the labels, since a projection onto a subspace of a larger space absorbs it; `"stranger"`,
        the truth about other examples.
      **data: of `generalization.planted_regression`; the student has the relevant features.

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
    if teacher not in answers:
        raise ValueError(f"`teacher` is {teacher!r}; it must be one of {', '.join(TEACHERS)}.")

    def risk(targets: NDArray[np.float64]) -> float:
        fitted = np.linalg.lstsq(x[:, :matter], targets, rcond=None)[0]
        return float(np.sum((fitted - w[:matter]) ** 2))

    return risk(y), risk(answers[teacher]())
