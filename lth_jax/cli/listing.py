"""`lth ls`: all runs and sweeps, with filters."""

import argparse
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from lth_jax.cli import arguments as shared

if TYPE_CHECKING:
    from lth_jax.store import RunInfo
    from lth_jax.store.sweeps import SweepInfo

UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
STATUSES = ("running", "finished", "failed", "interrupted", "damaged")
COLUMNS = ("status", "cells", "age", "best", "kept %", "last", "kept %", "MB")
"""Columns after the name, for runs and sweeps; those without a value are not printed."""
SORTS = ("age", "run", "status", "best", "last", "size")


def add_commands(commands: shared.Commands) -> None:
    """Adds `ls`."""
    ls = shared.add_command(
        commands,
        "ls",
        _ls,
        "list runs and sweeps with their accuracy, size, age and status",
        "lth ls --status finished --sort best",
        "lth ls --name 'lenet*' --newer 2d",
        as_json=True,
    )
    ls.add_argument("--all", action="store_true", help="also the pilots of studies")
    ls.add_argument(
        "--status", type=_statuses, help=f"only these, separated by commas: {', '.join(STATUSES)}"
    )
    ls.add_argument("--name", metavar="PATTERN", help="only names that match, such as 'lenet*'")
    ls.add_argument("--experiment", metavar="NAME", help="only those of this experiment")
    for option, text in (("--newer", "younger"), ("--older", "older")):
        about = f"only those that are {text}: 30m, 12h, 2d, 1w"
        ls.add_argument(option, type=_duration, metavar="AGE", help=about)
    ls.add_argument("--sort", choices=SORTS, default="age", help="order (default: oldest first)")
    ls.add_argument("--reverse", action="store_true", help="reverse the order")


def _statuses(text: str) -> list[str]:
    found = text.split(",")
    for status in found:
        if status not in STATUSES:
            raise argparse.ArgumentTypeError(
                f"unknown status '{status}': the statuses are {', '.join(STATUSES)}"
            )
    return found


def _duration(text: str) -> float:
    if not (found := re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text)):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not an age; it must be a number followed by m, h, d or w, such as 30m"
        )
    return float(found[1]) * UNITS[found[2]]


class _Line(NamedTuple):
    """A run or sweep as it is filtered, sorted and shown; a sweep by its best finished cell."""

    name: str
    experiment: str
    status: str
    created: str
    summary: dict[str, Any]
    cells: str
    record: dict[str, Any]


def _ls(arguments: argparse.Namespace) -> None:
    from lth_jax.distributed.launch import jobs_of
    from lth_jax.store import list_runs
    from lth_jax.store.sweeps import list_sweeps
    from lth_jax.text import TextTable, print_tables

    root, now = shared.folder(arguments), datetime.now(UTC)
    listed = list_runs(root, pilots=arguments.all)
    runs = _chosen(map(_of_run, listed), arguments, now)
    sweeps = _chosen(map(_of_sweep, list_sweeps(root, listed)), arguments, now)
    jobs = jobs_of(root)
    if arguments.json:
        found = {"runs": [line.record for line in runs], "sweeps": [line.record for line in sweeps]}
        shared.print_json(found | {"jobs": [job._asdict() for job in jobs]})
        return
    tables = [
        TextTable([kind, *COLUMNS], [_cells(line, now) for line in lines])
        for kind, lines in (("run", runs), ("sweep", sweeps))
    ]
    tables.append(TextTable(["job", "state", "log"], [[*job] for job in jobs]))
    if filled := [table for table in tables if table.rows]:
        print_tables(*filled, drop=True)


def _of_run(info: "RunInfo") -> _Line:
    who = (info.run, info.name, info.status, info.created)
    return _Line(*who, info.summary or {}, "", info._asdict())


def _of_sweep(info: "SweepInfo") -> _Line:
    lines = [_of_run(run) for run in info.finished]
    best = min(lines, key=lambda line: _rank(line, _best(line)), default=None)
    size = sum(line.summary.get("bytes", 0) for line in lines)
    summary = best.summary | {"bytes": size} if best else {}
    record = info._asdict() | {"finished": [line.name for line in lines], "summary": summary}
    who = (info.sweep, info.name, info.status, info.created)
    return _Line(*who, summary, f"{len(lines)}/{info.cells}", record)


def _chosen(lines: Iterable[_Line], wanted: argparse.Namespace, now: datetime) -> list[_Line]:
    """The lines that pass all filters, in order: oldest, best or largest first.

    Those without a value come last.
    """
    keys: dict[str, Callable[[_Line], Any]] = {
        "run": lambda line: line.name,
        "status": lambda line: line.status,
        "age": lambda line: -_age(line, now),
        "best": lambda line: _rank(line, _best(line)),
        "last": lambda line: _rank(line, _last(line)),
        "size": lambda line: -line.summary.get("bytes", -1),
    }
    chosen = [line for line in lines if _is_chosen(line, wanted, _age(line, now))]
    ordered = sorted(chosen, key=keys[wanted.sort])
    return ordered[::-1] if wanted.reverse else ordered


def _is_chosen(line: _Line, wanted: argparse.Namespace, age: float) -> bool:
    return (
        (wanted.status is None or line.status in wanted.status)
        and (wanted.name is None or fnmatchcase(line.name, wanted.name))
        and (wanted.experiment is None or line.experiment == wanted.experiment)
        and (wanted.newer is None or age <= wanted.newer)
        and (wanted.older is None or age > wanted.older)
    )


def _age(line: _Line, now: datetime) -> float:
    """Seconds since the first start; infinite if unknown."""
    try:
        return (now - datetime.fromisoformat(line.created)).total_seconds()
    except ValueError:
        return float("inf")


def _levels(line: _Line) -> list[dict[str, Any]]:
    """The levels of the tickets that have a mean, or else those of the dense networks."""
    levels = [one for one in line.summary.get("levels", ()) if one["mean"] is not None]
    return [one for one in levels if one["level"]] or levels


def _best(line: _Line) -> dict[str, Any] | None:
    return min(_levels(line), key=lambda level: _rank(line, level), default=None)


def _last(line: _Line) -> dict[str, Any] | None:
    return _levels(line)[-1] if _levels(line) else None


def _rank(line: _Line, level: dict[str, Any] | None) -> float:
    """A number to minimise: a loss, or an accuracy with its sign changed."""
    if level is None:
        return float("inf")
    return -level["mean"] if _is_accuracy(line) else level["mean"]


def _is_accuracy(line: _Line) -> bool:
    return "accuracy" in (line.summary.get("metric") or "")


def _cells(line: _Line, now: datetime) -> list[str]:
    size = line.summary.get("bytes")
    best = _value(line, _best(line))
    last = ("–", "–") if line.cells else _value(line, _last(line))
    megabytes = "–" if size is None else shared.megabytes(size)
    age = _shown_age(_age(line, now))
    return [line.name, line.status, line.cells, age, *best, *last, megabytes]


def _value(line: _Line, level: dict[str, Any] | None) -> tuple[str, str]:
    if level is None:
        return "–", "–"
    mean = f"{100 * level['mean']:.1f} %" if _is_accuracy(line) else f"{level['mean']:.3f}"
    return mean, f"{100 * level['density']:.3g}"


def _shown_age(seconds: float) -> str:
    if seconds == float("inf"):
        return "–"
    unit = next((u for u in reversed(UNITS) if u != "w" and seconds >= UNITS[u]), "m")
    return f"{int(seconds // UNITS[unit])} {unit}"
