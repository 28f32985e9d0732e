"""One picture of the deciding effects of all claims."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lth_jax.report.plotting import GREY, WIDE, blank, style, ticker, with_ends
from lth_jax.report.rendering import Caption

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "supported": "good",
    "real but below δ": "fair",
    "not supported": "bad",
    "reversed": "bad",
    "inconclusive": "open",
    "premise not met": "open",
    "controls hold": "open",
    "void": "void",
}
"""Verdicts, and the class of their badge in the style sheet."""
INKS = {
    "good": "#00724f",
    "fair": "#0072b2",
    "bad": "#b34700",
    "open": "#5d6470",
    "void": "#8a1c5b",
}
IN_DELTAS = (
    "Effects in units of their δ, the smallest effect that matters, with 95 % intervals. The axis "
    "is linear between −1 and 1 and logarithmic beyond; the grey band marks effects below δ."
)
WITH_MARGIN = (
    "Effects that contain their margin (δ = 0) have a panel of their own, in their own units: "
    "above 0 the claim holds."
)


class Effect(NamedTuple):
    """The number that a claim's verdict rests on.

    Attributes:
      claim: its short name.
      title: of the claim.
      verdict: one of `COLOURS`.
      part: `name`, `estimate`, `low`, `high` and `delta`, the smallest effect that matters; 0
        where the number contains a margin.
    """

    claim: str
    title: str
    verdict: str
    part: dict[str, Any]

    @property
    def ink(self) -> str:
        """The colour of its verdict."""
        return INKS[COLOURS[self.verdict]]


def caption(effects: Sequence[Effect]) -> Caption:
    """The title and the text of the picture."""
    deltas = [bool(one.part["delta"]) for one in effects]
    text = " ".join([IN_DELTAS] * any(deltas) + [WITH_MARGIN] * (not all(deltas)))
    return Caption("All deciding effects", text)


@style()
def draw(effects: Sequence[Effect]) -> Figure:
    """The effects with their intervals.

    Those with a δ are in units of it; those that contain their margin have a panel below.
    """
    groups = [[one for one in effects if bool(one.part["delta"]) == has] for has in (True, False)]
    groups = [group for group in groups if group]
    figure = blank(WIDE, 1.0 + 0.26 * len(effects) + 0.6 * len(groups))
    heights = [len(group) + 1 for group in groups]
    grid = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, group in zip(grid, groups, strict=True):
        scaled = bool(group[0].part["delta"])
        if scaled:
            axes.axvspan(-1, 1, color=GREY, alpha=0.12, linewidth=0)
            axes.set_xscale("symlog", linthresh=1, linscale=1)
            steps = ticker.SymmetricalLogLocator(base=10, linthresh=1, subs=[1, 2, 5])
            axes.xaxis.set_major_locator(steps)
        numbers = ticker.FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−"))
        axes.xaxis.set_major_formatter(numbers)
        axes.axvline(0, color=GREY, linewidth=0.8)
        for place, one in enumerate(group):
            _effect(axes, place, one)
        axes.set_yticks(range(len(group)), [f"{one.claim} {one.title}" for one in group])
        axes.set_ylim(len(group) - 0.4, -0.6)
        axes.set_xlabel("Effect in units of δ" if scaled else "Effect with its margin, own units")
    inks = {one.verdict: one.ink for one in effects}
    for verdict, ink in inks.items():
        grid[0].plot([], [], "o-", color=ink, label=verdict)
    figure.legend(loc="outside lower center", ncols=len(inks))
    return figure


def _effect(axes: Axes, place: float, one: Effect) -> None:
    """A dot with its interval, and an arrow for an end that is unbounded."""
    ends = [one.part[end] for end in ("low", "estimate", "high")]
    low, mean, high = (np.nan if end is None else end / (one.part["delta"] or 1) for end in ends)
    ink = one.ink
    axes.plot(np.nan_to_num([low, high], nan=mean), [place] * 2, color=ink, linewidth=2)
    for edge, end in enumerate((low, high)):
        if np.isnan(end) and np.isfinite(mean):
            axes.annotate(
                "", (edge, place), (mean, place), xycoords=("axes fraction", "data"),
                textcoords="data", arrowprops={"arrowstyle": "->", "color": ink},
            )  # fmt: skip
    [dot] = axes.plot([mean], [place], "o", color=ink)
    with_ends(dot, low, high, f"{one.claim}, {one.part['name']}", across=True)
