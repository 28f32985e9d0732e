"""A run's own figures: results, training curves and masks, against the weights remaining."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lth_jax.measures.intervals import Interval, student_t
from lth_jax.measures.overlap import total
from lth_jax.report.arms import LOOKS, Look, looks
from lth_jax.report.display import EARLY_STOP, HEADLINES, percent, quantity
from lth_jax.report.levels import Level, RunRecord
from lth_jax.report.plotting import (
    GREY,
    band,
    density_axis,
    ends,
    legend,
    mpl,
    new,
    panes,
    plain_log,
    span,
    spread,
    style,
    with_ends,
)
from lth_jax.report.tables import Row, summary_rows
from lth_jax.types import DENSE, TICKET

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[Any]


@style()
def against_density(run: RunRecord, metric: str) -> Figure:
    """A metric against the weights remaining: mean and 95 % band over replicates, per arm.

    The dense networks are a line across, so that every density is compared with them.
    """
    rows = [row for row in summary_rows(run) if row["metric"] == metric]
    figure, axes = new()
    for arm, look in looks(run.arms).items():
        mine = [row for row in rows if row["arm"] == arm]
        intervals = [interval_of(row, quantity(metric).scale) for row in mine]
        if arm == DENSE:
            _across(axes, mine, intervals, look)
        else:
            band(axes, [row["density"] for row in mine], intervals, look)
    density_axis(axes, [level.density for level in run.levels])
    axes.set_ylabel(quantity(metric).title)
    legend(figure, axes)
    return figure


@style()
def leaf_density(run: RunRecord) -> Figure:
    """How much of each prunable leaf the tickets keep: mean and range over replicates.

    Leaves are coloured in the order of their names; beyond ten, a colour bar names some of them.
    """
    figure, axes = new()
    levels = [level for level in run.levels if {TICKET, DENSE} & set(level.arms)]
    leaves = sorted(levels[0].leaf_sizes, key=_natural)
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(leaves)))
    densities = [level.density for level in levels]
    for i, (leaf, color) in enumerate(zip(leaves, colors, strict=True)):
        kept = [span(100 * _of_ticket(level, level.leaf_densities[leaf])) for level in levels]
        band(axes, densities, kept, Look(leaf, color, "osD^v"[i % 5]))
    plain_log(axes.yaxis)
    axes.set_ylim(bottom=min(50.0, axes.get_ylim()[0]))  # so that a second label is visible
    density_axis(axes, densities)
    axes.set_ylabel("Weights remaining in the leaf (%)")
    if len(leaves) > 10:
        _color_bar(figure, axes, leaves, colors)
    else:
        legend(figure, axes)
    return figure


@style()
def mask_overlap(run: RunRecord) -> Figure:
    """How much the tickets of different replicates agree, beside the chance level.

    Mean and range over pairs of replicates of the intersection over union of all prunable leaves.
    """
    figure, axes = new()
    levels = [level for level in run.levels if level.overlaps]
    pairs = [[total(leaves.values()) for leaves in v.overlaps.values()] for v in levels]
    densities = [level.density for level in levels]
    overlaps = [span([overlap.iou for overlap in group]) for group in pairs]
    band(axes, densities, overlaps, LOOKS[TICKET]._replace(label="tickets"))
    chance = [np.mean([overlap.chance_iou for overlap in group]) for group in pairs]
    axes.plot(densities, chance, color=GREY, linestyle="--", label="chance, at equal densities")
    density_axis(axes, densities)
    axes.set_ylim(0, 1)
    axes.set_ylabel("Intersection over union")
    legend(figure, axes)
    return figure


@style()
def training_curves(run: RunRecord, metric: str, panels: int = 4) -> Figure:
    """A metric against the training step at some levels, with the dense networks in each panel.

    Args:
      run: the run.
      metric: a name from the levels' curves.
      panels: maximal number of levels shown; they are spread evenly, the sparsest included.
    """
    dense = next((level for level in run.levels if DENSE in level.arms), None)
    levels = spread([level for level in run.levels if level is not dense] or run.levels, panels)
    figure, grid = panes(len(levels), "Training step", quantity(metric).title)
    for axes, level in zip(grid, levels, strict=True):
        axes.set_title(f"{percent(level.density)} % of weights")
        for arm, look in looks(run.arms).items():
            source = dense if arm == DENSE else level
            if source is not None and arm in source.arms:
                _curve(axes, source, arm, metric, look)
    legend(figure, grid[0])
    return figure


def draw(run: RunRecord) -> dict[str, Figure]:
    """All figures that a run has numbers for, by file name."""
    metrics = _measured(level.results for level in run.levels)
    curves = _measured(level.curves for level in run.levels)
    figures = {
        metric: against_density(run, metric)
        for metric in (*HEADLINES, EARLY_STOP, *sorted(metrics - {*HEADLINES, EARLY_STOP}))
        if metric in metrics and (metric.startswith("test_") or metric == EARLY_STOP)
    }
    for metric in ("validation_accuracy", "validation_loss"):
        if metric in curves:
            figures[f"{metric}_curves"] = training_curves(run, metric)
    if any(TICKET in level.arms for level in run.levels):
        figures["leaf_density"] = leaf_density(run)
    if any(level.overlaps for level in run.levels):
        figures["mask_overlap"] = mask_overlap(run)
    return figures


def interval_of(row: Row, scale: float = 1.0) -> Interval:
    """The interval of a row with `mean`, `low` and `high`; NaN for None."""
    values = (row["mean"], row["low"], row["high"])
    mean, low, high = (np.nan if value is None else scale * value for value in values)
    return Interval(mean, low, high, row["replicates"], 0)


def _measured(tables: Iterable[Mapping[str, Floats]]) -> set[str]:
    """The metrics with a finite value; those at early stop have none without validation."""
    return {name for table in tables for name, values in table.items() if np.isfinite(values).any()}


def _across(axes: Axes, rows: list[Row], intervals: list[Interval], look: Look) -> None:
    """The dense networks: a star at their own density, mean and band across all others."""
    for row, mean, low, high in zip(rows, *ends(intervals), strict=True):
        axes.axhline(mean, color=look.color, linestyle="--", linewidth=1.1)
        [star] = axes.plot(
            [row["density"]], [mean], "--*", color=look.color, label=look.label, markersize=9
        )
        with_ends(star, low, high, look.label)
        if np.isfinite([low, high]).all():
            axes.axhspan(low, high, color=look.color, alpha=0.07, linewidth=0)


def _color_bar(figure: Figure, axes: Axes, names: list[str], colors: Floats) -> None:
    shown = [names.index(name) for name in names[:1] + spread(names[1:], 7)]
    scale = mpl.cm.ScalarMappable(
        mpl.colors.Normalize(-0.5, len(names) - 0.5), mpl.colors.ListedColormap(colors)
    )
    bar = figure.colorbar(scale, ax=axes, ticks=shown)
    bar.ax.set_yticklabels([names[i] for i in shown])
    bar.ax.invert_yaxis()


def _curve(axes: Axes, level: Level, arm: str, metric: str, look: Look) -> None:
    chosen = [i for i, member in enumerate(level.members) if member.arm == arm]
    scale = quantity(metric).scale
    bands = [student_t(scale * values[chosen]) for values in level.curves[metric]]
    line = "--" if arm == DENSE else "-"
    band(axes, level.steps, bands, look._replace(marker=""), line, alpha=0.12)


def _of_ticket(level: Level, values: Floats) -> Floats:
    """The values of a level's tickets; at level 0 the dense networks are the tickets."""
    arm = TICKET if TICKET in level.arms else DENSE
    return values[[member.arm == arm for member in level.members]]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts `Dense_2` before `Dense_10`."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
