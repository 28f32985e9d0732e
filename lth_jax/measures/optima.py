"""Minima of sampled curves, sweeps of learning rates, and step sizes of least squares."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


def interpolated_minimum(places: ArrayLike, values: ArrayLike) -> float:
    """The vertex of the parabola through the smallest value of a curve and its two neighbours.

    On an even grid of spacing `h`, with `a`, `b`, `c` the values left of, at and right of the
    smallest one at `x`,

        x + h/2 · (a − c) / (a − 2b + c)

    which is within `h/2` of `x`; at an end of the grid, the end itself.

    Args:
      places: `[m]`, ascending in even steps.
      values: `[m]`; values that are not finite count as largest.

    Returns:
      The position; NaN if no value is finite.

    Raises:
      ValueError: if the shapes differ or the places do not rise in even steps.

    >>> interpolated_minimum([0, 1, 2, 3], [(x - 1.25) ** 2 for x in range(4)])
    1.25
    >>> interpolated_minimum([0, 1, 2], [3.0, 2.0, 1.0])
    2.0
    """
    x, y = np.asarray(places, np.float64), np.asarray(values, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"`places` and `values` must be `[m]`, got {x.shape} and {y.shape}.")
    step = np.diff(x)
    if not (step > 0).all() or not np.allclose(step, step[0]):
        raise ValueError(f"`places` must rise in even steps, got {x.tolist()}.")
    finite = np.isfinite(y)
    if not finite.any():
        return float("nan")
    best = int(np.argmin(np.where(finite, y, np.inf)))
    around = y[max(best - 1, 0) : best + 2]
    if len(around) < 3 or not np.isfinite(around).all():
        return float(x[best])
    left, middle, right = around
    bend = left - 2 * middle + right
    return float(x[best] + (step[0] * (left - right) / (2 * bend) if bend > 0 else 0.0))


def best_step(examples: int, features: int) -> float:
    """The best step of gradient descent on least squares with Gaussian features.

    By the law of Marchenko and Pastur (1967) the nonzero eigenvalues of `XᵀX/n` fill
    `[(1 − √(d/n))², (1 + √(d/n))²]` for many independent standard normal features, so the step
    2/(λmin + λmax) of fastest convergence (Polyak, 1987) is

        η* = 1 / (1 + d/n)

    for any n and d.

    Args:
      examples: n, at least 1.
      features: d, at least 1.

    Raises:
      ValueError: if a number is below 1.

    >>> round(best_step(30, 10) / best_step(30, 40), 3)  # 10 features of 40 are left
    1.75
    """
    if examples < 1 or features < 1:
        raise ValueError(f"`examples` {examples} and `features` {features} must be at least 1.")
    return 1 / (1 + features / examples)


def descent_losses(
    features: ArrayLike, weights: ArrayLike, rates: ArrayLike, steps: int
) -> NDArray[np.float64]:
    """Training losses of gradient descent from zero on noiseless least squares, in closed form.

    With `XᵀX/n = Σ λᵢ uᵢuᵢᵀ` and `y = X w`, the mean squared error after `T` steps at rate η is
    `Σ λᵢ (uᵢᵀw)² (1 − ηλᵢ)²ᵀ`.

    Args:
      features: X, `[n, d]`.
      weights: w, `[d]`.
      rates: η, `[m]`.
      steps: T.

    Returns:
      float64 `[m]`.

    >>> descent_losses([[2.0]], [1.0], [0.125, 0.25], 1).tolist()
    [1.0, 0.0]
    """
    x, w = np.asarray(features, np.float64), np.asarray(weights, np.float64)
    eigenvalues, vectors = np.linalg.eigh(x.T @ x / len(x))
    shrunk = (1 - np.outer(np.asarray(rates, np.float64), eigenvalues)) ** (2 * steps)
    losses: NDArray[np.float64] = shrunk @ (eigenvalues * (vectors.T @ w) ** 2)
    return losses


def descent_optimum(
    rng: np.random.Generator, features: int, *, examples: int = 20, steps: int = 50
) -> float:
    """log₂ of the best rate of `descent_losses` on a random problem, between ⅛ and 4.

    Args:
      rng: source of features and weights, standard normal.
      features: d.
      examples: n.
      steps: T.

    >>> rng = np.random.default_rng(0)
    >>> bool(abs(descent_optimum(rng, 4) - np.log2(best_step(20, 4))) < 0.5)
    True
    """
    x, w = rng.normal(size=(examples, features)), rng.normal(size=features)
    rates = half_octaves(-6, 4)
    losses = descent_losses(x, w, rates, steps)
    return interpolated_minimum(np.log2(rates), np.log(losses + 1e-300))


def half_octaves(low: int, high: int) -> list[float]:
    """The rates `2^(i/2)` for i from `low` to `high`.

    >>> half_octaves(0, 2)[::2]
    [1.0, 2.0]
    """
    return [float(2.0 ** (i / 2)) for i in range(low, high + 1)]


class RateSweep(NamedTuple):
    """Losses of several arms at learning rates half an octave apart.

    Attributes:
      rates: ascending.
      losses: losses by arm and rate, `[seeds]`, positive.
    """

    rates: list[float]
    losses: Mapping[tuple[str, float], NDArray[np.float64]]

    def table(self, arm: str) -> NDArray[np.float64]:
        """The losses of an arm, `[seeds, rates]`."""
        return np.stack([self.losses[arm, rate] for rate in self.rates], axis=1)

    def best(self, arm: str) -> NDArray[np.float64]:
        """log₂ of the best rate of each seed, by a parabola in the logarithm of the loss."""
        logs = np.log2(self.rates)
        return np.array([interpolated_minimum(logs, row) for row in np.log(self.table(arm))])

    def chosen(self, arm: str) -> NDArray[np.int64]:
        """The index of the best rate of each seed."""
        return np.asarray(self.table(arm).argmin(axis=1))

    def at_end(self, end: int) -> float:
        """The largest share of seeds of an arm whose best rate is the first (0) or last (−1)."""
        place = range(len(self.rates))[end]
        arms = dict.fromkeys(arm for arm, _ in self.losses)
        return float(max(np.mean(self.chosen(arm) == place) for arm in arms))


def sweep_rates(
    train: Callable[[list[float]], Mapping[tuple[str, float], ArrayLike]],
    halves: tuple[int, int],
    most: int,
    *,
    share: float = 0.05,
) -> RateSweep:
    """Trains at rates half an octave apart; the grid grows while optima lie at one of its ends.

    Args:
      train: `rates -> losses by arm and rate`, `[seeds]` each; never called twice for a rate.
      halves: the first and last rate of the first grid, in half octaves.
      most: half octaves that the grid may grow by at either end.
      share: fraction of an arm's seeds that may have their best rate at an end.

    >>> found = sweep_rates(lambda rates: {("sgd", r): [abs(r - 4) + 1] for r in rates}, (0, 1), 9)
    >>> round(found.rates[-1], 1), found.best("sgd").round(1).tolist()
    (5.7, [2.0])
    """
    low, high = halves
    new, losses = half_octaves(low, high), dict[tuple[str, float], NDArray[np.float64]]()
    while True:
        losses |= {place: np.asarray(found, np.float64) for place, found in train(new).items()}
        swept = RateSweep(half_octaves(low, high), losses)
        down = swept.at_end(0) > share and halves[0] - low < most
        up = swept.at_end(-1) > share and high - halves[1] < most
        if not (down or up):
            return swept
        low, high = low - down, high + up
        new = half_octaves(low, low) * down + half_octaves(high, high) * up
