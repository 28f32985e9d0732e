"""Claims: question, decision rule and evidence.

A `Protocol` is fixed before the data are drawn. `Evidence` holds one number per seed for each part
of the claim, and `Control`s are cases with known verdicts. `measures.judge` computes verdicts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Row = dict[str, Any]
"""A row of a tidy table: `metric`, `value` (None if diverged), and keys such as `arm`."""

COMPARISON, MAP, CURVE = KINDS = ("comparison", "map", "curve")
"""What a claim states: that an effect exists, that it is possible, or how large it is."""


class Protocol(NamedTuple):
    """A question with its decision rule.

    Attributes:
      claim: its short name, `"C7"`.
      title: a few words.
      says: the claim.
      question: what is tested.
      setup: data, network and training, in two lines.
      arms: the compared arms.
      statistic: the primary number of each seed.
      rule: the condition under which the claim is supported.
      expects: the expected result, with reasons.
      limits: limits of the verdict.
      paragraph: the place of the sentence in the article: heading and paragraph.
      chosen_by: the criterion by which the settings were chosen; it uses only the dense network and
        the shuffled mask, never the tested effect.
      kind: one of `KINDS`. A comparison holds or does not; a map searches a grid of settings for
        a cell where it holds; a curve has no verdict.
      two_sided: whether the claim has no direction.
    """

    claim: str
    title: str
    says: str
    question: str
    setup: str
    arms: tuple[str, ...]
    statistic: str
    rule: str
    expects: str
    limits: str
    paragraph: str = ""
    chosen_by: str = ""
    kind: str = COMPARISON
    two_sided: bool = False


class Primary(NamedTuple):
    """One part of a claim, or a secondary result.

    Attributes:
      name: the name of the number.
      values: float64 `[seeds]`, NaN for a seed without one.
      delta: the smallest effect that matters.
      unit: unit of values and delta.
      two_sided: whether either sign of the effect counts.
      cell: the cell of the map to which it belongs; a separate cell by default.
      is_share: whether the values are −100, 0 or 100, for pairs that are lost, tied or won; the
        interval is then that of `intervals.paired_shares`.
    """

    name: str
    values: NDArray[np.float64]
    delta: float
    unit: str
    two_sided: bool = False
    cell: str = ""
    is_share: bool = False


class Control(NamedTuple):
    """A case with a known answer, tested by the rule of the study at α = .001.

    Attributes:
      name: description, with the reason of the known answer.
      expected: the expected verdict.
      primaries: its numbers, on separate seeds.
      also: further correct verdicts.
    """

    name: str
    expected: str
    primaries: Sequence[Primary]
    also: tuple[str, ...] = ()


class Evidence(NamedTuple):
    """The results of a study.

    Attributes:
      primaries: the parts of the claim; all must hold, or in a map all of one cell. The first is
        the headline.
      rows: seed-level results, tidy.
      secondary: further numbers per seed, shown with uncorrected intervals.
      gate: TICKET − SHUFFLE per seed, for studies of tickets: without an effect, the setting has no
        winning tickets.
      member_steps: training steps of all networks together.
      flops: FLOPs of the arms by name, including the search for the ticket.
      notes: further notes, such as chosen learning rates.
    """

    primaries: Sequence[Primary]
    rows: Sequence[Row]
    secondary: Sequence[Primary] = ()
    gate: NDArray[np.float64] | None = None
    member_steps: int = 0
    flops: Mapping[str, float] = MappingProxyType({})
    notes: tuple[str, ...] = ()


class Contrasts(NamedTuple):
    """Makes primaries from contrasts between arms: first minus second, paired by seed.

    Attributes:
      values: values by arm, `[seeds]`.
      unit: unit of the values.
      delta: the smallest effect that matters, unless a call gives another.
      label: prefix of a primary's name.
      two_sided: whether either sign of the effect counts.
      is_share: as for `Primary`.

    >>> points = Contrasts({"ticket": [3.0, 4.0], "dense": [2.0, 2.0]}, "points", 1.0, "test ")
    >>> points("ticket", "dense")
    Primary(name='test ticket − dense', values=array([1., 2.]), delta=1.0, unit='points', ...)
    >>> points("ticket", "dense", margin=1.0).values.tolist()
    [2.0, 3.0]
    """

    values: Mapping[str, ArrayLike]
    unit: str
    delta: float = 1.0
    label: str = ""
    two_sided: bool = False
    is_share: bool = False

    def __call__(
        self,
        first: str,
        second: str,
        delta: float | None = None,
        *,
        name: str = "",
        margin: float | None = None,
    ) -> Primary:
        """The difference of two arms.

        Args:
          first: an arm.
          second: the arm that is subtracted.
          delta: the smallest effect that matters.
          name: name of the primary; `"first − second"` by default.
          margin: a tolerated loss, which is added to the values and to the name; δ is then 0.
        """
        values = np.subtract(self.values[first], self.values[second])
        known = name or f"{self.label}{first} − {second}"
        if margin is not None:
            known, values, delta = f"{known} + {margin:g}", values + margin, 0.0
        least = self.delta if delta is None else delta
        return Primary(known, values, least, self.unit, self.two_sided, is_share=self.is_share)


SHARE = 10.0
"""The smallest difference that matters by default, in % of the dense network's error."""


def relative(
    accuracy: Mapping[str, ArrayLike],
    *,
    dense: str = "dense",
    delta: float = SHARE,
    label: str = "",
) -> Contrasts:
    """Contrasts of accuracy in % of the mean error of the dense network.

    `100 (aᵢ − bᵢ) / (100 − mean(dense))`: a unit that is comparable between easy and hard data.

    Args:
      accuracy: accuracy in percent, by arm, `[seeds]`.
      dense: the arm of the dense network.
      delta: the smallest difference that matters.
      label: prefix of a primary's name.

    >>> points = relative({"dense": [90.0, 90.0], "ticket": [91.0, 92.0]})
    >>> points("ticket", "dense").values.tolist()
    [10.0, 20.0]
    """
    error = 100 - np.nanmean(np.asarray(accuracy[dense], np.float64))
    shares = {arm: 100 * np.asarray(a, np.float64) / error for arm, a in accuracy.items()}
    return Contrasts(shares, "% of the dense error", delta, label)


def arm_rows(metric: str, values: Mapping[str, ArrayLike], **fields: Any) -> list[Row]:
    """Tidy rows of one metric: an arm and a replicate in each.

    Args:
      metric: its name.
      values: the values by arm, `[seeds]`.
      **fields: further fields, the same in all rows.

    >>> arm_rows("accuracy", {"dense": [0.5]}, level=0)
    [{'level': 0, 'arm': 'dense', 'replicate': 0, 'metric': 'accuracy', 'value': 0.5}]
    """
    return [
        {**fields, "arm": arm, "replicate": i, "metric": metric, "value": float(value)}
        for arm, each in values.items()
        for i, value in enumerate(np.asarray(each))
    ]


def draws(draw: Callable[[np.random.Generator], Any], seeds: Iterable[Any]) -> NDArray[Any]:
    """The stacked results of a function for each seed, for simulated controls.

    Args:
      draw: `rng -> number or numbers`.
      seeds: each makes a generator, `np.random.default_rng(seed)`.

    >>> draws(lambda rng: rng.integers(10, size=2), range(3)).shape
    (3, 2)
    """
    return np.array([draw(np.random.default_rng(seed)) for seed in seeds])
