"""A sweep read back from the store, as tables: each cell's settings and results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lth_jax import text
from lth_jax.measures.intervals import Interval, student_t
from lth_jax.report.display import HEADLINES, percent, quantity, show
from lth_jax.report.tables import Row, bounded, interval_cells, or_none
from lth_jax.report.tidy import as_text
from lth_jax.schema import LevelEntry, Named, NodeFacts, read_entries, read_results
from lth_jax.store.errors import StoreError
from lth_jax.store.nodes import Store
from lth_jax.store.run_files import read_status
from lth_jax.store.sweeps import read_sweep_config
from lth_jax.types import DENSE, TICKET


@text.with_short_repr
class SweepRecord(NamedTuple):
    """The settings and results of a sweep.

    Attributes:
      name: the sweep's folder.
      settings: by the run of each cell, the value of each swept field.
      rows: one per finished cell, arm, level, replicate and metric: the swept fields, `run`, `arm`,
        `level`, `replicate`, `density`, `metric`, `value` (None where it diverged).
    """

    name: str
    settings: dict[str, dict[str, Any]]
    rows: list[Row]

    @property
    def metric(self) -> str | None:
        """The headline metric; None before a cell is finished."""
        known = dict.fromkeys(row["metric"] for row in self.rows)
        return next((metric for metric in (*HEADLINES, *known) if metric in known), None)

    @property
    def fields(self) -> list[str]:
        """The swept fields that have several values, seeds not counted."""
        names = dict.fromkeys(name for setting in self.settings.values() for name in setting)
        values = {name: {str(one.get(name)) for one in self.settings.values()} for name in names}
        return [name for name in names if len(values[name]) > 1 and not _is_seed(name)]

    def by_setting(self, rows: Sequence[Row], but: str = "") -> dict[str, list[Row]]:
        """Rows by what is set in their cells, as text; seeds and the field `but` are left out."""
        names = [name for name in self.fields if name != but]

        def words(setting: Row) -> str:
            return ", ".join(
                f"{short(name)}\u00a0=\u00a0{as_text(setting.get(name))}" for name in names
            )

        groups = grouped(rows, words)
        return {one: groups[one] for one in map(words, self.settings.values()) if one in groups}

    @property
    def arms(self) -> list[str]:
        """The arms, the dense networks and the ticket first."""
        seen = dict.fromkeys(row["arm"] for row in self.rows)
        return sorted(seen, key=lambda arm: (arm != DENSE, arm != TICKET))


def read_sweep(store: Store, path: str | Path) -> SweepRecord:
    """Reads the finished cells of a sweep; a node that cells share is read once.

    Args:
      store: holds the nodes, and the runs of the cells.
      path: the sweep's folder.

    Raises:
      StoreError: if there is no such sweep.
      CorruptError: if a file of the sweep or of a cell, or the results of a node, are damaged.
    """
    path = Path(path)
    if not (path / "config.json").exists():
        raise StoreError(f"{path} is not a sweep; it has no config.json.")
    cells = read_sweep_config(path)["cells"]
    settings = {cell["run"]: cell["setting"] for cell in cells}
    wanted: dict[str, list[tuple[str, Sequence[int]]]] = defaultdict(list)
    for run in settings:
        for entry in _finished_entries(store.root / run):
            wanted[entry.key].append((run, entry.rows))
    rows: list[Row] = []
    for key, owners in wanted.items():
        facts, results = read_results(store, key)
        for run, places in owners:
            rows += _rows(settings[run] | {"run": run}, facts, results, places)
    return SweepRecord(path.name, settings, rows)


def _finished_entries(run: Path) -> list[LevelEntry]:
    if not run.is_dir() or read_status(run)["status"] != "finished":
        return []
    return read_entries(run)


def _rows(place: Row, facts: NodeFacts, results: Named, members: Sequence[int]) -> Iterator[Row]:
    for i in members:
        member = facts.members[i]
        who = {"arm": member.arm, "level": facts.level, "replicate": member.replicate}
        for metric, values in results.items():
            result = {"metric": metric, "value": or_none(float(values[i]))}
            yield place | who | {"density": member.density} | result


def cell_rows(sweep: SweepRecord) -> list[Row]:
    """One row per cell, arm, level and metric: the mean over replicates with its 95 % interval."""
    groups: dict[tuple[str, str, int, str], list[Row]] = defaultdict(list)
    for row in sweep.rows:
        groups[row["run"], row["arm"], row["level"], row["metric"]].append(row)
    return [
        sweep.settings[run]
        | {"run": run, "arm": arm, "level": level, "density": members[0]["density"]}
        | {"metric": metric}
        | _summary(members, metric)
        for (run, arm, level, metric), members in groups.items()
    ]


def _summary(members: Sequence[Row], metric: str) -> Row:
    values = [row["value"] for row in sorted(members, key=lambda row: row["replicate"])]
    found = student_t([float("nan") if value is None else value for value in values])
    return interval_cells(bounded(found, metric)) | {"values": values}


def last_rows(rows: Sequence[Row], metric: str | None) -> list[Row]:
    """The rows of a metric at the last level of their cell, and those of dense networks."""
    mine = [row for row in rows if row["metric"] == metric]
    last: dict[str, int] = {}
    for row in mine:
        last[row["run"]] = max(row["level"], last.get(row["run"], 0))
    return [row for row in mine if row["level"] == last[row["run"]] or row["arm"] == DENSE]


def sweep_cells(sweep: SweepRecord) -> list[list[str]]:
    """The table of a sweep as text, the header first: a line per cell, a column per arm."""
    fields = list(dict.fromkeys(name for one in sweep.settings.values() for name in one))
    found: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in last_rows(cell_rows(sweep), sweep.metric):
        found[row["run"]][row["arm"]] = row
    header = [*(name.rpartition(".")[2] for name in fields), "kept %", *sweep.arms, "run"]
    return [header] + [_cell_line(sweep, run, fields, found.get(run, {})) for run in sweep.settings]


def _cell_line(
    sweep: SweepRecord, run: str, fields: Sequence[str], by_arm: dict[str, Row]
) -> list[str]:
    return [
        *(str(sweep.settings[run].get(name, "")) for name in fields),
        percent(min(row["density"] for row in by_arm.values())) if by_arm else "–",
        *(show(by_arm.get(arm)) for arm in sweep.arms),
        run if by_arm else f"{run} (not finished)",
    ]


def sweep_table(sweep: SweepRecord) -> text.TextTable:
    """The table printed at the end of a sweep."""
    title = quantity(sweep.metric).title if sweep.metric else "No cell is finished yet"
    header, *lines = sweep_cells(sweep)
    return text.TextTable(header, lines, title, keys=header.index("kept %"))


def best_cell(sweep: SweepRecord) -> dict[str, str] | None:
    """The setting with the best mean of the tickets at their last level, replicates pooled.

    None where fewer than two settings have one.
    """
    means, shown = dict[str, Interval](), quantity(str(sweep.metric))
    mine = [row for row in last_rows(sweep.rows, sweep.metric) if row["arm"] == TICKET]
    for setting, rows in sweep.by_setting(mine).items():
        found = mean_of(rows, shown.scale)
        if np.isfinite(found.estimate):
            means[setting] = found
    if len(means) < 2:
        return None
    better = max if "accuracy" in str(sweep.metric) else min
    setting = better(means, key=lambda name: means[name].estimate)
    label = shown.label[0].lower() + shown.label[1:]
    mean, low, high = (f"{end:.{shown.digits}f}" for end in means[setting][:3])
    value = f"{mean} [{low}, {high}] {shown.unit}".strip()
    return {"label": label, "setting": setting, "value": value}


def short(field: str) -> str:
    """The last word of a field's name.

    >>> short("experiment.optimizer.learning_rate")
    'learning_rate'
    """
    return field.rpartition(".")[2]


def grouped(rows: Sequence[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """Rows by their key, in order of appearance."""
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def mean_of(rows: Sequence[Row], scale: float) -> Interval:
    """The mean of the rows' scaled values with its interval; diverged networks are left out."""
    return student_t([scale * _number(row["value"]) for row in rows])


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _is_seed(field: str) -> bool:
    return field.rpartition(".")[2].endswith("seed")
