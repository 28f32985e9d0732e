"""Verdicts on a claim from one number per seed: the rule is fixed before the data are drawn.

A claim says that an effect is above 0 (or, two-sided, that there is one), and a study says
beforehand which effect δ would matter. Five verdicts follow from the interval and the p-value:

| verdict | when |
|---|---|
| supported | significant in the claimed direction, estimate at least δ |
| real but below δ | significant in the claimed direction, estimate below δ |
| reversed | the interval lies below 0, the estimate at −δ or below |
| not supported | the interval lies below δ: an effect that matters is excluded |
| inconclusive | none of these: more seeds could decide |

A claim about a margin (δ = 0: the values contain the margin already) is supported, not supported or
inconclusive: what falls short of a margin is no effect in the other direction.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike

from lth_jax.measures.intervals import Interval, sign_flip_interval, sign_flip_test

SUPPORTED = "supported"
"""Significant in the claimed direction, estimate at least δ."""

BELOW = "real but below δ"
"""Significant in the claimed direction, estimate below δ."""

REVERSED = "reversed"
"""The interval lies below 0, the estimate at −δ or below."""

NOT_SUPPORTED = "not supported"
"""The interval lies below δ."""

INCONCLUSIVE = "inconclusive"
"""None of the others."""

VERDICTS = (SUPPORTED, BELOW, REVERSED, NOT_SUPPORTED, INCONCLUSIVE)
"""All verdicts on a claim."""


class Assessed(NamedTuple):
    """What a handful of values say about an effect, before any correction for multiplicity.

    Attributes:
      interval: their mean, with the interval of the effects that are not rejected.
      p: the two-sided p-value of no effect.
    """

    interval: Interval
    p: float


def assess(values: ArrayLike, *, rng: np.random.Generator, confidence: float = 0.95) -> Assessed:
    """The mean of one value per seed with its sign-flip interval and p-value.

    Args:
      values: `[seeds]`; those that are not finite are left out and counted.
      rng: source of the sign vectors.
      confidence: of the interval.

    >>> found = assess([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], rng=np.random.default_rng(0))
    >>> found.interval.estimate, found.p
    (3.5, 0.03125)
    """
    interval = sign_flip_interval(values, rng=rng, confidence=confidence)
    return Assessed(interval, sign_flip_test(values, rng=rng))


def verdict(
    interval: Interval, p: float, delta: float, *, alpha: float = 0.05, two_sided: bool = False
) -> str:
    """The verdict on one effect; see the table above.

    Args:
      interval: of the effect, at confidence 1 − `alpha`.
      p: two-sided and corrected for multiplicity.
      delta: the smallest effect that matters; 0 for a claim that an effect is above a margin that
        the values contain already.
      alpha: significance.
      two_sided: whether the claim has no direction; then nothing is reversed.

    Raises:
      ValueError: if `delta` is negative.

    >>> effect = Interval(2.0, 1.0, 3.0, 48, 0)
    >>> verdict(effect, 0.001, 1.5), verdict(effect, 0.001, 2.5), verdict(effect, 0.2, 4.0)
    ('supported', 'real but below δ', 'not supported')
    """
    if delta < 0:
        raise ValueError(f"`delta` is {delta}; it must be at least 0.")
    estimate, low, high, _, _ = interval
    if not np.isfinite(estimate):
        return INCONCLUSIVE
    size = abs(estimate) if two_sided else estimate
    if p < alpha and size > 0:
        return SUPPORTED if size >= delta else BELOW
    if not two_sided and high < 0 < delta <= -estimate:
        return REVERSED
    if high < delta and (not two_sided or low > -delta):
        return NOT_SUPPORTED
    return INCONCLUSIVE


def all_of(verdicts: Sequence[str]) -> str:
    """The verdict on a claim that says several things at once (an intersection–union test).

    Supported only where every part is; where one part fails the claim fails, and with the firmest
    of the failures; each part may be tested at the full α (Berger, 1982).

    >>> all_of(["supported", "real but below δ"]), all_of(["supported", "inconclusive"])
    ('real but below δ', 'inconclusive')
    """
    for firm in (REVERSED, NOT_SUPPORTED, INCONCLUSIVE, BELOW):
        if firm in verdicts:
            return firm
    return SUPPORTED


def seeds_needed(
    values: ArrayLike, delta: float, *, power: float = 0.8, alpha: float = 0.05, ratio: float = 1.5
) -> int:
    """How many seeds decide a question, from the spread of a pilot.

    With `s` the pilot's standard deviation and `z` normal quantiles, the largest of

    * `((z₁₋α/₂ + z_power) s / (ratio·δ))²`: an effect of ratio·δ is significant,
    * `(z_power s / ((ratio − 1) δ))²`: and its estimate is at least δ,
    * `((z₁₋α/₂ + z_power) s / δ)²`: without an effect, δ is excluded.

    Args:
      values: one number per pilot seed, at least two.
      delta: the smallest effect that matters, above 0.
      power: with which probability the question is to be decided.
      alpha: significance, after any correction.
      ratio: the true effect to plan for, in δ, above 1: at an effect of δ itself half of all
        studies estimate less than δ, whatever their size.

    Raises:
      ValueError: for fewer than two finite values, or numbers out of range.

    >>> seeds_needed([1.0, 2.0, 3.0], delta=1.0)
    8
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if finite.size < 2:
        raise ValueError(f"`values` has {finite.size} finite numbers; a spread needs at least 2.")
    if delta <= 0 or ratio <= 1:
        raise ValueError(f"`delta` is {delta} and `ratio` {ratio}; they must be above 0 and 1.")
    two_sided, one_sided = scipy.special.ndtri(1 - alpha / 2), scipy.special.ndtri(power)
    spread = finite.std(ddof=1) / delta
    needs = (
        (two_sided + one_sided) * spread / ratio,
        one_sided * spread / (ratio - 1),
        (two_sided + one_sided) * spread,
    )
    return max(2, int(np.ceil(max(needs) ** 2)))
