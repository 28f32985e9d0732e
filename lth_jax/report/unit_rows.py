"""Units of a run's networks, read back from the store: live units and latencies."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lth_jax.report.display import percent
from lth_jax.report.tables import Row, summary_cells
from lth_jax.store.analyses import analyses
from lth_jax.store.nodes import Store
from lth_jax.text import TextTable
from lth_jax.types import DENSE, TICKET

Values = dict[tuple[str, int, str], list[float]]
"""Arm, level and metric, with one value for each replicate."""


class Network(NamedTuple):
    """One network of a run.

    Attributes:
      arm: `dense`, `ticket`, or a control.
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
      arm: `dense`, `ticket`, or a control.
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
    """A run's removable units.

    Attributes:
      groups: `{"name", "units", "slots": [[leaf, axis, indices per unit]]}` of each group.
      networks: the live units of each.
      timed: the latency of each; empty before it was measured.
    """

    groups: list[dict[str, Any]]
    networks: list[Network]
    timed: list[Timed]


def read(store: Store, path: str | Path) -> Units | None:
    """The units of a run; None before they were determined, or if no unit can be removed.

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

    Metrics: `effective_density`, `units_alive/GROUP`; where latency was measured
    `latency_seconds`, `latency_relative`, `accuracy`; `accuracy_minus_ARM`, paired by replicate,
    against the other arms of the level; and `accuracy_minus_ticket_at_latency`, against what the
    replicate's tickets and dense parent reach at the same latency, linearly between levels.
    """
    densities: dict[tuple[str, int], list[float]] = {}
    for one in found.networks:
        densities.setdefault((one.arm, one.level), []).append(one.density)
    tables = (_values(found), _differences(found.timed), _at_equal_latency(found.timed))
    return [
        {
            "arm": arm,
            "level": level,
            "density": float(np.mean(densities[arm, level])),
            "metric": metric,
            **summary_cells(values),
        }
        for values_of in tables
        for (arm, level, metric), values in values_of.items()
    ]


def _values(found: Units) -> Values:
    values: Values = {}

    def add(one: Network | Timed, metric: str, value: float) -> None:
        values.setdefault((one.arm, one.level, metric), []).append(value)

    for network in found.networks:
        add(network, "effective_density", network.effective)
        for group, count in network.alive.items():
            add(network, f"units_alive/{group}", float(count))
    for timed in found.timed:
        add(timed, "latency_seconds", timed.latency)
        add(timed, "latency_relative", timed.relative)
        add(timed, "accuracy", timed.accuracy)
    return values


def _differences(timed: Sequence[Timed]) -> Values:
    """The accuracy of each arm minus that of the arms after it, level by level, paired."""
    accuracies: dict[int, dict[str, dict[int, float]]] = {}
    for one in timed:
        accuracies.setdefault(one.level, {}).setdefault(one.arm, {})[one.replicate] = one.accuracy
    return {
        (arm, level, f"accuracy_minus_{other}"): [
            arms[arm][r] - arms[other][r] for r in sorted(arms[arm].keys() & arms[other].keys())
        ]
        for level, arms in accuracies.items()
        for arm, other in itertools.combinations(arms, 2)
    }


def _at_equal_latency(timed: Sequence[Timed]) -> Values:
    """Each arm's accuracy minus the tickets' at its latency; NaN at latencies they never have."""
    curves: dict[int, list[tuple[float, float]]] = {}
    for one in timed:
        if one.arm in (DENSE, TICKET):
            curves.setdefault(one.replicate, []).append((one.relative, one.accuracy))
    gains: Values = {}
    for one in timed:
        if one.arm not in (DENSE, TICKET) and one.replicate in curves:
            x, y = zip(*sorted(curves[one.replicate]), strict=True)
            theirs = np.interp(one.relative, x, y, left=np.nan, right=np.nan)
            place = one.arm, one.level, "accuracy_minus_ticket_at_latency"
            gains.setdefault(place, []).append(one.accuracy - float(theirs))
    return gains


def table(found: Units) -> TextTable:
    """Density and effective density of every arm and level, and latency where it was measured."""
    cells = {(row["level"], row["arm"], row["metric"]): row for row in rows(found)}
    lines = []
    for level, arm in dict.fromkeys(place[:2] for place in cells):
        effective = cells[level, arm, "effective_density"]
        timed = cells.get((level, arm, "latency_relative"))
        shares = [percent(effective["density"]), percent(effective["mean"])]
        lines.append([str(level), arm, *shares, percent(timed["mean"]) if timed else "–"])
    header = ["level", "arm", "kept %", "on live paths %", "latency, % of dense"]
    return TextTable(header, lines, "Live weights", keys=2)
