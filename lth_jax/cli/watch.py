"""`lth watch`: progress of runs and sweeps, read from their folders."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lth_jax.cli import arguments as shared

if TYPE_CHECKING:
    from lth_jax.report.progress import Standing, Work

PATIENCE = 60.0
"""Seconds without a process at work, after which a sweep is no longer watched."""


def add_commands(commands: shared.Commands) -> None:
    """Adds `watch`."""
    watch = shared.add_command(
        commands,
        "watch",
        _watch,
        "show the progress of a run or a sweep until it is finished",
        "lth watch                      # what is being trained",
        "lth watch ladder-1a2b3c4d --once",
    )
    text = "a run or a sweep (default: all that are being trained)"
    shared.add_run(watch, "target", nargs="?", help=text)
    watch.add_argument("--once", action="store_true", help="print one frame and end")
    watch.add_argument(
        "--every", type=_seconds, default=1.0, metavar="SECONDS", help="between two frames"
    )


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not found > 0:
        raise argparse.ArgumentTypeError(f"'{text}' must be a number of seconds above 0")
    return found


def _watch(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    paths = _paths(arguments)
    if arguments.once or not sys.stdout.isatty():
        for found in _frames(paths, arguments):
            print(_frame(found), flush=True)
        return
    console = Console()
    with Live(console=console, auto_refresh=False) as display:
        for found in _frames(paths, arguments):
            display.update(Text(_frame(found, console.width)), refresh=True)


def _frames(paths: Sequence[Path], arguments: argparse.Namespace) -> "Iterator[list[Standing]]":
    """The states to show, if changed, until all is finished or no process is active."""
    from lth_jax.report.progress import standing

    last_active, shown = time.monotonic(), None
    finished: dict[Path, set[str]] = {path: set() for path in paths}
    while True:
        found = [standing(path, finished[path]) for path in paths]
        if found != shown:
            yield found
        shown = found
        now = time.monotonic()
        if any(one.is_active for one in found):
            last_active = now
        patience = PATIENCE if any(one.cells for one in found) else 0.0
        is_idle = now - last_active > patience
        if arguments.once or is_idle or all(one.is_done for one in found):
            return
        time.sleep(arguments.every)


def _paths(arguments: argparse.Namespace) -> list[Path]:
    """The folders to watch."""
    from lth_jax.report.progress import in_progress

    if arguments.target:
        return [shared.find_folder(arguments, arguments.target)]
    return in_progress(shared.folder(arguments))


def _frame(found: "Sequence[Standing]", width: int | None = None) -> str:
    return "\n".join(line for one in found for line in (_headline(one), *_table(one, width)))


def _headline(one: "Standing") -> str:
    if one.cells is None:
        return f"{one.name}: {one.parts[0].status}{_left(one)}"
    state = "" if one.is_done or one.is_active else "; no process is at work"
    return f"{one.name}: {one.finished} of {one.cells} cells finished{_left(one)}{state}"


def _left(one: "Standing") -> str:
    from lth_jax.text import clock

    seconds = one.seconds_left
    return "" if seconds is None or one.is_done else f", {clock(seconds)} left"


def _table(one: "Standing", width: int | None) -> list[str]:
    """The parts in columns; nothing without parts."""
    from lth_jax.text import TextTable

    header = ["", "status", "level", "done", "member-steps", "per second"]
    rows = [_cells(part) for part in one.parts]
    return [TextTable(header, rows).fitted(width)] if rows else []


def _cells(part: "Work") -> list[str]:
    level = "–" if part.level is None else f"{part.level}/{part.levels}"
    if not part.work:
        return [part.name, part.status, level, "–", "–", "–"]
    speed = "–" if part.speed is None else f"{part.speed:,.0f}"
    share = f"{100 * part.done / part.work:.0f} %"
    return [part.name, part.status, level, share, f"{part.done:,} of {part.work:,}", speed]
