"""Recipes of the literature beside the papers' numbers, as pages with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lth_jax.measures.intervals import Interval
from lth_jax.report.arms import Look, looks
from lth_jax.report.chapters import clock
from lth_jax.report.display import quantity
from lth_jax.report.plotting import (
    WIDE,
    band,
    blank,
    density_axis,
    images,
    legend,
    style,
    with_ends,
)
from lth_jax.report.recipes import COLOURS, Trained, cells, curves, judged, stated, summary
from lth_jax.report.rendering import Caption, Picture, render
from lth_jax.store import files
from lth_jax.types import DENSE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = dict[str, dict[float, Interval]]
"""Label -> density -> mean with its ends."""
CAPTION = (
    "Left: the numbers of the literature with their spread. Right: ours, means and 95 % intervals "
    "over replicates."
)
LEAD = (
    "Each recipe trains the experiment of a paper and compares its findings with what the paper "
    "states. A finding holds if our 95 % interval lies in the expected range, does not hold if it "
    "lies outside, and is inconclusive otherwise. The short sizes use small networks and data, so "
    "they test the shape of a finding, an inequality; the papers' numbers are compared at full "
    "size only. Nothing corrects for the number of intervals."
)


@style()
def draw(trained: Trained) -> Figure:
    """The curves of the literature and ours, on common labels; dots where no arm has a curve."""
    theirs, ours = stated(trained), curves(trained)
    kept = {label: points for label, points in ours.items() if _is_shown(label, ours, theirs)}
    are_curves = any(len(points) > 1 for points in (*kept.values(), *theirs.values()))
    panels = {"The literature": theirs, "Ours": kept} if theirs else {"Ours": kept}
    labels = list(dict.fromkeys(label for one in reversed(panels.values()) for label in one))
    rows = 0.0 if are_curves else 0.22 * len(labels)
    figure = blank(WIDE, 3.6 if are_curves else 1.3 + rows)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=not are_curves)[0]
    by_label = _looks(labels)
    title = quantity(trained.metric).title
    for axes, (name, lines) in zip(grid, panels.items(), strict=True):
        axes.set_title(name)
        (_draw_curves if are_curves else _draw_dots)(axes, lines, by_label, trained.metric)
        if are_curves:
            axes.set_ylabel(title)
        else:
            axes.set_xlabel(title)
    if are_curves:
        for label in labels:
            grid[0].plot([], [], color=by_label[label].color, marker=by_label[label].marker,
                         label=label)  # fmt: skip
        legend(figure, grid[0])
    return figure


def _is_shown(label: str, ours: Curves, theirs: Curves) -> bool:
    """Whether a picture has room for a curve: of many, controls are left out."""
    return len(ours) <= 8 or "," not in label or label in theirs


def _looks(labels: Sequence[str]) -> dict[str, Look]:
    """Colours of labels: those of arms by their usual label, further ones by the spare colours."""
    usual = {look.label: look for look in looks((DENSE, "ticket", "reinit", "shuffle", "random")).values()}
    spare = looks([label for label in labels if label not in usual])
    return {label: usual.get(label) or spare[label] for label in labels}


def _scaled(points: dict[float, Interval], metric: str) -> list[Interval]:
    """The intervals in the unit of the metric, from dense to sparse."""
    scale = quantity(metric).scale
    ordered = [points[density] for density in sorted(points, reverse=True)]
    return [
        one._replace(estimate=scale * one.estimate, low=scale * one.low, high=scale * one.high)
        for one in ordered
    ]


def _draw_curves(axes: Axes, lines: Curves, by_label: dict[str, Look], metric: str) -> None:
    densities = sorted({density for points in lines.values() for density in points})
    for label, points in lines.items():
        look = by_label[label]._replace(label="_" + label)
        if set(points) == {1.0}:  # dense networks: a line across
            [one] = _scaled(points, metric)
            axes.axhline(one.estimate, color=look.color, linestyle="--", linewidth=1)
            continue
        where = sorted(points, reverse=True)
        band(axes, where, _scaled(points, metric), look)
        axes.lines[-1].values = (label, *axes.lines[-1].values[1:])
    density_axis(axes, densities)


def _draw_dots(axes: Axes, lines: Curves, by_label: dict[str, Look], metric: str) -> None:
    for place, (label, look) in enumerate(by_label.items()):
        for one in _scaled(lines.get(label, {}), metric):
            axes.plot([one.low, one.high], [place] * 2, color=look.color, linewidth=2)
            [dot] = axes.plot([one.estimate], [place], "o", color=look.color)
            with_ends(dot, one.low, one.high, label, across=True)
    axes.set_yticks(range(len(by_label)), list(by_label))
    axes.set_ylim(len(by_label) - 0.5, -0.5)


def write_literature(folder: Path, trained: Trained) -> Path:
    """Writes the page of a recipe, its picture, and its table for machines.

    Args:
      folder: `index.html`, `result.json` and `figures/` go here.
      trained: the recipe with its finished runs.

    Returns:
      The page.
    """
    recipe = trained.recipe
    figure = draw(trained)
    picture = Picture(recipe.name, Caption(recipe.title, CAPTION), images(figure), True)
    for kind, content in picture.files.items():
        files.write(folder / "figures" / f"{picture.name}.{kind}", content)
    files.write_json(folder / "result.json", result(trained))
    table = cells(trained)
    page = render(
        "literature.html",
        title=f"{recipe.title} ({recipe.name}, {trained.size})",
        summary=summary(trained),
        lead=LEAD,
        setting=recipe.setting,
        short="" if trained.size == "full" else recipe.short,
        picture=picture,
        header=table[0],
        rows=table[1:],
        colours=COLOURS,
        time=clock(trained.seconds),
        command=trained.command,
    )
    files.write(folder / "index.html", page)
    return folder / "index.html"


def result(trained: Trained) -> dict[str, object]:
    """A recipe for machines: every expectation with bounds, measured interval and verdict."""

    def number(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    header, *rows = cells(trained)
    return {
        "recipe": trained.recipe.name,
        "size": trained.size,
        "seconds": trained.seconds,
        "runs": {name: record.info.run for name, record in trained.runs.items()},
        "findings": [
            {
                "finding": row[0],
                "source": one.expected.source,
                "verdict": one.verdict,
                "expected": list(map(number, one.expected.bounds)),
                "estimate": number(one.interval.estimate) if one.interval else None,
                "low": number(one.interval.low) if one.interval else None,
                "high": number(one.interval.high) if one.interval else None,
            }
            for row, one in zip(rows, judged(trained), strict=True)
        ],
    }


def document(folder: Path, chapters: Sequence[Trained]) -> Path:
    """Writes the recipes as a page of a documentation site.

    Args:
      folder: `literature.md` goes here, and the pictures into `literature/`.
      chapters: the finished recipes, in order.

    Returns:
      The page.
    """
    lines = ["# The literature", "", LEAD, ""]
    lines += ["| recipe | size | verdicts | time |", "| --- | --- | --- | --- |"]
    for one in chapters:
        lines.append(
            f"| {one.recipe.title} | {one.size} | {summary(one)} | {clock(one.seconds)} |"
        )
    lines += ["", "`python -m experiments.literature list` lists all recipes."]
    for one in chapters:
        recipe = one.recipe
        name = f"{recipe.name}-{one.size}"
        files.write(folder / "literature" / f"{name}.svg", images(draw(one))["svg"])
        lines += ["", f"## {recipe.title}, {one.size}", "", recipe.setting]
        lines += ["", f"*Short size.* {recipe.short}"] if one.size != "full" else []
        lines += ["", f"![{recipe.title}](literature/{name}.svg)", "", CAPTION, ""]
        header, *rows = cells(one)
        lines += [_line(header), _line(["---"] * len(header)), *map(_line, rows)]
        lines += ["", f"`{one.command}`, {clock(one.seconds)}."]
    files.write(folder / "literature.md", ("\n".join(lines) + "\n").encode())
    return folder / "literature.md"


def _line(row: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
