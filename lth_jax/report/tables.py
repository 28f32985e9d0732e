"""A run's numbers as tables: one row per seed, summaries with intervals, paired differences."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lth_jax.extras import lazy
from lth_jax.measures.intervals import Interval, paired_difference, student_t
from lth_jax.measures.overlap import total
from lth_jax.report.levels import Level, RunRecord
from lth_jax.types import DENSE, TICKET

pa: Any = lazy("pyarrow", "A table file")
csv: Any = lazy("pyarrow.csv", "A table file")
parquet: Any = lazy("pyarrow.parquet", "A table file")

Row = dict[str, Any]
"""One line of a table; None stands for NaN, so that JSON and Parquet hold a null."""


def seed_rows(run: RunRecord) -> list[Row]:
    """One row per seed and metric: run, arm, level, replicate, density, sparsity, metric, value."""
    return [
        {
            "run": run.info.run,
            "arm": member.arm,
            "level": level.level,
            "replicate": member.replicate,
            "density": level.density,
            "sparsity": 1 - level.density,
            "metric": metric,
            "value": or_none(values[i]),
        }
        for level in run.levels
        for i, member in enumerate(level.members)
        for metric, values in level.results.items()
    ]


def leaf_rows(run: RunRecord) -> list[Row]:
    """One row per seed and prunable leaf: how much of the leaf is kept."""
    return [
        {
            "run": run.info.run,
            "arm": member.arm,
            "level": level.level,
            "replicate": member.replicate,
            "leaf": leaf,
            "size": level.leaf_sizes[leaf],
            "density": float(densities[i]),
        }
        for level in run.levels
        for i, member in enumerate(level.members)
        for leaf, densities in level.leaf_densities.items()
    ]


def overlap_rows(run: RunRecord) -> list[Row]:
    """One row per pair of replicates and leaf (and `total`): how much the tickets' masks agree."""
    return [
        {
            "run": run.info.run,
            "level": level.level,
            "density": level.density,
            "first": first,
            "second": second,
            "leaf": leaf,
            "intersection_over_union": or_none(overlap.iou),
            "chance": or_none(overlap.chance_iou),
            "kappa": or_none(overlap.kappa),
        }
        for level in run.levels
        for (first, second), leaves in level.overlaps.items()
        for leaf, overlap in [*leaves.items(), ("total", total(leaves.values()))]
    ]


def curve_rows(run: RunRecord) -> list[Row]:
    """One row per seed, metric and evaluation: the training curves."""
    return [
        {
            "run": run.info.run,
            "arm": member.arm,
            "level": level.level,
            "replicate": member.replicate,
            "step": int(step),
            "metric": metric,
            "value": or_none(values[e, i]),
        }
        for level in run.levels
        for metric, values in level.curves.items()
        for i, member in enumerate(level.members)
        for e, step in enumerate(level.steps)
    ]


def summary_rows(run: RunRecord) -> list[Row]:
    """One row per arm, level and metric: mean over replicates with a 95 % Student interval.

    `replicates` counts what went into the mean; `values` lists every replicate in order, None
    where it diverged.
    """
    rows = []
    for arm in run.arms:
        for level in run.levels:
            for metric in level.results if arm in level.arms else ():
                values = list(arm_values(level, arm, metric).values())
                place = {"arm": arm, "level": level.level, "density": level.density}
                rows.append(place | {"metric": metric} | summary_cells(values, metric))
    return rows


def dense_mean(run: RunRecord, metric: str) -> float | None:
    """The mean of the dense networks; None without them."""
    level = next((level for level in run.levels if DENSE in level.arms), None)
    if level is None:
        return None
    return or_none(student_t(list(arm_values(level, DENSE, metric).values())).estimate)


def difference_rows(run: RunRecord, metric: str) -> list[Row]:
    """One row per control and level: the tickets' metric minus the control's, paired by replicate.

    The dense networks of level 0 are compared with the tickets of every level. The intervals are
    95 % Student intervals, not corrected for their number.
    """
    dense = next((level for level in run.levels if DENSE in level.arms), None)
    rows = []
    for level in run.levels:
        for control in run.arms if TICKET in level.arms else ():
            other = dense if control == DENSE else level
            if control == TICKET or other is None or control not in other.arms:
                continue
            place = {"control": control, "level": level.level, "density": level.density}
            difference = _ticket_minus(level, control, other, metric)
            rows.append(place | {"metric": metric} | interval_cells(difference))
    return rows


def parquet_bytes(rows: list[Row]) -> bytes:
    """The rows as a Parquet file; a row may lack columns of others."""
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(_whole(rows)), sink)
    return sink.getvalue().to_pybytes()


def read_parquet(path: Path) -> list[Row]:
    """The rows of a Parquet file."""
    return parquet.read_table(path).to_pylist()


def csv_bytes(rows: list[Row]) -> bytes:
    """The rows as a CSV file with a header; None is an empty field, like a missing one."""
    sink = pa.BufferOutputStream()
    csv.write_csv(pa.Table.from_pylist(_whole(rows)), sink)
    return sink.getvalue().to_pybytes()


def _whole(rows: list[Row]) -> list[Row]:
    """Rows with all columns: pyarrow takes those of the first one."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [dict.fromkeys(names) | row for row in rows]


def or_none(value: float) -> float | None:
    """A number as a table holds it: None for what is not finite."""
    return float(value) if math.isfinite(value) else None


def flat_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows without their lists of values, which a CSV file cannot hold."""
    return [{name: cell for name, cell in row.items() if name != "values"} for row in rows]


def summary_cells(values: Sequence[float] | NDArray[Any], metric: str = "") -> Row:
    """`interval_cells` of the values' mean, within 0 and 1 for accuracies, and `values`."""
    found = bounded(student_t(values), metric)
    return interval_cells(found) | {"values": [or_none(value) for value in values]}


def bounded(interval: Interval, metric: str) -> Interval:
    """An interval for a mean, cut at 0 and 1 where the metric is an accuracy.

    >>> bounded(Interval(0.9, 0.7, 1.1, 2, 0), "test_accuracy_final")
    Interval(estimate=0.9, low=0.7, high=1.0, replicates=2, missing=0)
    """
    if "accuracy" not in metric:
        return interval
    return interval._replace(low=max(interval.low, 0.0), high=min(interval.high, 1.0))


def interval_cells(interval: Interval) -> Row:
    """`mean`, `low`, `high` and `replicates` of a row."""
    mean, low, high, replicates, _ = interval
    return {"mean": or_none(mean), "low": or_none(low), "high": or_none(high)} | {
        "replicates": replicates
    }


def arm_values(level: Level, arm: str, metric: str) -> dict[int, float]:
    """One arm's values, in the order of the replicates."""
    values = level.results[metric]
    found = {m.replicate: float(values[i]) for i, m in enumerate(level.members) if m.arm == arm}
    return dict(sorted(found.items()))


def _ticket_minus(level: Level, control: str, other: Level, metric: str) -> Interval:
    """The tickets of `level` minus the controls of `other`, over the replicates both have."""
    tickets, controls = arm_values(level, TICKET, metric), arm_values(other, control, metric)
    shared = [replicate for replicate in tickets if replicate in controls]
    return paired_difference([tickets[r] for r in shared], [controls[r] for r in shared])
