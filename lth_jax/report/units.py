"""Figures of a run's removable units: groups, live units, latency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lth_jax.measures.intervals import student_t
from lth_jax.report.arms import looks, part_look
from lth_jax.report.plotting import (
    GREY,
    SIZE,
    WIDE,
    band,
    density_axis,
    ends,
    legend,
    new,
    plain_log,
    span,
    style,
    with_ends,
)
from lth_jax.report.rendering import Caption, caption
from lth_jax.report.unit_rows import Network, Timed, Units, read, rows, table
from lth_jax.types import DENSE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["captions", "draw", "read", "rows", "table"]


def draw(found: Units) -> dict[str, Figure]:
    """Figures by file name; empty if no unit is dead."""
    units = {group["name"]: group["units"] for group in found.groups}
    if all(network.alive == units for network in found.networks):
        return {}
    figures = {"unit_groups": unit_groups(found.groups)} if len(found.groups) > 1 else {}
    figures["units_kept"] = units_kept(found)
    figures["effective_density"] = effective_density(found.networks)
    if found.timed:
        figures["latency"] = latency(found.timed)
        figures["latency_units"] = latency_units(found.timed)
    return figures


def captions(found: Units) -> dict[str, Caption]:
    """The caption of the live units, which names the arm of the figure."""
    if not any(network.level for network in found.networks):
        return {}
    title, text = caption("units_kept")
    arm = _fewest(found)
    return {"units_kept": Caption(title, text.format(arm=looks([arm])[arm].label))}


@style()
def unit_groups(groups: Sequence[dict[str, Any]]) -> Figure:
    """A column for each group, a row for each axis of a leaf that loses units with it."""
    places = list(dict.fromkeys((leaf, axis) for g in groups for leaf, axis, _ in g["slots"]))
    places.sort()
    figure, axes = new()
    width = SIZE[0] if len(groups) <= 8 else WIDE
    figure.set_size_inches(width, max(SIZE[1], 0.9 + 0.18 * len(places)))
    for x, group in enumerate(groups):
        ys = [places.index((leaf, axis)) for leaf, axis, _ in group["slots"]]
        color = part_look("", x).color
        axes.plot([x, x], [min(ys), max(ys)], color=color, linewidth=1.2)
        axes.plot([x] * len(ys), ys, "o", color=color, markersize=4)
    axes.set_yticks(range(len(places)), [f"{leaf}, axis {axis}" for leaf, axis in places])
    axes.set_xticks(range(len(groups)), [str(group["units"]) for group in groups])
    axes.set_xlabel("Units in the group")
    axes.tick_params(length=0)
    axes.set_xlim(-0.7, len(groups) - 0.3)
    axes.invert_yaxis()
    return figure


@style()
def units_kept(found: Units) -> Figure:
    """The live units of each group, in the arm that has the fewest."""
    shown = [n for n in found.networks if n.arm in (DENSE, _fewest(found))]
    figure, axes = new()
    levels = sorted({n.level for n in shown})
    by_level = [[n for n in shown if n.level == level] for level in levels]
    densities = [float(np.mean([n.density for n in networks])) for networks in by_level]
    labels = _labels([group["name"] for group in found.groups])
    for i, group in enumerate(found.groups):
        name = group["name"]
        shares = [
            span([100 * n.alive[name] / group["units"] for n in networks]) for networks in by_level
        ]
        band(axes, densities, shares, part_look(labels[i], i))
    density_axis(axes, densities)
    axes.set_ylim(0, 105)
    axes.set_ylabel("Live units (%)")
    figure.set_figheight(SIZE[1] + 0.09 * len(found.groups))  # room for the legend
    legend(figure, axes)
    return figure


def _fewest(found: Units) -> str:
    """The arm with the fewest live units at the last level."""
    last = max(network.level for network in found.networks)
    pruned = [network for network in found.networks if network.level == last]
    return min(pruned, key=lambda network: sum(network.alive.values())).arm


def _labels(groups: Sequence[str]) -> list[str]:
    """Groups by their module, as in `units of Dense_0`; by their name where two share one."""
    leaves = [name.rpartition(":")[0] for name in groups]
    labels = [f"units of {leaf.rpartition('/')[0] or leaf}" for leaf in leaves]
    pairs = zip(labels, groups, strict=True)
    return [label if labels.count(label) == 1 else name for label, name in pairs]


@style()
def effective_density(networks: Sequence[Network]) -> Figure:
    """Weights on live paths against weights kept, arm by arm."""
    figure, axes = new()
    pruned = [network for network in networks if network.level]
    for arm, look in looks(dict.fromkeys(n.arm for n in pruned)).items():
        mine = [n for n in pruned if n.arm == arm]
        groups = [[n for n in mine if n.level == v] for v in sorted({n.level for n in mine})]
        densities = [float(np.mean([n.density for n in group])) for group in groups]
        on_path = [span([100 * n.effective for n in group]) for group in groups]
        band(axes, densities, on_path, look)
    shown = sorted({n.density for n in pruned})
    axes.plot(
        shown, [100 * d for d in shown], color=GREY, linestyle="--", linewidth=0.9,
        label="no unit is dead", zorder=4,
    )  # fmt: skip
    plain_log(axes.yaxis)
    density_axis(axes, shown)
    axes.set_ylabel("Weights on live paths (%)")
    legend(figure, axes)
    return figure


@style()
def latency(timed: Sequence[Timed]) -> Figure:
    """Test accuracy against relative latency, arm by arm; the dense network is a star."""
    figure, axes = new()
    for arm, look in looks(dict.fromkeys(one.arm for one in timed)).items():
        mine = [one for one in timed if one.arm == arm]
        groups = [[one for one in mine if one.level == v] for v in sorted({o.level for o in mine})]
        y, low, high = ends([student_t([100 * one.accuracy for one in g]) for g in groups])
        x = [float(np.mean([one.relative for one in group])) for group in groups]
        marker = "*" if arm == DENSE else look.marker
        [drawn, *_] = axes.errorbar(
            x, y, yerr=np.nan_to_num(high - y), fmt=marker + "-", color=look.color,
            label=look.label, elinewidth=0.8, markersize=9 if arm == DENSE else 4.5,
        )  # fmt: skip
        with_ends(drawn, low, high, look.label)
    axes.set_xlabel("Latency relative to the dense network")
    axes.set_ylabel("Test accuracy at the end (%)")
    axes.set_xlim(left=0)
    low, high = axes.get_ylim()
    axes.set_ylim(max(0.0, low), min(102.0, high))  # intervals of few replicates reach beyond
    legend(figure, axes)
    return figure


@style()
def latency_units(timed: Sequence[Timed]) -> Figure:
    """Relative latency against the share of units alive, one dot for each network."""
    figure, axes = new()
    for arm, look in looks(dict.fromkeys(one.arm for one in timed)).items():
        mine = [one for one in timed if one.arm == arm]
        marker = "*" if arm == DENSE else look.marker
        axes.plot(
            [100 * one.share for one in mine], [one.relative for one in mine], marker,
            color=look.color, label=look.label, alpha=0.7, markersize=9 if arm == DENSE else 4.5,
        )  # fmt: skip
    axes.set_xlabel("Live units (%)")
    axes.set_ylabel("Latency relative to the dense network")
    axes.set_xlim(0, 105)
    axes.set_ylim(bottom=0)
    legend(figure, axes)
    return figure
