"""Comparison at equal loss: the values of networks where they have the loss of others."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def at_loss(wanted: ArrayLike, losses: ArrayLike, values: ArrayLike) -> NDArray[np.float64]:
    """The value of each seed at a loss, interpolated linearly between losses of its networks.

    Args:
      wanted: the loss of each seed, `[seeds]`. Beyond the losses of a seed, the value at the
        nearest one counts.
      losses: `[steps, seeds]`, after several numbers of training steps, in any order.
      values: `[steps, seeds]`, of the same networks.

    Returns:
      float64 `[seeds]`.

    >>> at_loss([2.25, 1.0], [[3.0, 3.0], [2.0, 2.0]], [[1.0, 1.0], [0.0, 0.5]]).tolist()
    [0.25, 0.5]
    """

    def one(loss: float, known: NDArray[np.float64], found: NDArray[np.float64]) -> float:
        order = np.argsort(known)
        return float(np.interp(loss, known[order], found[order]))

    columns = zip(np.asarray(wanted), np.asarray(losses).T, np.asarray(values).T, strict=True)
    return np.array([one(*column) for column in columns])
