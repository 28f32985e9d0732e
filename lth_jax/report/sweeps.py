"""A sweep's report: every cell's results beside what was set in it, as tables and one page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich import box
from rich.table import Table

from lth_jax import text
from lth_jax.measures.intervals import student_t
from lth_jax.report import figures, tables
from lth_jax.report.display import HEADLINES, percent, quantity, show
from lth_jax.report.page import escaped, filled, inlined, table_of
from lth_jax.report.tables import Row, interval_cells, or_none
from lth_jax.schema import LevelEntry, NodeRecord, read_entries, read_record
from lth_jax.store import files
from lth_jax.store.errors import StoreError
from lth_jax.store.nodes import Store
from lth_jax.store.run_files import read_status
from lth_jax.store.sweeps import read_sweep_config
from lth_jax.types import DENSE, TICKET

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 8
CAPTION = "Mean and 95 % interval over replicates and seeds, at the last level of each cell."


@text.with_short_repr
class SweepRecord(NamedTuple):
    """What is known about a sweep.

    Attributes:
      name: the sweep's folder.
      settings: of every cell by its run, the value of each swept field.
      rows: one per finished cell, arm, level, replicate and metric: the swept fields, `run`, `arm`,
        `level`, `replicate`, `density`, `metric`, `value` (None where it diverged).
    """

    name: str
    settings: dict[str, dict[str, Any]]
    rows: list[Row]

    @property
    def metric(self) -> str | None:
        """The metric that is shown first; None before a cell is finished."""
        known = dict.fromkeys(row["metric"] for row in self.rows)
        return next((metric for metric in (*HEADLINES, *known) if metric in known), None)

    @property
    def arms(self) -> list[str]:
        """The arms, the dense parent and the ticket first."""
        seen = dict.fromkeys(row["arm"] for row in self.rows)
        return sorted(seen, key=lambda arm: (arm != DENSE, arm != TICKET))


def read_sweep(store: Store, path: str | Path) -> SweepRecord:
    """Reads the finished cells of a sweep; a node that cells share is read once.

    Args:
      store: where the nodes lie; the runs of the cells lie beside them.
      path: the sweep's folder.

    Raises:
      StoreError: if there is no such sweep.
      CorruptError: if a file of the sweep or of a cell is damaged.
    """
    path = Path(path)
    if not (path / "config.json").exists():
        raise StoreError(f"{path} is no sweep; it has no config.json.")
    cells = read_sweep_config(path)["cells"]
    settings = {cell["run"]: cell["setting"] for cell in cells}
    wanted: dict[str, list[tuple[str, Sequence[int]]]] = defaultdict(list)
    for run in settings:
        for entry in _finished_entries(store.root / run):
            wanted[entry.key].append((run, entry.rows))
    rows: list[Row] = []
    for key, owners in wanted.items():
        node = read_record(store, key)
        for run, places in owners:
            rows += _rows(settings[run] | {"run": run}, node.take(places))
    return SweepRecord(path.name, settings, rows)


def _finished_entries(run: Path) -> list[LevelEntry]:
    if not run.is_dir() or read_status(run)["status"] != "finished":
        return []
    return read_entries(run)


def _rows(place: Row, node: NodeRecord) -> Iterator[Row]:
    for i, member in enumerate(node.facts.members):
        who = {"arm": member.arm, "level": node.facts.level, "replicate": member.replicate}
        for metric, values in node.results.items():
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
        | _summary(members)
        for (run, arm, level, metric), members in groups.items()
    ]


def _summary(members: Sequence[Row]) -> Row:
    values = [row["value"] for row in sorted(members, key=lambda row: row["replicate"])]
    found = student_t([float("nan") if value is None else value for value in values])
    return interval_cells(found) | {"values": values}


def last_rows(rows: Sequence[Row], metric: str | None) -> list[Row]:
    """The rows of a metric that stand at the dense level or at the last level of their cell."""
    mine = [row for row in rows if row["metric"] == metric]
    last: dict[str, int] = {}
    for row in mine:
        last[row["run"]] = max(row["level"], last.get(row["run"], 0))
    return [row for row in mine if row["level"] == last[row["run"]] or row["arm"] == DENSE]


def sweep_cells(sweep: SweepRecord) -> list[list[str]]:
    """The table of a sweep as text, the header first: a line per cell, a column per arm."""
    fields = _fields(sweep)
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


def sweep_table(sweep: SweepRecord) -> Table:
    """The table printed at the end of a sweep."""
    title = quantity(sweep.metric).title if sweep.metric else "No cell is finished yet"
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, title_justify="left")
    header, *lines = sweep_cells(sweep)
    for name in header:
        table.add_column(name, justify="right")
    for line in lines:
        table.add_row(*line)
    return table


def write_sweep_report(store: Store, path: str | Path) -> Path:
    """Draws a sweep's page, figures and tables into its folder, from the store alone.

    Writes `report/index.html`, `report/figures/*`, and as Parquet and CSV `report/data/seeds` (one
    row per network and metric) and `report/data/cells` (means and intervals).

    Returns:
      The path of the page.

    Raises:
      StoreError: if something in the store is damaged, or the folder cannot be written.
    """
    sweep, folder = read_sweep(store, path), Path(path) / "report"
    drawn = {
        f"figures/{name}.{kind}": picture
        for name, figure in draw(sweep).items()
        for kind, picture in figures.images(figure).items()
    }
    beside = drawn | dict(_data(sweep))
    for name, content in beside.items():
        files.write(folder / name, content)
    files.write(folder / "index.html", _page(sweep, beside).encode())
    return folder / "index.html"


def draw(sweep: SweepRecord) -> dict[str, Figure]:
    """A figure per swept field that is a number: the metric against it, by arm."""
    axes = [name for name in _fields(sweep) if not _is_seed(name) and _is_number(sweep, name)]
    drawn = {name: against_field(sweep, name) for name in axes if sweep.rows}
    return {name.replace(".", "_"): figure for name, figure in drawn.items() if figure}


@figures.style()
def against_field(sweep: SweepRecord, field: str) -> Figure | None:
    """The metric at each cell's last level against a swept field, by arm.

    Seeds are pooled with the replicates; each combination of the other fields has a panel of its
    own. None where those are more than 8.
    """
    shown = quantity(str(sweep.metric))
    others = [name for name in _fields(sweep) if name != field and not _is_seed(name)]
    panels: dict[str, list[Row]] = defaultdict(list)
    for row in last_rows(sweep.rows, sweep.metric):
        title = ", ".join(f"{n.rpartition('.')[2]}={row.get(n)}" for n in others)
        panels[title].append(row)
    if len(panels) > MOST_PANELS:
        return None
    figure, grid = figures.panes(len(panels), field.rpartition(".")[2], shown.title)
    for axes, (title, rows) in zip(grid, panels.items(), strict=True):
        axes.set_title(title)
        _panel(axes, rows, field, sweep.arms, shown.scale)
    figures.legend(figure, grid[0])
    return figure


def _panel(axes: Axes, rows: list[Row], field: str, arms: list[str], scale: float) -> None:
    points = sorted({row[field] for row in rows if field in row})
    if points and points[0] > 0 and points[-1] / points[0] >= 10:
        axes.set_xscale("log")
    for arm, look in figures.looks(arms).items():
        means = [
            student_t([_number(r["value"]) for r in rows if (r["arm"], r.get(field)) == (arm, x)])
            for x in points
        ]
        mean, low, high = (
            [scale * getattr(m, end) for m in means] for end in ("estimate", "low", "high")
        )
        axes.plot(points, mean, color=look.color, marker=look.marker or "*", label=look.label)
        axes.fill_between(points, low, high, color=look.color, alpha=0.15, linewidth=0)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _fields(sweep: SweepRecord) -> list[str]:
    """The swept fields."""
    return list(dict.fromkeys(name for setting in sweep.settings.values() for name in setting))


def _is_seed(field: str) -> bool:
    return field.rpartition(".")[2].endswith("seed")


def _is_number(sweep: SweepRecord, field: str) -> bool:
    values = [setting[field] for setting in sweep.settings.values() if field in setting]
    return all(type(value) in (int, float) for value in values) and len(set(values)) > 1


def _data(sweep: SweepRecord) -> Iterator[tuple[str, bytes]]:
    cells = [{k: v for k, v in row.items() if k != "values"} for row in cell_rows(sweep)]
    for name, found in {"seeds": sweep.rows, "cells": cells}.items():
        if found:
            rows = [{k: _column(v) for k, v in row.items()} for row in found]
            yield f"data/{name}.parquet", tables.parquet_bytes(rows)
            yield f"data/{name}.csv", tables.csv_bytes(rows)


def _column(value: Any) -> Any:
    """A value as a table holds it: a field of several numbers or words as text."""
    return str(value) if isinstance(value, list | dict) else value


def _page(sweep: SweepRecord, files: dict[str, bytes]) -> str:
    finished = len({row["run"] for row in sweep.rows})
    pictures = [(Path(name).stem, drawn) for name, drawn in files.items() if name.endswith(".svg")]
    return filled(
        "sweep.html",
        title=escaped(sweep.name),
        facts=f"{len(sweep.settings)} cells, {finished} finished",
        figures="\n".join(
            f"<figure>{inlined(svg.decode(), name)}<figcaption>{CAPTION}</figcaption></figure>"
            for name, svg in pictures
        ),
        metric=escaped(quantity(sweep.metric).title if sweep.metric else "Results"),
        cells=table_of(sweep_cells(sweep)),
        files="\n".join(
            f'<li><a href="{escaped(name)}">{escaped(name)}</a></li>' for name in files
        ),
    )
