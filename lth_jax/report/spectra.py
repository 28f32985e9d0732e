"""Spectra of a run's networks at named points, and their loss surfaces, read back and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lth_jax.measures.intervals import Interval, student_t
from lth_jax.measures.spectra import broadened, outliers
from lth_jax.report.arms import Look, looks
from lth_jax.report.display import mean_cell, percent
from lth_jax.report.plotting import (
    band,
    density_axis,
    exponential,
    legend,
    mpl,
    panes,
    plain_log,
    spread,
    style,
)
from lth_jax.report.tables import Row, summary_cells
from lth_jax.store.analyses import read_analyses
from lth_jax.store.nodes import Store
from lth_jax.text import TextTable
from lth_jax.types import DENSE, TICKET

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[Any]

POINTS = {
    DENSE: "dense, trained (θ)",
    "start": "start (rewound θ⊙m)",
    "dense_on_mask": "trained θ, Hessian on the mask",
    "masked": "masked (θ⊙m), not retrained",
    "retrained": "retrained",
}
"""The names of the points in pictures."""

BROADENING = 0.01  # the width of an eigenvalue, as a share of what the panel shows


class Spectrum(NamedTuple):
    """The spectrum of one network at one point.

    Attributes:
      arm: arm of the network.
      level: its round of train-prune-rewind.
      replicate: its seed.
      point: the point of the measurement, one of `POINTS`.
      density: fraction of the prunable weights kept.
      size: weights of the support.
      converged: as in `landscape.Extremes`.
      arrays: `largest`, `smallest` and their bounds `[k]`; `nodes` and `weights` of the density
        `[probes, steps]`.
    """

    arm: str
    level: int
    replicate: int
    point: str
    density: float
    size: int
    converged: bool
    arrays: dict[str, Floats]


class Surface(NamedTuple):
    """The loss around one network: in `arrays`, `loss[i, j]` at `xs[i]`, `ys[j]`."""

    arm: str
    level: int
    density: float
    arrays: dict[str, Floats]


class Spectra(NamedTuple):
    """All measurements of a run's curvature."""

    spectra: list[Spectrum]
    surfaces: list[Surface]


def read(store: Store, path: str | Path) -> Spectra | None:
    """All measurements; None before the first.

    Raises:
      CorruptError: if something in the store is damaged.
    """
    spectra = read_analyses(store, path, "spectrum", Spectrum)
    surfaces = read_analyses(store, path, "surface", Surface)
    order = list(looks([DENSE, TICKET, *(one.arm for one in spectra)]))
    spectra.sort(key=lambda one: (one.level, order.index(one.arm), one.point, one.replicate))
    surfaces.sort(key=lambda one: (one.level, one.arm))
    return Spectra(spectra, surfaces) if spectra else None


def rows(found: Spectra) -> list[Row]:
    """One row per arm, level, point and metric: mean over replicates with a 95 % interval."""
    groups: dict[tuple[Any, ...], list[Spectrum]] = {}
    for one in found.spectra:
        groups.setdefault((one.arm, one.level, one.density, one.point), []).append(one)
    return [
        dict(zip(("arm", "level", "density", "point"), place, strict=True))
        | {"metric": metric}
        | summary_cells(values)
        for place, group in groups.items()
        for metric, values in _metrics(group).items()
    ]


def _metrics(group: list[Spectrum]) -> dict[str, list[float]]:
    return {
        "largest_eigenvalue": [float(one.arrays["largest"][0]) for one in group],
        "largest_eigenvalue_bound": [float(one.arrays["largest_bounds"][0]) for one in group],
        "smallest_eigenvalue": [float(one.arrays["smallest"][0]) for one in group],
        "outliers": [float(outliers(one.arrays["largest"])) for one in group],
        "support": [float(one.size) for one in group],
    }


def table(found: Spectra) -> TextTable:
    """The largest eigenvalue of every arm and level, one column per point: mean ± half interval."""
    cells = {
        (row["level"], row["density"], row["arm"], row["point"]): row
        for row in rows(found)
        if row["metric"] == "largest_eigenvalue"
    }
    points = [point for point in POINTS if any(place[3] == point for place in cells)]
    lines = []
    for level, density, arm in dict.fromkeys(place[:3] for place in cells):
        values = [mean_cell(cells.get((level, density, arm, point))) for point in points]
        lines.append([str(level), percent(density), arm, *values])
    header = ["level", "kept %", "arm", *points]
    return TextTable(header, lines, "Largest Hessian eigenvalue", keys=3)


def draw(found: Spectra) -> dict[str, Figure]:
    """All figures that there are numbers for, by file name."""
    figures = {"largest_eigenvalue": largest_eigenvalue(found.spectra)}
    if any(one.point == "retrained" and one.arm == TICKET for one in found.spectra):
        figures["spectral_density"] = spectral_density(found.spectra)
    if found.surfaces:
        figures["loss_surface"] = loss_surface(found.surfaces)
    return figures


@style()
def spectral_density(spectra: Sequence[Spectrum], panels: int = 4) -> Figure:
    """Tickets, retrained, against their dense parents, level by level; outliers marked above."""
    tickets = [one for one in spectra if (one.arm, one.point) == (TICKET, "retrained")]
    dense = [one for one in spectra if one.point == DENSE]
    levels = spread(sorted({one.level for one in tickets}), panels)
    figure, grid = panes(len(levels), "Eigenvalue", "Spectral density", share_x=False)
    for axes, level in zip(grid, levels, strict=True):
        mine = [one for one in tickets if one.level == level]
        axes.set_title(f"{percent(mine[0].density)} % of weights")
        _densities(axes, {DENSE: dense, TICKET: mine})
    legend(figure, grid[0])
    return figure


def _densities(axes: Axes, groups: dict[str, list[Spectrum]]) -> None:
    """Curves on a common grid, and rows of marks in the upper part of the panel."""
    groups = {arm: group for arm, group in groups.items() if group}
    nodes = np.concatenate([one.arrays["nodes"].ravel() for g in groups.values() for one in g])
    width = BROADENING * float(np.ptp(nodes) or 1.0)
    at = np.linspace(nodes.min() - 4 * width, nodes.max() + 4 * width, 600)
    least = min(1 / (one.size * width) for group in groups.values() for one in group) / 10
    top = 0.0
    for row, (arm, group) in enumerate(groups.items()):
        look = looks([arm])[arm]
        curves = np.array([_curve(one, at, width) for one in group])
        found = [student_t(column) for column in curves.T]
        above = [one._replace(estimate=max(one.estimate, least), low=max(one.low, least))
                 for one in found]  # fmt: skip
        band(axes, at, above, look._replace(marker=""))
        top = max(top, curves.max())
        marks = np.concatenate(
            [one.arrays["largest"][: outliers(one.arrays["largest"])] for one in group]
        )
        axes.plot(
            marks,
            np.full(len(marks), 0.95 - 0.07 * row),
            "|",
            color=look.color,
            markersize=5,
            transform=axes.get_xaxis_transform(),
        )
    axes.set_ylim(least, top * (top / least) ** 0.25)  # room for the marks
    plain_log(axes.yaxis)


def _curve(one: Spectrum, at: Floats, width: float) -> Floats:
    pairs = zip(one.arrays["nodes"], one.arrays["weights"], strict=True)
    return np.mean([broadened(nodes, weights, at, width) for nodes, weights in pairs], axis=0)


@style()
def largest_eigenvalue(spectra: Sequence[Spectrum]) -> Figure:
    """The largest eigenvalue along the ladder, one panel per point, one line per arm."""
    pruned = [one for one in spectra if one.arm != DENSE]
    points = [point for point in POINTS if any(one.point == point for one in pruned)]
    figure, grid = panes(max(1, len(points)), "Weights remaining (%)", "Largest eigenvalue")
    for axes, point in zip(grid, points, strict=False):
        axes.set_title(POINTS[point])
        mine = [one for one in pruned if one.point == point]
        for arm, look in looks(dict.fromkeys(one.arm for one in mine)).items():
            _ladder(axes, [one for one in mine if one.arm == arm], look)
        parent = "start" if point == "start" else DENSE
        dense = [one for one in spectra if (one.arm, one.point) == (DENSE, parent)]
        if dense:
            level, look = _geometric(dense)[0], looks([DENSE])[DENSE]
            axes.axhline(level, color=look.color, linestyle="--", linewidth=1.1, label=look.label)
    plain_log(grid[-1].yaxis)
    for axes in grid if pruned else ():
        density_axis(axes, [one.density for one in pruned])
    legend(figure, grid[-1])
    return figure


def _ladder(axes: Axes, spectra: list[Spectrum], look: Look) -> None:
    densities = sorted({one.density for one in spectra}, reverse=True)
    groups = [[one for one in spectra if one.density == density] for density in densities]
    band(axes, densities, [_geometric(group) for group in groups], look)


def _geometric(group: Sequence[Spectrum]) -> Interval:
    """Geometric mean of the largest eigenvalues that are positive, and the ends of its interval."""
    largest = np.array([one.arrays["largest"][0] for one in group])
    logs = student_t(np.log(largest[largest > 0]))
    return exponential(logs)


@style()
def loss_surface(surfaces: Sequence[Surface], panels: int = 4) -> Figure:
    """Contours of the training loss around the dense network and tickets, on one colour scale."""
    wanted = [one for one in surfaces if one.arm in (DENSE, TICKET)] or list(surfaces)
    shown = [wanted[0], *spread(wanted[1:], panels - 1)]
    figure, grid = panes(len(shown), "First direction", "Second direction")
    losses = np.concatenate([one.arrays["loss"].ravel() for one in shown])
    losses = losses[np.isfinite(losses) & (losses > 0)]
    norm = mpl.colors.LogNorm(losses.min(), losses.max())
    levels = np.geomspace(losses.min(), losses.max(), 13)
    for axes, one in zip(grid, shown, strict=True):
        grid_of = (one.arrays["xs"], one.arrays["ys"], one.arrays["loss"].T, levels)
        drawn = axes.contourf(*grid_of, norm=norm, cmap="cividis")
        axes.contour(*grid_of, norm=norm, colors="white", linewidths=0.4)
        axes.plot([0], [0], "+", color="white", markersize=7)
        axes.set_aspect("equal")
        name = looks([one.arm])[one.arm].label
        axes.set_title(f"{name}, {percent(one.density)} % of weights")
    bar = figure.colorbar(drawn, ax=grid, label="Training loss", shrink=0.8)
    ticks = levels[::3].tolist()
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    return figure
