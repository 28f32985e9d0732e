"""Rows of benchmarks: our values, those of alternatives, and ratios of alternated pairs."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lth_jax.timing import alternated

OURS = "ours"
Row = dict[str, Any]


def row(
    case: str,
    ours: Any,
    alternatives: Mapping[str, float] | None = None,
    *,
    pairs: Sequence[float] = (),
    goal: float | None = None,
    judged: float | None = None,
    most: bool = True,
    **more: Any,
) -> Row:
    """One line of a benchmark.

    Args:
      case: what was measured.
      ours: our value.
      alternatives: the values of the alternatives, by name.
      pairs: the ratio of our value to the alternative's in each alternated pair.
      goal: bound of the judged value.
      judged: the value that the goal applies to; the median of the pairs by default.
      most: whether lower values are better, and the goal an upper bound; else higher and lower.
      **more: further fields.

    >>> found = row("a step", 1.0, {"other": 2.0}, pairs=[0.4, 0.5, 0.6], goal=1.0)
    >>> found["ratio"], found["spread"], found["met"]
    (0.5, [0.4, 0.6], True)
    """
    ratio = statistics.median(pairs) if pairs else None
    figure = ratio if judged is None else judged
    met = None
    if goal is not None and figure is not None:
        met = bool(figure <= goal if most else figure >= goal)
    spread = [min(pairs), max(pairs)] if pairs else None
    found = {"case": case, "ours": ours, "alternatives": dict(alternatives or {}), "ratio": ratio}
    found |= {"spread": spread, "better": "lower" if most else "higher"}
    return {**found, "judged": figure, "goal": goal, "met": met, **more}


def beside(
    case: str, figures: Mapping[str, Sequence[float]], other: str, ours: str = OURS, **options: Any
) -> Row:
    """The row of two alternated methods, by the medians of their values.

    Args:
      case: what was measured.
      figures: the values of each method by its name, one per round.
      other: the alternative.
      ours: our method.
      **options: further arguments of `row`.
    """
    pairs = [a / b for a, b in zip(figures[ours], figures[other], strict=True)]
    mine, theirs = (statistics.median(figures[way]) for way in (ours, other))
    return row(case, mine, {other: theirs}, pairs=pairs, **options)


def beside_each(
    case: str,
    ours: Callable[[], Any],
    ways: Mapping[str, Callable[[], Any]],
    pairs: int | Callable[[str], int],
    goals: Mapping[str, float] | None = None,
) -> list[Row]:
    """Seconds of our method and of each alternative, in alternated pairs.

    Args:
      case: what is measured.
      ours: our method.
      ways: the alternatives by name.
      pairs: the number of pairs, or a function of the alternative that returns it.
      goals: upper bounds of ratios by alternative.
    """
    rows = []
    for name, way in ways.items():
        rounds = pairs if isinstance(pairs, int) else pairs(name)
        seconds = alternated({OURS: ours, name: way}, rounds)
        rows.append(beside(f"{case} beside {name}", seconds, name, goal=(goals or {}).get(name)))
    return rows


def line(found: Row) -> str:
    """A row as text.

    >>> line(row("a step, s", 0.5, pairs=[0.4], goal=1.0))
    'a step, s: 0.5, ratio 0.400 (goal 1: met)'
    """
    ours = f"{found['ours']:.4g}" if isinstance(found["ours"], float) else found["ours"]
    ratio = "" if found["ratio"] is None else f", ratio {found['ratio']:.3f}"
    goal = "" if found["goal"] is None else f" (goal {found['goal']:.3g}: "
    met = {None: "", True: "met)", False: "NOT met)"}[found["met"] if goal else None]
    reason = f" ({found['reason']})" if found.get("reason") else ""
    return f"{found['case']}: {ours}{ratio}{goal}{met}{reason}"
