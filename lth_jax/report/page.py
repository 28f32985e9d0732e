"""One self-contained page per run, and the pictures and numbers beside it."""

import html
import json
import re
import shlex
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

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
from lth_jax.report.levels import RunRecord, read_run
from lth_jax.store.files import write as write_file
from lth_jax.store.listing import RunInfo
from lth_jax.store.nodes import Store
from lth_jax.store.runs import Run

MEASURED: dict[str, Any] = {
    "frontier": rates,
    "spectra": spectra,
    "learning_rates": learning_rates,
    "stability": stability,
    "units": units,
    "behaviour": behaviour,
}
"""What may have been measured on a run afterwards: the name of its table, and who reads it."""

CAPTIONS: dict[str, str] = {
    "early_stop_step": "Step of the smallest validation loss: earlier is faster learning.",
    "leaf_density": "What the tickets keep of each prunable leaf: mean and range over replicates.",
    "mask_overlap": "How far the tickets of two replicates agree: mean and range over pairs.",
    "curves": "Mean and 95 % band over replicates; the dense parent is dashed.",
    "test": "Mean and 95 % band over replicates; the dense parent is the dashed line.",
} | {name: text for kind in MEASURED.values() for name, text in kind.CAPTIONS.items()}


def write_report(store: Store, run: Run | RunInfo) -> Path:
    """Draws a run's report from the store alone, finished or not.

    Writes `report/index.html`, `report/figures/*.png` and `*.svg`, `report/data/*.parquet` and
    `*.csv` into the run's folder. Each file is replaced atomically, the page last; the same run
    gives the same page and pictures byte for byte.

    Args:
      store: where the nodes lie.
      run: an open run, or one from `find_run` or `list_runs`.

    Returns:
      The path of the page.

    Raises:
      StoreError: if something in the store is damaged, or the folder cannot be written.
      lth_jax.extras.MissingExtraError: if Matplotlib or PyArrow is not installed; nothing is
        written then.
    """
    record = read_run(store, run.path)
    folder = Path(run.path) / "report"
    drawn, data = figures.draw(record), _data(record)
    for name, kind in MEASURED.items():
        if (found := kind.read(store, run.path)) is not None:
            drawn |= kind.draw(found)
            data[name] = tables.flat_rows(kind.rows(found))
    pictures = {
        f"figures/{name}.{kind}": picture
        for name, figure in drawn.items()
        for kind, picture in figures.images(figure).items()
    }
    files = pictures | dict(_tables(data))
    for name, content in files.items():
        write_file(folder / name, content)
    write_file(folder / "index.html", page(record, files).encode())
    return folder / "index.html"


def page(run: RunRecord, files: dict[str, bytes]) -> str:
    """The page as HTML: its own style and pictures inside, nothing loaded from elsewhere.

    Args:
      run: the run.
      files: what lies beside the page, by relative path; the SVG pictures among them are inlined.
    """
    metric = display.headline_metric(run)
    differences = tables.difference_rows(run, metric) if metric else []
    return filled(
        "page.html",
        title=escaped(run.info.run),
        facts=escaped(_facts(run)),
        verdict=escaped(display.verdict(differences)),
        unscored="\n".join(f'<p class="warning">{escaped(s)}</p>' for s in display.unscored(run)),
        figures="\n".join(_figure(Path(n), c) for n, c in files.items() if n.endswith(".svg")),
        metric=escaped(display.quantity(metric).title if metric else "Results"),
        levels=table_of(display.level_cells(run)),
        differences=table_of(display.difference_cells(differences)),
        config=_definitions(run.config),
        machine=_definitions({"plan": run.plan} | (run.environments or [{}])[-1]),
        commands=escaped("\n".join(_commands(run))),
        files="\n".join(f"<li>{_link(name, name)}</li>" for name in files),
    )


def filled(name: str, **parts: str) -> str:
    """A page's template with these parts and the style that all share."""
    folder = resources.files("lth_jax.report")
    template, style = (folder.joinpath(f).read_text(encoding="utf-8") for f in (name, "style.css"))
    return Template(template).substitute(parts, style=style)


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


def _facts(run: RunRecord) -> str:
    """One line: status, size, time, speed."""
    pieces = [run.info.status, f"started {run.info.created[:16].replace('T', ' ')} UTC"]
    if run.levels:
        replicates = {member.replicate for level in run.levels for member in level.members}
        networks = sum(len(level.members) for level in run.levels)
        members = [member for level in run.levels for member in level.members]
        unscored = sum(m.unscored is not None for m in members)
        lost = sum(m.diverged_at is not None for m in members) - unscored
        seconds = sum(level.seconds for level in run.levels)
        steps = sum(level.trained_steps * len(level.members) for level in run.levels)
        pieces += [
            f"{len(run.levels)} levels, {len(replicates)} replicates, {networks} networks",
            f"{lost} diverged",
            *([f"{unscored} not trained, without scores"] if unscored else []),
            f"{seconds:.0f} s of training",
            f"{steps / max(seconds, 1e-9):.0f} member-steps/s",
        ]
    return " · ".join(pieces)


def _commands(run: RunRecord) -> list[str]:
    """What to type to make the run again and to draw it again."""
    command = (run.environments or [{}])[-1].get("command")
    root, name = Path(run.info.path).parent, run.info.run
    redraw = ["lth", "report", name, "--root", str(root)]
    return ([shlex.join(command)] if command else []) + [shlex.join(redraw)]


def _figure(path: Path, svg: bytes) -> str:
    group = "curves" if path.stem.endswith("_curves") else "test"
    caption = CAPTIONS.get(path.stem, CAPTIONS[group])
    links = ", ".join(
        _link(path.with_suffix(f".{kind.lower()}").as_posix(), kind) for kind in ("PNG", "SVG")
    )
    drawing = inlined(svg.decode(), path.stem)
    return f"<figure>{drawing}<figcaption>{escaped(caption)} {links}</figcaption></figure>"


def inlined(svg: str, name: str) -> str:
    """An SVG file as an element of a page: no prologue, and ids that only it has."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", element)
    return element.replace("<svg", f'<svg role="img" aria-label="{escaped(name)}"', 1)


def table_of(cells: list[list[str]]) -> str:
    """Cells as an HTML table, the first row its header."""

    def line(tag: str, row: list[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escaped(cell)}</{tag}>" for cell in row) + "</tr>"

    body = "".join(line("td", row) for row in cells[1:])
    return f"<table><thead>{line('th', cells[0])}</thead><tbody>{body}</tbody></table>"


def _definitions(tree: Any) -> str:
    lines = (f"<dt>{escaped(k)}</dt><dd>{escaped(json.dumps(v))}</dd>" for k, v in _flat(tree))
    return f"<dl>{''.join(lines)}</dl>"


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested dictionaries with dotted names."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _link(name: str, text: str) -> str:
    return f'<a href="{escaped(name)}">{escaped(text)}</a>'


def escaped(text: str) -> str:
    """Text as HTML shows it."""
    return html.escape(text)
