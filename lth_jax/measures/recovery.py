"""Recovery of a planted ticket, up to permutations of hidden units."""

import numpy as np
from numpy.typing import ArrayLike

from lth_jax.keys import check_seed


def recovered(found: tuple[ArrayLike, ArrayLike], planted: tuple[ArrayLike, ArrayLike]) -> float:
    """The fraction of planted weights that a found mask keeps, under the best matching of units.

    `max_π Σᵢⱼ Fᵢπ₍ⱼ₎ Pᵢⱼ / Σ P` over both layers together, where π assigns a different found hidden
    unit to each planted one: permutations of hidden units do not change the function of a network.
    The best π is computed exactly (Kuhn, 1955). The chance level is the value for `found` shuffled
    within each layer (`chance`).

    Args:
      found: the masks of both layers, `(inputs, hidden)` and `(hidden, classes)`.
      planted: the planted masks, with at most as many hidden units.

    Returns:
      A fraction in [0, 1].

    Raises:
      ValueError: the shapes do not fit, or no weight is planted.

    >>> first, second = np.eye(3, dtype=bool), np.eye(3, dtype=bool)
    >>> recovered((first[:, ::-1], second[::-1]), (first, second))
    1.0
    """
    from scipy.optimize import linear_sum_assignment

    f, p = _stacked("found", found), _stacked("planted", planted)
    if f.shape[0] != p.shape[0] or f.shape[1] < p.shape[1] or not p.any():
        raise ValueError(
            f"`planted` must hold weights of the inputs and classes of `found` and of no more "
            f"hidden units, got {p.shape} of which {int(p.sum())} are kept, found {f.shape}."
        )
    shared = p.T @ f
    rows, columns = linear_sum_assignment(shared, maximize=True)
    return float(shared[rows, columns].sum() / p.sum())


def chance(
    found: tuple[ArrayLike, ArrayLike],
    planted: tuple[ArrayLike, ArrayLike],
    *,
    seed: int,
    draws: int = 100,
) -> np.ndarray:
    """`recovered` of random masks with the same density in each layer: float64 `[draws]`.

    Errors are those of `recovered`; `ValueError` too if `seed` is out of range.

    >>> masks = np.ones((4, 3), bool), np.ones((3, 2), bool)
    >>> chance(masks, masks, seed=0, draws=2).tolist()
    [1.0, 1.0]
    """
    check_seed(seed)
    rng = np.random.default_rng(seed)

    def shuffled(mask: ArrayLike) -> np.ndarray:
        array = np.asarray(mask)
        return rng.permutation(array.ravel()).reshape(array.shape)

    first, second = found
    return np.array([recovered((shuffled(first), shuffled(second)), planted) for _ in range(draws)])


def _stacked(name: str, masks: tuple[ArrayLike, ArrayLike]) -> np.ndarray:
    """One column per hidden unit: its incoming, then its outgoing weights."""
    first, second = (np.asarray(mask) for mask in masks)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[0]:
        raise ValueError(
            f"`{name}` must hold masks (inputs, hidden) and (hidden, classes), "
            f"got {first.shape} and {second.shape}."
        )
    return np.concatenate([first, second.T]).astype(np.float64)
