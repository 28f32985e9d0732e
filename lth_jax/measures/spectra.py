"""Summaries of spectra: smoothed density, outliers, spectral radius."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def broadened(
    values: ArrayLike, weights: ArrayLike, points: ArrayLike, width: float
) -> NDArray[np.float64]:
    """A weighted set of eigenvalues as a density, `Σ_j weights[j] N(points; values[j], width²)`.

    Args:
      values: `[k]`, eigenvalues.
      weights: `[k]`, their weights; with sum 1 the density has integral 1.
      points: `[m]`, points of evaluation.
      width: the standard deviation of the Gaussian of each eigenvalue.

    Returns:
      float64 `[m]`.

    >>> broadened([0.0], [1.0], [0.0, 2.0], 1.0).round(3).tolist()
    [0.399, 0.054]
    """
    points, values = np.asarray(points, np.float64), np.asarray(values, np.float64)
    z = (points[:, None] - values) / width
    return np.exp(-0.5 * z**2) @ np.asarray(weights, np.float64) / (width * np.sqrt(2 * np.pi))


def outliers(largest: ArrayLike) -> int:
    """The number of outliers: the largest eigenvalues above the widest relative gap.

    The `i` at which `λ_i/λ_{i+1}` is greatest, among the positive ones. A classifier of C classes
    typically has C − 1 outliers (Sagun et al., 2018; Papyan, 2019). A widest gap always exists, so
    the count is meaningful only if it is wide.

    Args:
      largest: `[k]`, descending.

    Returns:
      The count, 1 to k − 1; 0 if fewer than two are positive.

    >>> outliers([9.0, 8.0, 7.5, 1.0, 0.8])
    3
    """
    largest = np.asarray(largest, np.float64)
    positive = largest[largest > 0]
    return int(np.argmax(positive[:-1] / positive[1:])) + 1 if len(positive) > 1 else 0


def spectral_radius(kernel: ArrayLike, gates: int = 1) -> NDArray[np.float64]:
    """The largest absolute eigenvalue of each gate's recurrent matrix, `max_i |λ_i(U_g)|`.

    For small states, gradients of a tanh network vanish if the radius is below one and can explode
    if it is above (Pascanu, Mikolov and Bengio, 2013).

    Args:
      kernel: `(..., width, gates · width)`, the gates' square blocks side by side.
      gates: 1 for a tanh network, 3 for a GRU, 4 for an LSTM.

    Returns:
      float64 `[..., gates]`.

    Raises:
      ValueError: the kernel does not consist of `gates` square blocks.

    >>> spectral_radius([[0.0, 2.0], [-2.0, 0.0]]).round(6).tolist()
    [2.0]
    """
    u = np.asarray(kernel, np.float64)
    if u.ndim < 2 or u.shape[-1] != gates * u.shape[-2]:
        raise ValueError(
            f"`kernel` must have shape (..., width, {gates} · width) for `gates={gates}`, "
            f"got {u.shape}."
        )
    blocks = np.stack(np.split(u, gates, axis=-1), axis=-3)
    return np.abs(np.linalg.eigvals(blocks)).max(axis=-1)
