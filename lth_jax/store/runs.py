"""Runs: a folder per configuration that lists its nodes, its plan and its metrics as it goes."""

import contextlib
import difflib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from lth_jax.store import files, locks
from lth_jax.store.errors import CorruptError, LostProcessError, StoreError
from lth_jax.store.hashing import content_key, plain
from lth_jax.store.processes import ALONE, Team, in_company

ENV = "env.json"
"""What a run was made with: versions and device (one entry per change), plan and its changes."""
IDENTITY = "identity.json"
"""What decides a run's result besides its configuration."""


class RunInfo(NamedTuple):
    """One line of a list of runs.

    Attributes:
      run: the folder's name, `<name>-<hash8>`.
      name: the name given by the user.
      status: `running`, `finished`, `failed`, `interrupted`, or `damaged` if it cannot be read.
      config_hash: SHA-256 of the configuration.
      created: when it first started, ISO 8601 in UTC.
      path: the folder.
    """

    run: str
    name: str
    status: str
    config_hash: str
    created: str
    path: str


class Run:
    """A run that this process, or its team, holds; made by `open_run`.

    Of a team all processes call the same methods; process 0 writes and tells the others.

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
        return self._read("status.json")["status"]

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
          The recorded plan: this one, as JSON holds it.

        Raises:
          StoreError: another plan is recorded already.
        """
        if self.plan is None:
            self._set_env(plan=plain(plan, name="plan"))
        if content_key(self.plan) != content_key(plan):
            raise StoreError(f"{self.path / ENV} holds another plan; a run keeps its first.")
        return self.plan

    @property
    def replans(self) -> list[Any]:
        """The changes of plan that were forced on the run, in order."""
        return self._env["replans"]

    def add_replan(self, change: Any) -> None:
        """Records a change of plan, such as a smaller chunk where memory ran out."""
        self._set_env(replans=[*self.replans, plain(change, name="change")])

    @property
    def _env(self) -> dict[str, Any]:
        return self._read(ENV)

    def _set_env(self, **changed: Any) -> None:
        after = self._env | changed
        self._team.from_first(lambda: files.write_json(self.path / ENV, after))

    def _read(self, name: str) -> Any:
        return self._team.from_first(lambda: files.read_json(self.path / name))

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """The manifest's entries `{"key": …, **labels}`, in the order they were added."""
        return self._read("manifest.json")["nodes"]

    def add(self, key: str, **labels: Any) -> None:
        """Adds a node to the manifest; adding a key again replaces its labels."""
        entry = {"key": key, **plain(labels, name="labels")}
        entries = {old["key"]: old for old in self.nodes} | {key: entry}
        self._list(list(entries.values()))

    def drop(self, level: int) -> list[dict[str, Any]]:
        """Removes the nodes of a level from the manifest, before the level is listed again.

        Returns:
          Their entries.
        """
        nodes = self.nodes
        self._list([entry for entry in nodes if entry.get("level") != level])
        return [entry for entry in nodes if entry.get("level") == level]

    def clear(self) -> None:
        """Empties the manifest, before all of it is listed again."""
        self._list([])

    def _list(self, nodes: list[dict[str, Any]]) -> None:
        self._team.from_first(lambda: _write_manifest(self.path, self.config_hash, nodes))

    def log(self, record: dict[str, Any]) -> None:
        """Appends a record to `metrics.jsonl`; numbers that are not finite are written as null.

        What is computed again after a kill or a change of plan is logged again: the last record of
        a member and a step counts.
        """
        if not self._team.first:
            return
        line = json.dumps(plain(record, name="record", nan_as_null=True))
        path = self.path / "metrics.jsonl"
        with files.explained(path), path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All logged records."""
        return read_metrics(self.path / "metrics.jsonl")

    def finish(self) -> None:
        """Marks the run as finished."""
        self._set_unless_finished("finished")

    def _set_unless_finished(self, status: str, error: str | None = None) -> None:
        if not self._team.first:  # it must not wait for others here, which may have failed
            return
        before = files.read_json(self.path / "status.json")
        if before["status"] != "finished":
            after = {**before, "status": status, "updated": _now(), "error": error}
            files.write_json(self.path / "status.json", after)


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
) -> Iterator[Run]:
    """Opens the run of a configuration, new or begun before, and holds it.

    Left by `Interrupted` or `KeyboardInterrupt`, or without `finish()`, or since a process of the
    team is lost, the run is marked `interrupted`; left by another exception, `failed`. A finished
    run stays finished.

    Args:
      root: the folder of all runs.
      name: letters, digits, `.`, `_` and `-`; the folder is `run_folder(name, config, identity)`.
      config: what determines the result, as JSON's types (see `canonical`).
      identity: what else determines it, as JSON's types: fingerprints of what the configuration
        names, so that a function that is changed under its name is another run.
      env: what it runs with (see `environment`); kept in `env.json`, one entry per change, beside
        the plan.
      wait: whether to wait while another process holds the run.
      team: the processes that hold it together.

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
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise ValueError(
            f"`name` must be letters, digits, '.', '_' or '-', not begin with '.' or '-', "
            f"got {name!r}."
        )
    config_hash = content_key(config)
    path = Path(root) / run_folder(name, config, identity)
    with contextlib.ExitStack() as held:

        def begin() -> None:
            lock = locks.hold(path / "lock", what=f"Run {path.name}", wait=wait)
            held.enter_context(lock)
            _prepare(path, name, config, identity, env)

        team.from_first(begin)
        team.check_sees(path / "config.json")
        run = Run(path, config_hash, team)
        run._set_unless_finished("running")
        try:
            with in_company(team):
                yield run
        except LostProcessError:
            if not team.first:
                _mark_if_abandoned(run)
            raise
        except Exception as error:
            run._set_unless_finished("failed", f"{type(error).__name__}: {error}")
            raise
        finally:
            if team.first and Run(path, config_hash).status == "running":
                run._set_unless_finished("interrupted")


def _mark_if_abandoned(run: Run) -> None:
    """Marks a run as interrupted if process 0, which does so otherwise, has left its lock."""
    what = f"Run {run.path.name}"
    with contextlib.suppress(StoreError), locks.hold(run.path / "lock", what=what, wait=False):
        Run(run.path, run.config_hash)._set_unless_finished("interrupted")


def run_folder(name: str, config: Any, identity: Any = None) -> str:
    """The name of a run's folder: `<name>-<8 digits of a hash>`.

    The hash is that of the configuration, and of the identity where there is one.

    >>> run_folder("demo", {"rate": 0.1})
    'demo-1b8466c9'
    """
    whole = config if identity is None else {"config": config, "identity": identity}
    return f"{name}-{content_key(whole)[:8]}"


def _prepare(path: Path, name: str, config: Any, identity: Any, env: Any) -> None:
    config_hash = content_key(config)
    _write_or_compare(path / "config.json", config, "configuration")
    if identity is not None:
        _write_or_compare(path / IDENTITY, identity, "identity")
    if not (path / "manifest.json").exists():
        _write_manifest(path, config_hash, [])
    if not (path / "status.json").exists():
        files.write_json(
            path / "status.json",
            {"name": name, "config_hash": config_hash, "status": "running", "created": _now()},
        )
    if not (path / ENV).exists():
        files.write_json(path / ENV, {"environments": [], "plan": None, "replans": []})
    run, env = Run(path, config_hash), plain(env, name="env")
    if run.environments[-1:] != [env]:
        run._set_env(environments=[*run.environments, env])
    _mend(path / "metrics.jsonl")


def _write_or_compare(path: Path, value: Any, what: str) -> None:
    if not path.exists():
        files.write_json(path, plain(value, name=what))
    if content_key(files.read_json(path)) != content_key(value):
        raise StoreError(
            f"{path} holds another {what} than the one asked for; restore it, or remove the "
            "folder to start anew."
        )


def _write_manifest(path: Path, config_hash: str, nodes: list[dict[str, Any]]) -> None:
    files.write_json(path / "manifest.json", {"config_hash": config_hash, "nodes": nodes})


def _mend(path: Path) -> None:
    """Cuts the last line off if a kill tore it, so that the next record gets its own line."""
    if path.exists() and not (data := path.read_bytes()).endswith(b"\n"):
        with files.explained(path), path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    r"""The records of a `metrics.jsonl`; a torn last line is left out, no file is an empty list.

    Raises:
      CorruptError: a line before the last cannot be read.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
    >>> _ = path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    >>> read_metrics(path)
    [{'step': 1}, {'step': 2}]
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise CorruptError(f"{path} is damaged: {error}.") from error


def list_runs(root: str | Path) -> list[RunInfo]:
    """All runs below `root`, oldest first.

    A run that says it is running but is held by no process was killed: it is `interrupted`.

    >>> import tempfile
    >>> root = tempfile.mkdtemp()
    >>> with open_run(root, name="demo", config={}, env={}) as run:
    ...     print([info.status for info in list_runs(root)])
    ['running']
    >>> [info.status for info in list_runs(root)]
    ['interrupted']
    """
    folders = [path.parent for path in Path(root).glob("*/config.json")]
    return sorted(map(_info, folders), key=lambda info: (info.created, info.run))


def find_run(root: str | Path, text: str) -> RunInfo:
    """The run that `text` names: a path, a full name, or the beginning of exactly one name.

    Raises:
      StoreError: there is none, or more than one; the message lists the nearest names.

    >>> import tempfile
    >>> root = tempfile.mkdtemp()
    >>> with open_run(root, name="demo", config={}, env={}) as run:
    ...     run.finish()
    >>> find_run(root, "de").run == run.path.name
    True
    """
    if (Path(text) / "config.json").exists():
        return _info(Path(text))
    infos = {info.run: info for info in list_runs(root)}
    found = [run for run in infos if run == text] or [run for run in infos if run.startswith(text)]
    if len(found) == 1:
        return infos[found[0]]
    near = found or difflib.get_close_matches(text, infos, n=3, cutoff=0.3) or list(infos)[-3:]
    problem = "more than one run begins" if found else "no run is named or begins"
    raise StoreError(
        f"In {root} {problem} with '{text}'"
        + (f"; there are: {', '.join(near)}." if near else "; there are no runs.")
    )


def _info(path: Path) -> RunInfo:
    try:
        facts = files.read_json(path / "status.json")
        status = facts["status"]
        if status == "running" and not locks.is_held(path / "lock"):
            status = "interrupted"
        return RunInfo(
            path.name, facts["name"], status, facts["config_hash"], facts["created"], str(path)
        )
    except (CorruptError, KeyError):
        return RunInfo(path.name, path.name.rpartition("-")[0], "damaged", "", "", str(path))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
