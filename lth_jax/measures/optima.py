"""Minima of sampled curves, and the best step size of gradient descent on least squares."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Setting = TypeVar("Setting", bound=Hashable)


def best_setting(losses: Mapping[Setting, ArrayLike]) -> Setting:
    """The setting with the smallest mean loss over seeds; ties: the first.

    Settings without a finite mean, for example because a seed diverged, are excluded.

    Args:
      losses: by setting, `[seeds]`.

    Raises:
      ValueError: if no mean is finite.

    >>> best_setting({0.1: [2.0, 3.0], 0.3: [1.0, 2.0], 1.0: [0.0, np.nan]})
    0.3
    """
    means = {setting: float(np.mean(np.asarray(each, float))) for setting, each in losses.items()}
    finite = {setting: mean for setting, mean in means.items() if np.isfinite(mean)}
    if not finite:
        raise ValueError(f"`losses` of {', '.join(map(str, losses))} hold no finite mean.")
    return min(finite, key=lambda setting: finite[setting])


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

    with as many examples as features, with more, and with fewer.

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
