"""Runs side by side: the same levels, their differences with intervals, the fields that differ."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lth_jax import text
from lth_jax.measures.intervals import paired_difference, welch_difference
from lth_jax.report.display import headline_metric, percent, show, show_difference
from lth_jax.report.levels import RunRecord
from lth_jax.report.tables import Row, interval_cells, seed_rows, summary_cells
from lth_jax.types import DENSE

Cells = tuple[list[str], list[list[str]]]
"""The header of a table, and its rows."""


@text.with_short_repr
class Comparison(NamedTuple):
    """Runs side by side.

    Attributes:
      metric: the compared metric.
      arm: the compared arm.
      runs: the names of the runs; the others are compared with the first.
      levels: one row for each run and level: `run`, `level`, `density`, `metric`, `mean`, `low`,
        `high`, `replicates`, `values`. Level 0 has the dense networks.
      differences: one row for each other run and each level that both have: `run`, `level`,
        `metric`, `mean`, `low`, `high`, `replicates`, and `paired`: whether the two runs share
        their seeds. If not, the interval is Welch's.
      fields: the fields in which the configurations differ, with the value in each run; None
        where a run lacks the field.
    """

    metric: str
    arm: str
    runs: list[str]
    levels: list[Row]
    differences: list[Row]
    fields: dict[str, list[Any]]


def compare(
    runs: Sequence[RunRecord], *, metric: str | None = None, arm: str = "ticket"
) -> Comparison:
    """Compares runs level by level.

    Differences are those of a run minus the first run, with 95 % intervals: Student's over the
    pairs of equal replicates where both configurations have the same `seed`, else Welch's.

    Args:
      runs: at least two runs.
      metric: the test accuracy by default, or what the first run's report shows first.
      arm: whose numbers are compared above level 0.

    Raises:
      ValueError: a run lacks the metric or the arm; the message lists what each run has.
    """
    metric = metric or headline_metric(runs[0])
    _check(runs, metric, arm)
    by_run = [_values(run, str(metric), arm) for run in runs]
    densities = [{level.level: level.density for level in run.levels} for run in runs]
    names = [run.info.run for run in runs]
    levels = [
        {"run": name, "level": level, "density": density[level], "metric": metric}
        | summary_cells(list(values.values()))
        for name, density, found in zip(names, densities, by_run, strict=True)
        for level, values in found.items()
    ]
    differences = [
        {"run": name, "level": level, "metric": metric} | _difference(runs[0], run, first, second)
        for run, name, found in zip(runs[1:], names[1:], by_run[1:], strict=True)
        for level, second in found.items()
        if (first := by_run[0].get(level)) is not None
    ]
    fields = differing_fields([run.config for run in runs])
    return Comparison(str(metric), arm, names, levels, differences, fields)


def _check(runs: Sequence[RunRecord], metric: str | None, arm: str) -> None:
    metrics = {
        run.info.run: dict.fromkeys(name for level in run.levels for name in level.results)
        for run in runs
    }
    for name, found in metrics.items():
        if not found:
            raise ValueError(f"{name} has no finished level.")
    arms = {run.info.run: dict.fromkeys(run.arms) for run in runs}
    for argument, value, by_run in (("metric", metric, metrics), ("arm", arm, arms)):
        if any(value not in found for found in by_run.values()):
            each = "; ".join(f"{name} has {', '.join(found)}" for name, found in by_run.items())
            raise ValueError(f"`{argument}` is '{value}'; all runs must have it: {each}.")


def _values(run: RunRecord, metric: str, arm: str) -> dict[int, dict[int, float]]:
    """`{level: {replicate: value}}` of an arm; of the dense networks at level 0."""
    found: dict[int, dict[int, float]] = {}
    for row in seed_rows(run):
        if row["metric"] == metric and row["arm"] == (arm if row["level"] else DENSE):
            value = float("nan") if row["value"] is None else row["value"]
            found.setdefault(row["level"], {})[row["replicate"]] = value
    return {level: dict(sorted(values.items())) for level, values in sorted(found.items())}


def _difference(
    one: RunRecord, other: RunRecord, first: Mapping[int, float], second: Mapping[int, float]
) -> Row:
    seeds = [run.config.get("seed") for run in (one, other)]
    pairs = [replicate for replicate in second if replicate in first]
    if paired := bool(pairs) and seeds[0] is not None and seeds[0] == seeds[1]:
        interval = paired_difference([second[r] for r in pairs], [first[r] for r in pairs])
    else:
        interval = welch_difference(list(second.values()), list(first.values()))
    return interval_cells(interval) | {"paired": paired}


def differing_fields(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The fields in which configurations differ, with their values; None for a missing field.

    >>> differing_fields([{"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2, "d": 4}])
    {'a.b': [1, 3], 'd': [None, 4]}
    """
    flat = [dict(_fields(config)) for config in configs]
    names = dict.fromkeys(name for fields in flat for name in fields)
    values = {name: [fields.get(name) for fields in flat] for name in names}
    return {name: found for name, found in values.items() if any(v != found[0] for v in found)}


def _fields(config: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in config.items():
        is_part = isinstance(value, Mapping) and value
        found += _fields(value, f"{before}{name}.") if is_part else [(before + name, value)]
    return found


def short_names(names: Sequence[str]) -> list[str]:
    """The hashes of runs that have the same name; else their whole names.

    >>> short_names(["lenet-1a2b3c4d", "lenet-5e6f7a8b"])
    ['1a2b3c4d', '5e6f7a8b']
    """
    parts = [name.rpartition("-") for name in names]
    are_alike = len({before for before, _, _ in parts}) == 1
    return [code for _, _, code in parts] if are_alike else list(names)


def level_cells(found: Comparison, names: Sequence[str]) -> Cells:
    """The levels as text: for each run the density, and the mean ± half the interval."""
    by_place = {(row["run"], row["level"]): row for row in found.levels}
    header = ["level", *(cell for name in names for cell in (f"{name} kept %", name))]
    rows = []
    for level in sorted({row["level"] for row in found.levels}):
        there = [by_place.get((run, level)) for run in found.runs]
        cells = [(percent(row["density"]) if row else "–", show(row)) for row in there]
        rows.append([str(level), *(text for pair in cells for text in pair)])
    return header, rows


def difference_cells(found: Comparison, names: Sequence[str]) -> Cells:
    """The differences as text: a line for each level, a column for each run but the first."""
    by_place = {(row["run"], row["level"]): row for row in found.differences}
    kinds = {row["run"]: "paired" if row["paired"] else "Welch" for row in found.differences}
    header = [
        f"{name} − {names[0]} ({kinds.get(run, 'no level in common')})"
        for run, name in zip(found.runs[1:], names[1:], strict=True)
    ]
    rows = []
    for level in sorted({row["level"] for row in found.differences}):
        there = [by_place.get((run, level)) for run in found.runs[1:]]
        rows.append([str(level), *(show_difference(row) if row else "–" for row in there)])
    return ["level", *header], rows


def field_cells(found: Comparison, names: Sequence[str]) -> Cells:
    """The differing fields as text."""
    rows = [
        [field, *("–" if value is None else str(value) for value in values)]
        for field, values in found.fields.items()
    ]
    return ["field", *names], rows
