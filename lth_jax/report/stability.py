"""Instability analysis of a run, read back and drawn: barrier against rewind step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lth_jax.measures.intervals import student_t
from lth_jax.report.arms import part_look
from lth_jax.report.display import percent
from lth_jax.report.plotting import GREY, band, legend, new, style, value_ticks
from lth_jax.report.tables import Row, summary_cells
from lth_jax.store.analyses import read_analyses
from lth_jax.store.nodes import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STABLE = 2.0  # percent
METRICS = ("test_error_barrier", "train_error_barrier")


class Stability(NamedTuple):
    """Lines between the children of one level's networks.

    Attributes:
      level: the round of train-prune-rewind.
      density: fraction of the prunable weights kept.
      rewind: the step at which the children were made.
      arrays: `alphas [m]`; `{split}_error` and `{split}_loss` `[replicates, pairs, m]`;
        `{split}_error_barrier` `[replicates, pairs]`; `alive [replicates]`.
    """

    level: int
    density: float
    rewind: int
    arrays: dict[str, NDArray[Any]]


def read(store: Store, path: str | Path) -> list[Stability] | None:
    """The analyses by level and rewind step; None before the first.

    Raises:
      CorruptError: if something in the store is damaged.
    """
    found = read_analyses(store, path, "stability", Stability)
    return sorted(found, key=lambda one: (one.level, one.rewind)) or None


def rows(found: Sequence[Stability]) -> list[Row]:
    """One row per level, rewind step and metric: mean over replicates with a 95 % interval."""
    return [
        {"level": one.level, "density": one.density, "rewind": one.rewind, "metric": metric}
        | summary_cells(values)
        for one in found
        for metric in METRICS
        for values in [by_replicate(one, metric)]
    ]


def by_replicate(one: Stability, metric: str) -> NDArray[np.float64]:
    """The mean over a replicate's pairs; NaN where a child diverged."""
    return np.where(one.arrays["alive"], one.arrays[metric].mean(axis=1), np.nan)


def draw(found: Sequence[Stability]) -> dict[str, Figure]:
    """The figure, by file name."""
    return {"instability": instability(found)}


@style()
def instability(found: Sequence[Stability]) -> Figure:
    """The test error barrier against the rewind step, a line per level."""
    figure, axes = new()
    levels = sorted({one.level for one in found})
    for i, level in enumerate(levels):
        mine = [one for one in found if one.level == level]
        bands = [student_t(100 * by_replicate(one, METRICS[0])) for one in mine]
        look = part_look(f"{percent(mine[0].density)} % of weights", i)
        band(axes, [one.rewind for one in mine], bands, look)
    axes.axhline(STABLE, color=GREY, linestyle=":", linewidth=1.1)
    _step_axis(axes, sorted({one.rewind for one in found}))
    axes.set_ylabel("Test error barrier (points)")
    legend(figure, axes)
    return figure


def _step_axis(axes: Any, steps: Sequence[int]) -> None:
    """Linear to the first step beyond 0, logarithmic from there."""
    first = next((step for step in steps if step > 0), 1)
    axes.set_xscale("symlog", linthresh=first, linscale=0.5)
    axes.set_xlim(-0.1 * first, 1.15 * max(steps[-1], first))
    value_ticks(axes.xaxis, steps)
    axes.set_xlabel("Rewind step")
