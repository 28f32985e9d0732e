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
    "found": "good",
    "real, below δ": "fair",
    "real, size open": "fair",
    "not supported": "bad",
    "not found in this map": "bad",
    "reversed": "bad",
    "not replicated": "bad",
    "inconclusive": "open",
    "premise not met": "open",
    "measured": "open",
    "controls hold": "open",
    "void": "void",
}
"""Verdicts, and the class of their badge in the style sheet."""
DECIDED = frozenset(name for name, kind in COLOURS.items() if kind in ("good", "fair", "bad"))
"""Verdicts that need a replication."""
INKS = {
    "good": "#00724f",
    "fair": "#0072b2",
    "bad": "#b34700",
    "open": "#5d6470",
    "void": "#8a1c5b",
}
IN_DELTAS = (
    "Effects in units of their δ, the smallest effect that matters, with 95 % intervals: filled "
    "for the discovery, hollow for the replication. The axis is linear between −1 and 1 and "
    "logarithmic beyond; the grey band marks effects below δ."
)
WITH_MARGIN = (
    "Effects that contain their margin (δ = 0) have a panel of their own, in their own units: "
    "above 0 the claim holds."
)


class Effect(NamedTuple):
    """The number that a claim's verdict rests on.

    Attributes:
      claim: its short name.
      title: title of the claim.
      verdict: one of `COLOURS`.
      parts: for each round `name`, `estimate`, `low`, `high` and `delta`, the smallest effect that
        matters; 0 where the number contains a margin.
    """

    claim: str
    title: str
    verdict: str
    parts: Sequence[dict[str, Any]]

    @property
    def has_delta(self) -> bool:
        """Whether its δ is above 0."""
        return bool(self.parts[0]["delta"])

    @property
    def ink(self) -> str:
        """The colour of its verdict."""
        return INKS[COLOURS[self.verdict]]


def caption(effects: Sequence[Effect]) -> Caption:
    """The title and the text of the picture."""
    deltas = [one.has_delta for one in effects]
    text = " ".join([IN_DELTAS] * any(deltas) + [WITH_MARGIN] * (not all(deltas)))
    return Caption("All deciding effects", text)


@style()
def draw(effects: Sequence[Effect]) -> Figure:
    """The effects with their intervals.

    Those with a δ are in units of it; those that contain their margin have a panel below.
    """
    groups = [[one for one in effects if one.has_delta == has] for has in (True, False)]
    groups = [group for group in groups if group]
    figure = blank(WIDE, 1.2 + 0.26 * len(effects) + 0.6 * len(groups))
    heights = [len(group) + 1 for group in groups]
    grid = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, group in zip(grid, groups, strict=True):
        scaled = group[0].has_delta
        if scaled:
            axes.axvspan(-1, 1, color=GREY, alpha=0.12, linewidth=0)
            axes.set_xscale("symlog", linthresh=1, linscale=1)
            steps = ticker.SymmetricalLogLocator(base=10, linthresh=1, subs=[1, 2, 5])
            axes.xaxis.set_major_locator(steps)
        numbers = ticker.FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−"))
        axes.xaxis.set_major_formatter(numbers)
        axes.axvline(0, color=GREY, linewidth=0.8)
        for place, one in enumerate(group):
            for part, shift, fill in zip(
                one.parts, (-0.15, 0.15), (one.ink, "white"), strict=False
            ):
                _effect(axes, place + shift * (len(one.parts) > 1), one, part, fill)
        axes.set_yticks(range(len(group)), [f"{one.claim} {one.title}" for one in group])
        axes.set_ylim(len(group) - 0.4, -0.6)
        axes.set_xlabel("Effect in units of δ" if scaled else "Effect with its margin, own units")
    inks = {one.verdict: one.ink for one in effects}
    for verdict, ink in inks.items():
        grid[0].plot([], [], "o-", color=ink, label=verdict)
    figure.legend(loc="outside lower center", ncols=min(len(inks), 4))
    return figure


def _effect(axes: Axes, place: float, one: Effect, part: dict[str, Any], fill: str) -> None:
    """A dot with its interval, and an arrow for an end that is unbounded."""
    ends = [part[end] for end in ("low", "estimate", "high")]
    low, mean, high = (np.nan if end is None else end / (part["delta"] or 1) for end in ends)
    ink = one.ink
    axes.plot(np.nan_to_num([low, high], nan=mean), [place] * 2, color=ink, linewidth=2)
    for edge, end in enumerate((low, high)):
        if np.isnan(end) and np.isfinite(mean):
            axes.annotate(
                "", (edge, place), (mean, place), xycoords=("axes fraction", "data"),
                textcoords="data", arrowprops={"arrowstyle": "->", "color": ink},
            )  # fmt: skip
    [dot] = axes.plot([mean], [place], "o", color=ink, markerfacecolor=fill)
    with_ends(dot, low, high, f"{one.claim}, {part['name']}", across=True)
