"""Readers of the files of a run's folder; each verifies the file's hash.

The folder's name ends with a hash of configuration and identity, so that the two need no other
seal. All other files are records: they carry their own SHA-256 and the name of the folder, and so
does each line of the log.
"""

import re
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from lth_jax.store import files, records
from lth_jax.store.errors import CorruptError
from lth_jax.store.hashing import content_key, plain

CONFIG = "config.json"
"""The configuration, as it was given."""
IDENTITY = "identity.json"
"""What determines a run's result besides its configuration."""
STATUS = "status.json"
"""Whether the run is finished, and which nodes it had then."""
ENV = "env.json"
"""What a run was made with: versions and device (one entry per change), plan and its changes."""
MANIFEST = "manifest.json"
"""The run's nodes, and a second copy of its plan."""

METRICS = "metrics.jsonl"
"""The log of a run's training."""

STATUSES = ("running", "finished", "failed", "interrupted")


class Entry(TypedDict):
    """A line of a manifest: a node, and labels whose meaning is the caller's."""

    key: str


class Plans(TypedDict):
    """How the work is divided: the first plan, and the changes that were forced on it."""

    plan: dict[str, Any] | None
    replans: list[dict[str, Any]]


class Manifest(Plans):
    """`manifest.json`.

    `earlier` holds the keys of nodes that a restarted run may list again; `emptied` states that the
    list of nodes was lost.
    """

    config_hash: str
    nodes: list[dict[str, Any]]
    earlier: NotRequired[list[str]]
    emptied: NotRequired[bool]


class Env(Plans):
    """`env.json`."""

    environments: list[Any]


class Status(TypedDict):
    """`status.json`.

    A finished run has `nodes`, the SHA-256 of its entries, and `summary`, the numbers of `lth ls`.
    """

    name: str
    config_hash: str
    status: str
    created: str
    updated: NotRequired[str]
    error: NotRequired[str | None]
    nodes: NotRequired[str]
    summary: NotRequired[dict[str, Any] | None]
    pilot: NotRequired[bool]


def check_folder_name(name: str) -> None:
    """Raises `ValueError` unless runs and sweeps may have this name.

    >>> check_folder_name("mnist1d.ladder-2")
    """
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise ValueError(
            f"`name` must be letters, digits, '.', '_' or '-', not begin with '.' or '-', "
            f"got {name!r}."
        )


def run_folder(name: str, config: Any, identity: Any = None) -> str:
    """The name of a run's folder: `<name>-<8 digits of a hash>`.

    The hash is that of the configuration, and of the identity where there is one.

    Args:
      name: the run's name; see `check_folder_name`.
      config: the configuration, in JSON types (see `canonical`).
      identity: further facts that determine the result, in JSON types; None for none.

    Returns:
      The name, without the folder of all runs.

    Raises:
      TypeError: a value has no exact JSON form, or a key is not a string.
      ValueError: a float is NaN or infinite.

    >>> run_folder("demo", {"rate": 0.1})
    'demo-1b8466c9'
    """
    whole = config if identity is None else {"config": config, "identity": identity}
    return f"{name}-{content_key(whole)[:8]}"


def read_config(path: str | Path) -> Any:
    """The configuration of a run, compared with the hash in the folder's name.

    Args:
      path: the run's folder, as for all readers here.

    Raises:
      CorruptError: the configuration or the identity is missing, or does not match the hash in the
        folder's name. As for all readers here, the message is one sentence that names the file.
    """
    path = Path(path).absolute()
    config, identity = files.read_json(path / CONFIG), read_identity(path)
    ending = run_folder("", config, identity)
    if path.name.endswith(ending):
        return config
    if identity is None and _status_hash(path) == content_key(config):
        raise CorruptError(f"{path / IDENTITY} is missing; {records.MADE_AGAIN}.")
    raise records.damaged(path / CONFIG, f"the hash in '{path.name}' is of another content")


def _status_hash(path: Path) -> str | None:
    try:
        return read_status(path)["config_hash"]
    except CorruptError:
        return None


def read_identity(path: str | Path) -> dict[str, Any] | None:
    """What determines a run's result besides its configuration; None if nothing was recorded.

    Args:
      path: the run's folder.

    Returns:
      The content of `identity.json`, as it was given to `open_run`; None without that file.

    Raises:
      CorruptError: the file is not JSON, was changed after it was written, or belongs to another
        run.
      StoreError: the file cannot be read, for instance without permission.

    >>> import tempfile
    >>> from lth_jax.store import open_run
    >>> identity = {"data": "0a4f"}
    >>> with open_run(tempfile.mkdtemp(), name="demo", config={}, env={}, identity=identity) as run:
    ...     read_identity(run.path)
    {'data': '0a4f'}
    """
    path = Path(path).absolute()
    if not (path / IDENTITY).exists():
        return None
    return records.read(path / IDENTITY, path.name, dict)


def read_status(path: str | Path) -> Status:
    """The status, name and start of a run.

    Args:
      path: the run's folder.

    Returns:
      The content of `status.json`. `status` is one of `running`, `finished`, `failed` and
      `interrupted`; `created` and `updated` are ISO 8601 in UTC. A killed run keeps the status
      `running`.

    Raises:
      CorruptError: the file is missing, is not JSON, was changed after it was written, belongs to
        another run, or has another shape or an unknown status.
      StoreError: the file cannot be read, for instance without permission.

    >>> import tempfile
    >>> from lth_jax.store import open_run
    >>> with open_run(tempfile.mkdtemp(), name="demo", config={}, env={}) as run:
    ...     run.finish()
    >>> found = read_status(run.path)
    >>> found["name"], found["status"]
    ('demo', 'finished')
    """
    path = Path(path).absolute()
    found = records.read(path / STATUS, path.name, Status)
    if found["status"] not in STATUSES:
        raise records.damaged(path / STATUS, f"'{found['status']}' is not a status")
    return found


def read_env(path: str | Path) -> Env:
    """What a run was made with.

    Args:
      path: the run's folder.

    Returns:
      The content of `env.json`: `environments`, one entry per change and the latest last; `plan`,
      None before there is one; and `replans`, the forced changes of the plan.

    Raises:
      CorruptError: the file is missing, is not JSON, was changed after it was written, belongs to
        another run, or has another shape.
      StoreError: the file cannot be read, for instance without permission.

    >>> import tempfile
    >>> from lth_jax.store import open_run
    >>> with open_run(tempfile.mkdtemp(), name="demo", config={}, env={"jax": "0.10.2"}) as run:
    ...     read_env(run.path)
    {'environments': [{'jax': '0.10.2'}], 'plan': None, 'replans': []}
    """
    path = Path(path).absolute()
    return records.read(path / ENV, path.name, Env)


def read_manifest(path: str | Path) -> Manifest:
    """The nodes of a run.

    Args:
      path: the run's folder.

    Returns:
      The content of `manifest.json`: `nodes`, the entries `{"key": …, **labels}` in the order in
      which they were added; `config_hash`; and `plan` and `replans`, as in `read_env`.

    Raises:
      CorruptError: the file is missing, is not JSON, was changed after it was written, belongs to
        another run, or has another shape, such as a node without a key.
      StoreError: the file cannot be read, for instance without permission.

    >>> import tempfile
    >>> from lth_jax.store import open_run
    >>> with open_run(tempfile.mkdtemp(), name="demo", config={}, env={}) as run:
    ...     run.add("0a4f", level=1)
    ...     read_manifest(run.path)["nodes"]
    [{'key': '0a4f', 'level': 1}]
    """
    path = Path(path).absolute()
    found = records.read(path / MANIFEST, path.name, Manifest)
    records.check(found["nodes"], list[Entry], path / MANIFEST)
    return found


def write_record(path: Path, name: str, value: Any) -> None:
    """Writes any of the files above except the configuration."""
    records.write(path / name, path.absolute().name, value)


def write_config(path: Path, config: Any) -> None:
    """Writes the configuration as it was given, for people and their tools."""
    files.write_json(path / CONFIG, plain(config, name="configuration"))
