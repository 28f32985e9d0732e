"""The rate-accuracy frontier: kilobytes on disk against accuracy, tickets beside dense networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from lth_jax.report.arms import Look, part_look
from lth_jax.report.figures import interval_of
from lth_jax.report.plotting import GREY, SIZE, band, legend, new, plain_log, style
from lth_jax.report.tables import Row
from lth_jax.store import records
from lth_jax.store.nodes import Store
from lth_jax.types import DENSE, TICKET

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILE = "report/data/frontier.json"
"""The file of the points of a run's rate-accuracy frontier, in the run's folder."""
LINES = {"tensor": "-", "channel": "--"}


class Rates(TypedDict):
    """The file of the frontier."""

    run: str
    config_hash: str
    rows: list[Row]


def write(path: str | Path, config_hash: str, rows: list[Row]) -> None:
    """Writes the points of a run's frontier, one row per arm, level and precision."""
    path = Path(path).absolute()
    facts = {"run": path.name, "config_hash": config_hash, "rows": rows}
    records.write(path / FILE, path.name, facts)


def read(store: Store | None, path: str | Path) -> list[Row] | None:
    """The points that `write` wrote; None before the first measurement.

    Raises:
      CorruptError: if the file is damaged.
    """
    path = Path(path).absolute()
    return records.read(path / FILE, path.name, Rates)["rows"] if (path / FILE).exists() else None


def rows(found: list[Row]) -> list[Row]:
    """One row per arm, level and precision."""
    return found


def draw(found: Sequence[Row]) -> dict[str, Figure]:
    """The figure, by file name."""
    return {"frontier": frontier(found)}


@style()
def frontier(rows: Sequence[Row]) -> Figure:
    """Accuracy against kilobytes on a log scale, one line per precision, from dense to sparse.

    Dense networks are stars; dashed lines have a scale for every channel.

    Args:
      rows: rows with `arm`, `density`, `precision`, `scales`, `file_bytes`, `mean`, `low`, `high`
        (of the accuracy, a fraction) and `frontier`.
    """
    figure, axes = new()
    figure.set_figheight(SIZE[1] + 1.0)  # room for the legend
    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    for i, precision in enumerate(precisions):
        for scales in LINES:
            mine = [r for r in rows if (r["precision"], r["scales"]) == (precision, scales)]
            _path(axes, mine, part_look("", i).color)
    dense = [row for row in rows if row["arm"] == DENSE]
    if dense:
        axes.plot([], [], "*", color=GREY, markersize=9, label="dense network")
    best = sorted((r for r in rows if r["frontier"]), key=lambda row: row["file_bytes"])
    axes.plot(
        *_points(best),
        "o",
        color="#000000",
        markerfacecolor="none",
        markersize=9,
        markeredgewidth=0.9,
        label="on the frontier",
        zorder=4,
    )
    plain_log(axes.xaxis)
    axes.set_xlabel("File (kB)")
    axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
    axes.set_ylabel("Test accuracy at the end (%)")
    legend(figure, axes)
    return figure


def _path(axes: Axes, rows: list[Row], color: str) -> None:
    """One precision: tickets as a line with a band, the dense network as a star with a bar."""
    tickets = [row for row in rows if row["arm"] == TICKET]
    for row in (row for row in rows if row["arm"] == DENSE):
        one = interval_of(row, 100)
        half = np.nan_to_num(one.high - one.estimate)  # no bar where there is no interval
        axes.errorbar(
            *_points([row]), yerr=half, fmt="*", color=color, markersize=9, elinewidth=0.8
        )
    if tickets:
        precision, scales = tickets[0]["precision"], tickets[0]["scales"]
        label = precision if scales == "tensor" else f"{precision}, scale per channel"
        look, kilobytes = Look(label, color, "."), _points(tickets)[0]
        intervals = [interval_of(row, 100) for row in tickets]
        band(axes, kilobytes, intervals, look, LINES[scales], alpha=0.1, linewidth=1.2)


def _points(rows: list[Row]) -> tuple[list[float], list[float]]:
    """Kilobytes and percent."""
    return [row["file_bytes"] / 1000 for row in rows], [100 * row["mean"] for row in rows]
