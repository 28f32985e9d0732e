"""Analyses of a finished run: nodes that are listed in its folder."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

from lth_jax.store import locks, records
from lth_jax.store.errors import CorruptError
from lth_jax.store.hashing import plain
from lth_jax.store.nodes import Store

LOG = logging.getLogger(__name__)

FILE = "analyses.json"
COPIES = (FILE, "analyses.copy.json")
"""Two copies of the list: it cannot be derived from other files, so each restores the other."""
LOCK = "analyses.lock"
"""The lock file that is held while the copies are written."""


class Labels(TypedDict):
    """What distinguishes a node from the others: its kind, and labels that depend on it."""

    kind: str


class Analysis(TypedDict):
    """A line of the list."""

    key: str
    labels: Labels


class Listed(TypedDict):
    """`analyses.json`."""

    nodes: list[Any]


def add_analysis(path: str | Path, key: str, labels: dict[str, Any]) -> None:
    """Lists a node in a run's folder, in place of an earlier node with the same labels.

    A damaged copy of the list is logged and restored from the other one.

    Args:
      path: the run's folder.
      key: the node's key.
      labels: what distinguishes the node from the others, in JSON types; `"kind"` among them.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> for key in ("a" * 64, "b" * 64):
    ...     add_analysis(folder, key, {"kind": "spectrum", "level": 2})
    >>> [entry["key"][:3] for entry in analyses(folder, "spectrum")]
    ['bbb']
    """
    entry = {"key": key, "labels": plain(labels, name="labels")}

    def change(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [*(old for old in listed if old["labels"] != entry["labels"]), entry]

    _rewrite(Path(path), change)


def mend_list(path: str | Path) -> None:
    """Restores a damaged copy of a run's list from the other; empties both if both are damaged."""
    _rewrite(Path(path), lambda listed: listed)


def _rewrite(path: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Replaces the copies of the list that differ from what is to be listed."""
    with locks.hold(path / LOCK, what=f"{path / FILE}", wait=True):
        copies = {name: _intact(path, name) for name in COPIES}
        after = change(next((listed for listed in copies.values() if listed is not None), []))
        for name, found in copies.items():
            if found != after:
                records.write(path / name, path.absolute().name, {"nodes": after})


def _intact(path: Path, name: str) -> list[dict[str, Any]] | None:
    """A copy of the list; None if it is missing or, with a log message, damaged."""
    try:
        return read_copy(path, name)
    except CorruptError as error:
        if (path / name).exists():
            LOG.warning("%s", error)
        return None


def analyses(path: str | Path, kind: str) -> list[dict[str, Any]]:
    """The nodes `{"key", "labels"}` of one kind, oldest first; none before there is one.

    Raises:
      CorruptError: if both copies of the list are damaged.
    """
    return [entry for entry in read_list(Path(path)) if entry["labels"]["kind"] == kind]


def read_analyses(store: Store, path: str | Path, kind: str, record: Any) -> list[Any]:
    """The nodes of one kind as records.

    Args:
      store: holds the nodes.
      path: the run's folder.
      kind: which nodes.
      record: a `NamedTuple` type whose fields are facts of the nodes' `meta`, the last `arrays`.

    Raises:
      CorruptError: if both copies of the list, or a node, are damaged.
    """

    def read(key: str) -> Any:
        node = store.read(key)
        facts = {name: node.meta[name] for name in record._fields[:-1]}
        return record(**facts, arrays=node.arrays)

    return [read(entry["key"]) for entry in analyses(path, kind)]


def read_list(path: Path) -> list[dict[str, Any]]:
    """All nodes that were measured on a run, oldest first; none before there is one.

    Raises:
      CorruptError: if both copies of the list are damaged.
    """
    problem = None
    for name in COPIES:
        try:
            return read_copy(path, name)
        except CorruptError as error:
            problem = error if (path / name).exists() else problem
    if problem:
        raise problem
    return []


def check_copy(path: Path, name: str) -> list[dict[str, Any]]:
    """`read_copy`; while another process writes the list, its intact copy instead."""
    try:
        return read_copy(path, name)
    except CorruptError:
        if locks.is_held(path / LOCK):
            return read_list(path)
        return read_copy(path, name)  # its writer may have just ended


def read_copy(path: Path, name: str) -> list[dict[str, Any]]:
    """One of the copies of a list; `CorruptError` if it is missing or damaged."""
    nodes = records.read(path / name, path.absolute().name, Listed)["nodes"]
    records.check(nodes, list[Analysis], path / name)
    return nodes
