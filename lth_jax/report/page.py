"""One self-contained page per run, and the figures and tables beside it."""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lth_jax.report import (
    behaviour,
    display,
    figures,
    learning_rates,
    rates,
    spectra,
    stability,
    tables,
    units,
)
from lth_jax.report.arms import looks
from lth_jax.report.levels import RunRecord, read_run
from lth_jax.report.plotting import style
from lth_jax.report.rendering import Omitted, Picture, files_of, pictures, render, texts
from lth_jax.store.files import write as write_file
from lth_jax.store.listing import RunInfo
from lth_jax.store.nodes import Store
from lth_jax.store.runs import Run
from lth_jax.types import DENSE

MEASURED: dict[str, Any] = {
    "frontier": rates,
    "spectra": spectra,
    "learning_rates": learning_rates,
    "stability": stability,
    "units": units,
    "behaviour": behaviour,
}
"""Measurements of finished runs: the name of the table, and the module.

A module with `captions` gives captions that depend on the measurement.
"""


class Section(NamedTuple):
    """Figures of one kind under a heading."""

    title: str
    pictures: list[Picture]
    omitted: list[Omitted]


@style()
def write_report(store: Store, run: Run | RunInfo) -> Path:
    """Draws a run's report from the store alone, finished or not.

    Writes `report/index.html`, `report/figures/*.png` and `*.svg`, `report/data/*.parquet` and
    `*.csv` into the run's folder. Each file is replaced atomically, the page last; the same run
    gives the same page and pictures byte for byte.

    Args:
      store: holds the nodes.
      run: an open run, or one from `find_run` or `list_runs`.

    Returns:
      The path of the page.

    Raises:
      StoreError: if something in the store is damaged, or the folder cannot be written.
      lth_jax.extras.MissingExtraError: if Matplotlib, PyArrow or Jinja is not installed; nothing
        is written then.
    """
    record = read_run(store, run.path)
    folder = Path(run.path) / "report"
    sections, data = [Section("Figures", *pictures(figures.draw(record)))], _data(record)
    for name, kind in MEASURED.items():
        if (measured := kind.read(store, run.path)) is not None:
            captions = kind.captions(measured) if hasattr(kind, "captions") else None
            shown = pictures(kind.draw(measured), captions)
            sections.append(Section(texts()["sections"][name], *shown))
            data[name] = tables.flat_rows(kind.rows(measured))
    beside = files_of([picture for section in sections for picture in section.pictures])
    beside |= dict(_tables(data))
    text = page(record, sections, list(beside))
    for name, content in beside.items():
        write_file(folder / name, content)
    write_file(folder / "index.html", text)
    return folder / "index.html"


def page(run: RunRecord, sections: list[Section], files: list[str]) -> bytes:
    """The page as HTML: its own style and pictures inside, nothing loaded from elsewhere.

    Args:
      run: the run.
      sections: the figures.
      files: the relative paths of the files beside the page.
    """
    metric = display.headline_metric(run)
    differences = tables.difference_rows(run, metric) if metric else []
    newest, path = (run.environments or [{}])[-1], Path(run.info.path)
    return render(
        "run.html",
        title=run.info.run,
        status=run.info.status,
        created=run.info.created[:16].replace("T", " "),
        **_facts(run),
        **_story(run),
        verdict=display.verdict(differences, tables.dense_mean(run, metric) if metric else None),
        left_out=[*display.left_out(run), *display.alike(run)],
        sections=sections,
        metric=display.quantity(metric).title if metric else "Results",
        level_cells=(cells := display.level_cells(run)),
        is_partial=any(re.search(r"\(\d+/\d+\)$", cell) for row in cells for cell in row),
        difference_cells=display.difference_cells(differences),
        config=list(flat(run.config)),
        machine=list(flat({"plan": run.plan} | newest)),
        commands=commands(newest.get("command"), run.info.run, path.parent),
        files=files,
    )


def _data(run: RunRecord) -> dict[str, list[tables.Row]]:
    metric = display.headline_metric(run)
    return {
        "seeds": tables.seed_rows(run),
        "differences": tables.difference_rows(run, metric) if metric else [],
        "leaves": tables.leaf_rows(run),
        "overlaps": tables.overlap_rows(run),
        "curves": tables.curve_rows(run),
    }


def _tables(data: dict[str, list[tables.Row]]) -> Iterator[tuple[str, bytes]]:
    for name, rows in data.items():
        if rows:
            yield f"data/{name}.parquet", tables.parquet_bytes(rows)
            yield f"data/{name}.csv", tables.csv_bytes(rows)


def _facts(run: RunRecord) -> dict[str, Any]:
    """Numbers of levels, replicates and networks, and the time they took."""
    members = [member for level in run.levels for member in level.members]
    unscored = sum(member.unscored is not None for member in members)
    seconds = sum(level.seconds for level in run.levels)
    steps = sum(level.trained_steps * len(level.members) for level in run.levels)
    return {
        "levels": sum(level.level > 0 for level in run.levels),
        "replicates": len({member.replicate for member in members}),
        "networks": len(members),
        "unscored_networks": unscored,
        "diverged": sum(member.diverged_at is not None for member in members) - unscored,
        "seconds": f"{seconds:,.0f}",
        "rate": f"{steps / max(seconds, 1e-9):,.0f}",
    }


def _story(run: RunRecord) -> dict[str, Any]:
    """The run's configuration as text, and the arms with what they test."""
    config = dict(_leaves(run.config))
    pruned = [level for level in run.levels if set(level.arms) - {DENSE}]
    methods = [str(value) for name, value in config.items() if _names_method(name)]
    says = (run.environments or [{}])[-1].get("controls", {}) | texts()["arms"]
    shown = looks(run.arms).items()
    step = config.get("rewind.step", 0)
    return {
        "network": config.get("model.name"),
        "data": config.get("data.name"),
        "task": config.get("task"),
        "criterion": config.get("prune.criterion"),
        "rewind": step,
        "methods": [method for method in dict.fromkeys(methods) if method != "static"],
        "pruned": len(pruned),
        "densities": [display.percent(level.density) for level in pruned],
        "arms": [
            {"name": arm, "label": look.label, "color": look.color, "says": says.get(arm)}
            for arm, look in shown
        ],
        "steps": ["dense", "train", "prune", f"to step {step}" if step else "rewind", "ticket"],
    }


def _names_method(field: str) -> bool:
    return field == "prune.method" or field.startswith("methods.")


def commands(command: Sequence[str] | None, name: str, root: Path) -> list[str]:
    """The commands that repeat a run or a sweep, if `command` is recorded, and draw it again."""
    redraw = ["lth", "report", name, "--root", str(root)]
    return ([shlex.join(command)] if command else []) + [shlex.join(redraw)]


def flat(tree: Any) -> Iterator[tuple[str, str]]:
    """The leaves of nested dictionaries as JSON, with dotted names."""
    return ((name, json.dumps(value)) for name, value in _leaves(tree))


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
