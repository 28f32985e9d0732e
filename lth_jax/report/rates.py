"""The rate-accuracy frontier: kilobytes on disk against accuracy, tickets beside dense networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from lth_jax.report.figures import COLORS, legend, new, style
from lth_jax.report.plotting import ticker
from lth_jax.report.tables import Row
from lth_jax.store import records
from lth_jax.store.nodes import Store
from lth_jax.types import DENSE, TICKET

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTIONS = {
    "frontier": "Bytes of a whole ticket file against the accuracy of what it decodes to, beside "
    "dense networks stored alike: means and 95 % intervals over replicates. Ringed: no other mean "
    "is smaller and at least as accurate.",
}
FILE = "report/data/frontier.json"
"""Where a run keeps the points of its rate-accuracy frontier."""
LINES = {"tensor": "-", "channel": "--"}


class Rates(TypedDict):
    """The file of the frontier."""

    run: str
    config_hash: str
    rows: list[Row]


def write(path: str | Path, config_hash: str, rows: list[Row]) -> None:
    """Keeps the points of a run's frontier, one row per arm, level and precision."""
    path = Path(path).absolute()
    facts = {"run": path.name, "config_hash": config_hash, "rows": rows}
    records.write(path / FILE, path.name, facts)


def read(store: Store | None, path: str | Path) -> list[Row] | None:
    """What `write` kept; None before anything was measured.

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
    """Accuracy against kilobytes on a log scale, one line per precision, points from dense to thin.

    Dense networks are stars; dashed lines have a scale for every channel.

    Args:
      rows: with `arm`, `density`, `precision`, `scales`, `file_bytes`, `mean`, `low`, `high`
        (of the accuracy, a fraction) and `frontier`.
    """
    figure, axes = new()
    figure.set_size_inches(6.4, 4.8)
    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    for i, precision in enumerate(precisions):
        for scales in LINES:
            mine = [r for r in rows if (r["precision"], r["scales"]) == (precision, scales)]
            _path(axes, mine, COLORS[i % len(COLORS)])
    dense = [row for row in rows if row["arm"] == DENSE]
    if dense:
        axes.plot([], [], "*", color="#666666", markersize=9, label="dense network")
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
    _bytes_axis(axes)
    axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
    axes.set_ylabel("Test accuracy at the end (%)")
    legend(figure, axes)
    return figure


def _path(axes: Axes, rows: list[Row], color: str) -> None:
    """One precision: tickets as a line with a band, the dense network as a star with a bar."""
    for row in (row for row in rows if row["arm"] == DENSE):
        x, y = _points([row])
        axes.errorbar(
            x, y, yerr=_half_widths([row]), fmt="*", color=color, markersize=9, elinewidth=0.8
        )
    tickets = [row for row in rows if row["arm"] == TICKET]
    if tickets:
        precision, scales = tickets[0]["precision"], tickets[0]["scales"]
        label = precision if scales == "tensor" else f"{precision}, scale per channel"
        (x, y), half = _points(tickets), _half_widths(tickets)
        axes.plot(x, y, "." + LINES[scales], color=color, linewidth=1.2, label=label)
        axes.fill_between(x, y - half, y + half, color=color, alpha=0.1, linewidth=0)


def _points(rows: list[Row]) -> tuple[np.ndarray, np.ndarray]:
    kilobytes = np.array([row["file_bytes"] for row in rows], float) / 1000
    return kilobytes, 100 * np.array([row["mean"] for row in rows], float)


def _half_widths(rows: list[Row]) -> np.ndarray:
    """Half the interval in percent; 0, which draws nothing, where there is no interval."""
    ends = np.array([(row["low"], row["high"]) for row in rows], float)
    return np.nan_to_num(50 * (ends[:, 1] - ends[:, 0]))


def _bytes_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_xlabel("File (kB)")
