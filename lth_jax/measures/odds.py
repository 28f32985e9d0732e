"""The rarity of values among many draws, for several independent seeds (`measures.extremes`)."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lth_jax.measures.extremes import bootstrap_odds, fit_tail, log10_odds, median_interval
from lth_jax.measures.intervals import Interval

MEASURED, FITTED, BOUND = "measured", "generalised Pareto", "exponential"
"""The curves of `odds_curves`."""


def odds_by_seed(
    draws: ArrayLike, values: ArrayLike, share: float = 0.05, *, shape: float | None = None
) -> NDArray[np.float64]:
    """`extremes.log10_odds` of each seed's value, `[seeds]`, among its draws, `[seeds, n]`.

    >>> odds_by_seed([np.arange(999.0)] * 2, [899.0, 799.0]).round(1).tolist()
    [1.0, 0.7]
    """
    pairs = zip(np.asarray(draws), np.asarray(values), strict=True)
    return np.array([log10_odds(own, value, share, shape=shape) for own, value in pairs])


class TailChecks(NamedTuple):
    """The fit of a tail's model to draws that it was not fitted to, `[seeds]` each.

    Attributes:
      missed: the largest draw of one half, minus its expectation under the tail of the other half;
        the mean of both halves.
      shape: ξ.
      change: ξ minus that of a tail twice as large.
    """

    missed: NDArray[np.float64]
    shape: NDArray[np.float64]
    change: NDArray[np.float64]


def check_tails(draws: ArrayLike, share: float = 0.05) -> TailChecks:
    """Checks the tails of each seed's draws, `[seeds, n]`.

    >>> sample = np.random.default_rng(0).exponential(size=(20, 4000))
    >>> [bool(abs(each.mean()) < 0.3) for each in check_tails(sample)]
    [True, True, True]
    """
    sample = np.asarray(draws, np.float64)
    half = sample.shape[1] // 2

    def missed(own: NDArray[np.float64]) -> float:
        parts = own[:half], own[half:]
        expected = [float(fit_tail(part, share).expected_maximum(half)) for part in parts]
        return float(np.mean([parts[1].max() - expected[0], parts[0].max() - expected[1]]))

    shape, wider = (np.array([fit_tail(o, s).shape for o in sample]) for s in (share, 2 * share))
    return TailChecks(np.array([missed(own) for own in sample]), shape, shape - wider)


def odds_curves(
    draws: ArrayLike, points: ArrayLike, share: float = 0.05
) -> Iterator[tuple[float, dict[str, NDArray[np.float64]]]]:
    """log₁₀ N against the distance above each seed's mean draw: measured, fitted, bounded.

    Each distance has the curves that are finite there for all seeds, `[seeds]` each.

    >>> sample = np.random.default_rng(0).uniform(size=(3, 400))
    >>> [sorted(found) for _, found in odds_curves(sample, [0.4, 2.0])]
    [['exponential', 'generalised Pareto', 'measured'], ['exponential']]
    """
    sample = np.asarray(draws, np.float64)
    for distance in np.asarray(points, np.float64):
        at = sample.mean(axis=1) + distance
        with np.errstate(divide="ignore"):
            measured = -np.log10((sample > at[:, None]).mean(axis=1))
        found = {
            MEASURED: measured,
            FITTED: odds_by_seed(sample, at, share),
            BOUND: odds_by_seed(sample, at, share, shape=0.0),
        }
        yield float(distance), {name: v for name, v in found.items() if np.isfinite(v).all()}


class FittedOdds(NamedTuple):
    """log₁₀ N by generalised Pareto tails.

    Attributes:
      median: the median over seeds, with its 95 % interval.
      low: the median of the lower ends of the seeds' bootstrap intervals (90 %).
      above: number of seeds whose value is above all draws.
      beyond: number of seeds whose value is beyond the fitted end point.
    """

    median: Interval
    low: float
    above: int
    beyond: int


def fitted_odds(draws: ArrayLike, values: ArrayLike, share: float = 0.05) -> FittedOdds:
    """The odds of seeds' values, `[seeds]`, among their draws, `[seeds, n]`, by fitted tails.

    >>> sample = np.random.default_rng(0).uniform(size=(3, 400))
    >>> found = fitted_odds(sample, [2.0, 2.0, 2.0])
    >>> found.median.estimate, found.above, found.beyond
    (inf, 3, 3)
    """
    sample, own = np.asarray(draws, np.float64), np.asarray(values, np.float64)
    found = [
        bootstrap_odds(each, value, share, rng=np.random.default_rng(i))
        for i, (each, value) in enumerate(zip(sample, own, strict=True))
    ]
    return FittedOdds(
        median_interval([one.estimate for one in found]),
        float(np.median([one.low for one in found])),
        int(np.sum(own > sample.max(axis=1))),
        int(sum(np.isinf(one.estimate) for one in found)),
    )


def described(
    draws: NDArray[np.float64], values: Mapping[str, NDArray[np.float64]], share: float = 0.05
) -> str:
    """The odds of several arms by the fitted tails, as text; some may lie beyond a tail's end.

    Args:
      draws: accuracies of random tickets in percent, `[seeds, n]`.
      values: accuracies by arm, `[seeds]`; the first arm is also compared with all draws.
      share: of the draws in the tail.
    """
    words = []
    for arm, value in values.items():
        one = fitted_odds(draws, value, share)
        median, low, high = map(_power, one.median[:3])
        words.append(
            f"{arm} one in 10^{median} [{low}, {high}], above all {draws.shape[1]:,} draws in "
            f"{one.above} of {len(draws)} seeds and beyond the fitted end in {one.beyond}; the "
            f"lower end of the bootstrap (90 %) is 10^{_power(one.low)}"
        )
    arm, first = next(iter(values.items()))
    spread = np.mean((first - draws.mean(axis=1)) / draws.std(axis=1))
    return (
        f"{'; '.join(words)}. Random tickets reach {draws.mean():.1f} % (SD "
        f"{draws.std(axis=1).mean():.2f}, best {draws.max():.1f}), {arm} {np.mean(first):.1f} %, "
        f"{spread:.1f} SD above."
    )


def _power(power: float) -> str:
    return f"{power:.1f}" if np.isfinite(power) else "∞"
