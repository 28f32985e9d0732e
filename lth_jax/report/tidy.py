"""Pictures of tidy rows: what a study's verdict is read from.

Rows are dictionaries with `metric` and `value`, and what distinguishes them: `arm`, `replicate`,
and the fields of a grid. Means and 95 % Student intervals are over all rows of one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lth_jax.measures.intervals import Interval, student_t
from lth_jax.report.figures import legend, looks, new, panes, style
from lth_jax.report.plotting import mpl
from lth_jax.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def values_of(rows: Iterable[Row], **where: Any) -> np.ndarray:
    """The values of the rows that match; NaN for what is None.

    >>> values_of([{"arm": "ticket", "value": 1.0}, {"arm": "dense", "value": 2.0}], arm="dense")
    array([2.])
    """
    found = [row["value"] for row in rows if all(row.get(k) == v for k, v in where.items())]
    return np.array([np.nan if value is None else value for value in found])


def known(rows: Iterable[Row], field: str) -> list[Any]:
    """The different values of a field, in order of appearance; rows may lack it, or have None.

    >>> known([{"rate": 2.0}, {"rate": None}, {}, {"rate": 1.0}], "rate")
    [2.0, 1.0]
    """
    return list(dict.fromkeys(row[field] for row in rows if row.get(field) is not None))


@style()
def by_arm(rows: Sequence[Row], metrics: Sequence[str], label: str) -> Figure:
    """One panel per metric: every arm's mean and interval beside its seeds, arms down the side."""
    figure, grid = panes(len(metrics), label, "", share_x=False)
    arms = known(rows, "arm")
    for axes, metric in zip(grid, metrics, strict=True):
        for place, (arm, look) in enumerate(looks(arms).items()):
            values = values_of(rows, arm=arm, metric=metric)
            _dot(axes, values, place, look.color)
        axes.set_yticks(range(len(arms)), [look.label for look in looks(arms).values()])
        axes.set_ylim(len(arms) - 0.5, -0.5)
        axes.set_title(metric)
        axes.set_xlabel(label)
    return figure


@style()
def against(
    rows: Sequence[Row],
    x: str,
    metric: str,
    *,
    label: str,
    x_label: str,
    log: bool = True,
    zero: bool = False,
) -> Figure:
    """A metric against a numeric field: every arm's mean and 95 % band."""
    figure, axes = new()
    draw_against(axes, [row for row in rows if row["metric"] == metric], x)
    if log:
        _octaves(axes, sorted(known(rows, x)))
    if zero:
        axes.axhline(0, color="#666666", linewidth=0.8)
    axes.set_xlabel(x_label)
    axes.set_ylabel(label)
    legend(figure, axes)
    return figure


@style()
def against_each(parts: Mapping[str, Sequence[Row]], x: str, *, label: str, x_label: str) -> Figure:
    """Values against a numeric field on a log scale, one panel per part, with a line at 0."""
    figure, grid = panes(len(parts), x_label, label)
    for axes, (title, rows) in zip(grid, parts.items(), strict=True):
        draw_against(axes, rows, x)
        _octaves(axes, sorted(known(rows, x)))
        axes.axhline(0, color="#666666", linewidth=0.8)
        axes.set_title(title)
    legend(figure, grid[0])
    return figure


def _octaves(axes: Axes, places: Sequence[float]) -> None:
    """A log scale with a tick at every place, or at every second one where they are many."""
    axes.set_xscale("log", base=2)
    places = places[:: 1 + (len(places) > 8)]
    axes.set_xticks(places, [f"{p:g}" if float(p).is_integer() else f"{p:.2g}" for p in places])
    axes.minorticks_off()


def draw_against(axes: Axes, rows: Sequence[Row], x: str) -> None:
    """Every arm's mean and 95 % band against a numeric field, on axes of one's own."""
    for arm, look in looks(known(rows, "arm")).items():
        mine = [row for row in rows if row["arm"] == arm]
        places = sorted(known(mine, x))
        bands = [student_t(values_of(mine, **{x: place})) for place in places]
        mean, low, high = (np.array([getattr(b, e) for b in bands]) for e in Interval._fields[:3])
        axes.plot(places, mean, color=look.color, marker=look.marker, label=look.label)
        axes.fill_between(places, low, high, color=look.color, alpha=0.15, linewidth=0)


@style()
def effects(
    parts: Sequence[tuple[str, Interval]], label: str, *, delta: float | None = None
) -> Figure:
    """Effects with their intervals, one below the other, beside 0 and the smallest that matters."""
    figure, axes = new()
    for place, (_, interval) in enumerate(parts):
        axes.plot([interval.low, interval.high], [place, place], color="#0072B2", linewidth=2)
        axes.plot([interval.estimate], [place], "o", color="#0072B2")
    axes.axvline(0, color="#666666", linewidth=0.8)
    if delta is not None:
        axes.axvline(delta, color="#D55E00", linewidth=0.8, linestyle="--", label="δ")
    axes.set_yticks(range(len(parts)), [name for name, _ in parts])
    axes.set_ylim(len(parts) - 0.5, -0.5)
    axes.set_xlabel(label)
    legend(figure, axes)
    return figure


@style()
def grid_map(
    rows: Sequence[Row],
    x: str,
    y: str,
    metric: str,
    *,
    label: str,
    x_label: str,
    y_label: str,
    show: Callable[[Any], str] = "{:+.1f}".format,
    panel: str = "",
    panel_label: str = "",
) -> Figure:
    """The mean of a metric over a grid of two fields, as a map with its numbers in it.

    Args:
      rows: tidy.
      x: the field that goes across.
      y: the field that goes up.
      metric: whose mean is shown.
      label: of the colours.
      x_label: of `x`.
      y_label: of `y`.
      show: a number as text.
      panel: a third field, of which every value gets a map of its own, in the same colours.
      panel_label: of that field.
    """
    mine = [row for row in rows if row["metric"] == metric]
    cuts = sorted(known(mine, panel)) if panel else [None]
    figure, grid = panes(len(cuts), x_label, y_label)
    maps = [_map([r for r in mine if cut is None or r[panel] == cut], x, y) for cut in cuts]
    most = max(np.nanmax(np.abs(means)) for *_, means in maps) or 1.0
    for axes, cut, (across, down, means) in zip(grid, cuts, maps, strict=True):
        image = axes.imshow(means, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
        for i, j in np.ndindex(means.shape):
            ink = "white" if abs(means[i, j]) > 0.6 * most else "black"
            axes.text(j, i, show(means[i, j]), ha="center", va="center", color=ink, fontsize=8)
        axes.set_xticks(range(len(across)), [f"{value:g}" for value in across])
        axes.set_yticks(range(len(down)), [f"{value:g}" for value in down])
        axes.set_title(f"{panel_label} {cut:g}" if panel else "")
        axes.grid(False)
    figure.colorbar(mpl.cm.ScalarMappable(image.norm, image.cmap), ax=grid, label=label)
    return figure


def _map(rows: Sequence[Row], x: str, y: str) -> tuple[list[Any], list[Any], np.ndarray]:
    """The values of both fields, and the mean at each place."""
    across, down = sorted(known(rows, x)), sorted(known(rows, y), reverse=True)
    means = [[np.nanmean(values_of(rows, **{x: a, y: b})) for a in across] for b in down]
    return across, down, np.array(means)


def _dot(axes: Axes, values: np.ndarray, place: float, color: Any) -> None:
    """Seeds as faint points, their mean and interval upon them."""
    axes.plot(values, np.full(len(values), place), ".", color=color, alpha=0.25, markersize=4)
    band = student_t(values)
    axes.plot([band.low, band.high], [place, place], color=color, linewidth=3, alpha=0.8)
    axes.plot([band.estimate], [place], "o", color=color, markersize=6, markeredgecolor="white")
