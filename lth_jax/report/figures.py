"""Figures in the field's way: percent of weights remaining, log scale, dense at the left.

Every function returns a `matplotlib.figure.Figure` of its own; no global state is touched for
longer than a drawing takes. Colours are Okabe & Ito's (2008), with a marker each.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lth_jax.measures.intervals import student_t
from lth_jax.measures.overlap import total
from lth_jax.report.display import EARLY_STOP, HEADLINES, percent, quantity
from lth_jax.report.levels import Level, RunRecord
from lth_jax.report.plotting import blank, mpl, ticker
from lth_jax.report.tables import Row, summary_rows
from lth_jax.types import DENSE, TICKET

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[Any]

SIZE = (4.8, 3.6)
COLORS = ("#000000", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#56B4E9")
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "savefig.dpi": 200,
    "svg.fonttype": "path",
    "svg.hashsalt": "lth_jax",
}


class Look(NamedTuple):
    """How an arm is drawn, the same in every figure."""

    label: str
    color: Any
    marker: str


LOOKS = {
    DENSE: Look("dense", "#000000", ""),
    TICKET: Look("ticket", "#0072B2", "o"),
    "reinit": Look("reinitialised", "#E69F00", "s"),
    "shuffle": Look("shuffled in layers", "#009E73", "^"),
    "random": Look("random mask", "#D55E00", "D"),
    "scratch": Look("from scratch", "#56B4E9", "P"),
    "random_units": Look("random units", "#CC79A7", "v"),
    "refill": Look("refilled", "#CC79A7", "v"),
    "refill_reinit": Look("refilled, reinitialised", "#56B4E9", "P"),
    "refill_scratch": Look("refilled, from scratch", "#009E73", "^"),
    "refill_random": Look("refilled, random units", "#666666", "X"),
    "regroup": Look("regrouped", "#CC79A7", "v"),
    "regroup_reinit": Look("regrouped, reinitialised", "#56B4E9", "P"),
    "regroup_random": Look("regrouped, random blocks", "#666666", "X"),
}
SPARE = (
    ("#CC79A7", "v"),
    ("#56B4E9", "P"),
    ("#666666", "X"),
    ("#0072B2", "o"),
    ("#E69F00", "s"),
    ("#009E73", "^"),
    ("#D55E00", "D"),
)


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's settings for all figures, for a `with` block or as a decorator.

    >>> with style():
    ...     mpl.rcParams["savefig.dpi"]
    200.0
    """
    with mpl.rc_context({**mpl.rcParamsDefault, **STYLE}):
        yield


def looks(arms: Collection[str]) -> dict[str, Look]:
    """How each arm is drawn; other arms get the spare colours, in turn.

    >>> looks(["ticket", "late"])["late"]
    Look(label='late', color='#CC79A7', marker='v')
    """
    unknown = [arm for arm in arms if arm not in LOOKS]
    taken = {LOOKS[arm].color for arm in arms if arm in LOOKS}
    free = [look for look in SPARE if look[0] not in taken] or SPARE
    spare = {arm: Look(arm, *free[i % len(free)]) for i, arm in enumerate(unknown)}
    return {arm: LOOKS.get(arm) or spare[arm] for arm in arms}


@style()
def against_density(run: RunRecord, metric: str) -> Figure:
    """A metric against the weights remaining: mean and 95 % band over replicates, per arm.

    The dense parent is a line across, so that every density is compared with it.
    """
    rows = [row for row in summary_rows(run) if row["metric"] == metric]
    figure, axes = new()
    for arm, look in looks(run.arms).items():
        mine = [row for row in rows if row["arm"] == arm]
        if arm == DENSE:
            _across(axes, mine, look, quantity(metric).scale)
        else:
            _line(axes, [row["density"] for row in mine], mine, look, quantity(metric).scale)
    density_axis(axes, [level.density for level in run.levels])
    axes.set_ylabel(quantity(metric).title)
    legend(figure, axes)
    return figure


@style()
def leaf_density(run: RunRecord) -> Figure:
    """How much of each prunable leaf the tickets keep, against the level: mean and range.

    Leaves are coloured in the order of their names; beyond ten, a colour bar names some of them.
    """
    figure, axes = new()
    levels = [level for level in run.levels if {TICKET, DENSE} & set(level.arms)]
    leaves = sorted(levels[0].leaf_sizes, key=_natural)
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(leaves)))
    for i, (leaf, color) in enumerate(zip(leaves, colors, strict=True)):
        kept = [100 * _of_ticket(level, level.leaf_densities[leaf]) for level in levels]
        ranged(axes, [v.level for v in levels], kept, Look(leaf, color, "osD^v"[i % 5]))
    axes.set_yscale("log")
    axes.set_ylim(bottom=min(50.0, axes.get_ylim()[0]))  # so that a second label is in sight
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.set_xlabel("Level")
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
    joined = [[total(leaves.values()) for leaves in v.overlaps.values()] for v in levels]
    densities = [level.density for level in levels]
    overlaps = [np.array([overlap.iou for overlap in pairs]) for pairs in joined]
    ranged(axes, densities, overlaps, LOOKS[TICKET]._replace(label="tickets"))
    chance = [np.mean([overlap.chance_iou for overlap in pairs]) for pairs in joined]
    axes.plot(
        densities, chance, color="#666666", linestyle="--", label="chance, at equal densities"
    )
    density_axis(axes, densities)
    axes.set_ylim(0, 1)
    axes.set_ylabel("Mask overlap (intersection over union)")
    legend(figure, axes)
    return figure


@style()
def training_curves(run: RunRecord, metric: str, panels: int = 4) -> Figure:
    """A metric against the training step at some levels, the dense parent in each for comparison.

    Args:
      run: the run.
      metric: a name from the levels' curves.
      panels: at most how many levels to show; they are spread evenly, the sparsest included.
    """
    dense = next((level for level in run.levels if DENSE in level.arms), None)
    levels = spread([level for level in run.levels if level is not dense] or run.levels, panels)
    figure, grid = panes(len(levels), "Training step", quantity(metric).title)
    for axes, level in zip(grid, levels, strict=True):
        axes.set_title(f"{percent(level.density)} % of weights remaining")
        for arm, look in looks(run.arms).items():
            home = dense if arm == DENSE else level
            if home is not None and arm in home.arms:
                _curve(axes, home, arm, metric, look)
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


def _measured(tables: Iterable[Mapping[str, Floats]]) -> set[str]:
    """The metrics with a number anywhere; without validation there is no early stop."""
    return {name for table in tables for name, values in table.items() if np.isfinite(values).any()}


@style()
def image(figure: Figure, kind: str) -> bytes:
    """The figure as a file, the same bytes every time.

    Args:
      figure: from one of the functions here.
      kind: `"png"` or `"svg"`.
    """
    metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[kind]
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def images(figure: Figure) -> dict[str, bytes]:
    """The figure as `"svg"` and `"png"`. It is laid out once, which takes half of the time."""
    svg = image(figure, "svg")
    figure.set_layout_engine("none")
    return {"svg": svg, "png": image(figure, "png")}


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the items, evenly spread, the last one included.

    >>> spread([1, 2, 3, 4, 5, 6], 3)
    [2, 4, 6]
    """
    count = min(count, len(items))
    return [items[round((i + 1) * len(items) / count) - 1] for i in range(count)]


def density_ticks(densities: Sequence[float], gap: float = 1.45) -> list[float]:
    """The densities that get a tick: all, where at least a factor `gap` lies between neighbours.

    The largest and the smallest always have one.

    >>> density_ticks([1.0, 0.9, 0.5, 0.2, 0.19])
    [1.0, 0.5, 0.19]
    """
    ordered = sorted(set(densities), reverse=True)
    ticks = ordered[:1]
    for density in ordered[1:]:
        if ticks[-1] / density >= gap and density / ordered[-1] >= gap:
            ticks.append(density)
    return ticks + ordered[-1:] if len(ordered) > 1 else ticks


def new() -> tuple[Figure, Axes]:
    """A figure of the usual size and its only axes."""
    figure = blank(*SIZE)
    return figure, figure.subplots()


def panes(
    count: int, x_label: str, y_label: str, *, share_x: bool = True
) -> tuple[Figure, list[Axes]]:
    """Up to two axes a row on common scales, labelled at the left and at the bottom only."""
    rows, columns = -(-count // 2), min(2, count)
    figure = blank(max(SIZE[0], 2.8 * columns), 0.8 + 2.0 * rows)
    grid = figure.subplots(rows, columns, sharex=share_x, sharey=True, squeeze=False)
    for axes in grid.flat[count:]:
        axes.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel(y_label)
    for axes in grid.flat[count - columns : count]:
        axes.set_xlabel(x_label)
        axes.tick_params(labelbottom=True)
    return figure, list(grid.flat[:count])


def legend(figure: Figure, axes: Axes) -> None:
    """Below the axes, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        widest = max(len(label) for label in labels)
        columns = min(len(labels), 5 if widest < 12 else 3 if widest < 18 else 2)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def density_axis(axes: Axes, densities: Sequence[float]) -> None:
    """The weights remaining in percent, on a log scale, dense at the left."""
    axes.set_xscale("log")
    axes.update_datalim([(density, 0) for density in densities], updatey=False)  # all may be NaN
    axes.autoscale_view(scaley=False)
    axes.xaxis.set_major_locator(ticker.FixedLocator(density_ticks(densities)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: percent(value)))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.invert_xaxis()
    axes.set_xlabel("Weights remaining (%)")


def _line(axes: Axes, x: Sequence[float], rows: list[Row], look: Look, scale: float) -> None:
    mean, low, high = _columns(rows, scale)
    every = max(1, len(rows) // 20)
    axes.plot(x, mean, color=look.color, marker=look.marker, markevery=every, label=look.label)
    axes.fill_between(x, low, high, color=look.color, alpha=0.15, linewidth=0)


def _across(axes: Axes, rows: list[Row], look: Look, scale: float) -> None:
    """The dense parent: a star at its own density, its mean and band across all others."""
    for row, mean, low, high in zip(rows, *_columns(rows, scale), strict=True):
        axes.axhline(mean, color=look.color, linestyle="--", linewidth=1.1)
        axes.plot([row["density"]], [mean], "--*", color=look.color, label=look.label, markersize=9)
        if np.isfinite([low, high]).all():
            axes.axhspan(low, high, color=look.color, alpha=0.07, linewidth=0)


def _columns(rows: list[Row], scale: float) -> list[Floats]:
    return [
        scale * np.array([row[name] for row in rows], dtype=float)
        for name in ("mean", "low", "high")
    ]


def ranged(axes: Axes, x: Sequence[float], groups: Sequence[Floats], look: Look) -> None:
    """The mean of each group of values with their range as a band; empty groups are gaps."""
    groups = [group if len(group) else np.array([np.nan]) for group in groups]
    every, mean = max(1, len(x) // 20), [group.mean() for group in groups]
    axes.plot(x, mean, color=look.color, marker=look.marker, markevery=every, label=look.label)
    low, high = [group.min() for group in groups], [group.max() for group in groups]
    axes.fill_between(x, low, high, color=look.color, alpha=0.15, linewidth=0)


def _color_bar(figure: Figure, axes: Axes, names: list[str], colors: Floats) -> None:
    shown = [names.index(name) for name in names[:1] + spread(names[1:], 7)]
    scale = mpl.cm.ScalarMappable(
        mpl.colors.Normalize(-0.5, len(names) - 0.5), mpl.colors.ListedColormap(colors)
    )
    bar = figure.colorbar(scale, ax=axes, ticks=shown)
    bar.ax.set_yticklabels([names[i] for i in shown], fontsize=7)
    bar.ax.invert_yaxis()


def _curve(axes: Axes, level: Level, arm: str, metric: str, look: Look) -> None:
    chosen = [i for i, member in enumerate(level.members) if member.arm == arm]
    scale = quantity(metric).scale
    bands = [student_t(scale * values[chosen]) for values in level.curves[metric]]
    line = "--" if arm == DENSE else "-"
    axes.plot(level.steps, [b.estimate for b in bands], line, color=look.color, label=look.label)
    low, high = [b.low for b in bands], [b.high for b in bands]
    axes.fill_between(level.steps, low, high, color=look.color, alpha=0.12, linewidth=0)


def _of_ticket(level: Level, values: Floats) -> Floats:
    """The tickets' values; at level 0 the dense networks are the tickets."""
    arm = TICKET if TICKET in level.arms else DENSE
    return values[[i for i, member in enumerate(level.members) if member.arm == arm]]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts `Dense_2` before `Dense_10`."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
