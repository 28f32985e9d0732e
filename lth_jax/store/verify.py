"""Checks everything below a root against its hashes, and repairs what can be repaired."""

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lth_jax.store import analyses, checkpoints, files, locks, records, sweeps
from lth_jax.store.errors import CorruptError, StoreError
from lth_jax.store.hashing import content_key
from lth_jax.store.listing import is_run
from lth_jax.store.nodes import Store
from lth_jax.store.run_files import (
    CONFIG,
    ENV,
    MANIFEST,
    STATUS,
    read_config,
    read_env,
    read_manifest,
    read_status,
)
from lth_jax.store.runs import read_metrics, repair_run

ATLAS = ("protocol.json", "found.json")


class Problem(NamedTuple):
    """A missing or damaged file or folder.

    Attributes:
      path: the file or folder.
      sentence: the damage, and how to repair it.
      repair: removes it, or restores it from other files; None if only the command that wrote it
        can restore it.
    """

    path: Path
    sentence: str
    repair: Callable[[], Any] | None


def verify_run(store: Store, path: str | Path) -> Iterator[Problem]:
    """The problems of a run: its files, and the nodes that they list.

    Args:
      store: holds the nodes.
      path: the run's folder.

    >>> import tempfile
    >>> from lth_jax.store import open_run
    >>> root = tempfile.mkdtemp()
    >>> with open_run(root, name="demo", config={}, env={}) as run:
    ...     run.finish()
    >>> _ = (run.path / "manifest.json").write_text("{}")
    >>> [problem.path.name for problem in verify_run(Store(root), run.path)]
    ['manifest.json']
    """
    path = Path(path)

    def repair() -> None:
        repair_run(store, path)

    def mend_list() -> None:
        analyses.mend_list(path)

    readers: dict[str, tuple[Callable[[Path], Any], Callable[[], Any] | None]] = {
        CONFIG: (read_config, None),
        STATUS: (read_status, repair),
        ENV: (read_env, repair),
        MANIFEST: (read_manifest, repair),
        "metrics.jsonl": (_read_log, lambda: _cut(path / "metrics.jsonl")),
    }
    if any((path / name).exists() for name in analyses.COPIES):
        for name in analyses.COPIES:
            readers[name] = (functools.partial(analyses.check_copy, name=name), mend_list)
    found = {}
    for name, (read, mend) in readers.items():
        try:
            found[name] = read(path)
        except CorruptError as error:
            yield Problem(path / name, str(error), mend)
    yield from _nodes(store, path, found, repair)


def _read_log(path: Path) -> None:
    read_metrics(path / "metrics.jsonl")


def _cut(path: Path) -> None:
    """Leaves the lines of a log that can be read."""
    lines = path.read_bytes().split(b"\n")[:-1]
    files.write(path, b"".join(line + b"\n" for line in lines if _is_json(line)))


def _is_json(line: bytes) -> bool:
    try:
        files.parse_json(line.decode())
    except (ValueError, RecursionError):
        return False
    return True


def _nodes(
    store: Store, path: Path, found: dict[str, Any], repair: Callable[[], Any]
) -> Iterator[Problem]:
    listed = found[MANIFEST]["nodes"] if MANIFEST in found else []
    sealed = found[STATUS].get("nodes") if STATUS in found else None
    if MANIFEST in found and sealed not in (None, content_key(listed)):
        text = f"{path / MANIFEST} lists other nodes than {path.name} ended with."
        yield Problem(path / MANIFEST, text, repair)
    measured: list[Any] = next((found[name] for name in analyses.COPIES if name in found), [])
    for key in dict.fromkeys(entry["key"] for entry in (*listed, *measured)):
        yield from verify_node(store, key)


def verify_node(store: Store, key: str) -> Iterator[Problem]:
    """The problem of a node, if it has one: missing or damaged."""
    if problem := store.problem(key):
        yield Problem(store.path(key), problem, lambda: store.mend(key))


def verify_rest(store: Store) -> Iterator[Problem]:
    """The problems of what belongs to no single run: nodes, unfinished ones, sweeps, studies."""
    for key in store.keys():
        yield from verify_node(store, key)
    for folder in sorted(store.root.glob("partial/*")):
        with locks.try_hold(store.root / "locks" / f"{folder.name}.lock") as free:
            if free:  # no process is writing there
                yield from itertools.chain.from_iterable(map(_step, folder.glob("[0-9]*")))
    for folder in sorted(store.root.glob("sweeps/*")):
        yield from _sweep(folder)
    for path in (p for name in ATLAS for p in sorted(store.root.glob(f"atlas/*/*/{name}"))):
        yield from _record(path, lambda path: records.read(path, path.parent.name, dict))


def _step(path: Path) -> Iterator[Problem]:
    try:
        checkpoints.check(path, f"{path.parent.name}/{path.name}")
    except StoreError as error:
        yield Problem(path, str(error), lambda: files.remove(path))


def _sweep(folder: Path) -> Iterator[Problem]:
    yield from _record(
        folder / sweeps.CONFIG, lambda path: sweeps.read_sweep_config(path.parent, dict)
    )

    def read(path: Path) -> None:
        records.read(path, sweeps.owner(path), dict, sweeps.REMOVED)

    for path in sorted(folder.glob("*.json")):
        if path.name != sweeps.CONFIG:
            yield from _record(path, read)
    for path in sorted(folder.glob("*.jsonl")):
        yield from _record(path, sweeps.read_records)


def _record(path: Path, read: Callable[[Path], Any]) -> Iterator[Problem]:
    try:
        read(path)
    except CorruptError as error:
        yield Problem(path, str(error), lambda: files.discard(path))


def verify_all(store: Store) -> Iterator[Problem]:
    """The problems of everything below a store's root, each once."""
    seen: set[Path] = set()
    folders = sorted(path for path in store.root.glob("*") if is_run(path))
    per_run = itertools.chain.from_iterable(verify_run(store, path) for path in folders)
    for problem in itertools.chain(verify_rest(store), per_run):
        if problem.path not in seen:
            seen.add(problem.path)
            yield problem
