"""`lth ls`: all runs, with filters."""

import argparse
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from lth_jax.cli import arguments as shared

if TYPE_CHECKING:
    from lth_jax.store import RunInfo

UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
STATUSES = ("running", "finished", "failed", "interrupted", "damaged")
SORTS = ("age", "run", "status", "best", "last", "size")


def add_commands(commands: shared.Commands) -> None:
    """Adds `ls`."""
    ls = shared.add_command(
        commands,
        "ls",
        _ls,
        "list runs with their accuracy, size, age and status",
        "lth ls --status finished --sort best",
        "lth ls --name 'lenet*' --newer 2d",
        as_json=True,
    )
    ls.add_argument("--all", action="store_true", help="also the pilots of studies")
    ls.add_argument(
        "--status", type=_statuses, help=f"only these, separated by commas: {', '.join(STATUSES)}"
    )
    ls.add_argument("--name", metavar="PATTERN", help="only runs whose name matches, as 'lenet*'")
    ls.add_argument("--experiment", metavar="NAME", help="only runs of this experiment")
    for option, text in (("--newer", "younger"), ("--older", "older")):
        about = f"only runs that are {text}: 30m, 12h, 2d, 1w"
        ls.add_argument(option, type=_duration, metavar="AGE", help=about)
    ls.add_argument("--sort", choices=SORTS, default="age", help="order (default: oldest first)")
    ls.add_argument("--reverse", action="store_true", help="the other way round")


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
        raise argparse.ArgumentTypeError(f"'{text}' is no age; ages are such as 30m, 12h, 2d, 1w")
    return float(found[1]) * UNITS[found[2]]


def _ls(arguments: argparse.Namespace) -> None:
    from lth_jax.distributed.launch import jobs_of
    from lth_jax.store import list_runs

    now = datetime.now(UTC)
    runs = list_runs(shared.folder(arguments), pilots=arguments.all)
    runs = [info for info in runs if _is_chosen(info, arguments, now)]
    runs = _ordered(runs, arguments.sort, now)
    if arguments.reverse:
        runs.reverse()
    jobs = jobs_of(shared.folder(arguments))
    if arguments.json:
        listed = {"runs": [info._asdict() for info in runs]}
        shared.print_json(listed | {"jobs": [job._asdict() for job in jobs]})
        return
    if runs:
        header = ["run", "status", "age", "best", "kept %", "last", "kept %", "MB"]
        shared.print_rows(header, [_cells(info, now) for info in runs], left=2)
    if jobs:
        print()
        shared.print_rows(["job", "state", "log"], [[*job] for job in jobs], left=3)


def _is_chosen(info: "RunInfo", wanted: argparse.Namespace, now: datetime) -> bool:
    age = _age(info, now)
    return (
        (wanted.status is None or info.status in wanted.status)
        and (wanted.name is None or fnmatchcase(info.run, wanted.name))
        and (wanted.experiment is None or info.name == wanted.experiment)
        and (wanted.newer is None or age <= wanted.newer)
        and (wanted.older is None or age > wanted.older)
    )


def _ordered(runs: Sequence["RunInfo"], by: str, now: datetime) -> list["RunInfo"]:
    """The runs in order: oldest, best or largest first; runs without a value last."""
    keys: dict[str, Callable[[RunInfo], Any]] = {
        "run": lambda info: info.run,
        "status": lambda info: info.status,
        "age": lambda info: -_age(info, now),
        "best": lambda info: _rank(info, _best(info)),
        "last": lambda info: _rank(info, _last(info)),
        "size": lambda info: -(info.summary or {}).get("bytes", -1),
    }
    return sorted(runs, key=keys[by])


def _age(info: "RunInfo", now: datetime) -> float:
    """Seconds since the first start of a run; infinite if unknown."""
    try:
        return (now - datetime.fromisoformat(info.created)).total_seconds()
    except ValueError:
        return float("inf")


def _levels(info: "RunInfo") -> list[dict[str, Any]]:
    """The levels of the tickets that have a mean, or else those of the dense networks."""
    levels = [one for one in (info.summary or {}).get("levels", ()) if one["mean"] is not None]
    return [one for one in levels if one["level"]] or levels


def _best(info: "RunInfo") -> dict[str, Any] | None:
    return min(_levels(info), key=lambda level: _rank(info, level), default=None)


def _last(info: "RunInfo") -> dict[str, Any] | None:
    return _levels(info)[-1] if _levels(info) else None


def _rank(info: "RunInfo", level: dict[str, Any] | None) -> float:
    """A number to minimise: a loss, or an accuracy with its sign changed."""
    if level is None:
        return float("inf")
    return -level["mean"] if _is_accuracy(info) else level["mean"]


def _is_accuracy(info: "RunInfo") -> bool:
    return "accuracy" in ((info.summary or {}).get("metric") or "")


def _cells(info: "RunInfo", now: datetime) -> list[str]:
    size = (info.summary or {}).get("bytes")
    values = [cell for level in (_best(info), _last(info)) for cell in _value(info, level)]
    megabytes = "–" if size is None else shared.megabytes(size)
    return [info.run, info.status, _shown_age(_age(info, now)), *values, megabytes]


def _value(info: "RunInfo", level: dict[str, Any] | None) -> tuple[str, str]:
    if level is None:
        return "–", "–"
    mean = f"{100 * level['mean']:.1f} %" if _is_accuracy(info) else f"{level['mean']:.3f}"
    return mean, f"{100 * level['density']:.3g}"


def _shown_age(seconds: float) -> str:
    if seconds == float("inf"):
        return "–"
    unit = next((u for u in reversed(UNITS) if u != "w" and seconds >= UNITS[u]), "m")
    return f"{int(seconds // UNITS[unit])} {unit}"
