"""A linear classifier of two groups with known errors, before and after pruning."""

from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
"""An array of float64."""


class Errors(NamedTuple):
    """Probabilities of an error.

    Attributes:
      majority: error in group 0.
      minority: error in group 1.
    """

    majority: float
    minority: float

    @property
    def gap(self) -> float:
        """The error of the minority minus that of the majority."""
        return self.minority - self.majority

    def overall(self, minority: float) -> float:
        """The overall error for a given probability of group 1."""
        return (1 - minority) * self.majority + minority * self.minority


def group_errors(weights: ArrayLike, means: ArrayLike) -> Errors:
    """Errors of `sign(w · x)` for `x = y μ_g + N(0, I)`, y = ±1: `Φ(−w · μ_g / |w|)`.

    Args:
      weights: `(features,)`, not all 0.
      means: `(2, features)`.

    >>> group_errors([1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])
    Errors(majority=0.15865525393145707, minority=0.5)
    """
    w = np.asarray(weights, np.float64)
    found = scipy.special.ndtr(-(np.asarray(means, np.float64) @ w) / np.linalg.norm(w))
    return Errors(float(found[0]), float(found[1]))


def pruned_errors(
    rng: np.random.Generator,
    minority: float,
    *,
    strength: float = 2.0,
    features: int = 40,
    keep: int = 20,
    n: int = 1000,
) -> tuple[Errors, Errors]:
    """The errors of a random classifier of n examples, before and after magnitude pruning.

    The classifier is the mean of `y x`, which is determined by the random number of minority
    examples and normal noise of variance 1/n. Each group has separate features, so for a small
    minority magnitude pruning to one half removes exactly its weights.

    Args:
      rng: source of the examples.
      minority: π, the probability of group 1.
      strength: norm of both groups' means.
      features: half of them for each group, of equal strength.
      keep: number of kept weights, those of largest magnitude.
      n: training examples.

    >>> before, after = pruned_errors(np.random.default_rng(0), 0.1)
    >>> after.gap > before.gap
    True
    """
    means = np.zeros((2, features))
    means[0, : features // 2] = means[1, features // 2 :] = strength / np.sqrt(features / 2)
    share = rng.binomial(n, minority) / n
    weights = (1 - share) * means[0] + share * means[1] + rng.normal(size=features) / np.sqrt(n)
    kept = np.zeros(features)
    largest = np.argsort(-np.abs(weights), kind="stable")[:keep]
    kept[largest] = weights[largest]
    return group_errors(weights, means), group_errors(kept, means)
