"""What a teacher is worth to a sparse student: targets of equal entropy, and exact anchors."""

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

    A teacher's answers are also smoother labels (Yuan et al., 2020, "Revisiting knowledge
    distillation via label smoothing regularization"); this much smoothing is as smooth, and knows
    nothing of the example.

    Args:
      entropy: in nats, from 0 to `log classes`.
      classes: C, at least 2.

    Raises:
      ValueError: if there is no such ε.

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
    """A teacher's logits with those of the wrong classes permuted, anew for each example.

    Its confidence in every label stays; what it knows of which mistakes are near is lost.

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


def expected_student_risk(n: int, k: int, weight: float = 0.0, noise: float = 1.0) -> float:
    """Excess risk of least squares on the k features that matter, if the truth teaches too.

    With targets `(1 − w) y + w E[y | x]` the noise shrinks by `1 − w`, so the risk is
    `(1 − w)² σ² k / (n − k − 1)` for Gaussian features (inverse Wishart).

    Args:
      n: training examples, more than k + 1.
      k: weights of the student.
      weight: w, of the teacher.
      noise: σ².

    Raises:
      ValueError: unless `n > k + 1`.

    >>> f"{expected_student_risk(60, 8):.4f} {expected_student_risk(60, 8, weight=0.5):.4f}"
    '0.1569 0.0392'
    """
    if n <= k + 1:
        raise ValueError(f"`n` is {n}; it must be above `k` + 1 = {k + 1}.")
    return (1 - weight) ** 2 * noise * k / (n - k - 1)


def student_risks(rng: np.random.Generator, teacher: str, **data: Any) -> tuple[float, float]:
    """One draw of that regression: excess risks of a student of the labels and of a teacher.

    Args:
      rng: source of the data; noise has variance 1.
      teacher: `"truth"`, `E[y | x]`, of which the student learns the weights exactly; `"dense"`,
        the least-squares fit on all features, of which it learns exactly what the labels say, since
        a projection onto a subspace forgets one onto a larger space; `"stranger"`, the truth about
        other examples.
      **data: of `generalization.planted_regression`; the student has the features that matter.

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
