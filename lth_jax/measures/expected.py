"""Numbers and inequalities of the literature, and whether measured values agree with them."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lth_jax.measures.intervals import Interval, paired_difference, student_t

HOLDS, FAILS, INCONCLUSIVE, MISSING = "holds", "does not hold", "inconclusive", "not measured"
"""The verdicts."""


class Networks(NamedTuple):
    """The networks of one arm at one density.

    Attributes:
      arm: `"dense"`, `"ticket"` or the name of a control.
      density: fraction of the prunable weights that they keep; 1 for dense networks; None for those
        of the run's last level, where training finds the density.
      run: the name of the run in a recipe; empty if it has only one.
    """

    arm: str
    density: float | None = 1.0
    run: str = ""


class Expected(NamedTuple):
    """A number or an inequality of the literature.

    It concerns the mean of a metric, or the mean of its paired differences to other networks.

    Attributes:
      networks: whose metric it is.
      source: the paper with its year, and the table or figure.
      minus: the networks that are subtracted; None for the metric itself.
      metric: its name in a run's tables.
      value: the number; NaN for an inequality.
      spread: the spread of the number as the source states it.
      tolerance: further deviation that counts as agreement.
      low: lower bound of an inequality.
      high: upper bound of an inequality.
      relative: whether the difference is divided by the metric of `minus`.
      only_full: whether an inequality concerns the paper's setting only, as all numbers do.

    >>> ticket, dense = Networks("ticket", 0.2), Networks("dense")
    >>> Expected(ticket, "a paper, table 1", dense, low=-0.01).bounds
    (-0.01, inf)
    >>> Expected(dense, "a paper, table 1", value=0.75, spread=0.125, tolerance=0.125).bounds
    (0.5, 1.0)
    """

    networks: Networks
    source: str
    minus: Networks | None = None
    metric: str = "test_accuracy_final"
    value: float = float("nan")
    spread: float = 0.0
    tolerance: float = 0.0
    low: float = -float("inf")
    high: float = float("inf")
    relative: bool = False
    only_full: bool = False

    @property
    def is_number(self) -> bool:
        """Whether the source states a number, else an inequality."""
        return bool(np.isfinite(self.value))

    @property
    def needs_full(self) -> bool:
        """Whether it concerns the paper's setting only."""
        return self.is_number or self.only_full

    @property
    def bounds(self) -> tuple[float, float]:
        """The ends of the range that agrees with the source."""
        if not self.is_number:
            return self.low, self.high
        half = self.spread + self.tolerance
        return self.value - half, self.value + half

    def check(self) -> None:
        """Raises `ValueError` unless the record is well formed."""
        low, high = self.bounds
        if not low < high:
            raise ValueError(f"`low` is {low} and `high` is {high}; `low` must be smaller.")
        if not self.is_number and not np.isfinite([low, high]).any():
            raise ValueError("an inequality needs `low` or `high`, a number needs `value`.")
        if self.relative and self.minus is None:
            raise ValueError("`relative` needs `minus`.")
        if min(self.spread, self.tolerance) < 0:
            raise ValueError("`spread` and `tolerance` must be at least 0.")
        for one in filter(None, (self.networks, self.minus)):
            if one.density is not None and not 0 < one.density <= 1:
                raise ValueError(f"`density` is {one.density}; it must lie in (0, 1].")


def measured(expected: Expected, values: ArrayLike, other: ArrayLike | None = None) -> Interval:
    """The measured counterpart of an expectation, with its 95 % Student interval.

    Args:
      expected: the expectation.
      values: the metric of `expected.networks`, one per replicate.
      other: the metric of `expected.minus`, the same replicates in the same order.

    Raises:
      ValueError: `other` is missing or superfluous, or the two have different lengths.

    >>> ratio = Expected(Networks("a"), "", Networks("b"), value=-0.5, tolerance=0.1, relative=True)
    >>> measured(ratio, [50.0, 60.0], [100.0, 120.0]).estimate
    -0.5
    """
    if (other is None) != (expected.minus is None):
        raise ValueError("`other` must be given if and only if `expected.minus` is set.")
    if other is None:
        return student_t(values)
    if not expected.relative:
        return paired_difference(values, other)
    second = np.asarray(other, np.float64)
    base = np.where(second == 0, np.nan, second)
    return paired_difference(np.asarray(values, np.float64) / base, second / base)


def agreement(interval: Interval, low: float, high: float) -> str:
    """Whether an interval agrees with a range.

    Returns:
      `HOLDS` if the interval lies in `[low, high]`, `FAILS` if it lies outside, else
      `INCONCLUSIVE`; also without an interval.

    >>> agreement(Interval(0.5, 0.4, 0.6, 5, 0), low=0.0, high=1.0)
    'holds'
    >>> agreement(Interval(0.5, 0.4, 0.6, 5, 0), low=0.6, high=1.0)
    'inconclusive'
    >>> agreement(Interval(0.5, 0.4, 0.6, 5, 0), low=0.7, high=1.0)
    'does not hold'
    """
    if low <= interval.low and interval.high <= high:
        return HOLDS
    return FAILS if interval.high < low or interval.low > high else INCONCLUSIVE


def accuracies(
    points: Mapping[float, float],
    source: str,
    *,
    arm: str = "ticket",
    run: str = "",
    spread: float = 0.0,
    tolerance: float = 0.5,
) -> Iterator[Expected]:
    """Test accuracies of a paper in percent, by density; a density of 1 means dense networks.

    >>> [one] = accuracies({0.2: 91.7}, "Renda et al. (2020)", spread=0.2)
    >>> one.networks, one.value
    (Networks(arm='ticket', density=0.2, run=''), 0.917)
    """
    for density, value in points.items():
        networks = Networks("dense" if density == 1 else arm, density, run)
        shares = (value / 100, spread / 100, tolerance / 100)
        yield Expected(networks, source, None, "test_accuracy_final", *shares)
