"""A picture of a map: the effect of every cell with simultaneous intervals, in units of δ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lth_jax.measures.simultaneous import by_cell
from lth_jax.report.arms import looks
from lth_jax.report.plotting import GREY, SIZE, blank, style, with_ends
from lth_jax.report.tables import Row
from lth_jax.report.tidy import as_text, known, values_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@style()
def effects(
    rows: Sequence[Row],
    delta: float,
    *,
    label: str,
    y: str = "cell",
    y_label: str = "",
    group: str = "",
    panel: str = "",
) -> Figure:
    """The effect of every cell in units of δ, with intervals that hold for all cells at once.

    Cells whose interval lies at or above δ have filled markers. The grey band marks effects below
    δ.

    Args:
      rows: tidy, with `cell`, `replicate`, `value`, and the fields named below; every cell has the
        same replicates.
      delta: the smallest effect that matters.
      label: of the effects.
      y: a field whose values stand below each other, in order of appearance.
      y_label: of `y`.
      group: a field whose values have colours of their own.
      panel: a field whose values have panels of their own, two in a row.
    """
    cells = known(rows, "cell")
    places = {row["cell"]: row for row in reversed(rows)}
    bands = by_cell({cell: values_of(rows, cell=cell) / delta for cell in cells})
    downs, groups = known(rows, y), known(rows, group) if group else [None]
    cuts = known(rows, panel) if panel else [None]
    colours = looks([as_text(one) for one in groups])
    columns = min(len(cuts), 2)
    lines = -(-len(cuts) // columns)
    height = 0.9 + lines * (0.5 + len(downs) * (0.14 + 0.1 * len(groups)))
    figure = blank(SIZE[0], height)
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(cuts) :]:
        axes.remove()
    for axes, cut in zip(grid.flat, cuts, strict=False):
        axes.axvspan(-1, 1, color=GREY, alpha=0.12, linewidth=0)
        axes.axvline(0, color=GREY, linewidth=0.8)
        for cell, band in bands.items():
            at = places[cell]
            if panel and at[panel] != cut:
                continue
            number = groups.index(at[group]) if group else 0
            shift = 0.7 * ((number + 0.5) / len(groups) - 0.5)
            look, place = list(colours.values())[number], downs.index(at[y]) + shift
            fill = look.color if band.low >= 1 else "white"
            axes.plot([band.low, band.high], [place] * 2, color=look.color, linewidth=1.2)
            [dot] = axes.plot(
                [band.estimate], [place], look.marker, color=look.color, markerfacecolor=fill
            )
            with_ends(dot, band.low, band.high, cell, across=True)
        axes.set_yticks(range(len(downs)), [as_text(one) for one in downs])
        axes.set_ylim(len(downs) - 0.4, -0.6)
        axes.set_title(as_text(cut) if panel else "")
    for axes in grid[:, 0]:
        axes.set_ylabel(y_label)
    figure.supxlabel(label, fontsize="medium")
    if group:
        handles = [_handle(grid[0, 0], look) for look in colours.values()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), title=group)
    return figure


def _handle(axes: Any, look: Any) -> Any:
    [line] = axes.plot([], [], look.marker + "-", color=look.color, label=look.label)
    line.set_markerfacecolor("white")
    return line
