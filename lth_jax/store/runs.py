"""Runs: a folder per configuration with its list of nodes, plan and metrics."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from lth_jax.store import files, locks, records
from lth_jax.store.errors import CorruptError, LostProcessError, StoreError
from lth_jax.store.hashing import content_key, plain
from lth_jax.store.listing import is_run
from lth_jax.store.nodes import Store
from lth_jax.store.processes import ALONE, Team, lost_process_errors
from lth_jax.store.run_files import (
    CONFIG,
    ENV,
    IDENTITY,
    MANIFEST,
    METRICS,
    STATUS,
    Env,
    Manifest,
    Plans,
    check_folder_name,
    read_config,
    read_env,
    read_identity,
    read_manifest,
    read_status,
    run_folder,
    write_config,
    write_record,
)

LOG = logging.getLogger(__name__)

REMOVED = "`lth verify --all --repair` removes what is damaged"

T = TypeVar("T")


class Run:
    """A run that this process, or its team, holds; made by `open_run`.

    All processes of a team call the same methods; process 0 writes and sends results to the others.

    Attributes:
      path: the run's folder.
      config_hash: SHA-256 of the configuration.
    """

    def __init__(self, path: Path, config_hash: str, team: Team = ALONE):
        self.path = path
        self.config_hash = config_hash
        self._team = team

    @property
    def status(self) -> str:
        """`running`, `finished`, `failed` or `interrupted`."""
        return self._read(read_status)["status"]

    @property
    def environments(self) -> list[Any]:
        """What the run was made with, one entry per change, the latest last."""
        return self._env["environments"]

    @property
    def plan(self) -> Any:
        """The recorded plan, or None before there is one."""
        return self._env["plan"]

    def record_plan(self, plan: Any) -> Any:
        """Records how the work is divided, before step 1; a recorded plan is never overwritten.

        Returns:
          The recorded plan, in JSON types.

        Raises:
          StoreError: another plan is recorded already.
        """
        if self.plan is None:
            self._set_env(plan=plain(plan, name="plan"))
        if content_key(self.plan) != content_key(plan):
            raise StoreError(
                f"{self.path / ENV} holds another plan. The plan of a run cannot change; start a "
                "new run."
            )
        return self.plan

    @property
    def replans(self) -> list[Any]:
        """The changes of plan that were forced on the run, in order."""
        return self._env["replans"]

    def add_replan(self, change: Any) -> None:
        """Records a change of plan, such as a smaller chunk where memory ran out."""
        self._set_env(replans=[*self.replans, plain(change, name="change")])

    @property
    def _env(self) -> Env:
        return self._read(read_env)

    def _set_env(self, **changed: Any) -> None:
        def write() -> None:
            env = {**read_env(self.path), **changed}
            write_record(self.path, ENV, env)
            # The manifest has a copy of the plan, in case one of the two is damaged.
            copy = {name: env[name] for name in ("plan", "replans")}
            write_record(self.path, MANIFEST, {**read_manifest(self.path), **copy})

        self._team.on_leader(write)

    def _read(self, read: Callable[[Path], T]) -> T:
        return self._team.on_leader(lambda: read(self.path))

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """The manifest's entries `{"key": …, **labels}`, in the order they were added."""
        return self._read(read_manifest)["nodes"]

    def add(self, key: str, **labels: Any) -> None:
        """Adds a node to the manifest; adding a key again replaces its labels."""
        entry = {"key": key, **plain(labels, name="labels")}
        entries = {old["key"]: old for old in self.nodes} | {key: entry}
        self._list(list(entries.values()))

    def drop(self, **labels: Any) -> list[dict[str, Any]]:
        """Removes the nodes that have these labels from the manifest.

        Returns:
          Their entries.
        """
        nodes = self.nodes
        dropped = [entry for entry in nodes if labels.items() <= entry.items()]
        self._list([entry for entry in nodes if entry not in dropped])
        return dropped

    def restart(self) -> None:
        """Empties the manifest of a run that starts again; the run is no longer finished.

        Until it is finished again, the manifest keeps the keys of the nodes that it listed.
        """
        self._set_status("running")

        def emptied(found: Manifest) -> dict[str, Any]:
            keys = [*found.get("earlier", []), *(entry["key"] for entry in found["nodes"])]
            return {**found, "nodes": [], "earlier": list(dict.fromkeys(keys))}

        self._change_manifest(emptied)

    def _list(self, nodes: list[dict[str, Any]]) -> None:
        self._change_manifest(lambda found: {**found, "nodes": nodes})

    def _change_manifest(self, change: Callable[[Manifest], dict[str, Any]]) -> None:
        def write() -> None:
            write_record(self.path, MANIFEST, change(read_manifest(self.path)))

        self._team.on_leader(write)

    def log(self, record: dict[str, Any]) -> None:
        """Appends a record to `metrics.jsonl`; numbers that are not finite are written as null.

        Steps that are repeated after a kill or a change of plan are logged again; the last record
        of a member and a step is valid.
        """
        if self._team.first:
            records.append(self.path / METRICS, record)

    def metrics(self) -> list[dict[str, Any]]:
        """All logged records."""
        return read_metrics(self.path / METRICS)

    def finish(self, summary: Mapping[str, Any] | None = None) -> None:
        """Marks the run as finished with its present nodes, once they are on the disk.

        Args:
          summary: what a list of runs shows (`RunInfo.summary`), in JSON types.
        """
        passing = ("earlier", "emptied")
        self._change_manifest(lambda found: {k: v for k, v in found.items() if k not in passing})
        files.settle(self.path.parent)
        self._set_status("finished", nodes=content_key(self.nodes), summary=summary)

    def is_complete(self, store: Store) -> bool:
        """`is_complete` of the run's folder; all processes of the team call it together."""
        return self._team.on_leader(lambda: is_complete(store, self.path))

    def _set_status(self, status: str, error: str | None = None, **facts: Any) -> None:
        if not self._team.first:  # it must not wait for others here, which may have failed
            return
        ended = ("nodes", "summary")  # facts of a finished run
        before = {k: v for k, v in read_status(self.path).items() if k not in ended}
        after = {**before, "status": status, "updated": _now(), "error": error, **facts}
        write_record(self.path, STATUS, after)

    def _leave(self, status: str, error: str | None = None) -> None:
        """Sets the status of a run that is left, unless it is finished."""
        if self._team.first and read_status(self.path)["status"] != "finished":
            self._set_status(status, error)


def is_complete(
    store: Store, path: str | Path, *, problem: Callable[[str], str | None] | None = None
) -> bool:
    """Whether a run is finished, with every node that it lists intact.

    Damaged nodes are logged; opening and training the run computes them again. An unfinished run
    is not logged.

    Args:
      store: holds the nodes.
      path: the run's folder.
      problem: the check of a node, `key -> sentence or None`; `store.problem` by default.

    Returns:
      Whether status, configuration, environment, manifest and all nodes are intact, and the status
      is `finished`. False for a folder that does not exist.

    Raises:
      StoreError: a file of the run cannot be read, for instance without permission, or a node has
        another format.
      OSError: a file of a node cannot be read.
      ValueError: the manifest lists a key that is not a SHA-256 in hex.

    >>> import tempfile
    >>> store = Store(tempfile.mkdtemp())
    >>> with open_run(store.root, name="demo", config={}, env={}) as run:
    ...     before = is_complete(store, run.path)
    ...     run.finish()
    >>> before, is_complete(store, run.path)
    (False, True)
    """
    path, look = Path(path), problem or store.problem
    try:
        status = read_status(path)
        if status["status"] != "finished":
            return False
        read_config(path)
        read_env(path)
        nodes = read_manifest(path)["nodes"]
        if status.get("nodes") != content_key(nodes):
            raise CorruptError(f"{path / MANIFEST} lists other nodes than {path.name} ended with.")
    except CorruptError as error:
        if path.is_dir():
            LOG.warning("%s", error)
        return False
    found = [text for entry in nodes if (text := look(entry["key"]))]
    for text in found:
        LOG.warning("%s", text)
    return not found


@contextlib.contextmanager
def open_run(
    root: str | Path,
    *,
    name: str,
    config: Any,
    env: Any,
    identity: Any = None,
    wait: bool = False,
    team: Team = ALONE,
    pilot: bool = False,
) -> Iterator[Run]:
    """Opens the run of a configuration, new or existing, and locks it.

    Damaged files of the folder are logged and restored from the arguments or from each other, or
    emptied. A run whose manifest was lost is not complete; training it again reads its nodes from
    the store.

    If the block ends by `Interrupted` or `KeyboardInterrupt`, without `finish()`, or because a
    process of the team is lost, the run is marked `interrupted`; after another exception, `failed`.
    A finished run stays finished.

    Args:
      root: the folder of all runs.
      name: letters, digits, `.`, `_` and `-`; the folder is `run_folder(name, config, identity)`.
      config: what determines the result, in JSON types (see `canonical`).
      identity: further facts that determine it, in JSON types: fingerprints of the functions
        that the configuration names, so that a changed function is another run.
      env: versions and devices (see `environment`); kept in `env.json` with the plan, one entry per
        change.
      wait: whether to wait while another process holds the run.
      team: the processes that hold it together.
      pilot: whether it is a pilot run, which `lth ls` leaves out. A run that was ever opened
        without this flag is not a pilot run.

    Raises:
      StoreError: another process holds the run and `wait` is false; the folder cannot be written,
        or holds another configuration.
      ValueError, TypeError: the name or the configuration is malformed.

    >>> import tempfile
    >>> with open_run(tempfile.mkdtemp(), name="demo", config={"rate": 0.1}, env={}) as run:
    ...     run.log({"step": 1, "loss": 0.5})
    ...     run.finish()
    ...     print(run.path.name, run.status, run.metrics())
    demo-1b8466c9 finished [{'step': 1, 'loss': 0.5}]
    """
    check_folder_name(name)
    config_hash = content_key(config)
    path = Path(root) / run_folder(name, config, identity)
    with contextlib.ExitStack() as held:

        def begin() -> None:
            lock = locks.hold(path / "lock", what=f"Run {path.name}", wait=wait)
            held.enter_context(lock)
            _prepare(path, name, config, identity, env, pilot)

        team.on_leader(begin)
        team.check_sees(path / "config.json")
        run = Run(path, config_hash, team)
        run._leave("running")
        try:
            with lost_process_errors(team):
                yield run
        except LostProcessError:
            if not team.first:
                _mark_if_abandoned(run)
            raise
        except Exception as error:
            _mark(run, "failed", f"{type(error).__name__}: {error}")
            raise
        finally:
            if team.first and read_status(path)["status"] == "running":
                _mark(run, "interrupted")


def _mark(run: Run, status: str, error: str | None = None) -> None:
    """Sets the status at the end of a block; an error of writing it is ignored.

    A run whose status stays `running` is listed as interrupted, since no process holds its lock.
    """
    with contextlib.suppress(StoreError):
        run._leave(status, error)


def _mark_if_abandoned(run: Run) -> None:
    """Marks a run as interrupted if process 0, which usually does so, released its lock."""
    what = f"Run {run.path.name}"
    with contextlib.suppress(StoreError), locks.hold(run.path / "lock", what=what, wait=False):
        Run(run.path, run.config_hash)._leave("interrupted")


def repair_run(store: Store, path: str | Path) -> None:
    """Restores files of a run from its other files, as far as possible.

    Status and plan can be restored. A manifest cannot: it is emptied, and the next run of the same
    command finds the nodes in the store. A run that is not complete is no longer finished.

    Args:
      store: holds the nodes.
      path: the run's folder.

    Raises:
      StoreError: the run is running, or no file holds the hash of its configuration.
    """
    path = Path(path)
    with locks.hold(path / "lock", what=f"Run {path.name}", wait=False):
        readers = (read_status, read_manifest)
        hashes = [found["config_hash"] for read in readers if (found := _intact(read, path))]
        if not hashes:
            hashes.append(content_key(read_config(path)))
        status = _intact(read_status, path)
        pilot = status is not None and status.get("pilot", False)
        _prepare_plan(path, hashes[0], None, is_new=False)
        _prepare_status(path, path.name.rpartition("-")[0], hashes[0], pilot)
        run = Run(path, hashes[0])
        if run.status == "running" or (run.status == "finished" and not is_complete(store, path)):
            run._set_status("interrupted")


def _prepare(path: Path, name: str, config: Any, identity: Any, env: Any, pilot: bool) -> None:
    """Writes what is missing or damaged in a run's folder."""
    is_new = not is_run(path)
    for lost in () if is_new else (CONFIG, STATUS, ENV, MANIFEST):
        if not (path / lost).exists():
            LOG.warning("%s is missing; it is made again.", path / lost)
    found = _intact(read_identity, path)
    if identity is not None and found is None:
        write_record(path, IDENTITY, found := identity)
    if (path / CONFIG).exists() and (kept := _intact(read_config, path)) is not None:
        # Both have the 8-digit hash of the folder's name, so a collision is possible.
        if content_key([kept, found]) != content_key([config, identity]):
            raise StoreError(f"{path} holds another configuration than the given one.")
    else:
        write_config(path, config)
    _prepare_plan(path, content_key(config), plain(env, name="env"), is_new=is_new)
    _prepare_status(path, name, content_key(config), pilot)
    _mend(path / METRICS)


def _prepare_plan(path: Path, config_hash: str, env: Any, *, is_new: bool) -> None:
    """Both copies of the plan; a damaged one is restored from the other.

    A lost list of nodes is empty and marked until the run is finished, so that its nodes are kept.
    """
    kept, listed = _intact(read_env, path), _intact(read_manifest, path)
    copies: list[Plans] = [part for part in (kept, listed) if part is not None]
    recorded = {
        "plan": next((part["plan"] for part in copies if part["plan"] is not None), None),
        "replans": max([part["replans"] for part in copies], key=len, default=[]),
    }
    environments = kept["environments"] if kept else []
    if env is not None and environments[-1:] != [env]:
        environments = [*environments, env]
    after: Any = {"environments": environments, **recorded}
    nodes: Any = listed or {"nodes": [], **({} if is_new else {"emptied": True})}
    manifest: Any = {**nodes, "config_hash": config_hash, **recorded}
    if after != kept:
        write_record(path, ENV, after)
    if manifest != listed:
        write_record(path, MANIFEST, manifest)


def _prepare_status(path: Path, name: str, config_hash: str, pilot: bool) -> None:
    before = _intact(read_status, path)
    fresh: Any = {"name": name, "config_hash": config_hash, "status": "running", "created": _now()}
    was_pilot = before.get("pilot", False) if before else True
    after = {**(before or fresh), "pilot": pilot and was_pilot}
    if after != before:
        write_record(path, STATUS, after)


def _intact(read: Callable[[Path], T], path: Path) -> T | None:
    """The result of a reader; None if the file is missing or, with a log message, damaged."""
    try:
        return read(path)
    except CorruptError as error:
        if not str(error).endswith("is missing."):
            LOG.warning("%s", error)
        return None


def _mend(path: Path) -> None:
    """Removes an incomplete last line, so that the next record starts a new line."""
    if path.exists() and not (data := path.read_bytes()).endswith(b"\n"):
        with files.explained(path), path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    r"""The records of a `metrics.jsonl`; a torn last line is left out, no file is an empty list.

    Raises:
      CorruptError: a line was changed after it was written, or is of another run.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
    >>> _ = path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    >>> read_metrics(path)
    [{'step': 1}, {'step': 2}]
    """
    path = Path(path)
    return [read_record(line, path) for line in files.lines(path)]


def read_record(line: bytes, path: Path) -> dict[str, Any]:
    """A record of a `metrics.jsonl`; raises `CorruptError` as `read_metrics` does."""
    return records.read_line(line, path, REMOVED, needs_seal=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
