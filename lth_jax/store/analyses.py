"""What was measured on a finished run: nodes that its folder lists beside the manifest."""

from pathlib import Path
from typing import Any

from lth_jax.store import files, locks
from lth_jax.store.hashing import plain
from lth_jax.store.nodes import Store

FILE = "analyses.json"


def add_analysis(path: str | Path, key: str, labels: dict[str, Any]) -> None:
    """Lists a node in a run's folder; the node that had the same labels before is forgotten.

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
        others = [entry for entry in _all(path) if entry["labels"] != labels]
        files.write_json(path / FILE, {"nodes": [*others, {"key": key, "labels": labels}]})


def analyses(path: str | Path, kind: str) -> list[dict[str, Any]]:
    """The nodes `{"key", "labels"}` of one kind, oldest first; none before there is one.

    Raises:
      CorruptError: if the list is damaged.
    """
    return [entry for entry in _all(Path(path)) if entry["labels"]["kind"] == kind]


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


def _all(path: Path) -> list[dict[str, Any]]:
    return files.read_json(path / FILE)["nodes"] if (path / FILE).exists() else []
