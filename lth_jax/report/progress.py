"""Progress of a run or a sweep in training, read from its folder."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from lth_jax.store import files, locks
from lth_jax.store.errors import CorruptError, StoreError
from lth_jax.store.listing import find_run, list_runs
from lth_jax.store.run_files import METRICS, read_status
from lth_jax.store.runs import read_record
from lth_jax.store.sweeps import is_active, read_records, read_sweep_config

BLOCK = 1 << 16
TRAINING, WAITING, FINISHED, RUNNING = "training", "waiting", "finished", "running"


class Work(NamedTuple):
    """A run, or a group of cells of a sweep.

    Attributes:
      name: name of the run or group.
      status: status of the run, or `training`, `waiting` or `finished` for a group.
      level: the level in training; None before the first segment.
      levels: the last level.
      done: member-steps done.
      work: member-steps in all; None before the first segment.
      speed: member-steps per second; None before the first segment.
    """

    name: str
    status: str
    level: int | None = None
    levels: int | None = None
    done: int = 0
    work: int | None = None
    speed: float | None = None


class Standing(NamedTuple):
    """Progress of a run or a sweep.

    Attributes:
      name: name of the run or sweep.
      parts: the run itself, or the groups of the sweep that have work left.
      cells: number of cells of the sweep; None for a run.
      finished: number of finished cells.
      is_active: whether a process is training.
      is_done: whether nothing is left.
    """

    name: str
    parts: list[Work]
    cells: int | None
    finished: int
    is_active: bool
    is_done: bool

    @property
    def seconds_left(self) -> float | None:
        """Remaining seconds at the present speed; None if unknown."""
        left = [part.work - part.done if part.work is not None else None for part in self.parts]
        speed = sum(part.speed or 0.0 for part in self.parts if part.status in (TRAINING, RUNNING))
        if not speed or None in left:
            return None
        return sum(one for one in left if one is not None) / speed


def standing(path: str | Path, finished: set[str] | None = None) -> Standing:
    """Progress of the run or sweep in a folder.

    Args:
      path: the folder.
      finished: cells of the sweep that were finished before, which are not read again; those that
        are finished now are added.

    Raises:
      StoreError: the folder is neither; CorruptError: a file of it is damaged.
    """
    path = Path(path)
    if path.absolute().parent.name != "sweeps":
        return _run(path)
    return _sweep(path, set() if finished is None else finished)


def _run(path: Path) -> Standing:
    status = find_run(path.parent, str(path)).status
    work = _work(path.name, status, last_record(path / METRICS) or {})
    is_active = status == RUNNING
    return Standing(path.name, [work], None, 0, is_active, status == FINISHED)


def _sweep(path: Path, finished: set[str]) -> Standing:
    root, cells = path.absolute().parents[1], read_sweep_config(path)["cells"]
    left = {cell["run"] for cell in cells} - finished
    finished |= {run for run in left if _is_finished(root / run)}
    left -= finished
    parts = _groups(path, left)
    done = len(cells) - len(left)
    return Standing(path.name, parts, len(cells), done, is_active(path), not left)


def _groups(path: Path, left: set[str]) -> list[Work]:
    """The groups that train cells in `left`; of two that train the same cell, the later one."""
    groups: dict[str, dict[str, Any]] = {}
    owners: dict[str, str] = {}
    for line in read_records(path / "groups.jsonl"):
        groups[line["group"]] = line
        owners |= dict.fromkeys(line["runs"], line["group"])
    found = []
    for name in dict.fromkeys(owners[run] for run in owners if run in left):
        is_held = locks.is_held(path / "locks" / f"{name}.lock")
        line = last_record(path / f"metrics-{name}.jsonl") or {}
        planned = {"work": groups[name]["work"], "done": 0}
        found.append(_work(name, TRAINING if is_held else WAITING, planned | line))
    return found


def _work(name: str, status: str, line: dict[str, Any]) -> Work:
    wanted = ("level", "levels", "done", "work", "speed")
    found = Work(name, status, **{key: line[key] for key in wanted if key in line})
    return found._replace(done=found.work) if status == FINISHED and found.work else found


def _is_finished(path: Path) -> bool:
    if not path.is_dir():
        return False
    try:
        return read_status(path)["status"] == FINISHED
    except CorruptError:
        return False


def last_record(path: Path) -> dict[str, Any] | None:
    r"""The last complete line of a file of JSON lines; None without one.

    Reads the end of the file only.

    Raises:
      CorruptError: the line is damaged.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
    >>> _ = path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    >>> last_record(path)
    {'step': 2}
    """
    if not path.exists():
        return None
    with files.explained(path), path.open("rb") as file:
        end, size = file.seek(0, os.SEEK_END), BLOCK
        while True:
            file.seek(max(0, end - size))
            lines = file.read().split(b"\n")[:-1]
            if len(lines) > 1 or size >= end:
                break
            size *= 2
    return read_record(lines[-1], path) if lines else None


def in_progress(root: Path) -> list[Path]:
    """The folders of the sweeps and runs below a root that a process is training now.

    Raises:
      StoreError: there is none.
    """
    sweeps = [path for path in sorted(root.glob("sweeps/*")) if is_active(path)]
    runs = [Path(info.path) for info in list_runs(root) if info.status == RUNNING]
    if not sweeps and not runs:
        raise StoreError(f"no run or sweep in {root} is training; pass the name of one to show it.")
    return [*sweeps, *runs]
