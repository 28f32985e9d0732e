"""Learning rates of a run, predicted and measured, read back and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lth_jax.measures.intervals import student_t
from lth_jax.report.arms import looks
from lth_jax.report.display import percent
from lth_jax.report.plotting import (
    GREY,
    SIZE,
    band,
    ends,
    exponential,
    legend,
    mpl,
    new,
    panes,
    plain_log,
    style,
    value_ticks,
)
from lth_jax.report.tables import Row, summary_cells
from lth_jax.store.analyses import read_analyses
from lth_jax.store.nodes import Store
from lth_jax.types import DENSE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = ("train_loss", "test_accuracy")
LINES: dict[str, tuple[Any, str]] = {
    "start_edge": ("--", "2/λmax at the start"),
    "trained_edge": (":", "2/λmax, trained"),
    "start_best": ("-.", "2/(λmin + λmax) at the start"),
    "trained_best": ((0, (6, 1, 1, 1, 1, 1)), "2/(λmin + λmax), trained"),
}
PREDICTIONS = tuple(LINES)


class Sweep(NamedTuple):
    """One arm at every learning rate.

    Attributes:
      arm: dense, ticket or a control.
      level: the round of train-prune-rewind.
      density: fraction of the prunable weights kept.
      arrays: `rates [r]`; `train_loss` and `test_accuracy` `[replicates, r]`; `step [E]`;
        `relative_sharpness [E, replicates, r]`; the predictions `[replicates]`.
    """

    arm: str
    level: int
    density: float
    arrays: dict[str, NDArray[Any]]


def read(store: Store, path: str | Path) -> list[Sweep] | None:
    """The sweep of the level measured last, an entry per arm; None before there is one.

    Raises:
      CorruptError: if something in the store is damaged.
    """
    found = read_analyses(store, path, "learning_rates", Sweep)
    level = next((one.level for one in reversed(found) if one.level), 0)
    return [one for one in found if one.level in (0, level)] or None


def rows(found: Sequence[Sweep]) -> list[Row]:
    """One row per arm and number: results by rate, the best rate, and the predicted ones.

    `rate` is None for numbers that no single rate belongs to. `best_rate` is that of a replicate's
    smallest training loss.
    """
    return [
        {"arm": one.arm, "level": one.level, "density": one.density, "metric": metric, "rate": rate}
        | summary_cells(values)
        for one in found
        for metric, rate, values in _numbers(one)
    ]


def _numbers(one: Sweep) -> list[tuple[str, float | None, NDArray[Any]]]:
    results: list[tuple[str, float | None, NDArray[Any]]] = [
        (metric, float(rate), one.arrays[metric][:, i])
        for metric in METRICS
        for i, rate in enumerate(one.arrays["rates"])
    ]
    losses = np.nan_to_num(one.arrays["train_loss"], nan=np.inf)
    best = one.arrays["rates"][losses.argmin(axis=1)]
    predicted = [(name, None, one.arrays[name]) for name in PREDICTIONS]
    return [*results, ("best_rate", None, best), *predicted]


def draw(found: Sequence[Sweep]) -> dict[str, Figure]:
    """Both figures, by file name."""
    return {"learning_rates": losses(found), "relative_sharpness": relative_sharpness(found)}


@style()
def losses(found: Sequence[Sweep]) -> Figure:
    """Training loss against the learning rate, one line per arm, with the predicted ones."""
    figure, axes = new()
    drawn = set()
    for one in found:
        look, rates = looks([one.arm])[one.arm], one.arrays["rates"]
        logs = np.log(np.maximum(one.arrays["train_loss"], 1e-12))
        bands = [student_t(column) for column in logs.T]
        bands = [exponential(one) for one in bands]
        mean = ends(bands)[0]
        label = look.label if one.arm == DENSE else f"{look.label}, {percent(one.density)} %"
        band(axes, rates, bands, look._replace(label=label, marker=look.marker or "x"))
        if np.isfinite(mean).any():
            best = int(np.nanargmin(mean))
            axes.plot(rates[best], mean[best], "*", color=look.color, markersize=13, zorder=4)
        for name, (line, _) in LINES.items():
            known = one.arrays[name][np.isfinite(one.arrays[name])]
            if known.size:
                mean = np.exp(np.log(known).mean())
                axes.axvline(mean, color=look.color, linestyle=line, linewidth=1.1)
                drawn.add(name)
    axes.set_xscale("log")
    value_ticks(axes.xaxis, found[0].arrays["rates"].tolist())
    plain_log(axes.yaxis)
    axes.set_xlabel("Learning rate η")
    axes.set_ylabel("Training loss at the end")
    for name, (line, label) in LINES.items():
        if name in drawn:
            axes.plot([], [], linestyle=line, color=GREY, linewidth=1.1, label=label)
    figure.set_figheight(SIZE[1] + 0.4)  # room for the legend
    legend(figure, axes)
    return figure


@style()
def relative_sharpness(found: Sequence[Sweep]) -> Figure:
    """λmax·η/2 over the steps, a panel per arm, a line per learning rate."""
    figure, grid = panes(len(found), "Training step", "λmax·η/2")
    rates = found[0].arrays["rates"]
    norm, colors = mpl.colors.LogNorm(rates.min(), rates.max()), mpl.colormaps["viridis"]
    for axes, one in zip(grid, found, strict=True):
        name = looks([one.arm])[one.arm].label
        axes.set_title(f"{name}, {percent(one.density)} % of weights")
        for i, rate in enumerate(one.arrays["rates"]):
            values = one.arrays["relative_sharpness"][:, :, i]
            known = np.isfinite(values).any(axis=1)
            mean = np.nanmean(values[known], axis=1)
            axes.plot(one.arrays["step"][known], mean, color=colors(norm(rate)), linewidth=1.1)
        axes.axhline(1, color=GREY, linestyle=":", linewidth=1.1)
        plain_log(axes.yaxis)
    scale = mpl.cm.ScalarMappable(norm, colors)
    bar = figure.colorbar(scale, ax=grid, label="Learning rate η", shrink=0.8)
    ticks = rates[:: max(1, len(rates) // 5)].tolist()
    bar.set_ticks(ticks, labels=[f"{rate:g}" for rate in ticks])
    bar.ax.minorticks_off()
    return figure
