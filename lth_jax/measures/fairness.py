"""Errors by group: confusion matrices, and gaps between groups."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray


def confusion(predictions: ArrayLike, labels: ArrayLike, *, classes: int) -> NDArray[np.int64]:
    """The confusion matrix `counts[label, prediction]`.

    Args:
      predictions: `(n,)` integers.
      labels: `(n,)` integers.
      classes: number of classes.

    Returns:
      int64 `[classes, classes]`.

    Raises:
      ValueError: if the shapes differ or an entry is not in `[0, classes)`.

    >>> confusion([0, 1, 1], [0, 0, 1], classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    found, true = (
        _integers("predictions", predictions, classes),
        _integers("labels", labels, classes),
    )
    if found.shape != true.shape:
        raise ValueError(
            f"`predictions` and `labels` must be of one length, got {found.size} and {true.size}."
        )
    counts = np.bincount(true * classes + found, minlength=classes * classes)
    return counts.reshape(classes, classes)


def confusion_per_group(
    predictions: ArrayLike, labels: ArrayLike, groups: ArrayLike, *, classes: int
) -> dict[Any, NDArray[np.int64]]:
    """`confusion` of the examples of each group.

    Args:
      predictions: `(n,)` integers.
      labels: `(n,)` integers.
      groups: `(n,)`, the group of each example: integers or strings.
      classes: number of classes.

    Returns:
      `{group: int64[classes, classes]}`, groups in order.

    Raises:
      ValueError: if the shapes differ or a class is out of range.

    >>> found = confusion_per_group([0, 1, 1], [0, 0, 1], ["a", "a", "b"], classes=2)
    >>> {group: accuracy(counts) for group, counts in found.items()}
    {'a': 0.5, 'b': 1.0}
    """
    predictions, labels, groups = (np.asarray(a) for a in (predictions, labels, groups))
    if groups.shape != labels.shape:
        raise ValueError(
            f"`groups` must have the shape of `labels`, got {groups.shape} and {labels.shape}."
        )
    return {
        group: confusion(predictions[groups == group], labels[groups == group], classes=classes)
        for group in np.unique(groups).tolist()
    }


def accuracy(counts: ArrayLike) -> float:
    """The fraction on the diagonal of a confusion matrix; NaN for an empty one.

    >>> accuracy([[3, 1], [0, 4]])
    0.875
    """
    counts = np.asarray(counts)
    return float(np.trace(counts) / counts.sum()) if counts.sum() else float("nan")


def gap(values: Mapping[Any, float]) -> float:
    """The largest difference between two groups; NaN values (empty groups) are ignored.

    Raises:
      ValueError: if no group has a value.

    >>> gap({"a": 0.5, "b": 1.0, "c": float("nan")})
    0.5
    """
    finite = [value for value in values.values() if np.isfinite(value)]
    if not finite:
        raise ValueError("`values` must hold a finite value for one group at least.")
    return max(finite) - min(finite)


def log_odds(share: ArrayLike) -> NDArray[np.float64]:
    """The log-odds `log (p / (1 − p))`, whose differences do not shrink near 0 and 1.

    >>> log_odds([0.5, 0.75]).round(4).tolist()
    [0.0, 1.0986]
    """
    return np.asarray(scipy.special.logit(np.asarray(share, np.float64)))


class GroupAccuracy(NamedTuple):
    """The accuracies of networks in two groups, `[networks]` each, in [0, 1].

    Attributes:
      majority: accuracy in group 0.
      minority: accuracy in group 1.

    >>> found = GroupAccuracy.of(np.array([[0, 1, 0]]), np.array([0, 1, 1]), np.array([0, 0, 1]))
    >>> found.gap.tolist(), found.overall(0.1).tolist()
    ([100.0], [90.0])
    """

    majority: NDArray[np.float64]
    minority: NDArray[np.float64]

    @classmethod
    def of(cls, predictions: ArrayLike, labels: ArrayLike, groups: ArrayLike) -> Self:
        """From predictions `(networks, n)`, with labels and groups (0 or 1) `(n,)`."""
        right, first = np.asarray(predictions) == np.asarray(labels), np.asarray(groups) == 0
        return cls(right[:, first].mean(axis=1), right[:, ~first].mean(axis=1))

    @property
    def gap(self) -> NDArray[np.float64]:
        """Majority minus minority, in points."""
        return 100 * (self.majority - self.minority)

    @property
    def odds(self) -> NDArray[np.float64]:
        """The gap in log-odds."""
        return log_odds(self.majority) - log_odds(self.minority)

    def overall(self, minority: float) -> NDArray[np.float64]:
        """Accuracy for a given fraction of the minority, in points."""
        return 100 * ((1 - minority) * self.majority + minority * self.minority)


def modal(predictions: ArrayLike, *, classes: int) -> NDArray[np.int64]:
    """The most frequent prediction of several networks for each example; ties: the smallest.

    Args:
      predictions: `(networks, n)` integers in `[0, classes)`.
      classes: number of classes.

    >>> modal([[0, 1], [2, 1], [2, 0]], classes=3).tolist()
    [2, 1]
    """
    votes = np.asarray(predictions)[..., None] == np.arange(classes)
    return np.asarray(votes.sum(axis=0).argmax(axis=-1))


def pruning_identified(dense: ArrayLike, pruned: ArrayLike, *, classes: int) -> NDArray[np.bool_]:
    """The examples on which populations of dense and of pruned networks disagree.

    These are the examples whose modal predictions differ, the pruning-identified exemplars of
    Hooker et al. (2019), "What do compressed deep neural networks forget?".

    Args:
      dense: predictions `(networks, n)`.
      pruned: predictions `(networks, n)`.
      classes: number of classes.

    Returns:
      bool `(n,)`.

    >>> pruning_identified([[0, 1], [0, 1]], [[0, 2], [0, 2]], classes=3).tolist()
    [False, True]
    """
    return modal(dense, classes=classes) != modal(pruned, classes=classes)


def _integers(name: str, values: ArrayLike, classes: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    whole = array.ndim == 1 and (np.issubdtype(array.dtype, np.integer) or not array.size)
    if not whole or (array.size and not 0 <= array.min() <= array.max() < classes):
        raise ValueError(f"`{name}` must be a vector of integers from 0 to {classes - 1}.")
    return array.astype(np.int64)
