"""Calibration of a classifier's probabilities, in float64 on the host.

All functions take logits `(n, classes)`; for probabilities p, such as those of an ensemble, pass
`log p`.
"""

from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray


class Reliability(NamedTuple):
    """Predictions in bins of equal width by confidence, the largest probability of each.

    Attributes:
      counts: int64 `[bins]`, predictions in each bin.
      confidence: float64 `[bins]`, their mean confidence; NaN in an empty bin.
      accuracy: float64 `[bins]`, the fraction of correct ones; NaN in an empty bin.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def reliability(logits: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> Reliability:
    """The reliability diagram: accuracy against confidence (DeGroot and Fienberg, 1983).

    Args:
      logits: `(n, classes)`.
      labels: `(n,)` integers.
      bins: number of bins `(i/bins, (i+1)/bins]`.

    Raises:
      ValueError: if the shapes do not fit, a label is out of range or `bins` is below 1.

    >>> found = reliability(np.log([[0.9, 0.1], [0.4, 0.6]]), [0, 0], bins=2)
    >>> found.counts.tolist(), found.confidence[1].item(), found.accuracy[1].item()
    ([0, 2], 0.75, 0.5)
    """
    if bins < 1:
        raise ValueError(f"`bins` must be at least 1, got {bins}.")
    log_p, y = _log_probabilities(logits, labels)
    confidence = np.exp(log_p.max(axis=1))
    right = log_p.argmax(axis=1) == y
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)

    def mean(values: NDArray) -> NDArray[np.float64]:
        total = np.bincount(which, weights=values, minlength=bins)
        return np.divide(total, counts, out=np.full(bins, np.nan), where=counts > 0)

    return Reliability(counts, mean(confidence), mean(right))


def expected_calibration_error(logits: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> float:
    """`Σ_b (n_b / n) |accuracy_b - confidence_b|` over the bins of `reliability`, in [0, 1].

    Its value depends on the number of bins, and it is biased upwards for bins with few predictions.
    Arguments and errors are those of `reliability`.

    Source: Naeini, Cooper and Hauskrecht (2015); Guo, Pleiss, Sun and Weinberger (2017), eq. 3.

    >>> f"{expected_calibration_error(np.log([[0.9, 0.1], [0.4, 0.6]]), [0, 0], bins=2):.2f}"
    '0.25'
    """
    counts, confidence, accuracy = reliability(logits, labels, bins=bins)
    filled = counts > 0
    gaps = np.abs(accuracy[filled] - confidence[filled])
    return float(gaps @ counts[filled] / counts.sum())


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike) -> float:
    """The mean of `-log p(label)`, in nats.

    Arguments and errors are those of `reliability`, without `bins`.

    >>> f"{negative_log_likelihood(np.zeros((3, 4)), [0, 1, 3]):.4f}"
    '1.3863'
    """
    log_p, y = _log_probabilities(logits, labels)
    return float(-np.take_along_axis(log_p, y[:, None], axis=1).mean())


def brier_score(logits: ArrayLike, labels: ArrayLike) -> float:
    """The mean of `Σ_c (p_c - [c = label])²` (Brier, 1950), in [0, 2].

    Arguments and errors are those of `reliability`, without `bins`.

    >>> brier_score(np.zeros((3, 2)), [0, 1, 1])
    0.5
    """
    log_p, y = _log_probabilities(logits, labels)
    target = np.arange(log_p.shape[1]) == y[:, None]
    return float(((np.exp(log_p) - target) ** 2).sum(axis=1).mean())


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature T > 0 that minimises the negative log-likelihood of `softmax(logits / T)`.

    Fitted on held-out examples, it makes the likelihoods of models with different confidence
    comparable (Guo et al., 2017; Ashukha et al., 2020, for ensembles, whose `logits` are then the
    logarithms of their mean probabilities). Searched in [0.01, 100]. Arguments and errors are those
    of `reliability`, without `bins`.

    >>> z = np.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]])
    >>> f"{fit_temperature(z, [0, 0, 0, 1]):.3f}"  # p = 3/4 at T = 4 / log 3
    '3.641'
    """
    log_p, y = _log_probabilities(logits, labels)

    def loss(log_t: float) -> float:
        return negative_log_likelihood(log_p / np.exp(log_t), y)

    ends = np.log([0.01, 100.0])
    return float(np.exp(scipy.optimize.minimize_scalar(loss, bounds=ends, method="bounded").x))


def _log_probabilities(logits: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray]:
    """The log-softmax of the logits in float64, and the labels, both checked."""
    z, y = np.asarray(logits, np.float64), np.asarray(labels)
    if z.ndim != 2 or y.shape != z.shape[:1] or not len(y):
        raise ValueError(
            f"`logits` must have shape (n, classes) and `labels` (n,), got {z.shape} and {y.shape}."
        )
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= z.shape[1]:
        raise ValueError(f"`labels` must be integers from 0 to {z.shape[1] - 1}.")
    return scipy.special.log_softmax(z, axis=1), y
