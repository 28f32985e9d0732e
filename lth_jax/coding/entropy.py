r"""Theoretical sizes of masks and values: entropies and code lengths, in bits.

All lengths are relative to a model; a single mask has no entropy. n·H(k/n) and its sums are the
rates of independent entries with known probability; `enumerative_bits` is the length of an index
among all masks with these counts; `kt_bits` needs no known counts. Pure functions of counts and
arrays, in float64 on the host.
"""

import math
from collections.abc import Iterable

import numpy as np

Counts = Iterable[tuple[int, int]]
"""Pairs (n, k), one per leaf: n entries, k of them kept."""


def binary_entropy(p: np.ndarray | float) -> np.ndarray:
    """H(p) = −p log2 p − (1−p) log2(1−p), elementwise, in bits; H(0) = H(1) = 0.

    Args:
      p: probabilities in [0, 1].

    Returns:
      float64, shaped like `p`.

    >>> binary_entropy(np.array([0.0, 0.5])).tolist()
    [0.0, 1.0]
    """
    p = np.asarray(p, np.float64)
    return _plogp(p) + _plogp(1.0 - p)


def _plogp(p: np.ndarray) -> np.ndarray:
    positive = p > 0
    return np.where(positive, -p * np.log2(np.where(positive, p, 1.0)), 0.0)


def _check(counts: Counts) -> list[tuple[int, int]]:
    counts = list(counts)
    for n, k in counts:
        if not 0 <= k <= n:
            raise ValueError(f"`counts` holds (n, k) = ({n}, {k}); 0 <= k <= n is needed.")
    return counts


def layer_bits(counts: Counts) -> float:
    """Σ nₗ·H(kₗ/nₗ): independent entries with a known density per layer.

    >>> round(layer_bits([(1000, 500), (1000, 0)]), 6)
    1000.0
    """
    return sum((n * float(binary_entropy(k / n)) for n, k in _check(counts) if n), start=0.0)


def global_bits(counts: Counts) -> float:
    """n·H(k/n) with n = Σ nₗ, k = Σ kₗ: one known density for all layers.

    At least `layer_bits`, because H is concave.

    >>> round(global_bits([(1000, 500), (1000, 0)]), 1)
    1622.6
    """
    counts = _check(counts)
    return layer_bits([(sum(n for n, _ in counts), sum(k for _, k in counts))])


def enumerative_bits(counts: Counts) -> float:
    """Σ log2 C(nₗ, kₗ): the index of a mask among all with these counts (Cover 1973).

    >>> round(enumerative_bits([(4, 2)]), 6) == round(math.log2(6), 6)
    True
    """
    nats = sum(
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for n, k in _check(counts)
    )
    return nats / math.log(2)


def kt_bits(counts: Counts) -> float:
    """Σ of the Krichevsky-Trofimov code lengths: adaptive, without known counts (1981).

    −log2 [Γ(k+½) Γ(n−k+½) / (π Γ(n+1))] for each layer: at most ½ log2(n) + 1 bits over n·H(k/n).

    >>> round(kt_bits([(1, 1)]), 6)
    1.0
    """
    nats = sum(
        math.lgamma(n + 1) + math.log(math.pi) - math.lgamma(k + 0.5) - math.lgamma(n - k + 0.5)
        for n, k in _check(counts)
    )
    return nats / math.log(2)


def _matrix(mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    return mask.reshape(-1, mask.shape[-1]) if mask.ndim > 1 else mask.reshape(1, -1)


def conditional_bits(mask: np.ndarray, axis: int) -> tuple[float, float]:
    """The code length of a mask with a known density per row (or column), and side information.

    The mask is reshaped to a matrix: the last axis indexes the columns, all others the rows.

    Args:
      mask: bool[...].
      axis: 0 for a density per row, 1 for one per column.

    Returns:
      (Σ mH(kᵣ/m) over lines of m entries, side information: log2(m+1) bits for each line's count).

    Raises:
      ValueError: if `axis` is neither 0 nor 1.

    >>> conditional_bits(np.array([[True, True, True], [False, False, False]]), axis=0)
    (0.0, 4.0)
    """
    if axis not in (0, 1):
        raise ValueError(f"`axis` is {axis}; 0 (a density per row) or 1 (per column) is allowed.")
    if not np.size(mask):  # numpy does not reshape an array without entries to (-1, 0)
        return 0.0, 0.0
    matrix = _matrix(mask)
    length = matrix.shape[1 - axis]
    lines = matrix.shape[axis]
    kept = np.count_nonzero(matrix, axis=1 - axis)
    return float(length * binary_entropy(kept / length).sum()), lines * math.log2(length + 1)


def empirical_bits(values: np.ndarray) -> float:
    """n·H of the values' own frequencies: the code length with known frequencies.

    Args:
      values: an array of comparable values, such as quantised values.

    >>> empirical_bits(np.array([1, 1, 2, 2]))
    4.0
    """
    _, counts = np.unique(np.asarray(values), return_counts=True)
    return float(np.sum(counts * (np.log2(counts.sum()) - np.log2(counts)))) if counts.size else 0.0


def break_even_density(bits: float) -> float:
    """The density ρ in (0, 1) at which mask and kept values are as large as the dense layer.

    Solves H(ρ) = b(1−ρ) for b bits a value: pruning saves b(1−ρ) bits per entry and the mask costs
    H(ρ). Below this density the pruned layer is smaller.

    Args:
      bits: b > 0, the bits of a value.

    Raises:
      ValueError: if `bits` is not positive and finite.

    >>> round(break_even_density(1.0), 4)
    0.2271
    """
    if not 0 < bits < math.inf:
        raise ValueError(f"`bits` is {bits}; a positive finite number is needed.")

    def excess(log_sparsity: float) -> float:
        s = math.exp(log_sparsity)
        kept = -math.log1p(-s) * (1 - s) / s  # (1−s) ln(1/(1−s)) / s, stable for small s
        return (kept - log_sparsity) / math.log(2) - bits  # H(s)/s − b, decreasing in s

    low, high = -(bits + 2) * math.log(2), math.log1p(-1e-16)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return -math.expm1(high)
