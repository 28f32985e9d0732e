"""Layers of 16 inputs and 8 outputs with known best weights, drawn at random."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Layer = tuple[Array, Array, Array]
"""Weights, calibration inputs and inputs."""


def hidden_teacher(rng: np.random.Generator) -> Layer:
    """Inputs in almost equal pairs; a teacher's weights plus terms that cancel within each pair."""
    rows = np.repeat(rng.normal(size=(256, 8)), 2, axis=1) + 0.01 * rng.normal(size=(256, 16))
    teacher = rng.normal(size=(8, 8)) * (rng.permuted(np.arange(64)).reshape(8, 8) < 24)
    cancels = 2 * rng.normal(size=(8, 8))
    weights = np.stack([teacher + cancels, -cancels], axis=1).reshape(16, 8)
    return weights, rows, rows


def orthonormal(rng: np.random.Generator) -> Layer:
    """Orthonormal inputs, for which magnitude pruning without an update is the best method."""
    return rng.normal(size=(16, 8)), np.eye(16), np.eye(16)


def miscalibrated(rng: np.random.Generator) -> Layer:
    """Orthonormal inputs, but only six random vectors for calibration.

    >>> [part.shape for part in miscalibrated(np.random.default_rng(0))]
    [(16, 8), (6, 16), (16, 16)]
    """
    return rng.normal(size=(16, 8)), rng.normal(size=(6, 16)), np.eye(16)
