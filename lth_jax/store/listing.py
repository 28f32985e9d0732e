"""Lists and finds runs by their status files."""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lth_jax import text
from lth_jax.legal import most_like
from lth_jax.store import locks
from lth_jax.store.errors import StoreError
from lth_jax.store.run_files import CONFIG, MANIFEST, STATUS, read_status

SHOWN = 10
"""Names that an error lists."""


@text.with_short_repr
class RunInfo(NamedTuple):
    """One line of a list of runs.

    Attributes:
      run: the folder's name, `<name>-<hash8>`.
      name: the name given by the user.
      status: `running`, `finished`, `failed`, `interrupted`, or `damaged` if it cannot be read.
      config_hash: SHA-256 of the configuration.
      created: when it first started, ISO 8601 in UTC.
      path: the folder.
      summary: the numbers that `Run.finish` recorded; None if the run is not finished.
    """

    run: str
    name: str
    status: str
    config_hash: str
    created: str
    path: str
    summary: dict[str, Any] | None = None


def list_runs(root: str | Path, *, pilots: bool = True) -> list[RunInfo]:
    """All runs below `root`, oldest first; a run with damaged files is listed as `damaged`.

    A run with the status `running` that no process holds was killed: it is listed as `interrupted`.

    Args:
      root: the folder of all runs.
      pilots: whether to list the pilot runs of studies as well.

    >>> import tempfile
    >>> from lth_jax.store import open_run
    >>> root = tempfile.mkdtemp()
    >>> with open_run(root, name="demo", config={}, env={}) as run:
    ...     print([info.status for info in list_runs(root)])
    ['running']
    >>> [info.status for info in list_runs(root)]
    ['interrupted']
    """
    found = map(_line, run_folders(Path(root)))
    chosen = [info for info, pilot in found if pilots or not pilot]
    return sorted(chosen, key=lambda info: (info.created, info.run))


def run_folders(root: Path) -> list[Path]:
    """The folders of all runs, in the order of their names."""
    return sorted(path for path in root.glob("*") if is_run(path))


def is_run(path: Path) -> bool:
    """Whether a folder is that of a run, even a damaged one."""
    names = () if path.name.startswith(".") else (CONFIG, STATUS, MANIFEST)
    return any((path / name).exists() for name in names)


def find_run(root: str | Path, text: str) -> RunInfo:
    """The run that `text` names: a path, a full name, or a unique beginning or end of a name.

    Args:
      root: the folder of all runs.
      text: the path of a run's folder, which need not lie in `root`; or a name, its beginning, its
        end, or the beginning of its hash. A path counts before a name.

    Returns:
      The run's line in `list_runs`; its status is `damaged` if its files cannot be read.

    Raises:
      StoreError: `text` is empty, or names no run, or more than one; the message lists names.

    >>> import tempfile
    >>> from lth_jax.store import open_run
    >>> root = tempfile.mkdtemp()
    >>> with open_run(root, name="demo", config={}, env={}) as run:
    ...     run.finish()
    >>> find_run(root, "de").run == run.path.name
    True
    """
    if text and is_run(Path(text)):
        return _line(Path(text))[0]
    runs = [path.name for path in run_folders(Path(root))]
    return _line(Path(root) / find_name(text, runs, "run", root))[0]


def find_name(text: str, names: Sequence[str], kind: str, root: str | Path) -> str:
    """The name that `text` abbreviates: itself, or the only one that begins or ends with it.

    An exact name counts before a beginning, and a beginning before an end. The beginning of the
    hash counts as an end, too.

    Args:
      text: a name, a beginning, an end, or the beginning of the hash at the end.
      names: the choices.
      kind: what they name, for the error.
      root: the folder that holds them.

    Raises:
      StoreError: there is none, or more than one; the message lists names.

    >>> names = ["demo-1b8466c9", "ladder-0a4f5e6d"]
    >>> find_name("de", names, "run", "runs"), find_name("0a4f", names, "run", "runs")
    ('demo-1b8466c9', 'ladder-0a4f5e6d')
    """
    if not text:
        raise StoreError(
            f"the name of a {kind} is empty; it must be a name, or its beginning or end."
        )
    kinds = f"{kind.replace(' or ', 's and ')}s"
    fits: tuple[Callable[[str], bool], ...] = (
        lambda name: name == text,
        lambda name: name.startswith(text),
        lambda name: name.endswith(text) or name.rpartition("-")[2].startswith(text),
    )
    for fit in fits:
        found = [name for name in names if fit(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise StoreError(f"'{text}' names several {kinds} in {root}: {_some(found)}.")
    if not names:
        raise StoreError(f"unknown {kind} '{text}': {root} holds no {kinds}.")
    starts = {name[: len(text)]: name for name in names}
    close = difflib.get_close_matches(text, starts, n=1)
    hint = f"; did you mean '{starts[close[0]]}'? The" if close else ": the"
    near = _some(most_like(text, names, SHOWN), len(names))
    raise StoreError(f"unknown {kind} '{text}'{hint} {kinds} in {root} are {near}.")


def _some(names: Sequence[str], total: int = 0) -> str:
    """The first names of a list, and how many more there are."""
    more = (total or len(names)) - SHOWN
    return ", ".join(names[:SHOWN]) + (f", and {more} more" if more > 0 else "")


def _line(path: Path) -> tuple[RunInfo, bool]:
    """A run's line, and whether it is a pilot."""
    try:
        facts = read_status(path)
        if not (path / CONFIG).exists():
            raise StoreError(f"{path / CONFIG} is missing.")
        status = facts["status"]
        if status == "running" and not locks.is_held(path / "lock"):
            status = "interrupted"
        who = (facts["name"], status, facts["config_hash"], facts["created"])
        line = RunInfo(path.name, *who, str(path), facts.get("summary"))
        return line, facts.get("pilot", False)
    except (StoreError, OSError):
        name = path.name.rpartition("-")[0]
        return RunInfo(path.name, name, "damaged", "", "", str(path)), False
