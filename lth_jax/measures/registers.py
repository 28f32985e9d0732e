"""Linear recurrences of known support: what a mask is worth when the truth is sparse, or is not."""

import numpy as np
from numpy.typing import NDArray
from scipy import special


def shift_register(size: int) -> NDArray[np.float64]:
    """The matrix that moves every entry of a state one place on: `size − 1` ones of `size²`.

    >>> shift_register(3).tolist()
    [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    return np.eye(size, k=-1)


def even_recurrence(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """A matrix all of whose entries have one size and random signs, of spectral norm below 1."""
    return rng.choice([-1.0, 1.0], size=(size, size)) / (2.2 * np.sqrt(size))


def masked_fits(
    rng: np.random.Generator,
    truth: NDArray[np.float64],
    kept: int,
    *,
    steps: int = 400,
    noise: float = 0.5,
) -> tuple[float, float]:
    """How well the largest estimated weights predict the next state, and as many random ones.

    States follow `h' = W h + e`, `e ~ N(0, noise²)`, begun anew at `h ~ N(0, 1)` in every step, so
    that they are independent. W is estimated by least squares; each mask keeps `kept` weights, and
    every row is fitted again on what it keeps.

    Args:
      rng: source of states, noise and the random mask.
      truth: W, `[d, d]`.
      kept: weights in a mask.
      steps: transitions seen.
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


def pruned_radius(density: float, kind: str) -> float:
    """The spectral radius left of a large Gaussian matrix of radius 1 whose weights are pruned.

    The circular law gives the root of what is left of the variance: `√ρ` for a random mask, and
    `√(ρ + 2 t φ(t))` with `t = Φ⁻¹(1 − ρ/2)` for the largest weights (Girko, 1985; the second
    moment of a normal variable beyond ±t).

    Args:
      density: ρ, in (0, 1].
      kind: `"random"` or `"magnitude"`.

    Raises:
      ValueError: if one of them cannot be right.

    >>> [round(pruned_radius(p, "magnitude"), 3) for p in (0.5, 0.2, 0.1)]
    [0.964, 0.806, 0.663]
    """
    if not 0 < density <= 1:
        raise ValueError(f"`density` is {density}; it lies in (0, 1].")
    if kind not in ("random", "magnitude"):
        raise ValueError(f"`kind` is {kind!r}; it must be random or magnitude.")
    if kind == "random":
        return float(np.sqrt(density))
    t = special.ndtri(1 - density / 2)
    return float(np.sqrt(density + 2 * t * np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi)))
