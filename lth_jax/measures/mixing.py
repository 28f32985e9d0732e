"""Least squares on mixed examples: Mixup preserves the minimiser, CutMix changes it."""

import numpy as np
from numpy.typing import NDArray

from lth_jax.measures.overlap import member_kappas


def mixed_least_squares(
    rng: np.random.Generator,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    kind: str,
    *,
    alpha: float = 1.0,
    rounds: int = 200,
) -> NDArray[np.float64]:
    """The least-squares weights on mixed examples, with moments summed over rounds.

    Args:
      rng: source of λ, partners and boxes.
      x: centred inputs, float64 `[n, d]`.
      y: centred targets, float64 `[n]`.
      kind: `"plain"`; `"mixup"`, a convex combination with a partner; `"cutmix"`, a window of
        neighbouring features and its share of the target are the partner's (Yun et al., 2019, for
        a signal of one dimension).
      alpha: λ ~ Beta(α, α), one for each example.
      rounds: number of mixed copies of every example.

    Returns:
      float64 `[d]`.

    Raises:
      ValueError: for an unknown `kind`.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(50, 3))
    >>> mixed_least_squares(rng, x, x @ [1.0, 3.0, 2.0], "plain").round(6).tolist()
    [1.0, 3.0, 2.0]
    """
    n, d = x.shape
    mix = {"plain": _keep, "mixup": _mixup, "cutmix": _cutmix}.get(kind)
    if mix is None:
        raise ValueError(f"`kind` is {kind!r}; it must be plain, mixup or cutmix.")
    inner, cross = np.zeros((d, d)), np.zeros(d)
    for _ in range(1 if kind == "plain" else rounds):
        share, other = rng.beta(alpha, alpha, n), rng.permutation(n)
        u, v = mix(rng, x, y, x[other], y[other], share)
        inner += u.T @ u
        cross += u.T @ v
    return np.asarray(np.linalg.solve(inner, cross), np.float64)


def _keep(rng, x, y, x2, y2, share):
    return x, y


def _mixup(rng, x, y, x2, y2, share):
    return share[:, None] * x + (1 - share[:, None]) * x2, share * y + (1 - share) * y2


def _cutmix(rng, x, y, x2, y2, share):
    n, d = x.shape
    centre, width = rng.integers(d, size=n), (1 - share) * d
    place = np.arange(d)
    inside = np.abs(place - centre[:, None]) < width[:, None] / 2
    kept = 1 - inside.mean(axis=1)
    return np.where(inside, x2, x), kept * y + (1 - kept) * y2


def kappas_lost(rng: np.random.Generator, n: int = 200, d: int = 24) -> list[float]:
    """1 − Cohen's κ between the quarters of the weights that plain and mixed least squares keep.

    One draw of a regression on `d` features whose neighbours correlate by 0.9. Mixup preserves the
    minimiser, CutMix does not.

    Args:
      rng: source of the data.
      n: examples.
      d: features.

    Returns:
      `[1 − κ for Mixup, 1 − κ for CutMix]`.

    >>> mixup, cutmix = kappas_lost(np.random.default_rng(0))
    >>> mixup < cutmix
    True
    """
    noise = rng.normal(size=(n, d))
    x = np.zeros((n, d))
    for j in range(d):
        x[:, j] = 0.9 * x[:, j - 1] + np.sqrt(0.19) * noise[:, j] if j else noise[:, j]
    weights = rng.permutation(np.geomspace(0.1, 3, d)) * rng.choice([-1, 1], d)
    y = x @ weights + 0.5 * rng.normal(size=n)
    x, y = x - x.mean(axis=0), y - y.mean()
    kept = []
    for kind in ("plain", "mixup", "cutmix"):
        size = np.abs(mixed_least_squares(rng, x, y, kind, rounds=200))
        kept.append((size >= np.sort(size)[-(d // 4)])[None, :, None])
    return [1 - float(member_kappas({"w": kept[0]}, {"w": other})[0]) for other in kept[1:]]
