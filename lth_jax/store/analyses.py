"""What was measured on a finished run: nodes that its folder lists beside the manifest."""

import logging
from pathlib import Path
from typing import Any, TypedDict

from lth_jax.store import locks, records
from lth_jax.store.errors import CorruptError
from lth_jax.store.hashing import plain
from lth_jax.store.nodes import Store

LOG = logging.getLogger(__name__)

FILE = "analyses.json"


class Labels(TypedDict):
    """What tells a node from the others; the kind, and more that depends on it."""

    kind: str


class Analysis(TypedDict):
    """A line of the list."""

    key: str
    labels: Labels


class Listed(TypedDict):
    """`analyses.json`."""

    nodes: list[Any]


def add_analysis(path: str | Path, key: str, labels: dict[str, Any]) -> None:
    """Lists a node in a run's folder; the node that had the same labels before is forgotten.

    A damaged list is named in the log and begun anew: what was measured is in the store, and the
    command that measured it lists it again.

    Args:
      path: the run's folder.
      key: the node's key.
      labels: what tells the node from the others, as JSON's types; `"kind"` among them.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> for key in ("a" * 64, "b" * 64):
    ...     add_analysis(folder, key, {"kind": "spectrum", "level": 2})
    >>> [entry["key"][:3] for entry in analyses(folder, "spectrum")]
    ['bbb']
    """
    path, labels = Path(path), plain(labels, name="labels")
    with locks.hold(path / "analyses.lock", what=f"{path / FILE}", wait=True):
        try:
            listed = read_list(path)
        except CorruptError as error:
            LOG.warning("%s", error)
            listed = []
        others = [entry for entry in listed if entry["labels"] != labels]
        if listed != (after := [*others, {"key": key, "labels": labels}]):
            records.write(path / FILE, path.absolute().name, {"nodes": after})


def analyses(path: str | Path, kind: str) -> list[dict[str, Any]]:
    """The nodes `{"key", "labels"}` of one kind, oldest first; none before there is one.

    Raises:
      CorruptError: if the list is damaged.
    """
    return [entry for entry in read_list(Path(path)) if entry["labels"]["kind"] == kind]


def read_analyses(store: Store, path: str | Path, kind: str, record: Any) -> list[Any]:
    """The nodes of one kind as records.

    Args:
      store: where the nodes lie.
      path: the run's folder.
      kind: which nodes.
      record: a `NamedTuple` type whose fields are facts of the nodes' `meta`, the last `arrays`.

    Raises:
      CorruptError: if the list or a node is damaged.
    """

    def read(key: str) -> Any:
        node = store.read(key)
        facts = {name: node.meta[name] for name in record._fields[:-1]}
        return record(**facts, arrays=node.arrays)

    return [read(entry["key"]) for entry in analyses(path, kind)]


def read_list(path: Path) -> list[dict[str, Any]]:
    """All nodes that were measured on a run, oldest first; none before there is one.

    Raises:
      CorruptError: if the list is damaged.
    """
    if not (path / FILE).exists():
        return []
    nodes = records.read(path / FILE, path.absolute().name, Listed)["nodes"]
    records.check(nodes, list[Analysis], path / FILE)
    return nodes
