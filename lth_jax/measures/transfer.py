"""Transfer of masks between networks: retained fraction of their gain."""

import numpy as np
import scipy
from numpy.typing import ArrayLike

from lth_jax.measures.intervals import Interval


def fieller(
    numerators: ArrayLike, denominators: ArrayLike, *, confidence: float = 0.95
) -> Interval:
    """The ratio of two means of paired values, with Fieller's (1954) interval.

    The ratios `τ` for which Student's t-test does not reject `mean(a − τb) = 0`:

        (ā − τ b̄)² ≤ t² (s_aa − 2τ s_ab + τ² s_bb) / n

    If the mean of the denominators does not differ significantly from 0, the set is unbounded, and
    so is the interval; if it is 0, the estimate is NaN.

    Args:
      numerators: a, `[n]`, one per seed.
      denominators: b, `[n]`.
      confidence: coverage, exact for normal values.

    Returns:
      The interval over the seeds where both are finite; its ends NaN for fewer than two of them.

    Raises:
      ValueError: if the shapes differ.

    >>> found = fieller([1.0, 2.0, 3.0, 2.0], [4.1, 3.9, 4.0, 4.0])
    >>> f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]"
    '0.50 [0.17, 0.84]'
    """
    a, b = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"`numerators` and `denominators` must be `[n]`: {a.shape}, {b.shape}.")
    both = np.isfinite(a) & np.isfinite(b)
    pairs, n = np.stack([a[both], b[both]]), int(both.sum())
    missing = a.size - n
    if n < 2:
        return Interval(_ratio(*pairs[:, 0]) if n else np.nan, np.nan, np.nan, n, missing)
    mean, spread = pairs.mean(axis=1), np.cov(pairs) / n
    t = float(scipy.special.stdtrit(n - 1, (1 + confidence) / 2))
    square, cross, constant = (
        mean[i] * mean[j] - t**2 * spread[i, j] for i, j in ((1, 1), (0, 1), (0, 0))
    )
    estimate = _ratio(*mean)
    inside = cross**2 - square * constant
    if square <= 0 or inside < 0:
        return Interval(estimate, -np.inf, np.inf, n, missing)
    ends = (cross + np.array([-1, 1]) * np.sqrt(inside)) / square
    return Interval(estimate, float(ends[0]), float(ends[1]), n, missing)


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b else np.nan


def excess_risk(weights: ArrayLike, mask: ArrayLike) -> float:
    """The excess risk of a linear model trained under a mask: `Σ w² (1 − m)`.

    For inputs from N(0, I) the best weights on a support are those of the unmasked optimum, and the
    squared error increases by the squares of the others. A plain layer `y = W x` and a residual one
    `y = x + R x` have the optima `W*` and `R* = W* − I`: their supports differ on the diagonal
    alone, and `W*`'s mask costs the residual model 1 for each `i` with `W*ᵢᵢ = 0`.

    Args:
      weights: the optimum, any shape.
      mask: True = kept, of the same shape.

    Raises:
      ValueError: if the shapes differ.

    >>> plain = np.array([[0.0, 2.0], [0.0, 3.0]])
    >>> excess_risk(plain - np.eye(2), plain != 0)
    1.0
    """
    w, m = np.asarray(weights, np.float64), np.asarray(mask, bool)
    if w.shape != m.shape:
        raise ValueError(f"`mask` has shape {m.shape}; it must be that of `weights`, {w.shape}.")
    return float(np.sum(w[~m] ** 2))


def carried_risks(rng: np.random.Generator, permuted: bool) -> tuple[float, float]:
    """Excess risks of a residual layer: on the support of a plain layer, and on a shuffled one.

    The plain optimum is 10 by 10, a fifth of it off the diagonal and half of the diagonal nonzero.
    Its support costs the residual layer 1 for each of the 5 zeros of the diagonal; a shuffled
    support costs about 18.

    Args:
      rng: source of the optimum and of the shuffling.
      permuted: whether the rows of the plain support are permuted, which makes it equal to a
        shuffled one.

    >>> carried_risks(np.random.default_rng(0), permuted=False)[0]
    5.0
    """
    plain = rng.normal(size=(10, 10)) * (rng.random((10, 10)) < 0.2)
    np.fill_diagonal(plain, 1.5 * rng.permutation(np.arange(10) % 2))
    residual, support = plain - np.eye(10), plain != 0
    carried = support[rng.permutation(10)] if permuted else support
    shuffled = rng.permutation(support.ravel()).reshape(support.shape)
    return excess_risk(residual, carried), excess_risk(residual, shuffled)
