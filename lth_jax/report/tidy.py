"""Figures of tidy rows: the numbers that a study's verdict rests on.

Rows are dictionaries with `metric`, `value`, and distinguishing keys: `arm`, `replicate`,
and the fields of a grid. Means and 95 % Student intervals are over all rows of one place.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lth_jax.measures.intervals import student_t
from lth_jax.report.arms import Look, looks
from lth_jax.report.plotting import (
    GREY,
    band,
    legend,
    mpl,
    new,
    panes,
    style,
    value_ticks,
    with_ends,
)
from lth_jax.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


DENSITY = "density"
LETTERS = 44  # of a title over one panel


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
            _dot(axes, values, place, look)
        axes.set_yticks(range(len(arms)), [look.label for look in looks(arms).values()])
        axes.set_ylim(len(arms) - 0.5, -0.5)
        letters = LETTERS if len(metrics) == 1 else LETTERS // 2
        axes.set_title(textwrap.fill(metric, letters, break_on_hyphens=False))
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
        axes.set_xscale("log")
        value_ticks(axes.xaxis, sorted(known(rows, x)))
        _from_dense(axes, x)
    if zero:
        axes.axhline(0, color=GREY, linewidth=0.8)
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
        axes.set_xscale("log")
        value_ticks(axes.xaxis, sorted(known(rows, x)))
        _from_dense(axes, x)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_title(title)
    legend(figure, grid[0])
    return figure


def draw_against(axes: Axes, rows: Sequence[Row], x: str) -> None:
    """Every arm's mean and 95 % band against a numeric field, on the given axes."""
    for arm, look in looks(known(rows, "arm")).items():
        mine = [row for row in rows if row["arm"] == arm]
        places = sorted(known(mine, x))
        band(axes, places, [student_t(values_of(mine, **{x: place})) for place in places], look)


def _from_dense(axes: Axes, x: str) -> None:
    """Densities run from dense at the left to sparse."""
    if x == DENSITY and not axes.xaxis_inverted():
        axes.invert_xaxis()


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
    diverging: bool = True,
) -> Figure:
    """The mean of a metric over a grid of two fields, as a map with its numbers in it.

    Args:
      rows: tidy.
      x: the field on the horizontal axis.
      y: the field on the vertical axis.
      metric: the metric whose mean is shown.
      label: label of the colours.
      x_label: label of `x`.
      y_label: label of `y`.
      show: formats a number.
      panel: a third field, with one map for each value, in the same colours.
      panel_label: label of that field.
      diverging: whether the colours are symmetric around 0.
    """
    mine = [row for row in rows if row["metric"] == metric]
    cuts = known(mine, panel) if panel else [None]
    figure, grid = panes(len(cuts), x_label, y_label)
    maps = [_map([r for r in mine if cut is None or r[panel] == cut], x, y) for cut in cuts]
    means = np.concatenate([values.ravel() for *_, values in maps])
    finite = means[np.isfinite(means)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    most = max(-low, high) or 1.0
    limits = (-most, most) if diverging else (low, high)
    norm, cmap = mpl.colors.Normalize(*limits), "RdBu_r" if diverging else "cividis"
    for axes, cut, (across, down, values) in zip(grid, cuts, maps, strict=True):
        axes.imshow(values, cmap=cmap, norm=norm, aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                is_dark = abs(norm(value) - 0.5) > 0.3 if diverging else norm(value) < 0.5
                ink = "white" if is_dark else "black"
                axes.text(j, i, show(value), ha="center", va="center", color=ink, fontsize="small")
        axes.set_xticks(range(len(across)), list(map(as_text, across)))
        axes.set_yticks(range(len(down)), list(map(as_text, down)))
        axes.set_title(f"{panel_label} {as_text(cut)}".strip() if panel else "")
        axes.grid(False)
    figure.colorbar(mpl.cm.ScalarMappable(norm, cmap), ax=grid, label=label)
    return figure


def _map(rows: Sequence[Row], x: str, y: str) -> tuple[list[Any], list[Any], np.ndarray]:
    """The values of both fields, and the mean at each place; NaN where there is none."""
    across, down = (
        sorted(known(rows, x), reverse=x == DENSITY),
        sorted(known(rows, y), reverse=True),
    )
    means = [[student_t(values_of(rows, **{x: a, y: b})).estimate for a in across] for b in down]
    return across, down, np.array(means)


def as_text(value: Any) -> str:
    """A field's value: a number with three digits, all else as it is.

    >>> as_text(0.0012345), as_text(1000), as_text("mlp")
    ('0.00123', '1000', 'mlp')
    """
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _dot(axes: Axes, values: np.ndarray, place: float, look: Look) -> None:
    """Seeds as faint points, with their mean and interval."""
    found, color = student_t(values), look.color
    axes.plot(values, np.full(len(values), place), ".", color=color, alpha=0.25, markersize=4)
    axes.plot([found.low, found.high], [place, place], color=color, linewidth=3, alpha=0.8)
    [mean] = axes.plot(
        [found.estimate], [place], "o", color=color, markersize=6, markeredgecolor="white"
    )
    with_ends(mean, found.low, found.high, look.label, across=True)
