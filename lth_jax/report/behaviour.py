"""The behaviour of a run's networks on its test set, read back and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lth_jax.measures.fairness import accuracy
from lth_jax.report.arms import LOOKS, looks, part_look
from lth_jax.report.display import percent
from lth_jax.report.plotting import (
    GREY,
    SIZE,
    WIDE,
    band,
    blank,
    density_axis,
    legend,
    new,
    panes,
    span,
    style,
    ticker,
)
from lth_jax.report.tables import Row, summary_cells
from lth_jax.store.analyses import analyses
from lth_jax.store.nodes import Store
from lth_jax.types import DENSE, TICKET

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OF_PARTS = {
    "dead_units": "Units that are never active (%)",
    "attention_entropy": "Entropy of attention (fraction)",
    "head_importance": "Importance of the head",
    "spectral_radius": "Spectral radius",
}
CALIBRATION = {"ece": "Calibration error", "nll": "Negative log-likelihood", "brier": "Brier score"}


class Behaviour(NamedTuple):
    """Measurements of a run's networks on its test set.

    Attributes:
      networks: arm, level, replicate and density of each.
      scores: `{name: float64 [networks]}`.
      groups: the names of the examples' groups.
      confusions: counts `[networks, groups, labels, predictions]`; None for many classes.
    """

    networks: list[dict[str, Any]]
    scores: dict[str, NDArray[np.float64]]
    groups: list[str]
    confusions: NDArray[np.int64] | None


def read(store: Store, path: str | Path) -> Behaviour | None:
    """The latest measurement; None before there is one.

    Raises:
      CorruptError: if something in the store is damaged.
    """
    seen = analyses(path, "behaviour")
    if not seen:
        return None
    node = store.read(seen[-1]["key"])
    scores = dict(zip(node.meta["scores"], node.arrays["scores"].T, strict=True))
    confusions = node.arrays.get("confusions")
    if confusions is not None:
        scores |= _group_accuracies(confusions, node.meta["groups"])
    return Behaviour(node.meta["networks"], scores, node.meta["groups"], confusions)


def _group_accuracies(confusions: NDArray[np.int64], groups: Sequence[str]) -> dict[str, NDArray]:
    return {
        f"accuracy/{group}": np.array([accuracy(counts[i]) for counts in confusions])
        for i, group in enumerate(groups)
    }


def rows(found: Behaviour) -> list[Row]:
    """One row per arm, level and metric: mean over replicates with a 95 % Student interval.

    Metrics: `gradient_norm`; for classifiers `ece`, `nll`, `brier`, `accuracy/GROUP`, and per group
    the counts `confusion/GROUP/LABEL/PREDICTION`; and where they are defined `dead_units/LAYER`,
    `attention_entropy/LAYER/HEAD`, `head_importance/LAYER/HEAD`, `spectral_radius/LEAF/GATE`,
    `recovered` and `recovered_by_chance`.
    """
    metrics = found.scores | _counts(found)
    return [
        {"arm": arm, "level": level, "density": _density(found, chosen), "metric": metric}
        | summary_cells(values[chosen])
        for (arm, level), chosen in _places(found).items()
        for metric, values in metrics.items()
    ]


def _counts(found: Behaviour) -> dict[str, NDArray[Any]]:
    if found.confusions is None:
        return {}
    _, groups, labels, predictions = found.confusions.shape
    return {
        f"confusion/{found.groups[g]}/{label}/{taken}": found.confusions[:, g, label, taken]
        for g in range(groups)
        for label in range(labels)
        for taken in range(predictions)
    }


def _places(found: Behaviour) -> dict[tuple[str, int], list[int]]:
    """The networks of each arm and level, by their numbers."""
    places: dict[tuple[str, int], list[int]] = {}
    for i, one in enumerate(found.networks):
        places.setdefault((one["arm"], one["level"]), []).append(i)
    return places


def _density(found: Behaviour, chosen: Sequence[int]) -> float:
    return float(np.mean([found.networks[i]["density"] for i in chosen]))


def draw(found: Behaviour) -> dict[str, Figure]:
    """All figures that there are numbers for, by file name."""
    figures = {"calibration": calibration(found)} if "ece" in found.scores else {}
    if found.confusions is not None:
        figures["confusion"] = confusion(found)
        if len(found.groups) > 1:
            figures["group_accuracy"] = group_accuracy(found)
    for kind in OF_PARTS:
        if any(name.startswith(f"{kind}/") for name in found.scores):
            figures[kind] = parts(found, kind)
    if "recovered" in found.scores:
        figures["recovery"] = recovery(found)
    return figures


@style()
def calibration(found: Behaviour) -> Figure:
    """The three scores against the weights remaining, arm by arm."""
    figure = blank(WIDE, 3.2)
    for axes, (name, title) in zip(figure.subplots(1, 3), CALIBRATION.items(), strict=True):
        _by_arm(axes, found, found.scores[name])
        axes.set_title(title)
        axes.set_ylim(bottom=0)
    legend(figure, figure.axes[0])
    return figure


@style()
def group_accuracy(found: Behaviour) -> Figure:
    """A pane per group: its accuracy against the weights remaining, arm by arm."""
    labels = "Weights remaining (%)", "Test accuracy (%)"
    figure, grid = panes(len(found.groups), *labels, share_x=False)
    for axes, group in zip(grid, found.groups, strict=True):
        _by_arm(axes, found, 100 * found.scores[f"accuracy/{group}"])
        axes.set_title(f"group {group}")
    legend(figure, grid[0])
    return figure


@style()
def recovery(found: Behaviour) -> Figure:
    """The recovered fraction of a planted ticket, and the fraction expected by chance."""
    figure, axes = new()
    _by_arm(axes, found, 100 * found.scores["recovered"], but=("reinit",))  # has tickets' masks
    by_chance = found.scores["recovered_by_chance"]
    mine = {level: i for (arm, level), i in _places(found).items() if arm in (DENSE, TICKET)}
    x = [_density(found, i) for i in mine.values()]
    chance = [100 * by_chance[i].mean() for i in mine.values()]
    axes.plot(x, chance, "--", color=GREY, label="chance, as dense in each layer")
    axes.set_ylim(0, 102)
    axes.set_ylabel("Planted weights in the mask (%)")
    legend(figure, axes)
    return figure


@style()
def parts(found: Behaviour, kind: str) -> Figure:
    """One kind of score, a line for each part of the network, of dense networks and tickets."""
    figure, axes = new()
    mine = {level: i for (arm, level), i in _places(found).items() if arm in (DENSE, TICKET)}
    densities = [_density(found, i) for i in mine.values()]
    names = [name for name in found.scores if name.startswith(f"{kind}/")]
    scale = 100 if "%" in OF_PARTS[kind] else 1
    for i, name in enumerate(names):
        values = [span(scale * found.scores[name][i]) for i in mine.values()]
        band(axes, densities, values, part_look(name.removeprefix(f"{kind}/"), i))
    figure.set_figheight(SIZE[1] + 0.09 * len(names))  # room for the legend
    density_axis(axes, densities)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(OF_PARTS[kind])
    legend(figure, axes)
    return figure


@style()
def confusion(found: Behaviour) -> Figure:
    """A row of panes per group: dense networks, then the sparsest ones of each arm."""
    assert found.confusions is not None
    places = _places(found)
    last: dict[str, list[int]] = {}
    for (arm, _), chosen in sorted(places.items(), key=lambda place: place[0][1]):
        last[arm] = chosen
    groups = len(found.groups)
    width = SIZE[0] if len(last) <= 2 else WIDE
    figure = blank(width, 0.9 + min(2.0, (width - 0.6) / len(last)) * groups)
    grid = figure.subplots(groups, len(last), sharex=True, sharey=True, squeeze=False)
    for column, (arm, look) in zip(grid.T, looks(last).items(), strict=True):
        column[0].set_title(f"{look.label}\n{percent(_density(found, last[arm]))} % of weights")
        for axes, group, counts in zip(
            column, found.groups, found.confusions[last[arm]].sum(axis=0), strict=True
        ):
            _shares(axes, counts)
            if axes is grid[found.groups.index(group), 0]:
                axes.set_ylabel(f"group {group}: label" if groups > 1 else "Label")
        column[-1].set_xlabel("Prediction")
    return figure


def _shares(axes: Axes, counts: NDArray[np.int64]) -> None:
    """A square of shares of each label's examples; the numbers too, where there is room."""
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares = counts / totals
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.grid(False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    axes.tick_params(length=0)
    if len(counts) <= 4:
        for (label, taken), share in np.ndenumerate(shares):
            ink = "white" if share > 0.5 else "black"
            axes.text(taken, label, f"{100 * share:.0f}", ha="center", va="center", color=ink)


def _by_arm(
    axes: Axes, found: Behaviour, values: NDArray[np.float64], but: Sequence[str] = ()
) -> None:
    """A line for each arm against the weights remaining; the dense networks are a star."""
    places = _places(found)
    for arm, look in looks(dict.fromkeys(arm for arm, _ in places if arm not in but)).items():
        mine = [chosen for (whose, _), chosen in places.items() if whose == arm]
        shown = LOOKS[DENSE]._replace(marker="*") if arm == DENSE else look
        band(axes, [_density(found, i) for i in mine], [span(values[i]) for i in mine], shown)
    density_axis(axes, [_density(found, i) for i in places.values()])
