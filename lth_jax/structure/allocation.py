"""Chooses the number of units that each group keeps: the largest summed score within budgets.

Costs are products of counts, so the problem is not linear. `milp` solves a sequence of linear
problems around the best choice so far; `greedy` removes one step of a group at a time.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy

from lth_jax import text

_NODES, _GAP = 100, 1e-6
"""The limit of branch and bound: unlike a time limit it gives the same result on every machine."""
_TINY = 1e-300


@text.with_short_repr
class Problem(NamedTuple):
    """Maximise `Σ_g values[g][choice[g]]` subject to `spent(choice) ≤ 1`.

    Attributes:
      values: for each group, the summed score of each option, in the order of rising counts.
      spent: int `[..., groups]`, the index of each group's option → float64 `[..., budgets]`, the
        cost as a share of each budget.
    """

    values: tuple[np.ndarray, ...]
    spent: Callable[[np.ndarray], np.ndarray]

    def value(self, choice: np.ndarray) -> float:
        """The summed score of a choice."""
        return float(sum(v[k] for v, k in zip(self.values, choice, strict=True)))

    def fits(self, choice: np.ndarray) -> bool:
        """Whether every budget holds."""
        return bool((self.spent(choice) <= 1).all())


Solve = Callable[[Problem], np.ndarray]
"""`problem -> choice`: the index of each group's option, int `[groups]`; the smallest must fit."""


def greedy(problem: Problem) -> np.ndarray:
    """Lowers counts step by step, lowest score per saved cost first, until every budget holds.

    A step leads from an option of one group to the next lower one. Its cost is the exact one in the
    current network, as a share of the budgets that do not hold yet. Afterwards, counts are raised
    again where that fits, highest score per cost first.

    Args:
      problem: one whose smallest choice fits.

    Returns:
      The index of each group's option, int `[groups]`.

    Raises:
      ValueError: the smallest choice does not fit.

    >>> values = np.array([3.0, 5.0]), np.array([2.0, 9.0])
    >>> two = Problem(values, lambda choice: (choice.sum(-1, keepdims=True) + 1) / 2)
    >>> greedy(two).tolist()
    [0, 1]
    """
    return _repaired(problem, np.array([len(v) - 1 for v in problem.values]))


def milp(problem: Problem) -> np.ndarray:
    """The best choice that a sequence of mixed-integer linear programs finds.

    The first best choice is that of `greedy`. Each program chooses one option of each group within
    a radius of the best choice so far; it models the change of the cost as the sum of the exact
    changes of each group alone. Costs are products, so the result may exceed a budget; it is then
    repaired as in `greedy`. A better choice replaces the best one; otherwise the radius is halved.
    If costs are sums over groups, the first program is exact. The result never scores below that of
    `greedy`.

    Args:
      problem: one whose smallest choice fits.

    Returns:
      The index of each group's option, int `[groups]`.

    Raises:
      ValueError: the smallest choice does not fit.

    >>> values = np.array([3.0, 5.0]), np.array([2.0, 9.0])
    >>> two = Problem(values, lambda choice: (choice.sum(-1, keepdims=True) + 1) / 2)
    >>> milp(two).tolist()
    [0, 1]
    """
    best, radius = greedy(problem), max(map(len, problem.values))
    while radius:
        found = _repaired(problem, _linear(problem, best, radius))
        if problem.value(found) > problem.value(best):
            best = found
        else:
            radius //= 2
    return best


def _linear(problem: Problem, best: np.ndarray, radius: int) -> np.ndarray:
    """The solution of the linear program around `best`, or `best` if none was found."""
    windows = [
        np.arange(max(k - radius, 0), min(k + radius + 1, len(v)))
        for v, k in zip(problem.values, best, strict=True)
    ]
    group = np.repeat(np.arange(len(best)), list(map(len, windows)))
    option = np.concatenate(windows)
    alone = np.where(group[:, None] == np.arange(len(best)), option[:, None], best)
    used = problem.spent(best)
    worth = np.array([problem.values[g][k] for g, k in zip(group, option, strict=True)])
    one_each = (group == np.arange(len(best))[:, None]).astype(float)
    found = scipy.optimize.milp(
        -worth / max(np.abs(worth).max(), _TINY),
        integrality=np.ones(len(option)),
        bounds=scipy.optimize.Bounds(0, 1),
        constraints=[
            scipy.optimize.LinearConstraint(one_each, 1, 1),
            scipy.optimize.LinearConstraint((problem.spent(alone) - used).T, ub=1 - used),
        ],
        options={"node_limit": _NODES, "mip_rel_gap": _GAP, "presolve": False},
    )
    if found.x is None:
        return best
    return np.array([w[x.argmax()] for w, x in zip(windows, _split(found.x, windows), strict=True)])


def _split(x: np.ndarray, windows: list[np.ndarray]) -> list[np.ndarray]:
    return np.split(x, np.cumsum([len(w) for w in windows])[:-1])


def _repaired(problem: Problem, choice: np.ndarray) -> np.ndarray:
    """Lowers counts until every budget holds, then raises those that fit."""
    step = np.eye(len(choice), dtype=int)
    top = np.array([len(v) - 1 for v in problem.values])

    def steps(towards: int, possible: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The possible neighbours, the changes of their values, and what they spend."""
        near = (choice + towards * step)[possible]
        change = np.array([problem.value(c) for c in near]) - problem.value(choice)
        return near, change, problem.spent(near)

    while (over := (used := problem.spent(choice)) > 1).any():
        if not choice.any():
            raise ValueError(
                "`problem` exceeds a budget even with the smallest count of each group."
            )
        lower, change, spent = steps(-1, choice > 0)
        saved = (used - spent)[:, over].sum(-1)
        choice = lower[np.argmin(-change / np.maximum(saved, _TINY))]
    while (choice < top).any():
        higher, change, spent = steps(1, choice < top)
        added = np.maximum((spent - used).sum(-1), _TINY)
        gain = np.where((spent <= 1).all(-1) & (change > 0), change / added, -np.inf)
        if gain.max() == -np.inf:
            break
        choice = higher[gain.argmax()]
        used = problem.spent(choice)
    return choice
