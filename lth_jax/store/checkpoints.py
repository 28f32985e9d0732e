"""Trees of arrays as folders on disk: written whole or not at all, checked whenever read.

This is the only module that knows Orbax. A checkpoint is a folder of `meta.json` (the tree's
structure and the caller's own facts), `arrays/` (Orbax) and `sha256` (one line per file).
"""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax.store import files
from lth_jax.store.errors import StoreError
from lth_jax.store.hashing import plain
from lth_jax.store.leaves import Leaf, empties, join, leaves, nest, plain_path, value

FORMAT = 1
"""The version of the layout on disk; another version is refused by name."""


class Checkpoint(NamedTuple):
    """A tree and the facts that were saved with it."""

    tree: Any
    meta: dict[str, Any]


def save(path: str | Path, tree: Any, meta: dict[str, Any] | None = None) -> None:
    """Writes a tree of arrays to the folder `path`, atomically: it is whole or it is not there.

    Args:
      path: the folder to make; one writer at a time.
      tree: a pytree of arrays, numbers and typed PRNG keys, of any dtype and size (also empty).
      meta: facts to keep beside the arrays, anything JSON can hold.

    Raises:
      StoreError: the folder exists already, or cannot be written (permissions, a full disk).
      TypeError: a leaf is no array. ValueError: two leaves share a name, or `meta` holds a NaN.
    """
    write(Path(path), list(leaves(tree)), empties(tree), meta or {})


def write(
    path: Path, found: list[Leaf], hollow: list[tuple[Any, Any]], meta: dict[str, Any]
) -> None:
    """`save` for a tree that was taken apart before: its leaves and its empty containers."""
    _check_names(found)
    text = {
        "format": FORMAT,
        "leaves": [_describe(leaf) for leaf in found],
        "empty": [{"path": list(place), "value": item} for place, item in hollow],
        "meta": plain(meta, name="meta"),
    }
    if path.exists():
        raise StoreError(f"{path} exists already and is never overwritten.")
    growing = files.temporary(path)
    try:
        with files.explained(path):
            files.remove(growing)
            growing.mkdir(parents=True)
            _write_arrays(growing / "arrays", found)
            files.write_json(growing / "meta.json", text)
            files.seal(growing)
            files.publish(path)
    finally:
        files.remove(growing)


def restore(path: str | Path, like: Any = None) -> Checkpoint:
    """Reads what `save` wrote, after checking every file against its SHA-256.

    Args:
      path: the folder.
      like: a tree of the saved structure (arrays, or `jax.ShapeDtypeStruct`s); the result has its
        containers. Without it the result is made of dictionaries and lists.

    Returns:
      The tree, with host arrays exactly as they were saved (typed PRNG keys as such), and `meta`.

    Raises:
      CorruptError: a file is missing, unknown or changed; the message names it.
      StoreError: the folder does not exist, or was written in another format.
      ValueError: `like` differs from what was saved; the message names the leaf.
    """
    path = Path(path)
    text = _read_text(path)
    arrays = _read_arrays(path / "arrays", [entry for entry in text["leaves"] if _is_stored(entry)])
    found = [_recover(entry, arrays) for entry in text["leaves"]]
    if like is not None:
        return Checkpoint(_fill(like, found), text["meta"])
    hollow = [(tuple(entry["path"]), entry["value"]) for entry in text["empty"]]
    return Checkpoint(nest([(leaf.path, value(leaf)) for leaf in found] + hollow), text["meta"])


def read_meta(path: str | Path) -> dict[str, Any]:
    """The facts saved with a tree, without its arrays; checked like `restore`."""
    return _read_text(Path(path))["meta"]


def _read_text(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise StoreError(f"{path} does not exist.")
    files.check_seal(path)
    text = files.read_json(path / "meta.json")
    if text["format"] != FORMAT:
        raise StoreError(
            f"{path} was written in store format {text['format']}, but this version reads "
            f"format {FORMAT}; use the version that wrote it or another folder."
        )
    return text


def _check_names(found: Iterable[Leaf]) -> None:
    seen: set[str] = set()
    for leaf in found:
        if leaf.name in seen:
            raise ValueError(f"`tree` has two leaves named '{leaf.name}'.")
        seen.add(leaf.name)


def _describe(leaf: Leaf) -> dict[str, Any]:
    return {
        "path": list(leaf.path),
        "name": leaf.name,
        "dtype": leaf.array.dtype.name,
        "shape": list(leaf.array.shape),
        "key_impl": leaf.key_impl,
    }


def _is_stored(entry: dict[str, Any]) -> bool:
    # Orbax refuses arrays without entries; their dtype and shape say all there is to know.
    return 0 not in entry["shape"]


def _recover(entry: dict[str, Any], arrays: dict[str, np.ndarray]) -> Leaf:
    if _is_stored(entry):
        array = arrays[_orbax_key(entry["name"])]
    else:
        array = np.zeros(entry["shape"], jnp.dtype(entry["dtype"]))
    return Leaf(tuple(entry["path"]), array, entry["key_impl"])


def _fill(like: Any, found: list[Leaf]) -> Any:
    flat, structure = jax.tree.flatten_with_path(like)
    targets = {join(plain_path(path)): target for path, target in flat}
    saved = {leaf.name: value(leaf) for leaf in found}
    if odd := sorted(set(targets) ^ set(saved)):
        raise ValueError(f"`like` differs from the saved tree at '{odd[0]}'.")
    for name, target in targets.items():
        if _signature(target) != _signature(saved[name]):
            raise ValueError(
                f"`like` at '{name}' is {_signature(target)}, "
                f"but {_signature(saved[name])} was saved."
            )
    return jax.tree.unflatten(structure, [saved[name] for name in targets])


def _signature(x: Any) -> str:
    dtype = x.dtype if hasattr(x, "dtype") else np.array(x).dtype
    return f"{dtype.name}{list(np.shape(x))}"


def _orbax_key(name: str) -> str:
    return name or "value"


@functools.cache
def _checkpointer() -> Any:
    # Imported late: listing runs must not wait a second for it.
    import orbax.checkpoint as ocp

    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())


def _write_arrays(path: Path, found: list[Leaf]) -> None:
    arrays = {_orbax_key(leaf.name): leaf.array for leaf in found if leaf.array.size}
    if arrays:
        _checkpointer().save(path.absolute(), arrays)


def _read_arrays(path: Path, stored: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return _checkpointer().restore(path.absolute()) if stored else {}
