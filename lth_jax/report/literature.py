"""Recipes of the literature beside the papers' numbers, as pages with pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lth_jax.measures.expected import FAILS, HOLDS, INCONCLUSIVE, MISSING, Networks
from lth_jax.measures.intervals import Interval
from lth_jax.report.arms import LOOKS, Look, looks
from lth_jax.report.chapters import clock
from lth_jax.report.display import quantity
from lth_jax.report.effects import INKS
from lth_jax.report.plotting import (
    GREY,
    SIZE,
    WIDE,
    band,
    blank,
    density_axis,
    images,
    legend,
    style,
    with_ends,
)
from lth_jax.report.recipes import (
    COLOURS,
    FULL,
    ONLY_FULL,
    Curve,
    Judged,
    Trained,
    cells,
    curves,
    data_of,
    difference,
    finding,
    judged,
    number_cells,
    scale,
    stated,
    summary,
    unit,
)
from lth_jax.report.rendering import Caption, files_of, pictures, render
from lth_jax.store import files
from lth_jax.text import counted
from lth_jax.types import DENSE, TICKET

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = Caption(
    "Curves",
    "Our means with 95 % intervals over replicates, and the paper's curve with its spread where "
    "the paper has one.",
)
FINDINGS = Caption(
    "Findings",
    "Our means with 95 % intervals; green where the finding holds, orange where it does not, "
    "grey where it is undecided. The grey bar is the expected range.",
)
CAPTIONS = {"curves": CURVES, "findings": FINDINGS}
VERBS = {
    HOLDS: ("holds", "hold"),
    FAILS: ("does not hold", "do not hold"),
    INCONCLUSIVE: ("is inconclusive", "are inconclusive"),
    MISSING: ("is not measured", "are not measured"),
}
"""The predicates of one finding and of several, by verdict."""
MOST_CURVES = 8  # with more, controls are drawn only where the literature states them
NO_NUMBERS = "The full size tests the same findings; it is compared with no further numbers."
NUMBERS = "A run of the full size is compared with these numbers:"
FEWEST = 4
"""The fewest numbers with which the literature has its own panel."""
LEAD = (
    "Each recipe trains the experiment of a paper and compares its findings with what the paper "
    "states. A finding holds if our 95 % interval lies in the expected range, does not hold if it "
    "lies outside, and is inconclusive otherwise. The short sizes use small networks and data, so "
    "they test the shape of a finding, an inequality; their tables keep the names of the papers' "
    "networks. The papers' numbers are compared at full size only: ± is the spread that the source "
    "states, the tolerance a further deviation that counts as agreement, in the same unit. The "
    "intervals are not corrected for multiple comparisons. Times cover training only; some were "
    "measured while other programs ran."
)


def draw(trained: Trained) -> dict[str, Figure]:
    """The pictures of a recipe: `curves`, and `findings` if any is judged."""
    ranges = [one for one in judged(trained) if one.interval and one.verdict != ONLY_FULL]
    return {"curves": _curves(trained)} | (
        {"findings": _findings(trained, ranges)} if ranges else {}
    )


@style()
def _curves(trained: Trained) -> Figure:
    """Ours beside the literature's: against density, or as dots where runs have one density."""
    ours, theirs = curves(trained), stated(trained)
    many = sum(one.arm != DENSE for one in ours) > MOST_CURVES
    ours = [one for one in ours if not many or one.arm in (DENSE, TICKET) or one.place in
            {other.place for other in theirs}]  # fmt: skip
    sparse = [[kept for kept in one.points if kept < 1] for one in (*ours, *theirs)]
    are_curves = any(len(densities) > 1 for densities in sparse)
    panels = {"Ours": ours}
    if sum(len(one.points) for one in theirs) >= FEWEST:
        panels["The literature"] = theirs
    lines = {
        name: (_joined if are_curves else _apart)(trained, found) for name, found in panels.items()
    }
    labels = list(dict.fromkeys(label for one in lines.values() for label in one))
    height = 3.6 if are_curves else 1.0 + 0.24 * len(labels)
    figure = blank(WIDE if len(panels) > 1 or not are_curves else SIZE[0], height)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=not are_curves)[0]
    by_label, title = _looks(labels), quantity(trained.metric).title
    for axes, (name, found) in zip(grid, lines.items(), strict=True):
        axes.set_title(name if len(panels) > 1 else "")
        if are_curves:
            _against_density(axes, found, by_label)
            axes.set_ylabel(title)
        else:
            _dots(axes, found, by_label)
            axes.set_xlabel(title)
    if are_curves:
        for label, look in by_label.items():
            grid[0].plot([], [], color=look.color, marker=look.marker, label=label)
        legend(figure, grid[0])
    return figure


Lines = dict[str, dict[float, Interval]]
"""Label -> density -> mean with its ends, in the unit of the metric."""


def _joined(trained: Trained, found: Sequence[Curve]) -> Lines:
    """Curves by label; those of tickets begin at the dense networks of their run."""
    dense = {one.run: one.points for one in found if one.arm == DENSE}
    lines = {
        _label(trained, one): {
            **(dense.get(one.run, next(iter(dense.values()), {})) if one.arm == TICKET else {}),
            **one.points,
        }
        for one in found
        if one.arm != DENSE
    }
    return _scaled(trained, lines)


def _apart(trained: Trained, found: Sequence[Curve]) -> Lines:
    """Points by label; dense networks that other runs share have one."""
    dense: list[dict[float, Interval]] = []
    lines: Lines = {}
    for one in found:
        if one.arm != DENSE:
            lines[_label(trained, one)] = one.points
        elif one.points not in dense:
            label = _label(trained, one) if dense else trained.recipe.label(Networks(DENSE))
            dense.append(one.points)
            lines[label] = one.points
    return _scaled(trained, lines)


def _label(trained: Trained, one: Curve) -> str:
    alone = len({name.partition("@")[0] for name in trained.runs}) == 1
    return trained.recipe.label(Networks(one.arm, run="" if alone else one.run))


def _scaled(trained: Trained, lines: Lines) -> Lines:
    factor = quantity(trained.metric).scale
    return {
        label: {
            density: _times(factor, points[density]) for density in sorted(points, reverse=True)
        }
        for label, points in lines.items()
    }


def _times(factor: float, one: Interval) -> Interval:
    low, mean, high = factor * one.low, factor * one.estimate, factor * one.high
    return one._replace(low=low, estimate=mean, high=high)


def _looks(labels: Sequence[str]) -> dict[str, Look]:
    """Colours of labels: those of arms by their usual label, further ones by the spare colours."""
    usual = {look.label: look for look in LOOKS.values()}
    spare = looks([label for label in labels if label not in usual])
    return {label: usual.get(label) or spare[label] for label in labels}


def _against_density(axes: Axes, lines: Lines, by_label: dict[str, Look]) -> None:
    for label, points in lines.items():
        band(axes, list(points), list(points.values()), by_label[label])
        axes.lines[-1].set_label(f"_{label}")  # the legend has an entry for all panels
    density_axis(axes, sorted({density for points in lines.values() for density in points}))


def _dots(axes: Axes, lines: Lines, by_label: dict[str, Look]) -> None:
    for place, (label, look) in enumerate(by_label.items()):
        for one in lines.get(label, {}).values():
            _dot(axes, one, place, look.color, label)
    _rows(axes, list(by_label))


def _dot(axes: Axes, one: Interval, place: float, ink: str, label: str) -> None:
    axes.plot([one.low, one.high], [place] * 2, color=ink, linewidth=2)
    [dot] = axes.plot([one.estimate], [place], "o", color=ink)
    with_ends(dot, one.low, one.high, label, across=True)


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), list(labels))
    axes.set_ylim(len(labels) - 0.5, -0.5)


@style()
def _findings(trained: Trained, found: Sequence[Judged]) -> Figure:
    """Every finding with its expected range, in one panel for each quantity."""
    groups: dict[str, list[Judged]] = {}
    for one in found:
        label, own = quantity(one.expected.metric).label, unit(one.expected)
        kind = ", difference" if one.expected.minus is not None else ""
        kind = ", relative difference" if one.expected.relative else kind
        groups.setdefault(f"{label}{kind} ({own})" if own else f"{label}{kind}", []).append(one)
    figure = blank(WIDE, 0.3 + sum(0.55 + 0.26 * len(group) for group in groups.values()))
    heights = [len(group) for group in groups.values()]
    grid = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, group) in zip(grid, groups.items(), strict=True):
        for place, one in enumerate(group):
            assert one.interval is not None
            label = difference(trained.recipe, one.expected)
            interval = _times(scale(one.expected), one.interval)
            _dot(axes, interval, place, INKS[COLOURS[one.verdict]], label)
        low, high = axes.get_xlim()
        ends = [[scale(one.expected) * end for end in one.expected.bounds] for one in group]
        finite = [end for pair in ends for end in pair if np.isfinite(end)]
        low, high = min(low, *finite), max(high, *finite)
        margin = 0.04 * (high - low)
        for place, (first, last) in enumerate(ends):
            left, right = max(first, low - margin), min(last, high + margin)
            axes.barh(place, right - left, left=left, height=0.7, color=GREY, alpha=0.15)
        axes.set_xlim(low - margin, high + margin)
        axes.set_xlabel(title)
        _rows(axes, [difference(trained.recipe, one.expected) for one in group])
    return figure


def write_literature(folder: Path, trained: Trained) -> Path:
    """Writes the page of a recipe, its picture, and its table for machines.

    Args:
      folder: `index.html`, `result.json` and `figures/` go here.
      trained: the recipe with its finished runs.

    Returns:
      The page.
    """
    recipe = trained.recipe
    shown, omitted = pictures(draw(trained), CAPTIONS)
    for name, content in files_of(shown).items():
        files.write(folder / name, content)
    files.write_json(folder / "result.json", result(trained))
    page = render(
        "literature.html",
        title=f"{recipe.title} ({recipe.name}, {trained.size})",
        summary=summary(trained),
        lead=LEAD,
        setting=recipe.setting,
        short="" if trained.size == FULL else recipe.short,
        pictures=shown,
        omitted=omitted,
        findings=cells(trained),
        numbers=number_cells(trained),
        no_numbers="" if trained.size == FULL else NO_NUMBERS,
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

    return {
        "recipe": trained.recipe.name,
        "size": trained.size,
        "seconds": trained.seconds,
        "runs": {name: record.info.run for name, record in trained.runs.items()},
        "findings": [
            {
                "finding": finding(trained.recipe, one.expected),
                "source": one.expected.source,
                "verdict": one.verdict,
                "expected": list(map(number, one.expected.bounds)),
                "estimate": number(one.interval.estimate) if one.interval else None,
                "low": number(one.interval.low) if one.interval else None,
                "high": number(one.interval.high) if one.interval else None,
            }
            for one in judged(trained)
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
    rows = [
        [
            one.recipe.title,
            f"`{one.recipe.name}:{one.size}`",
            data_of(one),
            summary(one),
            clock(one.seconds),
        ]
        for one in chapters
    ]
    lines += _table([["recipe", "name", "data", "verdicts", "time"], *rows])
    lines += ["", _total(chapters), ""]
    lines += ["`python -m experiments.literature NAME` runs a recipe; `list` lists all."]
    for one in chapters:
        recipe = one.recipe
        name = f"{recipe.name}-{one.size}"
        lines += ["", f"## {recipe.title}: {one.size} size", "", recipe.setting]
        lines += ["", f"*Short size.* {recipe.short}"] if one.size != FULL else []
        for part, figure in draw(one).items():
            path = f"literature/{name}-{part}.svg"
            files.write(folder / path, images(figure)["svg"])
            lines += ["", f"![{recipe.title}: {part}]({path})", "", CAPTIONS[part].text]
        lines += ["", *_table(cells(one))]
        if len(numbers := number_cells(one)) > 1:
            lines += ["", NUMBERS, "", *_table(numbers)]
        elif one.size != FULL:
            lines += ["", NO_NUMBERS]
        lines += ["", f"`{one.command}`, {clock(one.seconds)}."]
    files.write(folder / "literature.md", ("\n".join(lines) + "\n").encode())
    return folder / "literature.md"


def _total(chapters: Sequence[Trained]) -> str:
    """The verdicts of all recipes, and whether any ran at full size."""
    found = [one.verdict for chapter in chapters for one in judged(chapter)]
    counts = Counter(verdict for verdict in found if verdict != ONLY_FULL)
    parts = ", ".join(
        f"{counts[name]} {VERBS[name][counts[name] > 1]}" for name in COLOURS if counts[name]
    )
    full = any(one.size == FULL for one in chapters)
    ran = "" if full else " No full size has run."
    return f"{counted(counts.total(), 'finding')}: {parts}.{ran}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, the header first."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (escaped[0], ["---"] * len(rows[0]), *escaped[1:])]
