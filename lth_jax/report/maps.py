"""A picture of a map: the effect of every cell with simultaneous intervals, in units of δ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lth_jax.measures.simultaneous import by_cell
from lth_jax.report.plotting import GREY, SIZE, blank, mpl, style, ticker, with_ends
from lth_jax.report.tables import Row
from lth_jax.report.tidy import as_text, known, values_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style()
def effects(
    rows: Sequence[Row],
    delta: float,
    *,
    label: str = "Effect (units of δ)",
    y: str = "cell",
    y_label: str = "",
    group: str = "",
    panel: str = "",
    confidence: float = 0.95,
) -> Figure:
    """The effect of every cell in units of δ, with intervals that hold for all cells at once.

    Cells whose interval lies at or above δ have filled markers. The axis is linear between −δ and δ
    and logarithmic beyond; the grey band marks effects below δ.

    Args:
      rows: tidy, with `cell`, `replicate`, `value`, and the fields named below; every cell has the
        same replicates.
      delta: the smallest effect that matters.
      label: label of the effects.
      y: a field with one row for each value, in order of appearance.
      y_label: label of `y`.
      group: a field with one colour for each value.
      panel: a field with one panel for each value, two in a row.
      confidence: simultaneous confidence of all intervals.
    """
    cells, place = known(rows, "cell"), {row["cell"]: row for row in rows}
    values = {cell: values_of(rows, cell=cell) / delta for cell in cells}
    bands = by_cell(values, confidence)
    downs, groups = known(rows, y), known(rows, group) if group else [None]
    cuts = known(rows, panel) if panel else [None]
    inks = list(map(mpl.colors.to_hex, mpl.colormaps["viridis"](np.linspace(0, 0.8, len(groups)))))
    columns = min(len(cuts), 2)
    lines = -(-len(cuts) // columns)
    figure = blank(SIZE[0], 1.0 + lines * (0.35 + len(downs) * (0.16 + 0.08 * len(groups))))
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(cuts) :]:
        axes.remove()
    for axes, cut in zip(grid.flat, cuts, strict=False):
        _frame(axes, [as_text(one) for one in downs])
        axes.set_title(as_text(cut) if panel else "")
        for cell in (one for one in cells if not panel or place[one][panel] == cut):
            at, band = place[cell], bands[cell]
            number = groups.index(at[group]) if group else 0
            height = downs.index(at[y]) + 0.7 * ((number + 0.5) / len(groups) - 0.5)
            ink = inks[number]
            axes.plot([band.low, band.high], [height] * 2, color=ink)
            [dot] = axes.plot([band.estimate], [height], "o", color=ink)
            dot.set_markerfacecolor(ink if band.low >= 1 else "white")
            with_ends(dot, band.low, band.high, cell, across=True)
    for axes in grid[:, 0]:
        axes.set_ylabel(y_label)
    for axes in grid.flat[max(0, len(cuts) - columns) : len(cuts)]:
        axes.set_xlabel(label)
        axes.tick_params(labelbottom=True)
    if group:
        for one, ink in zip(groups, inks, strict=True):
            grid[0, 0].plot([], [], "o-", color=ink, markerfacecolor="w", label=as_text(one))
        figure.legend(loc="outside lower center", ncols=min(len(groups), 5), title=group)
    return figure


def _frame(axes: Axes, labels: Sequence[str]) -> None:
    """The scale of effects, and the places of the cells."""
    axes.axvspan(-1, 1, color=GREY, alpha=0.12, linewidth=0)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_xscale("symlog", linthresh=1, linscale=1)
    steps: Any = ticker.SymmetricalLogLocator(base=10, linthresh=1, subs=[1, 3])
    axes.xaxis.set_major_locator(steps)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
