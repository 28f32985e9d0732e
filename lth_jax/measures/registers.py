"""Linear recurrences with known sparse or dense matrices: fits on masks."""

import numpy as np
from numpy.typing import NDArray


def shift_register(size: int) -> NDArray[np.float64]:
    """The matrix that shifts a state by one position: `size − 1` ones of `size²` entries.

    >>> shift_register(3).tolist()
    [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    return np.eye(size, k=-1)


def even_recurrence(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """A matrix `±1/(2.2 √size)` with random signs; its spectral norm is almost always below 1.

    >>> bool(np.linalg.norm(even_recurrence(np.random.default_rng(0), 4), 2) < 1)
    True
    """
    return rng.choice([-1.0, 1.0], size=(size, size)) / (2.2 * np.sqrt(size))


def masked_fits(
    rng: np.random.Generator,
    truth: NDArray[np.float64],
    kept: int,
    *,
    steps: int = 400,
    noise: float = 0.5,
) -> tuple[float, float]:
    """Prediction of the next state by the largest estimated weights, and by random ones.

    States follow `h' = W h + e`, `e ~ N(0, noise²)`, with independent `h ~ N(0, 1)` in every step.
    W is estimated by least squares; each mask keeps `kept` weights, and every row is refitted on
    them.

    Args:
      rng: source of states, noise and the random mask.
      truth: W, `[d, d]`.
      kept: weights in a mask.
      steps: number of transitions.
      noise: standard deviation of e.

    Returns:
      Percent of the variance of W h that the magnitude mask's and the random mask's fit explain,
      `100 · (1 − ‖Ŵ − W‖² / ‖W‖²)` (Frobenius norms; states are white).

    >>> best, drawn = masked_fits(np.random.default_rng(0), shift_register(8), kept=7)
    >>> best > 95, drawn < 60
    (True, True)
    """
    d = len(truth)
    h = rng.normal(size=(steps, d))
    after = h @ truth.T + noise * rng.normal(size=(steps, d))
    estimate = np.linalg.lstsq(h, after, rcond=None)[0].T
    order = np.argsort(-np.abs(estimate), axis=None)
    scores = []
    for places in (order[:kept], rng.permutation(d * d)[:kept]):
        mask = np.zeros(d * d, bool)
        mask[places] = True
        fitted = np.zeros_like(truth)
        for row, on in enumerate(mask.reshape(d, d)):
            fitted[row, on] = np.linalg.lstsq(h[:, on], after[:, row], rcond=None)[0]
        scores.append(100 * float(1 - np.sum((fitted - truth) ** 2) / np.sum(truth**2)))
    return scores[0], scores[1]
