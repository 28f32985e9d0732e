"""A picture of the removable units of a large network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lth_jax.report.arms import part_look
from lth_jax.report.plotting import GREY, WIDE, blank, mpl, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class UnitRow(NamedTuple):
    """Similar groups of units, in the order of the network.

    Attributes:
      label: their name.
      shares: the share of units kept in each group; empty for weights in no unit.
      weights: the number of weights in their units.
      exact: for each group, whether removal is equivalent to masking.
    """

    label: str
    shares: tuple[float, ...]
    weights: int
    exact: tuple[bool, ...]


@style()
def unit_map(rows: Sequence[UnitRow], whole: int, *, pruned: bool) -> Figure:
    """A strip for each row, with one cell for each group, beside a bar of its weights.

    Args:
      rows: the rows from top to bottom.
      whole: the number of weights of the network.
      pruned: whether colours are shares of units kept, else whether removal is exact.
    """
    figure = blank(WIDE, 1.1 + 0.24 * len(rows))
    cells, bars = figure.subplots(1, 2, sharey=True, width_ratios=(5, 2))
    exact, inexact = (part_look("", k).color for k in (0, 1))
    marks = mpl.colors.ListedColormap([inexact, exact])
    shades = mpl.colormaps["viridis"]
    for y, row in enumerate(rows):
        if row.shares:
            values = row.shares if pruned else row.exact
            cells.imshow(
                np.array([values], float), cmap=shades if pruned else marks, vmin=0, vmax=1,
                extent=(0, 1, y + 0.38, y - 0.38), aspect="auto", interpolation="nearest",
            )  # fmt: skip
            edges = np.arange(1, len(values)) / len(values)
            cells.vlines(edges, y - 0.38, y + 0.38, color="white", linewidth=20 / (20 + len(edges)))
        bars.barh(y, 100 * row.weights / whole, 0.6, color=exact if row.shares else GREY)
    cells.set_yticks(range(len(rows)), [row.label for row in rows])
    cells.set_xlim(0, 1)
    cells.set_ylim(len(rows) - 0.5, -0.5)
    cells.set_xticks([0, 1], ["first", "last"])
    cells.set_xlabel("Groups of the row, in the order of the network")
    cells.grid(False)
    bars.set_xlabel("Weights (% of all)")
    bars.tick_params(labelleft=False, left=False)
    if pruned:
        scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 100), shades)
        figure.colorbar(scale, ax=bars, label="Units kept (%)", aspect=40)
    elif not all(all(row.exact) for row in rows):
        names = {exact: "removal equals masking", inexact: "it does not"}
        marks_ = [mpl.patches.Patch(color=color, label=name) for color, name in names.items()]
        figure.legend(handles=marks_, loc="outside lower center", ncols=2)
    return figure
