"""Verdicts on a claim from one number per seed, by a rule fixed beforehand.

A claim states that an effect is above 0 (or, two-sided, not 0); δ is the smallest effect that
matters. The corrected interval alone determines the verdict:

| verdict | the interval |
|---|---|
| supported | lies at or above δ |
| real, below δ | lies above 0 and below δ |
| real, size open | lies above 0 and contains δ |
| not supported | lies between −δ and δ |
| reversed | lies at or below −δ |
| inconclusive | none of these: more seeds could decide |

With a margin, which is part of the values, δ is 0. The verdict is then supported, not supported or
inconclusive: missing a margin is not an effect in the other direction.

A claim that something is possible is a map, a grid of settings: it is found if the simultaneous
lower band of some cell lies at or above δ, and otherwise not found in this map.
"""

from collections.abc import Collection, Sequence

import numpy as np
import scipy
from numpy.typing import ArrayLike

from lth_jax.measures.intervals import Interval

CLAIMS = 20
"""The number of claims that the correction allows for."""

ALPHA = 0.05 / CLAIMS
"""The error rate of each claim (Bonferroni): all verdicts together err with probability .05."""

SUPPORTED = "supported"
BELOW = "real, below δ"
OPEN = "real, size open"
NOT_SUPPORTED = "not supported"
REVERSED = "reversed"
INCONCLUSIVE = "inconclusive"
FOUND = "found"
NOT_FOUND = "not found in this map"
NOT_REPLICATED = "not replicated"
"""The verdict of a claim whose two rounds contradict each other."""


def verdict(interval: Interval, delta: float, *, two_sided: bool = False) -> str:
    """The verdict on one effect; see the table above.

    Args:
      interval: interval of the effect, corrected for multiplicity.
      delta: the smallest effect that matters; 0 for a claim with a margin that is part of the
        values.
      two_sided: whether the claim has no direction; the verdict is then never reversed.

    Raises:
      ValueError: if `delta` is negative.

    >>> effect = Interval(2.0, 1.0, 3.0, 48, 0)
    >>> [verdict(effect, delta) for delta in (1.0, 2.5, 3.5)]
    ['supported', 'real, size open', 'real, below δ']
    """
    if delta < 0:
        raise ValueError(f"`delta` is {delta}; it must be at least 0.")
    low, high = interval.low, interval.high
    if two_sided and high < 0:
        low, high = -high, -low
    if low > 0:
        return SUPPORTED if low >= delta else BELOW if high < delta else OPEN
    if delta and high <= -delta:
        return REVERSED
    if high < delta and (low > -delta or not delta):
        return NOT_SUPPORTED
    return INCONCLUSIVE


def all_of(verdicts: Sequence[str]) -> str:
    """The verdict on a claim with several parts (an intersection–union test).

    Supported only if every part is supported; otherwise the verdict is the strongest of the
    failures. Each part is tested at the full α (Berger, 1982).

    >>> all_of(["supported", "real, below δ"]), all_of(["supported", "inconclusive"])
    ('real, below δ', 'inconclusive')
    """
    for firm in (REVERSED, NOT_SUPPORTED, INCONCLUSIVE, BELOW, OPEN):
        if firm in verdicts:
            return firm
    return SUPPORTED


def both_rounds(discovery: str, replication: str) -> str:
    """The verdict after a replication on fresh seeds and data.

    Equal verdicts are kept. Two real effects of different size leave the size open. If one round
    finds an effect below δ and the other none, both exclude an effect of δ: not supported. With one
    inconclusive round, the verdict is inconclusive. All other pairs contradict each other.

    >>> both_rounds("supported", "real, size open"), both_rounds("supported", "not supported")
    ('real, size open', 'not replicated')
    """
    pair = {discovery, replication}
    if len(pair) == 1:
        return discovery
    if pair <= {SUPPORTED, OPEN, BELOW}:
        return OPEN
    if pair == {BELOW, NOT_SUPPORTED}:
        return NOT_SUPPORTED
    return INCONCLUSIVE if INCONCLUSIVE in pair else NOT_REPLICATED


def in_map(held: Collection[str]) -> str:
    """The verdict on a map, from its cells whose lower bands lie at or above δ.

    >>> in_map(["width 64"]), in_map([])
    ('found', 'not found in this map')
    """
    return FOUND if held else NOT_FOUND


def seeds_needed(
    values: ArrayLike, delta: float, *, power: float = 0.8, alpha: float = ALPHA
) -> int:
    """The number of seeds needed for a verdict, from the spread of a pilot.

    `((z₁₋α/₂ + z₍₁₊power₎/₂) s / δ)²` with the pilot's standard deviation `s` and normal quantiles
    `z`: without an effect, the interval lies between −δ and δ; with one of 2δ, it lies above δ.

    Args:
      values: one number per pilot seed, at least two.
      delta: the smallest effect that matters, above 0.
      power: the probability of a decision.
      alpha: the error rate, corrected for multiplicity.

    Raises:
      ValueError: for fewer than two finite values, or numbers out of range.

    >>> seeds_needed([1.0, 2.0, 3.0], delta=1.0)
    19
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if finite.size < 2:
        raise ValueError(f"`values` has {finite.size} finite numbers; a spread needs at least 2.")
    if delta <= 0:
        raise ValueError(f"`delta` is {delta}; it must be above 0.")
    quantiles = scipy.special.ndtri([1 - alpha / 2, (1 + power) / 2])
    return max(2, int(np.ceil((quantiles.sum() * finite.std(ddof=1) / delta) ** 2)))
