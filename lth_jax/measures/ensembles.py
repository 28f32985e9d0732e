"""Ensembles: mean predictions, diversity and scores."""

import math
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from lth_jax.measures import calibration

Floats = NDArray[np.float64]
"""An array of float64."""


class Ambiguity(NamedTuple):
    """Ambiguity decomposition: the loss of an ensemble is that of its members minus diversity.

    Attributes:
      members: mean loss of the members.
      diversity: distance of members from their ensemble in the same loss; at least 0.
    """

    members: float
    diversity: float

    @property
    def ensemble(self) -> float:
        """The loss of the ensemble, `members − diversity`."""
        return self.members - self.diversity


def mixture(logits: ArrayLike) -> Floats:
    """The log of the mean of the members' probabilities, `log (1/K) Σ_k softmax(z_k)`.

    Args:
      logits: `(members, n, classes)`.

    Returns:
      float64 `(n, classes)`, normalised.

    Raises:
      ValueError: if `logits` is not three-dimensional, or there is no member.

    >>> mixture([[[0.0, 0.0]], [[0.0, -np.inf]]]).round(4).tolist()
    [[-0.2877, -1.3863]]
    """
    log_p = _log_probabilities(logits)
    return scipy.special.logsumexp(log_p, axis=0) - np.log(len(log_p))


def brier_ambiguity(logits: ArrayLike, labels: ArrayLike) -> Ambiguity:
    """Ambiguity decomposition of the Brier score of `mixture`.

    `|p̄ − y|² = (1/K) Σ_k |p_k − y|² − (1/K) Σ_k |p_k − p̄|²`, exactly (Krogh and Vedelsby, 1995).

    Args:
      logits: `(members, n, classes)`.
      labels: `(n,)` integers.

    Raises:
      ValueError: if the shapes do not fit.

    >>> brier_ambiguity([[[0.0, -np.inf]], [[-np.inf, 0.0]]], [0])
    Ambiguity(members=1.0, diversity=0.5)
    """
    p = np.exp(_log_probabilities(logits))
    target = np.eye(p.shape[-1])[_labels(labels, p)]
    members = ((p - target) ** 2).sum(axis=-1).mean()
    diversity = ((p - p.mean(axis=0)) ** 2).sum(axis=-1).mean()
    return Ambiguity(float(members), float(diversity))


def block_errors(
    rng: np.random.Generator, n: int, *, features: int = 40, blocks: int = 2, signal: float = 2.0
) -> tuple[float, float]:
    """Excess risks `|ŵ − w|²` of a dense fit and of the mean of fits on disjoint blocks.

    The regression is random, with independent standard normal features. Both predictors have all
    coefficients. With few examples the ensemble is better, since each fit has fewer weights; with
    many its bias remains.

    Args:
      rng: source of the data; noise has variance 1.
      n: training examples.
      features: a multiple of `blocks`.
      blocks: fits that are averaged.
      signal: squared norm of the true weights, all equal.

    >>> dense, ensemble = block_errors(np.random.default_rng(0), 50)
    >>> dense > ensemble
    True
    """
    w = np.full(features, np.sqrt(signal / features))
    x = rng.normal(size=(n, features))
    y = x @ w + rng.normal(size=n)

    def fit(columns: Floats) -> Floats:
        return np.linalg.lstsq(columns, y, rcond=None)[0]

    mean = np.concatenate([fit(part) for part in np.split(x, blocks, axis=1)]) / blocks
    return float(np.sum((fit(x) - w) ** 2)), float(np.sum((mean - w) ** 2))


def _log_probabilities(logits: ArrayLike) -> Floats:
    z = np.asarray(logits, np.float64)
    if z.ndim != 3 or not len(z):
        raise ValueError(f"`logits` must have shape (members, n, classes), got {z.shape}.")
    return np.asarray(scipy.special.log_softmax(z, axis=-1))


def _labels(labels: ArrayLike, log_p: Floats) -> NDArray[np.int64]:
    y = np.asarray(labels)
    if y.shape != log_p.shape[1:2]:
        raise ValueError(f"`labels` must have shape ({log_p.shape[1]},), got {y.shape}.")
    return y


def specialisation(logits: ArrayLike, labels: ArrayLike) -> float:
    """The differences between members in accuracy by class, in percentage points.

    The standard deviation of the interaction of member and class in a two-way table of accuracies:
    `√(Σ (a_kc − a_k· − a_·c + a_··)² / ((K − 1)(C − 1)))`. It is 0 for members that are better or
    worse at all classes alike; it contains the sampling error of the accuracies.

    Args:
      logits: `(members, n, classes)`, at least two members.
      labels: `(n,)` integers; every class occurs.

    Raises:
      ValueError: if the shapes do not fit, or there is one member only.

    >>> right_on_class_0, right_on_class_1 = [[1.0, 0.0]] * 2, [[0.0, 1.0]] * 2
    >>> round(specialisation([right_on_class_0, right_on_class_1], [0, 1]), 3)
    100.0
    """
    z = np.asarray(logits)
    y = _labels(labels, z)
    if len(z) < 2:
        raise ValueError("`logits` has one member; specialisation needs at least two.")
    right = z.argmax(axis=-1) == y
    table = np.stack([right[:, y == c].mean(axis=1) for c in range(z.shape[-1])], axis=1)
    apart = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return 100 * float(np.sqrt(np.sum(apart**2) / freedom))


class Scores(NamedTuple):
    """The scores of an ensemble on test examples.

    Attributes:
      nll: negative log-likelihood in nats, at the temperature fitted to held-out examples.
      raw: the same at temperature 1.
      error: error in percent.
      diversity: the diversity term of the Brier score.
    """

    nll: float
    raw: float
    error: float
    diversity: float


def scores(
    logits: ArrayLike, labels: ArrayLike, held_out: ArrayLike, held_out_labels: ArrayLike
) -> Scores:
    """The scores of the mean of the members' probabilities.

    Args:
      logits: on test examples, `(members, n, classes)`.
      labels: `(n,)` integers.
      held_out: logits on other examples, `(members, m, classes)`, for the temperature.
      held_out_labels: `(m,)` integers.

    Raises:
      ValueError: if the shapes do not fit, or a label is out of range.

    >>> z = np.array([[[4.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [1.0, 0.0]]])
    >>> found = scores(z, [0, 1], z, [0, 1])
    >>> found.error, found.nll <= found.raw
    (50.0, True)
    """
    log_p, y = mixture(logits), np.asarray(labels)
    temperature = calibration.fit_temperature(mixture(held_out), held_out_labels)
    return Scores(
        calibration.negative_log_likelihood(log_p / temperature, y),
        calibration.negative_log_likelihood(log_p, y),
        100 * float(np.mean(log_p.argmax(axis=1) != y)),
        brier_ambiguity(logits, y).diversity,
    )


def equal_run(members: int, density: float) -> int:
    """The number of dense networks with at least as many weights as sparse members.

    `⌈members · density⌉`.

    >>> equal_run(8, 0.25), equal_run(4, 0.125)
    (2, 1)
    """
    return math.ceil(members * density)


def equal_training(members: int, level: int, rate: float) -> int:
    """The number of dense networks that take at least as much training as tickets of a level.

    `⌈members Σᵢ (1 − rate)ⁱ⌉` over i from 0 to `level`, where the training of level i costs
    `(1 − rate)ⁱ` of a dense one.

    >>> equal_training(8, 2, 0.5)  # each ticket: 1 + 1/2 + 1/4 dense trainings
    14
    """
    return math.ceil(members * sum((1 - rate) ** i for i in range(level + 1)))
