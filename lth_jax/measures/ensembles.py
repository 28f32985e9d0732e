"""Networks that answer together: their mean prediction, and what their differences are worth."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from lth_jax.measures import calibration

Floats = NDArray[np.float64]
"""An array of float64."""


class Ambiguity(NamedTuple):
    """The error of an ensemble as that of its members less their differences.

    Attributes:
      members: mean loss of the members.
      diversity: how far members are from their ensemble, in the same loss; at least 0.
    """

    members: float
    diversity: float

    @property
    def ensemble(self) -> float:
        """The loss of the ensemble, `members − diversity`."""
        return self.members - self.diversity


def mixture(logits: ArrayLike) -> Floats:
    """The log of the mean of the members' probabilities, `log (1/K) Σ_k softmax(z_k)`.

    Args:
      logits: `(members, n, classes)`.

    Returns:
      float64 `(n, classes)`, normalised.

    Raises:
      ValueError: if `logits` is not three-dimensional, or there is no member.

    >>> mixture([[[0.0, 0.0]], [[0.0, -np.inf]]]).round(4).tolist()
    [[-0.2877, -1.3863]]
    """
    log_p = _log_probabilities(logits)
    return special.logsumexp(log_p, axis=0) - np.log(len(log_p))


def geometric(logits: ArrayLike) -> Floats:
    """The log of the normalised geometric mean of the members' probabilities.

    `softmax((1/K) Σ_k log p_k)`: the ensemble to which `ambiguity` of cross-entropy is exact.

    Args:
      logits: `(members, n, classes)`.

    Returns:
      float64 `(n, classes)`, normalised.

    Raises:
      ValueError: if `logits` is not three-dimensional, or there is no member.

    >>> np.exp(geometric([[[0.0, 2.0]], [[2.0, 0.0]]])).round(4).tolist()
    [[0.5, 0.5]]
    """
    return special.log_softmax(_log_probabilities(logits).mean(axis=0), axis=-1)


def brier_ambiguity(logits: ArrayLike, labels: ArrayLike) -> Ambiguity:
    """Brier scores of the members, and how much the mixture gains by their differences.

    `|p̄ − y|² = (1/K) Σ_k |p_k − y|² − (1/K) Σ_k |p_k − p̄|²`, exactly (Krogh and Vedelsby, 1995).

    Args:
      logits: `(members, n, classes)`.
      labels: `(n,)` integers.

    Raises:
      ValueError: if the shapes do not fit.

    >>> brier_ambiguity([[[0.0, -np.inf]], [[-np.inf, 0.0]]], [0])
    Ambiguity(members=1.0, diversity=0.5)
    """
    p = np.exp(_log_probabilities(logits))
    target = np.eye(p.shape[-1])[_labels(labels, p)]
    members = ((p - target) ** 2).sum(axis=-1).mean()
    diversity = ((p - p.mean(axis=0)) ** 2).sum(axis=-1).mean()
    return Ambiguity(float(members), float(diversity))


def cross_entropy_ambiguity(logits: ArrayLike, labels: ArrayLike) -> Ambiguity:
    """Cross-entropies of the members, and how much `geometric` gains by their differences, in nats.

    `CE(g) = (1/K) Σ_k CE(p_k) − (1/K) Σ_k KL(g ‖ p_k)`, exactly, g being the normalised geometric
    mean (Wood et al., 2023, "A unified theory of diversity in ensemble learning").

    Args:
      logits: `(members, n, classes)`, finite.
      labels: `(n,)` integers.

    Raises:
      ValueError: if the shapes do not fit.

    >>> found = cross_entropy_ambiguity([[[0.0, 2.0]], [[2.0, 0.0]]], [0])
    >>> f"{found.members:.4f} - {found.diversity:.4f} = {found.ensemble:.4f}"
    '1.1269 - 0.4338 = 0.6931'
    """
    log_p = _log_probabilities(logits)
    g = geometric(logits)
    rows = np.arange(log_p.shape[1])
    members = -log_p[:, rows, _labels(labels, log_p)].mean()
    divergence = (np.exp(g) * (g - log_p)).sum(axis=-1).mean()
    return Ambiguity(float(members), float(divergence))


def expected_block_errors(
    n: int, features: int, blocks: int, *, signal: float = 2.0, noise: float = 1.0
) -> tuple[float, float]:
    """Excess risks of least squares on all features, and of the mean of fits on disjoint blocks.

    d independent standard normal features, each block with an equal part `s = signal / K` of the
    squared weights. Both predictors have d coefficients in all. The dense fit has

        σ² d / (n − d − 1),

    a block takes the others for noise, `v = (σ² + signal − s) (d/K) / (n − d/K − 1)`, and their
    mean shrinks each block's weights by K:

        K ((1 − 1/K)² s + v / K²)

    (from the mean of the inverse Wishart distribution). With few examples the ensemble wins, since
    each fit has fewer weights; with many its bias remains.

    Args:
      n: training examples.
      features: d, a multiple of `blocks`.
      blocks: K.
      signal: squared norm of the true weights.
      noise: σ².

    Raises:
      ValueError: unless `features < n − 1` and `features` divides into `blocks`.

    >>> [[round(e, 3) for e in expected_block_errors(n, 40, 2)] for n in (50, 200)]
    [[4.444, 1.19], [0.252, 0.612]]
    """
    if features % blocks or features >= n - 1:
        raise ValueError(
            f"`features` is {features}; it must be a multiple of `blocks`, {blocks}, "
            f"and below `n` − 1 = {n - 1}."
        )
    own, size = signal / blocks, features // blocks
    spread = (noise + signal - own) * size / (n - size - 1)
    dense = noise * features / (n - features - 1)
    return dense, blocks * ((1 - 1 / blocks) ** 2 * own + spread / blocks**2)


def block_errors(
    rng: np.random.Generator, n: int, *, features: int = 40, blocks: int = 2, signal: float = 2.0
) -> tuple[float, float]:
    """One draw of that regression: excess risks `|ŵ − w|²` of the dense fit and of the ensemble.

    Args:
      rng: source of the data; noise has variance 1.
      n: training examples.
      features: a multiple of `blocks`.
      blocks: fits that are averaged.
      signal: squared norm of the true weights, all equal.

    >>> dense, ensemble = block_errors(np.random.default_rng(0), 50)
    >>> dense > ensemble
    True
    """
    w = np.full(features, np.sqrt(signal / features))
    x = rng.normal(size=(n, features))
    y = x @ w + rng.normal(size=n)

    def fit(columns: Floats) -> Floats:
        return np.linalg.lstsq(columns, y, rcond=None)[0]

    mean = np.concatenate([fit(part) for part in np.split(x, blocks, axis=1)]) / blocks
    return float(np.sum((fit(x) - w) ** 2)), float(np.sum((mean - w) ** 2))


def _log_probabilities(logits: ArrayLike) -> Floats:
    z = np.asarray(logits, np.float64)
    if z.ndim != 3 or not len(z):
        raise ValueError(f"`logits` must have shape (members, n, classes), got {z.shape}.")
    return np.asarray(special.log_softmax(z, axis=-1))


def _labels(labels: ArrayLike, log_p: Floats) -> NDArray[np.int64]:
    y = np.asarray(labels)
    if y.shape != log_p.shape[1:2]:
        raise ValueError(f"`labels` must have shape ({log_p.shape[1]},), got {y.shape}.")
    return y


class Scores(NamedTuple):
    """The scores of an ensemble on test examples.

    Attributes:
      nll: negative log-likelihood in nats, at the temperature fitted to held-out examples.
      raw: the same at temperature 1.
      error: in percent.
      diversity: what its members' differences take off their Brier scores.
    """

    nll: float
    raw: float
    error: float
    diversity: float


def scores(
    logits: ArrayLike, labels: ArrayLike, held_out: ArrayLike, held_out_labels: ArrayLike
) -> Scores:
    """The scores of the mean of the members' probabilities.

    Args:
      logits: on test examples, `(members, n, classes)`.
      labels: `(n,)` integers.
      held_out: logits on other examples, `(members, m, classes)`, for the temperature.
      held_out_labels: `(m,)` integers.

    >>> z = np.array([[[4.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [1.0, 0.0]]])
    >>> found = scores(z, [0, 1], z, [0, 1])
    >>> found.error, found.nll <= found.raw
    (50.0, True)
    """
    log_p, y = mixture(logits), np.asarray(labels)
    temperature = calibration.fit_temperature(mixture(held_out), held_out_labels)
    return Scores(
        calibration.negative_log_likelihood(log_p / temperature, y),
        calibration.negative_log_likelihood(log_p, y),
        100 * float(np.mean(log_p.argmax(axis=1) != y)),
        brier_ambiguity(logits, y).diversity,
    )
