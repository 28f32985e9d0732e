"""Exact anchors for what sparsity does to training and test error."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


def expected_errors(n: int, k: int, noise: float = 1.0) -> tuple[float, float]:
    """Mean squared training and test error of least squares on the `k` features that matter.

    For Gaussian features, `n > k + 1` examples and noise of variance σ²,

        train = σ² (1 − k/n),   test = σ² (1 + k/(n − k − 1))

    (a textbook result on the inverse Wishart distribution; see Hastie, Tibshirani & Friedman,
    2009, for the training error).

    Args:
      n: training examples.
      k: features fitted, all those that matter among them.
      noise: σ².

    Raises:
      ValueError: unless `0 ≤ k < n − 1`.

    >>> [round(error, 3) for error in expected_errors(60, 40)]
    [0.333, 3.105]
    >>> [round(error, 3) for error in expected_errors(60, 8)]
    [0.867, 1.157]
    """
    if not 0 <= k < n - 1:
        raise ValueError(f"`k` is {k}; it must lie in [0, {n - 1}) for `n` = {n}.")
    return noise * (1 - k / n), noise * (1 + k / (n - k - 1))


class Regression(NamedTuple):
    """Data of a linear regression: inputs `(n, features)`, true weights, targets `(n,)`."""

    x: NDArray[np.float64]
    weights: NDArray[np.float64]
    y: NDArray[np.float64]

    def fitted(self, columns: ArrayLike) -> NDArray[np.float64]:
        """The least-squares weights on some features, 0 elsewhere."""
        chosen, weights = np.asarray(columns), np.zeros(len(self.weights))
        weights[chosen] = np.linalg.lstsq(self.x[:, chosen], self.y, rcond=None)[0]
        return weights

    def test_error(self, weights: ArrayLike) -> float:
        """The expected squared error of weights on a new example, `1 + ‖ŵ − w‖²`."""
        return float(1 + np.sum((np.asarray(weights) - self.weights) ** 2))


def planted_regression(
    rng: np.random.Generator,
    *,
    n: int = 60,
    features: int = 40,
    matter: int = 8,
    signal: float = 8.0,
) -> Regression:
    """A draw of a regression of which the first features matter.

    Args:
      rng: source of the data.
      n: training examples.
      features: all features, standard normal and independent.
      matter: how many have a weight.
      signal: squared norm of the true weights; the noise has variance 1.
    """
    x, w = rng.normal(size=(n, features)), np.zeros(features)
    w[:matter] = np.sqrt(signal / matter)
    return Regression(x, w, x @ w + rng.normal(size=n))


def least_squares_errors(rng: np.random.Generator, which: str, **data: Any) -> tuple[float, float]:
    """One draw of that regression: training error, and test error given the fit.

    Args:
      rng: source of the data and, for `"random"`, of the features.
      which: `"dense"`, all features; `"oracle"`, those that matter; `"random"`, as many drawn.
      **data: of `planted_regression`.

    Returns:
      Mean squared training error, and `1 + ‖ŵ − w‖²`, the expected error on a new example.

    Raises:
      ValueError: for an unknown `which`.

    >>> train, test = least_squares_errors(np.random.default_rng(0), "oracle")
    >>> train < 1.5 and test >= 1
    True
    """
    drawn = planted_regression(rng, **data)
    features, matter = len(drawn.weights), int(np.count_nonzero(drawn.weights))
    chosen = {
        "dense": np.arange(features),
        "oracle": np.arange(matter),
        "random": rng.permutation(features)[:matter],
    }
    if which not in chosen:
        raise ValueError(f"`which` is {which!r}; it must be one of {', '.join(chosen)}.")
    fitted = drawn.fitted(chosen[which])
    train = float(np.mean((drawn.y - drawn.x @ fitted) ** 2))
    return train, drawn.test_error(fitted)


def nested_errors(n: int, weights: ArrayLike, noise: float = 1.0) -> NDArray[np.float64]:
    """Mean test errors of least squares on the first 1, 2, … of all features.

    For independent Gaussian features those left out are further noise, so by `expected_errors`

        test(k) = (σ² + Σ_{j>k} wⱼ²) (1 + k/(n − k − 1))

    whose minimum, the best number of features, rises with `n` where the weights fall slowly, and
    stays where it is if only the first few matter, and much.

    Args:
      n: training examples.
      weights: w, `[d]`, in the order in which they are taken in.
      noise: σ².

    Returns:
      float64 `[d]`; infinite where `k ≥ n − 1`.

    >>> nested_errors(10, [2.0, 1.0]).round(2).tolist()
    [2.25, 1.29]
    """
    w = np.asarray(weights, np.float64)
    k = np.arange(1, len(w) + 1)
    left_out = np.sum(w**2) - np.cumsum(w**2)
    room = np.maximum(n - k - 1, 0)
    errors: NDArray[np.float64] = (noise + left_out) * (
        1 + np.divide(k, room, out=np.full(len(w), np.inf), where=room > 0)
    )
    return errors


def drawn_nested_errors(
    rng: np.random.Generator, n: int, weights: ArrayLike, sizes: Sequence[int]
) -> NDArray[np.float64]:
    """One draw of those test errors, at some numbers of features: `1 + ‖ŵ − w‖²`.

    Args:
      rng: source of the features and of the noise, which has variance 1.
      n: training examples.
      weights: w, `[d]`.
      sizes: numbers of features, each at most `d` and below `n`.

    Returns:
      float64 `[len(sizes)]`.

    >>> drawn_nested_errors(np.random.default_rng(0), 1000, [2.0, 1.0], [1, 2]).round(1).tolist()
    [2.0, 1.0]
    """
    w = np.asarray(weights, np.float64)
    x = rng.normal(size=(n, len(w)))
    gram, moments = x.T @ x, x.T @ (x @ w + rng.normal(size=n))

    def error(k: int) -> float:
        fitted = np.zeros(len(w))
        fitted[:k] = np.linalg.solve(gram[:k, :k], moments[:k])
        return float(1 + np.sum((fitted - w) ** 2))

    return np.array([error(k) for k in sizes])


def refitted_errors(rng: np.random.Generator) -> list[float]:
    """One draw of test errors of least squares: dense, on the largest weights, on random ones.

    Of 40 features 8 have a weight, 1; 200 examples, noise of variance 1. The ticket is refitted on
    the 8 largest weights of the dense fit. It has one solution, so where it starts cannot matter.

    >>> dense, ticket, shuffle = refitted_errors(np.random.default_rng(0))
    >>> ticket < dense < shuffle
    True
    """
    drawn = planted_regression(rng, n=200)
    dense = drawn.fitted(np.arange(40))
    supports = np.argsort(-np.abs(dense))[:8], rng.permutation(40)[:8]
    return [drawn.test_error(w) for w in (dense, *map(drawn.fitted, supports))]
