"""A linear classifier of two groups whose errors are known: what pruning does to the smaller."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]
"""An array of float64."""


class Errors(NamedTuple):
    """Probabilities of an error.

    Attributes:
      majority: in group 0.
      minority: in group 1.
    """

    majority: float
    minority: float

    @property
    def gap(self) -> float:
        """By how much the minority fares worse."""
        return self.minority - self.majority

    def overall(self, minority: float) -> float:
        """The error where group 1 has this probability."""
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
    found = special.ndtr(-(np.asarray(means, np.float64) @ w) / np.linalg.norm(w))
    return Errors(float(found[0]), float(found[1]))


def expected_errors(minority: float, strength: float) -> tuple[Errors, Errors]:
    """Errors before and after pruning half of the weights, with ever more examples.

    Each group is told apart by features of its own, `|μ_g| = m`. The mean of `y x` is
    `((1 − π) μ₀, π μ₁)`, so for π < ½ magnitude pruning to one half removes all of the minority's
    weights and nothing else:

        before: Φ(−(1 − π) m / r) and Φ(−π m / r), r² = (1 − π)² + π²;   after: Φ(−m) and ½.

    Args:
      minority: π, in (0, ½).
      strength: m.

    Raises:
      ValueError: unless `0 < minority < 0.5`.

    >>> [[round(e, 4) for e in errors] for errors in expected_errors(0.1, 2.0)]
    [[0.0234, 0.4126], [0.0228, 0.5]]
    """
    if not 0 < minority < 0.5:
        raise ValueError(f"`minority` is {minority}; it must lie between 0 and 0.5.")
    shares = np.array([1 - minority, minority])
    before = special.ndtr(-strength * shares / np.linalg.norm(shares))
    return Errors(*before.tolist()), Errors(float(special.ndtr(-strength)), 0.5)


def pruned_errors(
    rng: np.random.Generator,
    minority: float,
    *,
    strength: float = 2.0,
    features: int = 40,
    keep: int = 20,
    n: int = 1000,
) -> tuple[Errors, Errors]:
    """One draw of that classifier from n examples: its errors, and those of its largest weights.

    The classifier is the mean of `y x`, of which the drawn number of minority examples and normal
    noise of variance 1/n are all there is to draw.

    Args:
      rng: source of the examples.
      minority: π, the probability of group 1.
      strength: norm of both groups' means.
      features: half of them for each group, all alike.
      keep: weights that are left, those of largest magnitude.
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
