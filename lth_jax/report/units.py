"""Pictures of a run's units: who is tied to whom, what is alive, and how fast it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lth_jax.measures.intervals import student_t
from lth_jax.report.figures import Look, density_axis, legend, looks, new, ranged, style
from lth_jax.report.plotting import ticker
from lth_jax.report.unit_rows import Network, Timed, Units, read, rows, table
from lth_jax.types import DENSE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CAPTIONS", "draw", "read", "rows", "table"]

CAPTIONS = {
    "unit_groups": "Who is tied to whom: each column is a group of removable units, each row an "
    "axis of a leaf; dots on one line lose the same units.",
    "units_kept": "Live units of each group against the level: mean and range over replicates of "
    "the arm that has the fewest.",
    "effective_density": "Weights on live paths against weights kept: mean and range over "
    "replicates. On the dashed line no unit is dead.",
    "latency": "Test accuracy against the measured latency of the network without its dead units, "
    "relative to the dense network: means over replicates, 95 % intervals of the accuracy.",
    "latency_units": "Measured latency, relative to the dense network, against the share of units "
    "that are alive: one dot for each shape.",
}


def draw(found: Units) -> dict[str, Figure]:
    """Figures by file name: groups where there are several, live units where some are dead."""
    figures = {"unit_groups": unit_groups(found.groups)} if len(found.groups) > 1 else {}
    units = {group["name"]: group["units"] for group in found.groups}
    if any(network.alive != units for network in found.networks):
        figures["units_kept"] = units_kept(found)
        figures["effective_density"] = effective_density(found.networks)
    if found.timed:
        figures["latency"] = latency(found.timed)
        figures["latency_units"] = latency_units(found.timed)
    return figures


@style()
def unit_groups(groups: Sequence[dict[str, Any]]) -> Figure:
    """A column for each group, a row for each axis of a leaf that loses units with it."""
    places = list(dict.fromkeys((leaf, axis) for g in groups for leaf, axis, _ in g["slots"]))
    places.sort()
    figure, axes = new()
    figure.set_size_inches(2.8 + 0.28 * len(groups), 1.2 + 0.16 * len(places))
    for x, group in enumerate(groups):
        ys = [places.index((leaf, axis)) for leaf, axis, _ in group["slots"]]
        color = f"C{x % 10}"
        axes.plot([x, x], [min(ys), max(ys)], color=color, linewidth=1.2)
        axes.plot([x] * len(ys), ys, "o", color=color, markersize=4)
    axes.set_yticks(range(len(places)), [f"{leaf}, axis {axis}" for leaf, axis in places])
    axes.set_xticks(range(len(groups)), [str(group["units"]) for group in groups])
    axes.set_xlabel("Units in the group", fontsize=8)
    axes.tick_params(labelsize=6, length=0)
    axes.set_xlim(-0.7, len(groups) - 0.3)
    axes.invert_yaxis()
    return figure


@style()
def units_kept(found: Units) -> Figure:
    """The live units of each group against the level, in the arm that has the fewest."""
    pruned = [network for network in found.networks if network.level]
    deepest = max(network.level for network in pruned)
    fewest = min((n for n in pruned if n.level == deepest), key=lambda n: sum(n.alive.values())).arm
    shown = [n for n in found.networks if n.arm in (DENSE, fewest)]
    figure, axes = new()
    colors = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#666666")
    for i, group in enumerate(found.groups):
        look = Look(group["name"], colors[i % len(colors)], "osD^vPX"[i // len(colors) % 7])
        levels = sorted({n.level for n in shown})
        counts = [[n.alive[group["name"]] for n in shown if n.level == v] for v in levels]
        shares = [100 * np.array(cs) / group["units"] for cs in counts]
        ranged(axes, levels, shares, look)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.set_ylim(0, 105)
    axes.set_xlabel("Level")
    axes.set_ylabel(f"Units alive in the group (%), {looks([fewest])[fewest].label}")
    legend(figure, axes)
    return figure


@style()
def effective_density(networks: Sequence[Network]) -> Figure:
    """Weights on live paths against weights kept, arm by arm."""
    figure, axes = new()
    pruned = [network for network in networks if network.level]
    for arm, look in looks(dict.fromkeys(n.arm for n in pruned)).items():
        mine = [n for n in pruned if n.arm == arm]
        groups = [[n for n in mine if n.level == v] for v in sorted({n.level for n in mine})]
        densities = [float(np.mean([n.density for n in group])) for group in groups]
        on_path = [100 * np.array([n.effective for n in group]) for group in groups]
        ranged(axes, densities, on_path, look)
    shown = sorted({n.density for n in pruned})
    axes.plot(shown, [100 * d for d in shown], color="#666666", linestyle="--", linewidth=0.9)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    density_axis(axes, sorted({round(n.density, 3) for n in pruned}))
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
        bands = [student_t([100 * one.accuracy for one in group]) for group in groups]
        x = [float(np.mean([one.relative for one in group])) for group in groups]
        y = np.array([band.estimate for band in bands])
        half = np.nan_to_num([band.high - band.estimate for band in bands])
        marker = "*" if arm == DENSE else look.marker
        axes.errorbar(
            x, y, yerr=half, fmt=marker + "-", color=look.color, label=look.label, elinewidth=0.8,
            markersize=9 if arm == DENSE else 4.5,
        )  # fmt: skip
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
    axes.set_xlabel("Units alive (%)")
    axes.set_ylabel("Latency relative to the dense network")
    axes.set_xlim(0, 105)
    axes.set_ylim(bottom=0)
    legend(figure, axes)
    return figure
