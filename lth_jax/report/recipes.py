"""A finished recipe of the literature: its curves, and a table of verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lth_jax.measures.expected import (
    FAILS,
    HOLDS,
    INCONCLUSIVE,
    MISSING,
    Expected,
    Networks,
    agreement,
    measured,
)
from lth_jax.measures.intervals import Interval, student_t
from lth_jax.report.arms import LOOKS
from lth_jax.report.display import percent, quantity
from lth_jax.report.levels import Level, RunRecord
from lth_jax.report.stability import Stability, by_replicate
from lth_jax.report.tables import arm_values, bounded
from lth_jax.text import counted
from lth_jax.types import DENSE, TICKET

FULL, SHORT = "full", "short"
SIZES = (SHORT, FULL)
"""The sizes of a recipe: for two cores, and as in the paper."""
BARRIER = "test_error_barrier"
"""The metric of instability analysis, as a fraction."""
ONLY_FULL = "full size only"
COLOURS = {HOLDS: "good", FAILS: "bad", INCONCLUSIVE: "open", MISSING: "open", ONLY_FULL: "open"}
"""Verdicts, and the class of their badge in the style sheet."""
SOME = 0.5  # the place of a number whose density is not stated
NEAR = 1.15  # largest ratio of densities that count as equal
HEADER = ("finding", "verdict", "expected", "ours [95 %]", "replicates", "source")


class Recipe(NamedTuple):
    """An experiment of the literature.

    Attributes:
      name: its name on the command line.
      title: its title.
      setting: the paper's setting, sentences.
      short: the changes of the short size, sentences.
      expected: the numbers and inequalities of the paper.
      labels: name of a run -> its label; the name itself by default.
    """

    name: str
    title: str
    setting: str
    short: str
    expected: Sequence[Expected]
    labels: Mapping[str, str] = {}

    def check(self) -> None:
        """Raises `ValueError` unless all records are well formed."""
        for one in self.expected:
            one.check()

    def label(self, networks: Networks) -> str:
        """The name of networks in texts, without their density.

        >>> recipe = Recipe("a", "A", "", "", (), {"lrr": "LRR"})
        >>> recipe.label(Networks("ticket", 0.2, "lrr")), recipe.label(Networks("reinit", 0.2))
        ('LRR', 'reinitialised')
        """
        arm = LOOKS[networks.arm].label if networks.arm in LOOKS else networks.arm
        run = self.labels.get(networks.run, networks.run)
        if not run:
            return arm
        return run if networks.arm == TICKET else f"{run}, {arm}"


class Trained(NamedTuple):
    """A recipe with its finished runs.

    Attributes:
      recipe: the recipe.
      size: one of `SIZES`.
      runs: name -> run. A name `RUN@…` is a further density of `RUN`.
      seconds: time of training.
      command: the command that repeats it.
    """

    recipe: Recipe
    size: str
    runs: Mapping[str, RunRecord]
    seconds: float
    command: str

    @property
    def metric(self) -> str:
        """The metric of the first expectation, which the curves show."""
        return self.recipe.expected[0].metric


def seconds_of(runs: Iterable[RunRecord]) -> float:
    """The time of training of all different networks of some runs."""
    members = {
        member.key: level.seconds / len(level.members)
        for run in runs
        for level in run.levels
        for member in level.members
    }
    return sum(members.values())


def data_of(trained: Trained) -> str:
    """The data sets of a recipe's runs, separated by commas."""
    return ", ".join(dict.fromkeys(run.config["data"]["name"] for run in trained.runs.values()))


def with_barriers(record: RunRecord, rewind: int, found: Sequence[Stability]) -> RunRecord:
    """A run whose levels have the metric `BARRIER`; NaN for members without one.

    Args:
      record: the run.
      rewind: its rewind step.
      found: results of instability analysis, also of runs with other rewind steps.
    """
    barriers = {one.level: by_replicate(one, BARRIER) for one in found if one.rewind == rewind}

    def extended(level: Level) -> Level:
        if level.level not in barriers:
            return level
        values = np.full(len(level.members), np.nan)
        own = [
            i
            for i, m in enumerate(level.members)
            if m.arm in (DENSE, TICKET) and m.diverged_at is None
        ]
        values[own] = barriers[level.level]
        return level._replace(results=level.results | {BARRIER: values})

    return record._replace(levels=tuple(map(extended, record.levels)))


def values_at(trained: Trained, networks: Networks, metric: str) -> dict[int, float]:
    """The metric of these networks by replicate; empty where they were not trained."""
    arm, density = networks.arm, networks.density
    found = [
        level
        for level in _levels(trained, networks.run)
        if arm in level.arms and metric in level.results and (arm != DENSE or level.level == 0)
    ]
    if density is None:
        return arm_values(found[-1], arm, metric) if found else {}
    distance = [abs(np.log(level.density / density)) for level in found]
    if min(distance, default=np.inf) > np.log(NEAR):
        return {}
    return arm_values(found[int(np.argmin(distance))], arm, metric)


def _levels(trained: Trained, run: str) -> Iterator[Level]:
    """The levels of a run at all of its densities; of the first run if `run` is empty."""
    wanted = run or next(iter(trained.runs)).partition("@")[0]
    for name, record in trained.runs.items():
        if name.partition("@")[0] == wanted:
            yield from record.levels


class Judged(NamedTuple):
    """An expectation with its measured counterpart.

    Attributes:
      expected: the expectation.
      interval: the measured value, with its 95 % interval; None if it was not measured.
      verdict: a key of `COLOURS`.
    """

    expected: Expected
    interval: Interval | None
    verdict: str


def judged(trained: Trained) -> list[Judged]:
    """All expectations of a recipe with their verdicts; see `Expected.needs_full`."""
    found = []
    for one in trained.recipe.expected:
        first = values_at(trained, one.networks, one.metric)
        second = values_at(trained, one.minus, one.metric) if one.minus else first
        shared = [replicate for replicate in first if replicate in second]
        if not shared:
            late = one.needs_full and trained.size != FULL
            found.append(Judged(one, None, ONLY_FULL if late else MISSING))
            continue
        other = [second[r] for r in shared] if one.minus else None
        interval = measured(one, [first[r] for r in shared], other)
        is_judged = trained.size == FULL or not one.needs_full
        verdict = agreement(interval, *one.bounds) if is_judged else ONLY_FULL
        found.append(Judged(one, interval, verdict))
    return found


class Curve(NamedTuple):
    """The mean of the recipe's metric for one arm of one run.

    Attributes:
      run: the run.
      arm: the arm.
      points: density -> mean with its ends.
    """

    run: str
    arm: str
    points: dict[float, Interval]

    @property
    def place(self) -> tuple[str, str]:
        """What distinguishes the curve from others."""
        return self.run, self.arm


def curves(trained: Trained) -> list[Curve]:
    """The measured curves; the dense networks of a run are a curve of one point."""
    found: dict[tuple[str, str], Curve] = {}
    for name, record in trained.runs.items():
        run = name.partition("@")[0]
        for level in record.levels:
            for arm in level.arms if trained.metric in level.results else ():
                values = list(arm_values(level, arm, trained.metric).values())
                interval = bounded(student_t(values), trained.metric)
                curve = found.setdefault((run, arm), Curve(run, arm, {}))
                curve.points[level.density] = interval
    return list(found.values())


def stated(trained: Trained) -> list[Curve]:
    """The numbers of the literature for the same metric, with their spread as ends."""
    first = next(iter(trained.runs)).partition("@")[0]
    found: dict[tuple[str, str], Curve] = {}
    for one in trained.recipe.expected:
        if one.is_number and one.minus is None and one.metric == trained.metric:
            run, arm = one.networks.run or first, one.networks.arm
            curve = found.setdefault((run, arm), Curve(run, arm, {}))
            ends = one.value - one.spread, one.value + one.spread
            density = SOME if one.networks.density is None else one.networks.density
            curve.points[density] = Interval(one.value, *ends, 0, 0)
    return list(found.values())


def summary(trained: Trained) -> str:
    """How many expectations have which verdict, as a sentence.

    Expectations of the full size are left out at short size.
    """
    counts = Counter(one.verdict for one in judged(trained) if one.verdict != ONLY_FULL)
    parts = [f"{name} {counts[name]}" for name in COLOURS if counts[name]]
    return f"{counted(counts.total(), 'finding')}: {', '.join(parts)}."


def cells(trained: Trained) -> list[list[str]]:
    """The table of verdicts as text, the header first; without numbers of the full size."""
    return [list(HEADER)] + [
        [
            finding(trained.recipe, one.expected),
            one.verdict,
            expectation(one.expected),
            shown(one.expected, one.interval) if one.interval else "–",
            str(one.interval.replicates) if one.interval else "–",
            one.expected.source,
        ]
        for one in judged(trained)
        if one.verdict != ONLY_FULL
    ]


def number_cells(trained: Trained) -> list[list[str]]:
    """The paper's numbers that are compared at full size only, the header first."""
    return [["number", "expected", "source"]] + [
        [finding(trained.recipe, one.expected), expectation(one.expected), one.expected.source]
        for one in judged(trained)
        if one.verdict == ONLY_FULL
    ]


def finding(recipe: Recipe, expected: Expected) -> str:
    """The metric and the networks of an expectation, as text.

    >>> recipe = Recipe("a", "A", "", "", ())
    >>> finding(recipe, Expected(Networks("ticket", 0.2), "", Networks("reinit", 0.2), low=0.0))
    'Test accuracy at the end: ticket − reinitialised, 20 % kept'
    """
    return f"{quantity(expected.metric).label}: {difference(recipe, expected)}"


def difference(recipe: Recipe, expected: Expected) -> str:
    """The networks of an expectation, with their density."""
    first, second = expected.networks, expected.minus
    if second is None:
        return f"{recipe.label(first)}{_kept(first)}"
    shared = first.run == second.run and first.run
    where = f"{recipe.labels.get(first.run, first.run)}, " if shared else ""
    names = [recipe.label(one._replace(run="") if shared else one) for one in (first, second)]
    places = {_kept(one) for one in (first, second) if one.arm != DENSE}
    apart = len(places) > 1
    if apart:
        names = [name + _kept(one) for name, one in zip(names, (first, second), strict=True)]
    form = "{0} / {1} − 1" if expected.relative else "{0} − {1}"
    return f"{where}{form.format(*names)}{'' if apart else next(iter(places), '')}"


def _kept(networks: Networks) -> str:
    if networks.arm == DENSE or networks.density is None:
        return ""
    return f", {percent(networks.density)} % kept"


def expectation(expected: Expected) -> str:
    """The number or the inequality as text, in the unit of the metric.

    >>> expectation(Expected(Networks("dense"), "", value=0.9172, spread=0.0023, tolerance=0.005))
    '91.72 ± 0.23, tolerance 0.50 %'
    >>> expectation(Expected(Networks("ticket"), "", Networks("dense"), low=-0.01))
    'at least −1.00 points'
    """
    low, high = expected.bounds
    if expected.is_number:
        text = _shown(expected, expected.value)
        text += f" ± {_shown(expected, expected.spread, False)}" if expected.spread else ""
        tolerance = _shown(expected, expected.tolerance, False)
        text += f", tolerance {tolerance}" if expected.tolerance else ""
    elif np.isfinite(low) and np.isfinite(high):
        text = f"{_shown(expected, low)} to {_shown(expected, high)}"
    else:
        is_low = np.isfinite(low)
        text = f"at {'least' if is_low else 'most'} {_shown(expected, low if is_low else high)}"
    return f"{text} {unit(expected)}".rstrip()


def shown(expected: Expected, one: Interval) -> str:
    """A measured value with its interval."""
    low, high = (_shown(expected, end) if np.isfinite(end) else "–" for end in one[1:3])
    return f"{_shown(expected, one.estimate)} [{low}, {high}] {unit(expected)}".rstrip()


def _shown(expected: Expected, value: float, signed: bool | None = None) -> str:
    kind = quantity(expected.metric)
    digits = 0 if expected.relative else kind.digits + (kind.unit == "%")
    sign = "+" if (expected.minus is not None if signed is None else signed) and value else ""
    return f"{scale(expected) * value:{sign}.{digits}f}".replace("-", "−")


def scale(expected: Expected) -> float:
    """The factor from stored values to the unit."""
    return 100.0 if expected.relative else quantity(expected.metric).scale


def unit(expected: Expected) -> str:
    """The unit of an expectation, empty for pure numbers."""
    own = quantity(expected.metric).unit
    if expected.relative:
        return "%"
    return "points" if expected.minus is not None and own == "%" else own
