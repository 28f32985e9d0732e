"""Checks everything below a root against its hashes, and repairs what can be repaired."""

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lth_jax.store import analyses, checkpoints, files, locks, records, sweeps
from lth_jax.store.errors import CorruptError, StoreError
from lth_jax.store.hashing import content_key
from lth_jax.store.listing import run_folders
from lth_jax.store.nodes import Store
from lth_jax.store.run_files import (
    CONFIG,
    ENV,
    MANIFEST,
    METRICS,
    STATUS,
    read_config,
    read_env,
    read_manifest,
    read_status,
)
from lth_jax.store.runs import REMOVED, read_metrics, read_record, repair_run
from lth_jax.text import counted

ATLAS = ("protocol.json", "found.json")


class Problem(NamedTuple):
    """A missing or damaged file or folder.

    Attributes:
      path: the file or folder.
      sentence: the damage, and how to repair it.
      repair: removes it, or restores it from other files, and returns what it did; None if only
        the command that wrote it can restore it.
    """

    path: Path
    sentence: str
    repair: Callable[[], str] | None


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
    path, found = Path(path), dict[str, Any]()

    def repaired(text: str) -> Callable[[], str]:
        def repair() -> str:
            repair_run(store, path)
            return text

        return repair

    def mend_list() -> str:
        analyses.mend_list(path)
        has_copy = any(name in found for name in analyses.COPIES)
        return "restored from its copy" if has_copy else "emptied, since both copies are damaged"

    def mend_env() -> str:
        repair_run(store, path)
        plan = f"the plan of {MANIFEST}" if MANIFEST in found else "no plan"
        return f"written again with {plan}; the recorded versions are lost"

    relist = repaired("the run counts as unfinished; the same command lists its nodes again")
    readers: dict[str, tuple[Callable[[Path], Any], Callable[[], str] | None]] = {
        CONFIG: (read_config, None),
        STATUS: (read_status, repaired("restored; the run counts as interrupted")),
        ENV: (read_env, mend_env),
        MANIFEST: (read_manifest, relist),
        METRICS: (lambda path: _check_log(path, found), lambda: _clean_log(path)),
    }
    if any((path / name).exists() for name in analyses.COPIES):
        for name in analyses.COPIES:
            readers[name] = (functools.partial(analyses.check_copy, name=name), mend_list)
    for name, (read, mend) in readers.items():
        try:
            found[name] = read(path)
        except CorruptError as error:
            yield Problem(path / name, str(error), mend)
    yield from _nodes(store, path, found, relist)


def _check_log(path: Path, found: dict[str, Any]) -> None:
    log = path / METRICS
    read_metrics(log)
    is_finished = STATUS in found and found[STATUS]["status"] == "finished"
    if is_finished and log.exists() and log.read_bytes()[-1:] not in (b"", b"\n"):
        raise records.damaged(log, "its last line is incomplete", REMOVED)


def _clean_log(path: Path) -> str:
    """Leaves the lines of a run's log that are whole."""
    log = path / METRICS
    with locks.hold(path / "lock", what=f"Run {path.name}", wait=False):
        whole = [line for line in files.lines(log) if _is_whole(line, log)]
        files.write(log, b"".join(line + b"\n" for line in whole))
    return f"the damaged lines are removed, {counted(len(whole), 'line')} kept; no result uses them"


def _is_whole(line: bytes, log: Path) -> bool:
    try:
        read_record(line, log)
    except CorruptError:
        return False
    return True


def _nodes(
    store: Store, path: Path, found: dict[str, Any], relist: Callable[[], str]
) -> Iterator[Problem]:
    listed = found[MANIFEST]["nodes"] if MANIFEST in found else []
    sealed = found[STATUS].get("nodes") if STATUS in found else None
    if MANIFEST in found and sealed not in (None, content_key(listed)):
        text = f"{path / MANIFEST} lists other nodes than {path.name} ended with."
        yield Problem(path / MANIFEST, text, relist)
    measured: list[Any] = next((found[name] for name in analyses.COPIES if name in found), [])
    for key in dict.fromkeys(entry["key"] for entry in (*listed, *measured)):
        yield from verify_node(store, key)


def verify_node(store: Store, key: str) -> Iterator[Problem]:
    """The problem of a node, if it has one: missing or damaged."""

    def repair() -> str:
        return "another process has made it again" if store.mend(key) else "removed"

    if problem := store.problem(key):
        yield Problem(store.path(key), problem, repair if store.has(key) else None)


def verify_rest(store: Store) -> Iterator[Problem]:
    """The problems of all that does not belong to a run: nodes, partial nodes, sweeps, studies."""
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


def removing(path: Path) -> Callable[[], str]:
    """The repair that removes a file or folder."""

    def repair() -> str:
        files.discard(path)
        if path.exists():
            raise StoreError(f"{path} cannot be removed.")
        return "removed"

    return repair


def _step(path: Path) -> Iterator[Problem]:
    try:
        checkpoints.check(path, f"{path.parent.name}/{path.name}")
    except StoreError as error:
        yield Problem(path, str(error), removing(path))


def _sweep(folder: Path) -> Iterator[Problem]:
    yield from _record(
        folder / sweeps.CONFIG, lambda path: sweeps.read_sweep_config(path.parent, dict)
    )

    def read(path: Path) -> None:
        records.read(path, records.owner(path), dict, sweeps.REMOVED)

    for path in sorted(folder.glob("*.json")):
        if path.name != sweeps.CONFIG:
            yield from _record(path, read)
    for path in sorted(folder.glob("*.jsonl")):
        yield from _record(path, sweeps.read_records)


def _record(path: Path, read: Callable[[Path], Any]) -> Iterator[Problem]:
    try:
        read(path)
    except CorruptError as error:
        yield Problem(path, str(error), removing(path))


def verify_all(store: Store) -> Iterator[Problem]:
    """The problems of everything below a store's root, each once."""
    seen: set[Path] = set()
    folders = run_folders(store.root)
    per_run = itertools.chain.from_iterable(verify_run(store, path) for path in folders)
    for problem in itertools.chain(verify_rest(store), per_run):
        if problem.path not in seen:
            seen.add(problem.path)
            yield problem
