"""Networks at equal loss: their values there, and the steps that they take."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def at_loss(wanted: ArrayLike, losses: ArrayLike, values: ArrayLike) -> NDArray[np.float64]:
    """The value of each seed at a loss, interpolated linearly between losses of its networks.

    Args:
      wanted: the loss of each seed, `[seeds]`. Beyond the losses of a seed, the value at the
        nearest one is used.
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


def first_below(steps: ArrayLike, losses: ArrayLike, level: float) -> NDArray[np.float64]:
    """The first step, `[E]`, at which a loss, `[E, networks]`, is at most `level`; else the last.

    >>> first_below([10, 20, 30], [[2.0, 2.0], [1.0, 2.0], [0.5, 2.0]], 1.0).tolist()
    [20.0, 30.0]
    """
    reached = np.asarray(losses) <= level
    first = np.where(reached.any(axis=0), reached.argmax(axis=0), len(reached) - 1)
    return np.asarray(steps, np.float64)[first]
