"""A sweep's page: its figures, its table, and links to the pages of its runs."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lth_jax.report import tables
from lth_jax.report.arms import looks
from lth_jax.report.display import quantity
from lth_jax.report.page import commands, flat
from lth_jax.report.plotting import band, density_axis, legend, panes, style, value_ticks
from lth_jax.report.rendering import Caption, files_of, pictures, render
from lth_jax.report.sweeps import (
    SweepRecord,
    best_cell,
    cell_rows,
    grouped,
    last_rows,
    mean_of,
    read_sweep,
    short,
    sweep_cells,
)
from lth_jax.report.tidy import as_text, grid_map
from lth_jax.store import files
from lth_jax.store.listing import is_run
from lth_jax.store.nodes import Store
from lth_jax.store.run_files import read_config, read_env
from lth_jax.store.sweeps import SWEEP
from lth_jax.types import DENSE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PANELS = 8
MOST_LETTERS = 30  # in a line of a panel's title
POOLED = "Mean and 95 % interval over replicates and seeds."


def write_sweep_report(store: Store, path: str | Path) -> Path:
    """Draws a sweep's page, figures and tables into its folder, from the store alone.

    Writes `report/index.html`, `report/figures/*`, and as Parquet and CSV `report/data/seeds` (one
    row per network and metric) and `report/data/cells` (means and intervals). The page links to the
    pages of the cells' runs that exist.

    Returns:
      The path of the page.

    Raises:
      StoreError: if something in the store is damaged, or the folder cannot be written.
    """
    path = Path(path)
    sweep, folder = read_sweep(store, path), path / "report"
    runs = [store.root / run for run in sweep.settings if is_run(store.root / run)]
    drawn, captions = draw(sweep)
    shown, omitted = pictures(drawn, captions)
    beside = files_of(shown) | dict(_data(sweep))
    text = render(
        "sweep.html",
        title=sweep.name,
        cells=len(sweep.settings),
        finished=len({row["run"] for row in sweep.rows}),
        fields=[short(field) for field in sweep.fields],
        best=best_cell(sweep),
        pictures=shown,
        omitted=omitted,
        metric=quantity(sweep.metric).title if sweep.metric else "Results",
        sweep_cells=sweep_cells(sweep),
        links={
            run: f"../../../{run}/report/index.html"
            for run in sweep.settings
            if (store.root / run / "report" / "index.html").is_file()
        },
        config=_fixed_fields(runs),
        commands=commands(_command(sweep.name, runs), sweep.name, store.root),
        files=list(beside),
    )
    for name, content in beside.items():
        files.write(folder / name, content)
    files.write(folder / "index.html", text)
    return folder / "index.html"


def _fixed_fields(runs: Sequence[Path]) -> list[tuple[str, str]]:
    """The fields that are equal in the configurations of all runs, with their values as JSON."""
    first, *others = [dict(flat(read_config(path))) for path in runs] or [{}]
    return [field for field in first.items() if all(field in one.items() for one in others)]


def _command(sweep: str, runs: Sequence[Path]) -> list[str] | None:
    """The command by which a sweep made its runs; None if none of them has recorded it."""
    envs = (env for path in runs for env in read_env(path)["environments"])
    return next(filter(None, (env.get("command") for env in envs if env.get(SWEEP) == sweep)), None)


def draw(sweep: SweepRecord) -> tuple[dict[str, Figure | str], dict[str, Caption]]:
    """The figures of a sweep, or why there is none, and their captions, by file name.

    The metric against each swept number, curves against density for each setting, and a map where
    two fields are swept; none before a cell is finished.
    """
    drawn: dict[str, Figure | str] = {}
    captions: dict[str, Caption] = {}
    metric = quantity(str(sweep.metric)).label
    for field in sweep.fields if sweep.rows else ():
        if _is_number(sweep, field):
            name = field.replace(".", "_")
            drawn[name] = against_field(sweep, field)
            others = "; one panel for each setting of the other fields" * (len(sweep.fields) > 1)
            captions[name] = Caption(
                f"{metric} by {short(field)}", f"At the last level of each cell{others}. {POOLED}"
            )
    if sweep.rows:
        drawn["density"] = curves(sweep)
        captions["density"] = Caption(
            f"{metric} by density",
            f"Each panel is one setting. {POOLED} Dashed line: dense networks.",
        )
    if sweep.rows and len(sweep.fields) == 2:
        drawn["map"] = heat_map(sweep)
        captions["map"] = Caption(
            f"{metric} by {short(sweep.fields[0])} and {short(sweep.fields[1])}",
            "At the last level of each cell: means over replicates and seeds, one panel for each "
            "arm, all on one colour scale.",
        )
    return drawn, captions


@style()
def against_field(sweep: SweepRecord, field: str) -> Figure | str:
    """The metric at each cell's last level against a swept field, by arm.

    Seeds are pooled with the replicates, and each combination of the other fields has a panel. If
    there would be more than 8 panels, the result is a text with the reason.
    """
    shown = quantity(str(sweep.metric))
    panels = sweep.by_setting(last_rows(sweep.rows, sweep.metric), but=field)
    if len(panels) > MOST_PANELS:
        return f"there would be {len(panels)} panels, one for each setting of the other fields"
    figure, grid = panes(len(panels), short(field), shown.title)
    for axes, (title, rows) in zip(grid, panels.items(), strict=True):
        axes.set_title(textwrap.fill(title, MOST_LETTERS))
        places = sorted({row[field] for row in rows if field in row})
        if is_logarithmic(places):
            axes.set_xscale("log")
        value_ticks(axes.xaxis, places)
        for arm, look in looks(sweep.arms).items():
            by_place = [[r for r in rows if (r["arm"], r.get(field)) == (arm, x)] for x in places]
            means = [mean_of(mine, shown.scale) for mine in by_place]
            band(axes, places, means, look._replace(marker=look.marker or "*"))
    legend(figure, grid[0])
    return figure


@style()
def curves(sweep: SweepRecord) -> Figure | str:
    """The metric against the weights remaining, a panel for each setting; seeds are pooled.

    If there are more than 8 settings, the result is a text with the reason.
    """
    shown = quantity(str(sweep.metric))
    mine = [row for row in sweep.rows if row["metric"] == sweep.metric]
    panels = sweep.by_setting(mine)
    if len(panels) > MOST_PANELS:
        return f"there would be {len(panels)} panels, one for each setting"
    figure, grid = panes(len(panels), "", shown.title)
    for axes, (title, rows) in zip(grid, panels.items(), strict=True):
        axes.set_title(textwrap.fill(title, MOST_LETTERS))
        for arm, look in looks(sweep.arms).items():
            levels = grouped([row for row in rows if row["arm"] == arm], lambda row: row["level"])
            means = [mean_of(level, shown.scale) for _, level in sorted(levels.items())]
            if arm == DENSE and means:
                axes.axhline(means[0].estimate, color=look.color, linestyle="--", linewidth=1.1)
                axes.plot([], [], "--", color=look.color, label=look.label)
            elif means:
                densities = [level[0]["density"] for _, level in sorted(levels.items())]
                band(axes, densities, means, look)
    densities = sorted({row["density"] for row in mine}, reverse=True)
    for axes in grid:
        density_axis(axes, densities)
    legend(figure, grid[0])
    return figure


def heat_map(sweep: SweepRecord) -> Figure:
    """The mean of the metric at the last level over both swept fields, a panel for each arm."""
    shown, (down, across) = quantity(str(sweep.metric)), sweep.fields
    labels = {arm: look.label for arm, look in looks(sweep.arms).items()}
    rows = [
        row | {"arm": labels[row["arm"]]}
        | {name: _place(sweep, name, row.get(name)) for name in (across, down)}
        | {"value": None if row["value"] is None else shown.scale * row["value"]}
        for row in last_rows(sweep.rows, sweep.metric)
    ]  # fmt: skip
    return grid_map(
        rows, across, down, str(sweep.metric), label=shown.title, x_label=short(across),
        y_label=short(down), show="{:.3g}".format, panel="arm", diverging=False,
    )  # fmt: skip


def is_logarithmic(values: Collection[float]) -> bool:
    """Whether positive numbers belong on a log axis.

    They do if they span a factor of 8, or if their ratios are more even than their differences.

    >>> is_logarithmic([0.001, 0.01]), is_logarithmic([1, 2, 4]), is_logarithmic([1, 2, 3])
    (True, True, False)
    """
    found = np.array(sorted(values), float)
    if len(found) < 2 or found[0] <= 0:
        return False
    steps, ratios = np.diff(found), np.diff(np.log(found))
    return bool(
        found[-1] / found[0] >= 8 or np.ptp(ratios) / ratios.mean() < np.ptp(steps) / steps.mean()
    )


def _place(sweep: SweepRecord, field: str, value: Any) -> Any:
    """A value on an axis of the map: a number, or anything else as text."""
    return value if _is_number(sweep, field) else as_text(value)


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
    """A value for a table; sequences become text."""
    return str(value) if isinstance(value, list | dict) else value
