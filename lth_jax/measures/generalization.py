"""Training and test errors of sparse least squares."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lth_jax.legal import check_name


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
    """A random regression in which the first features are relevant.

    Args:
      rng: source of the data.
      n: training examples.
      features: all features, standard normal and independent.
      matter: number of features with nonzero weights.
      signal: squared norm of the true weights; the noise has variance 1.

    >>> planted_regression(np.random.default_rng(0)).x.shape
    (60, 40)
    """
    x, w = rng.normal(size=(n, features)), np.zeros(features)
    w[:matter] = np.sqrt(signal / matter)
    return Regression(x, w, x @ w + rng.normal(size=n))


def least_squares_errors(rng: np.random.Generator, which: str, **data: Any) -> tuple[float, float]:
    """Training error, and test error given the fit, of a draw of `planted_regression`.

    Args:
      rng: source of the data and, for `"random"`, of the features.
      which: `"dense"`, all features; `"oracle"`, the relevant ones; `"random"`, the same number of
        random ones.
      **data: arguments of `planted_regression`.

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
    check_name("which", which, chosen)
    fitted = drawn.fitted(chosen[which])
    train = float(np.mean((drawn.y - drawn.x @ fitted) ** 2))
    return train, drawn.test_error(fitted)


def refitted_errors(rng: np.random.Generator) -> list[float]:
    """One draw of test errors of least squares: dense, on the largest weights, on random ones.

    There are 200 examples and noise of variance 1; 8 of 40 features have the weight 1, the others
    0. The ticket is refitted on the 8 largest weights of the dense fit. The solution is unique, so
    the initial weights do not matter.

    >>> dense, ticket, shuffle = refitted_errors(np.random.default_rng(0))
    >>> ticket < dense < shuffle
    True
    """
    drawn = planted_regression(rng, n=200)
    dense = drawn.fitted(np.arange(40))
    supports = np.argsort(-np.abs(dense))[:8], rng.permutation(40)[:8]
    return [drawn.test_error(w) for w in (dense, *map(drawn.fitted, supports))]
