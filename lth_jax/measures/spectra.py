"""Eigenvalues as people look at them: as a smooth density, and as outliers beyond a bulk."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def broadened(
    values: ArrayLike, weights: ArrayLike, points: ArrayLike, width: float
) -> NDArray[np.float64]:
    """A weighted set of eigenvalues as a density, `Σ_j weights[j] N(points; values[j], width²)`.

    Args:
      values: `[k]`, eigenvalues.
      weights: `[k]`, their weights; with sum 1 the density has integral 1.
      points: `[m]`, where to evaluate it.
      width: the standard deviation of the Gaussian that stands for each eigenvalue.

    Returns:
      float64 `[m]`.

    >>> broadened([0.0], [1.0], [0.0, 2.0], 1.0).round(3).tolist()
    [0.399, 0.054]
    """
    points, values = np.asarray(points, np.float64), np.asarray(values, np.float64)
    z = (points[:, None] - values) / width
    return np.exp(-0.5 * z**2) @ np.asarray(weights, np.float64) / (width * np.sqrt(2 * np.pi))


def outliers(largest: ArrayLike) -> int:
    """How many of the largest eigenvalues stand apart: those above the widest relative gap.

    The `i` at which `λ_i/λ_{i+1}` is greatest, among the positive ones. A classifier of C classes
    has C − 1 outliers as a rule (Sagun et al., 2018; Papyan, 2019). Some gap is always widest, so
    the count means something only where that gap is wide.

    Args:
      largest: `[k]`, falling.

    Returns:
      The count, 1 to k − 1; 0 if fewer than two are positive.

    >>> outliers([9.0, 8.0, 7.5, 1.0, 0.8])
    3
    """
    largest = np.asarray(largest, np.float64)
    positive = largest[largest > 0]
    return int(np.argmax(positive[:-1] / positive[1:])) + 1 if len(positive) > 1 else 0
