"""Units of a run's networks: who is tied to whom, what is alive, and how fast it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from lth_jax.measures.intervals import paired_difference, student_t
from lth_jax.report.figures import Look, density_axis, legend, looks, new, ranged, style
from lth_jax.report.tables import Row, interval_cells, or_none
from lth_jax.store.analyses import analyses
from lth_jax.store.nodes import Store
from lth_jax.types import DENSE

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


class Network(NamedTuple):
    """One network of a run.

    Attributes:
      arm: whose it is.
      level: its round of train-prune-rewind.
      replicate: its seed.
      density: fraction of the prunable weights kept.
      effective: fraction of the prunable weights that are kept and on a live path.
      alive: for each group by name, how many units are alive.
    """

    arm: str
    level: int
    replicate: int
    density: float
    effective: float
    alive: dict[str, int]


class Timed(NamedTuple):
    """One network without its dead units, timed.

    Attributes:
      arm: whose it is.
      level: its round of train-prune-rewind.
      replicate: its seed.
      accuracy: on the test set.
      latency: seconds of a forward pass, the median over rounds.
      relative: the same over the dense network's, the median of the ratios within rounds.
      share: fraction of all units that are alive.
    """

    arm: str
    level: int
    replicate: int
    accuracy: float
    latency: float
    relative: float
    share: float


class Units(NamedTuple):
    """What is known of a run's units.

    Attributes:
      groups: `{"name", "units", "slots": [[leaf, axis, indices per unit]]}` of each group.
      networks: who is alive.
      timed: how fast it is; empty before that was measured.
    """

    groups: list[dict[str, Any]]
    networks: list[Network]
    timed: list[Timed]


def read(store: Store, path: str | Path) -> Units | None:
    """What is there; None before a run was described, or where nothing can be removed.

    Raises:
      CorruptError: if something in the store is damaged.
    """
    described = analyses(path, "units")
    if not described:
        return None
    node = store.read(described[-1]["key"])
    if not node.meta["groups"]:
        return None
    alive = {name: flags.sum(axis=1) for name, flags in node.arrays["alive"].items()}
    networks = [
        Network(**about, density=float(density), effective=float(effective),
                alive={name: int(counts[i]) for name, counts in alive.items()})
        for i, (about, (density, effective)) in enumerate(
            zip(node.meta["networks"], node.arrays["density"], strict=True)
        )
    ]  # fmt: skip
    timings = analyses(path, "latency")
    timed = _timed(store.read(timings[-1]["key"])) if timings else []
    return Units(node.meta["groups"], networks, timed)


def _timed(node: Any) -> list[Timed]:
    seconds, networks = node.arrays["seconds"], node.meta["networks"]
    dense = next((n["shape"] for n in networks if n["arm"] == DENSE), 0)
    medians = np.median(seconds, axis=1)
    relative = np.median(seconds / seconds[dense], axis=1)
    sizes = [sum(shape.values()) for shape in node.meta["shapes"]]
    return [
        Timed(
            **{name: one[name] for name in ("arm", "level", "replicate", "accuracy")},
            latency=float(medians[one["shape"]]),
            relative=float(relative[one["shape"]]),
            share=sizes[one["shape"]] / sizes[dense],
        )
        for one in networks
    ]


def rows(found: Units) -> list[Row]:
    """One row per arm, level and metric: mean over replicates with a 95 % Student interval.

    Metrics: `density`, `effective_density`, `units_alive/GROUP`; where latency was measured
    `latency_seconds`, `latency_relative`, `accuracy`; and `accuracy_minus_ARM`, paired by
    replicate, against the other arms of the level.
    """
    return [
        {"arm": arm, "level": level, "metric": metric}
        | interval_cells(student_t(values))
        | {"values": [or_none(value) for value in values]}
        for (arm, level, metric), values in _values(found).items()
    ] + _differences(found.timed)


def _values(found: Units) -> dict[tuple[str, int, str], list[float]]:
    values: dict[tuple[str, int, str], list[float]] = {}

    def add(one: Network | Timed, metric: str, value: float) -> None:
        values.setdefault((one.arm, one.level, metric), []).append(value)

    for network in found.networks:
        add(network, "density", network.density)
        add(network, "effective_density", network.effective)
        for group, count in network.alive.items():
            add(network, f"units_alive/{group}", float(count))
    for timed in found.timed:
        add(timed, "latency_seconds", timed.latency)
        add(timed, "latency_relative", timed.relative)
        add(timed, "accuracy", timed.accuracy)
    return values


def _differences(timed: Sequence[Timed]) -> list[Row]:
    """The accuracy of each arm minus that of the arms after it, level by level."""
    levels: dict[int, dict[str, dict[int, float]]] = {}
    for one in timed:
        levels.setdefault(one.level, {}).setdefault(one.arm, {})[one.replicate] = one.accuracy
    found = []
    for level, arms in levels.items():
        names = list(arms)
        for i, arm in enumerate(names):
            for other in names[i + 1 :]:
                both = sorted(arms[arm].keys() & arms[other].keys())
                left, right = ([arms[name][r] for r in both] for name in (arm, other))
                if both:
                    about = {"arm": arm, "level": level, "metric": f"accuracy_minus_{other}"}
                    cells = interval_cells(paired_difference(left, right))
                    values = [a - b for a, b in zip(left, right, strict=True)]
                    found.append(about | cells | {"values": values})
    return found


def draw(found: Units) -> dict[str, Figure]:
    """All figures that there are numbers for, by file name."""
    figures = {"unit_groups": unit_groups(found.groups)}
    if any(network.level for network in found.networks):
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
    axes.set_xticks(
        range(len(groups)), [f"{g['name']} × {g['units']}" for g in groups], rotation=90
    )
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
        name = f"{group['name']} × {group['units']}"
        look = Look(name, colors[i % len(colors)], "osD^vPX"[i // len(colors) % 7])
        levels = sorted({n.level for n in shown})
        counts = [[n.alive[group["name"]] for n in shown if n.level == v] for v in levels]
        shares = [100 * np.array(cs) / group["units"] for cs in counts]
        ranged(axes, levels, shares, look)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
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
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
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
