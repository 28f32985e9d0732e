"""Trees of arrays as folders on disk, written atomically and checked at each read.

This is the only module that uses Orbax. A checkpoint is a folder of `meta.json` (the tree's
structure and the caller's own facts), `arrays/` (Orbax) and `sha256` (one line per file).
"""

import contextlib
import functools
import json
import logging
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import text
from lth_jax.store import files
from lth_jax.store.errors import StoreError
from lth_jax.store.hashing import plain
from lth_jax.store.interrupts import postponed
from lth_jax.store.leaves import Leaf, empties, join, leaves, nest, value
from lth_jax.store.processes import ALONE, Team, is_distributed
from lth_jax.trees import path_keys

FORMAT = 2
"""The version of the layout on disk; other versions are rejected."""


@text.with_short_repr
class Checkpoint(NamedTuple):
    """A tree and the facts that were saved with it."""

    tree: Any
    meta: dict[str, Any]


def save(
    path: str | Path,
    tree: Any,
    meta: dict[str, Any] | None = None,
    *,
    name: str = "",
    packed: bool = False,
    team: Team = ALONE,
) -> None:
    """Writes a tree of arrays to the folder `path` atomically.

    A team saves together: each process writes its parts of arrays that are distributed over
    several; process 0 writes everything else and the hashes.

    Args:
      path: the folder to make; one writer at a time.
      tree: a pytree of arrays, numbers and typed PRNG keys, of any dtype and size (also empty).
      meta: facts to keep beside the arrays, anything JSON can hold.
      name: the name of the content, hashed with it, so that a copy under another name is detected.
      packed: whether to put all leaves of one dtype end to end into one uncompressed array. One
        file per leaf suits other readers; packed files are written in half the time. Arrays that
        are distributed over several processes are not packed.
      team: the processes that call this together, with trees of one structure.

    Raises:
      StoreError: the folder exists already, or cannot be written (permissions, a full disk); or a
        process other than 0 saves alone, whose arrays Orbax would leave out.
      TypeError: a leaf is not an array.
      ValueError: two leaves share a name, or `meta` holds a NaN.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "ticket"
    >>> save(path, {"mask": np.array([True, False])}, {"level": 3})
    >>> restore(path)
    Checkpoint(tree={'mask': array([ True, False])}, meta={'level': 3})
    """
    path = Path(path)
    _check_writable(path, team)
    found = list(leaves(tree))
    _check_names(found)
    packed = packed and not any(is_distributed(leaf.array) for leaf in found)
    description = {
        "format": FORMAT,
        "name": name,
        "packed": packed,
        "leaves": [_describe(leaf) for leaf in found],
        "empty": [{"path": list(path), "value": item} for path, item in empties(tree)],
        "meta": plain(meta or {}, name="meta"),
    }
    # Orbax refuses arrays without entries; their dtype and shape are all of them.
    arrays = {leaf.name: leaf.array for leaf in found if leaf.array.size}
    text = json.dumps(description, indent=1)
    _write(path, text, _pack(arrays) if packed else arrays, not packed, team)


def _check_writable(path: Path, team: Team) -> None:
    if team == ALONE and jax.process_index() > 0:
        raise StoreError(
            f"{path} can be written by process 0 only; to write it together, call `save` in all "
            "processes with `team`."
        )
    if team.on_leader(path.exists):
        raise StoreError(f"{path} exists already and is never overwritten.")


def _write(path: Path, text: str, arrays: dict[str, Any], compress: bool, team: Team) -> None:
    def begin() -> str:
        grown = files.temporary(path)
        with files.explained(path):
            grown.mkdir(parents=True)
        return str(grown)

    def end() -> None:
        with files.explained(path):
            (growing / "meta.json").write_text(text, encoding="utf-8")
            files.seal(growing)
            files.publish(growing, path)

    growing = Path(team.on_leader(begin))  # process 0 chooses the name
    try:
        if arrays:
            with files.explained(path):
                _write_arrays(growing / "arrays", arrays, compress, team)
        team.on_leader(end)
    finally:
        if team.first:
            files.discard(growing)


def restore(path: str | Path, like: Any = None, *, name: str | None = None) -> Checkpoint:
    """Reads what `save` wrote, after checking every file against its SHA-256.

    Args:
      path: the folder.
      like: a tree of the saved structure (arrays, or `jax.ShapeDtypeStruct`s); the result has its
        containers. Without it the result is made of dictionaries and lists.
      name: the required name of the content, as given to `save`; None for any.

    Returns:
      The tree, with host arrays exactly as they were saved (typed PRNG keys as such), and `meta`.

    Raises:
      CorruptError: a file is missing, unknown or changed, or the folder is a copy of another; the
        message names it.
      StoreError: the folder does not exist, or was written in another format.
      ValueError: `like` differs from what was saved; the message names the leaf.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "ticket"
    >>> save(path, ({"w": np.ones(2)}, 3), {"level": 3}, name="demo")
    >>> restore(path, ({"w": np.zeros(2)}, 0), name="demo").tree
    ({'w': array([1., 1.])}, array(3))
    """
    path = Path(path)
    text = check(path, name)
    stored = [entry for entry in text["leaves"] if _is_stored(entry)]
    names = {entry["dtype"] if text["packed"] else join(tuple(entry["path"])) for entry in stored}
    arrays = _read_arrays(path / "arrays", names) if stored else {}
    if text["packed"]:
        arrays = _unpack(arrays, stored)
    found = [_recover(entry, arrays) for entry in text["leaves"]]
    if like is not None:
        return Checkpoint(_fill(like, found), text["meta"])
    hollow = [(tuple(entry["path"]), entry["value"]) for entry in text["empty"]]
    return Checkpoint(nest([(leaf.path, value(leaf)) for leaf in found] + hollow), text["meta"])


def restore_part(path: Path, part: str, name: str) -> Checkpoint:
    """One entry of a saved dictionary, and `meta`; other arrays are neither read nor checked.

    The arrays that are read are checked by TensorStore's own checksums, not by their SHA-256.

    Args:
      path: the folder, written with `packed=False`.
      part: the key of the entry.
      name: the required name of the content.

    Raises:
      CorruptError: the description or an array of the entry is damaged.
      StoreError: it was written in another format.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "node"
    >>> save(path, {"mask": np.ones(9), "loss": {"test": np.array([0.5])}}, name="demo")
    >>> restore_part(path, "loss", "demo").tree
    {'test': array([0.5])}
    """
    text = _trusted_description(path, name)
    entries = [entry for entry in text["leaves"] if entry["path"][0] == part]
    names = [join(tuple(entry["path"])) for entry in entries if _is_stored(entry)]
    try:
        arrays = _read_arrays(path / "arrays", names) if names else {}
        found = [_recover(entry, arrays) for entry in entries]
    except (OSError, ValueError, KeyError) as error:
        raise files.damaged(path, f"'{part}' cannot be read ({type(error).__name__})") from error
    return Checkpoint(nest([(leaf.path[1:], value(leaf)) for leaf in found]), text["meta"])


def check(path: Path, name: str | None = None) -> dict[str, Any]:
    """The description of a checkpoint; raises unless it is whole, as `restore` does."""
    if not path.is_dir():
        raise StoreError(f"{path} does not exist.")
    files.check_seal(path)
    return _description(path, name)


def facts(path: Path, name: str) -> dict[str, Any]:
    """The `meta` of a checkpoint; its other files are neither read nor checked.

    Raises:
      CorruptError: the facts are missing, changed, or those of another checkpoint.
      StoreError: they were written in another format.
    """
    return _trusted_description(path, name)["meta"]


def _trusted_description(path: Path, name: str) -> dict[str, Any]:
    """The description of a checkpoint whose other files are not checked."""
    try:
        whole = files.read_seal(path)["meta.json"] == files.digest(path / "meta.json")
    except (OSError, ValueError, KeyError) as error:
        reason = f"its meta.json cannot be verified ({type(error).__name__})"
        raise files.damaged(path, reason) from error
    if not whole:
        raise files.damaged(path, "meta.json does not match its SHA-256")
    return _description(path, name)


def _description(path: Path, name: str | None) -> dict[str, Any]:
    text = files.read_json(path / "meta.json")
    if text["format"] != FORMAT:
        raise StoreError(
            f"{path} was written in store format {text['format']}, but this version reads "
            f"format {FORMAT}; use the version that wrote it or another folder."
        )
    if name is not None and text["name"] != name:
        raise files.damaged(path, f"it is a copy of '{text['name']}'")
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
        "dtype": leaf.array.dtype.name,
        "shape": list(leaf.array.shape),
        "key_impl": leaf.key_impl,
    }


def _is_stored(entry: dict[str, Any]) -> bool:
    return 0 not in entry["shape"]


def _recover(entry: dict[str, Any], arrays: dict[str, np.ndarray]) -> Leaf:
    path = tuple(entry["path"])
    if _is_stored(entry):
        return Leaf(path, arrays[join(path)], entry["key_impl"])
    return Leaf(path, np.zeros(entry["shape"], jnp.dtype(entry["dtype"])), entry["key_impl"])


def _pack(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    by_type: dict[str, list[np.ndarray]] = {}
    for array in arrays.values():
        by_type.setdefault(array.dtype.name, []).append(array.reshape(-1))
    return {name: np.concatenate(flat) for name, flat in by_type.items()}


def _unpack(packed: dict[str, np.ndarray], entries: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    ends = dict.fromkeys(packed, 0)
    arrays = {}
    for entry in entries:
        kind, shape = entry["dtype"], entry["shape"]
        start, ends[kind] = ends[kind], ends[kind] + math.prod(shape)
        arrays[join(tuple(entry["path"]))] = packed[kind][start : ends[kind]].reshape(shape)
    return arrays


def _fill(like: Any, found: list[Leaf]) -> Any:
    flat, structure = jax.tree.flatten_with_path(like)
    targets = {join(path_keys(path)): target for path, target in flat}
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


@functools.cache
def _checkpointer(compress: bool, team: Team = ALONE) -> Any:
    # Imported late: listing runs must not wait a second for it.
    import orbax.checkpoint as ocp

    index = jax.process_index()
    options = ocp.options.MultiprocessingOptions()
    if team == ALONE and jax.process_count() > 1:  # or Orbax would wait for the other processes
        options = ocp.options.MultiprocessingOptions(index, {index}, f"alone{index}")
    handler = ocp.PyTreeCheckpointHandler(use_compression=compress, multiprocessing_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def _write_arrays(path: Path, arrays: dict[str, Any], compress: bool, team: Team) -> None:
    with postponed(), _quiet_orbax():
        try:
            _checkpointer(compress, team).save(path.absolute(), arrays)
        except (OSError, ValueError) as error:  # the latter are TensorStore's
            raise _os_error(error) from error


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    # Orbax logs the traceback of every error that it also raises. When one of its writes fails,
    # Orbax 0.12.8 closes the event loop to which TensorStore reports the other writes. Each of them
    # then prints a traceback from a thread at some later time, so after an error the hook stays.
    logger, hook = logging.getLogger("absl"), sys.unraisablehook

    def but_late_reports(dropped: Any) -> None:
        if str(dropped.exc_value) != "Event loop is closed":
            hook(dropped)

    logger.addFilter(_not_from_orbax)
    sys.unraisablehook = but_late_reports
    try:
        yield
        sys.unraisablehook = hook
    finally:
        logger.removeFilter(_not_from_orbax)


def _not_from_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


def _os_error(error: Exception) -> OSError:
    """The error of the operating system in the text of a `ValueError` of TensorStore."""
    if isinstance(error, OSError) and error.errno:
        return error
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return OSError(int(code[1]), os.strerror(int(code[1])))
    return OSError(str(error))


def _read_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    import orbax.checkpoint as ocp

    on_host = ocp.RestoreArgs(restore_type=np.ndarray)  # whatever devices they were written from
    wanted = dict.fromkeys(names, on_host)
    options = ocp.args.PyTreeRestore(item=wanted, restore_args=wanted, partial_restore=True)
    with postponed():
        return _checkpointer(True).restore(path.absolute(), args=options)
