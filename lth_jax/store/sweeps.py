"""Sweeps: a folder that the workers of one sweep share; cells are runs."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from lth_jax.store import files, locks, records
from lth_jax.store.errors import CorruptError, StoreError
from lth_jax.store.hashing import content_key
from lth_jax.store.listing import RunInfo, find_name
from lth_jax.store.processes import ALONE, Team
from lth_jax.store.run_files import check_folder_name

LOG = logging.getLogger(__name__)

CONFIG = "config.json"
SWEEP = "sweep"
"""The entry of a run's environment that names the sweep which opened the run."""
REMOVED = "`lth verify --all --repair` removes it, and the next run makes another"


class SweepCell(TypedDict):
    """A cell: its settings, and the folder of its run."""

    setting: dict[str, Any]
    run: str


class SweepConfig(TypedDict):
    """`config.json` of a sweep of experiments."""

    cells: list[SweepCell]


class Sweep:
    """The shared records of the workers of a sweep; made by `open_sweep`.

    Attributes:
      path: the sweep's folder.
    """

    def __init__(self, path: Path, team: Team = ALONE):
        self.path, self._team = path, team

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """The record of this name, a JSON object.

        The first worker makes and records it; others wait for it and read. A worker of
        several processes makes it in all of them, and records what process 0 made.
        """
        path = self.path / f"{name}.json"
        with contextlib.ExitStack() as held:
            if self._team.on_leader(lambda: self._is_ours(path, held)):
                made = make()
                self._team.on_leader(lambda: records.write(path, records.owner(path), made))
        return self._team.on_leader(lambda: records.read(path, records.owner(path), dict, REMOVED))

    def _is_ours(self, path: Path, held: contextlib.ExitStack) -> bool:
        """Whether this process makes a record; if so, `held` has its lock."""
        if not path.exists():
            lock = self._lock(path.stem)
            held.enter_context(locks.hold(lock, what=f"{path.stem} of {self.path.name}"))
        return not path.exists()

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Appends a line to a file of records, atomically even if several workers write.

        Numbers that are not finite are written as null. Each line has its own SHA-256.
        """
        if self._team.first:
            records.append(self.path / f"{name}.jsonl", record)

    def records(self, name: str) -> list[dict[str, Any]]:
        """All records of `append`; `CorruptError` if one was changed."""
        return self._team.on_leader(lambda: read_records(self.path / f"{name}.jsonl"))

    @contextlib.contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Claims a part of the work for the length of a block, unless another worker has it."""
        with contextlib.ExitStack() as held:
            lock = locks.try_hold(self._lock(name))
            yield self._team.on_leader(lambda: held.enter_context(lock))

    def _lock(self, name: str) -> Path:
        return self.path / "locks" / f"{name}.lock"


def open_sweep(root: str | Path, *, name: str, config: Any, team: Team = ALONE) -> Sweep:
    """Opens the folder of a sweep, new or existing, in any number of workers.

    Args:
      root: the folder of all runs; the sweep is `sweeps/<name>-<first 8 digits of the hash>`.
      name: letters, digits, `.`, `_` and `-`.
      config: all that determines the sweep, in JSON types.
      team: the processes that are one worker; process 0 writes.

    Raises:
      StoreError: the folder holds another sweep, or cannot be written.
      ValueError: the name is malformed.

    >>> import tempfile
    >>> sweep = open_sweep(tempfile.mkdtemp(), name="demo", config={"rate": [0.1, 0.01]})
    >>> sweep.once("plan", lambda: {"chunk": 4}), sweep.once("plan", lambda: {"chunk": 8})
    ({'chunk': 4}, {'chunk': 4})
    """
    check_folder_name(name)
    found = Sweep(Path(root) / "sweeps" / f"{name}-{content_key(config)[:8]}", team)
    team.on_leader(lambda: _mend(found.path))
    if content_key(found.once("config", lambda: config)) != content_key(config):
        raise StoreError(f"{found.path / CONFIG} holds another sweep than the given one.")
    team.check_sees(found.path / CONFIG)
    return found


def find_sweep(root: str | Path, text: str) -> Path:
    """The folder of the sweep that `text` names: a path, a name, or a unique beginning or end.

    Raises:
      StoreError: there is none, or more than one; the message lists names.
    """
    if text and (Path(text) / CONFIG).exists():
        return Path(text)
    names = [path.name for path in sweep_folders(root)]
    return Path(root) / "sweeps" / find_name(text, names, "sweep", root)


def sweep_folders(root: str | Path) -> list[Path]:
    """The folders of all sweeps below a root, by name."""
    return sorted(path.parent for path in Path(root).glob(f"sweeps/*/{CONFIG}"))


def is_active(path: Path) -> bool:
    """Whether a process trains a part of the sweep in a folder now."""
    return any(locks.is_held(lock) for lock in path.glob("locks/*.lock"))


class SweepInfo(NamedTuple):
    """One line of a list of sweeps.

    Attributes:
      sweep: the folder's name, `<name>-<hash8>`.
      name: the name given by the user.
      status: `running`, `finished`, `interrupted`, or `damaged` if it cannot be read.
      created: when the first cell started, ISO 8601 in UTC; empty before that.
      path: the folder.
      cells: number of cells.
      finished: the runs of the finished cells.
    """

    sweep: str
    name: str
    status: str
    created: str
    path: str
    cells: int = 0
    finished: tuple[RunInfo, ...] = ()


def list_sweeps(root: str | Path, runs: Sequence[RunInfo]) -> list[SweepInfo]:
    """All sweeps below `root`, by name; omits a sweep if its runs exist but none is in `runs`.

    Args:
      root: the folder of all runs.
      runs: from `list_runs`; with `pilots=False`, sweeps of pilots are left out, too.
    """
    known = {info.run: info for info in runs}
    found = []
    for path in sweep_folders(root):
        cells, status = [], "damaged"
        with contextlib.suppress(StoreError, OSError):
            cells = [cell["run"] for cell in read_sweep_config(path)["cells"]]
            status = "running" if is_active(path) else "interrupted"
        begun = [known[run] for run in cells if run in known]
        if not begun and any((Path(root) / run).exists() for run in cells):
            continue
        done = tuple(info for info in begun if info.status == "finished")
        status = "finished" if cells and len(done) == len(cells) else status
        created = min((info.created for info in begun), default="")
        name = path.name.rpartition("-")[0]
        found.append(SweepInfo(path.name, name, status, created, str(path), len(cells), done))
    return found


def _mend(path: Path) -> None:
    """Removes the config of a sweep if it is damaged, so that it is written again."""
    try:
        read_sweep_config(path, dict)
    except CorruptError as error:
        if (path / CONFIG).exists():
            LOG.warning("%s", error)
            files.discard(path / CONFIG)


def read_sweep_config(path: str | Path, kind: Any = SweepConfig) -> Any:
    """What determines a sweep, compared with the hash in the folder's name.

    Args:
      path: the sweep's folder.
      kind: the required type of the config.

    Raises:
      CorruptError: it is missing, or is not what the folder is named after.
    """
    path = Path(path).absolute()
    config = records.read(path / CONFIG, records.owner(path / CONFIG), kind)
    if not path.name.endswith(f"-{content_key(config)[:8]}"):
        raise records.damaged(path / CONFIG, f"the hash in '{path.name}' is of another content")
    return config


def read_records(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of `Sweep.append`, each checked; a torn last line is left out."""
    return [records.read_line(line, path, REMOVED) for line in files.lines(path)]
