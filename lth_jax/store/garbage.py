"""Disk space of a store, and nodes that no run lists."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lth_jax.store import files, locks, sweeps
from lth_jax.store.analyses import read_list
from lth_jax.store.errors import CorruptError, StoreError
from lth_jax.store.listing import is_run, run_folders
from lth_jax.store.nodes import Store
from lth_jax.store.run_files import read_env, read_manifest, read_status


class Garbage(NamedTuple):
    """Nodes that no run lists.

    Attributes:
      nodes: keys of finished nodes.
      partial: keys of unfinished nodes.
      kept: sentences on what is not garbage yet, and why.
      bytes: disk space of finished and unfinished nodes together.
    """

    nodes: list[str]
    partial: list[str]
    kept: list[str]
    bytes: int


def listed(path: Path) -> list[str]:
    """The nodes that a run needs: those of its manifest, and those that were measured on it.

    Raises:
      CorruptError: if one of the two lists is damaged.
    """
    manifest = read_manifest(path)
    keys = [entry["key"] for entry in (*manifest["nodes"], *read_list(path))]
    return list(dict.fromkeys([*keys, *manifest.get("earlier", [])]))


def find_garbage(store: Store, *, unfinished: bool = False) -> Garbage:
    """Finds the nodes that no run lists, except those that may still be needed.

    Nothing is garbage while a run or a sweep is running. A sweep lists its finished nodes only when
    its cells are finished. Finished nodes are therefore kept while a sweep is unfinished, or a run
    whose damaged list was emptied. Unfinished nodes are kept while any run or sweep is unfinished.

    Args:
      store: the store.
      unfinished: whether nodes that only stopped, unfinished runs and sweeps need are garbage, too.

    Raises:
      CorruptError: if a list of nodes is damaged, so that its nodes are unknown.
    """
    # In this order, a run that lists its nodes and ends meanwhile is either busy or read.
    stored = list(store.keys())
    partial = sorted(path.name for path in store.root.glob("partial/*"))
    busy, folders = _busy(store), run_folders(store.root)
    needed = _needed(folders)
    nodes = [key for key in stored if key not in needed]
    runs = [path.name for path in folders if not _is_finished(path)]
    open_sweeps = [path.name for path in store.root.glob("sweeps/*") if _is_open(store, path)]
    emptied = [path.name for path in folders if read_manifest(path).get("emptied", False)]
    kept = []
    if busy:
        kept.append(f"nothing is deleted while {busy[0]} is in use")
        nodes, partial = [], []
    if nodes and (open_sweeps or emptied) and not unfinished:
        what = "unfinished sweep" if open_sweeps else "run whose list of nodes was lost,"
        kept.append(
            f"{len(nodes)} nodes are kept for the {what} {_some([*open_sweeps, *emptied])}; "
            "`--unfinished` deletes them"
        )
        nodes = []
    if partial and (runs or open_sweeps) and not unfinished:
        kept.append(
            f"{len(partial)} unfinished nodes are kept for {_some([*open_sweeps, *runs])}; "
            "`--unfinished` deletes them"
        )
        partial = []
    paths = [*map(store.path, nodes), *(store.root / "partial" / key for key in partial)]
    return Garbage(nodes, partial, kept, sum(map(size_of, paths)))


def delete(store: Store, garbage: Garbage) -> int:
    """Deletes garbage that no run lists and no process locks; returns the number of nodes."""
    if _busy(store):
        return 0
    done, needed = 0, _needed(run_folders(store.root))
    for key in (k for k in (*garbage.nodes, *garbage.partial) if k not in needed):
        with locks.try_hold(store.root / "locks" / f"{key}.lock") as free:
            if free:
                if store.has(key):
                    store.remove(key)
                files.remove(store.root / "partial" / key)
                done += 1
    return done


def _needed(folders: Iterable[Path]) -> set[str]:
    return {key for path in folders for key in listed(path)}


def remove_run(path: Path) -> None:
    """Removes a run's folder; its nodes stay.

    Raises:
      StoreError: the run is running, or its folder cannot be removed.
    """
    with locks.hold(path / "lock", what=f"Run {path.name}", wait=False):
        grown = files.temporary(path.absolute())
        with files.explained(path):
            files.publish(path.absolute(), grown)  # at once for all readers
    files.remove(grown)


class SweepRuns(NamedTuple):
    """The runs of a sweep's cells, by name.

    Attributes:
      removed: those that are removed with the sweep.
      shared: those that stay because another sweep lists them.
      foreign: those that stay because another command made them or opened them again.
    """

    removed: list[str]
    shared: list[str]
    foreign: list[str]


def sweep_runs(store: Store, path: Path) -> SweepRuns:
    """The runs of a sweep, by whether `remove_sweep` removes them.

    It removes runs that no other sweep lists and only sweeps have opened. A run whose record of
    environments is damaged counts as one that another command has opened.

    Args:
      store: the store.
      path: the sweep's folder.
    """
    beside = [one for one in store.root.glob("sweeps/*") if one.name != path.name]
    others = {run for one in beside for run in _cells(one)}
    found = SweepRuns([], [], [])
    for run in dict.fromkeys(_cells(path)):
        if is_run(store.root / run):
            own = found.removed if _is_of_sweeps(store.root / run) else found.foreign
            (found.shared if run in others else own).append(run)
    return found


def remove_sweep(store: Store, path: Path) -> SweepRuns:
    """Removes a sweep and `sweep_runs(store, path).removed`; nodes stay.

    Raises:
      StoreError: a process is at work on the sweep or on a run of it.
    """
    if path.name in _busy(store):
        raise StoreError(f"Sweep {path.name} is in use by another process.")
    found = sweep_runs(store, path)
    for run in found.removed:
        remove_run(store.root / run)
    files.remove(path)
    return found


def _is_of_sweeps(run: Path) -> bool:
    """Whether only sweeps have opened a run."""
    try:
        return all(sweeps.SWEEP in one for one in read_env(run)["environments"])
    except CorruptError:
        return False


def usage(store: Store) -> dict[str, Any]:
    """The disk space of everything below a store's root, in bytes.

    Returns:
      `{"runs": [{"run", "own", "shared", "files"}], "unlisted", "partial", "sweeps", "other",
      "total"}`. `own`: nodes that only this run lists; `shared`: nodes that other runs list, too;
      `files`: the run's folder. `own` and `shared` are None for a run whose lists are damaged.
    """
    sizes = {key: size_of(store.path(key)) for key in store.keys()}
    lists: dict[str, list[str] | None] = {}
    folders = run_folders(store.root)
    for path in folders:
        try:
            lists[path.name] = listed(path)
        except StoreError:
            lists[path.name] = None
    owners = Counter(key for keys in lists.values() for key in keys or ())

    def part(keys: list[str] | None, own: bool) -> int | None:
        if keys is None:
            return None
        return sum(sizes.get(key, 0) for key in keys if (owners[key] == 1) == own)

    rows = [
        {
            "run": path.name,
            "own": part(lists[path.name], True),
            "shared": part(lists[path.name], False),
            "files": size_of(path),
        }
        for path in folders
    ]
    total = size_of(store.root)
    found = {
        "unlisted": sum(size for key, size in sizes.items() if key not in owners),
        "partial": size_of(store.root / "partial"),
        "sweeps": size_of(store.root / "sweeps"),
    }
    known = sum(sizes.values()) + found["partial"] + found["sweeps"]
    other = total - known - sum(size_of(path) for path in folders)
    return {"runs": rows, **found, "other": other, "total": total}


def size_of(path: Path) -> int:
    """The bytes of all files below a folder, without those that are removed meanwhile."""
    # `Path.rglob` fails where a folder is removed meanwhile (Python 3.11); `os.walk` skips it.
    walked = os.walk(path)
    return sum(_bytes(Path(at, name)) for at, inner, names in walked for name in (*inner, *names))


def _bytes(path: Path) -> int:
    try:
        return path.lstat().st_size if path.is_symlink() or path.is_file() else 0
    except OSError:
        return 0


def _is_open(store: Store, sweep: Path) -> bool:
    """Whether a cell of a sweep is not finished."""
    return not all(_is_finished(store.root / run) for run in _cells(sweep))


def _cells(sweep: Path) -> list[str]:
    """The runs of a sweep's cells."""
    if not (sweep / sweeps.CONFIG).exists():
        return []
    return [cell["run"] for cell in sweeps.read_sweep_config(sweep, dict).get("cells", [])]


def _is_finished(path: Path) -> bool:
    try:
        return read_status(path)["status"] == "finished"
    except CorruptError:
        return False


def _busy(store: Store) -> list[str]:
    """The runs, sweeps and nodes whose lock a process holds."""

    def held() -> Iterator[str]:
        for lock in store.root.glob("*/lock"):
            if locks.is_held(lock):
                yield lock.parent.name
        for lock in store.root.glob("sweeps/*/locks/*.lock"):
            if locks.is_held(lock):
                yield lock.parents[1].name
        for lock in store.root.glob("locks/*.lock"):
            if locks.is_held(lock):
                yield f"node {lock.stem[:8]}" if len(lock.stem) == 64 else lock.stem

    return list(held())


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return names[0] + more
