"""Atomic writes of files, and folders with SHA-256 checksums.

Files are flushed to the disk (`fsync`) before they replace others. Folders and new names are
flushed in the background, since a folder of arrays has a dozen files; a folder that a power loss
truncates does not match its checksums. `settle` waits until a store is flushed.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lth_jax.store.errors import CorruptError, StoreError

SEAL = "sha256"
_MAX_STEM = 200  # bytes; names have 255 on most file systems
_STALE = 86_400.0  # seconds
_SYNCS = concurrent.futures.ThreadPoolExecutor(1, "sync")  # ends its work before Python exits
_unsettled: dict[concurrent.futures.Future[None], Path] = {}  # waiting, or failed


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns an `OSError` raised while writing under `path` into a one-sentence `StoreError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"{path} cannot be written: {reason}; nothing is left half-written."
        ) from (error)


def temporary(path: Path) -> Path:
    """A unique temporary name, a hidden sibling of `path`, under which to write its next content.

    Any number of threads and processes may write one path at once: the last rename determines the
    content, which is always whole.

    >>> name = temporary(Path("runs/a.json")).name
    >>> name.startswith(".a.json.") and name.endswith(".tmp")
    True
    """
    return path.with_name(f".{_stem(path)}.{os.getpid()}-{secrets.token_hex(8)}.tmp")


def owner(path: Path) -> str:
    """The name of the file or folder that a temporary name was made for.

    >>> owner(temporary(Path("runs/a.json")))
    'a.json'
    """
    return path.name[1:].rsplit(".", 2)[0]


def _stem(path: Path) -> str:
    return path.name.encode()[:_MAX_STEM].decode(errors="ignore")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary name to write to, and renames it to `path` when all is written.

    The content is flushed to the disk before it is renamed. After an error nothing is left, and the
    old content is unchanged.

    Raises:
      StoreError: for every `OSError`: a full disk, a folder that cannot be written.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.txt")
    >>> with replacing(path) as grown:
    ...     _ = grown.write_text("whole")
    >>> path.read_text()
    'whole'
    """
    grown = temporary(path)
    with explained(path):
        _remove_stale(path)
        try:
            yield grown
            _sync(grown)
            publish(grown, path)
        finally:
            discard(grown)


def _remove_stale(path: Path) -> None:
    """Removes temporary files older than a day, which killed writers left."""
    ours = re.compile(rf"\.{re.escape(_stem(path))}\.\d+-[0-9a-f]{{16}}\.tmp")
    for name in filter(ours.fullmatch, os.listdir(path.parent)):
        with contextlib.suppress(FileNotFoundError):  # its writer has just renamed it
            if time.time() - path.with_name(name).stat().st_mtime > _STALE:
                discard(path.with_name(name))


def discard(path: Path) -> None:
    """Removes a file or a folder, if it exists; errors are ignored."""
    if path.is_dir():
        remove(path)
    else:
        with contextlib.suppress(OSError):  # such as a missing folder; the caller's error counts
            path.unlink()


def _sync(*paths: Path) -> None:
    """Flushes files and the entries of folders to the disk, except those that are removed."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _sync_all(path: Path) -> None:
    # `os.walk` skips folders that are removed meanwhile, and yields nothing for files.
    for at, _, names in os.walk(path):
        _sync(Path(at), *(Path(at, name) for name in names))
    _sync(path.parent)


def sync_later(path: Path) -> None:
    """Flushes a file, or a folder and everything below it, to the disk in the background."""
    task = _SYNCS.submit(_sync_all, path)
    _unsettled[task] = path
    task.add_done_callback(lambda done: done.exception() or _unsettled.pop(done, None))


def settle(root: Path) -> None:
    """Waits until all that was published below `root` is on the disk.

    Raises:
      StoreError: for every `OSError` of writing it; each is raised once.
    """
    for task, path in list(_unsettled.items()):
        if path.is_relative_to(root):
            concurrent.futures.wait([task])
            _unsettled.pop(task, None)
            with explained(path):
                task.result()


def publish(grown: Path, path: Path) -> None:
    """Renames `grown` to `path` atomically, and flushes it to the disk in the background."""
    os.replace(grown, path)
    sync_later(path)


def write(path: Path, content: bytes, *, make_folder: bool = True) -> None:
    """Replaces a file atomically: a reader finds the old content or the new, and never a part.

    All files are written in this way, except logs, to which lines are appended.

    Args:
      path: the file.
      content: all of its bytes.
      make_folder: whether to make the folder of the file if it is missing.

    Raises:
      StoreError: for every `OSError`: a full disk, a folder that cannot be written.
    """
    with explained(path):
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as grown:
        grown.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """`write` of indented JSON; NaN and infinities are rejected (`ValueError`)."""
    write(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
      CorruptError: it is missing, is not a file, or cannot be parsed; NaN and infinities are not
        JSON.
      StoreError: it cannot be read, for instance without permission.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CorruptError(f"{path} is missing.") from None
    except IsADirectoryError:
        raise CorruptError(f"{path} is damaged: it is a folder.") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:  # of JSON, of UTF-8, of brackets in brackets
        raise CorruptError(f"{path} is damaged: {error}.") from error


def parse_json(text: str) -> Any:
    """The value of a JSON text; raises `ValueError` or `RecursionError` for invalid JSON."""
    return json.loads(text, parse_constant=_no_json)


def _no_json(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def lines(path: Path) -> list[bytes]:
    """The complete lines of a log; none without the file. A torn last line is left out."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def remove(path: Path) -> None:
    """Removes a folder and all in it, if it exists."""
    shutil.rmtree(path, ignore_errors=True)


def files_in(folder: Path) -> list[str]:
    """The relative names of all files below a folder, sorted, without the seal itself."""
    # `os.walk` skips files that are removed meanwhile; `Path.rglob` fails (Python 3.11).
    found = [Path(at, name) for at, _, names in os.walk(folder) for name in names]
    return sorted(name for path in found if (name := path.relative_to(folder).as_posix()) != SEAL)


def digest(path: Path) -> str:
    """The SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Writes the SHA-256 of every file below `folder` beside them.

    The seal has the format of the `sha256sum` tool, so that `sha256sum -c sha256` checks a folder
    without this library.
    """
    lines = [f"{digest(folder / name)}  {name}\n" for name in files_in(folder)]
    (folder / SEAL).write_text("".join(lines), encoding="utf-8")


def check_seal(folder: Path) -> None:
    """Raises `CorruptError` unless the folder holds the files and bytes that were sealed."""
    if problem := seal_problem(folder):
        raise damaged(folder, problem)


def seal_problem(folder: Path) -> str | None:
    """The first difference from the files and bytes that were sealed; None if there is none.

    >>> import tempfile
    >>> seal_problem(Path(tempfile.mkdtemp()))
    'sha256 cannot be read (FileNotFoundError)'
    """
    try:
        sealed = read_seal(folder)
    except (FileNotFoundError, IsADirectoryError, ValueError) as error:
        return f"{SEAL} cannot be read ({type(error).__name__})"
    present = set(files_in(folder))
    if missing := sorted(set(sealed) - present):
        return f"{missing[0]} is missing"
    if unknown := sorted(present - set(sealed)):
        return f"{unknown[0]} is not listed in {SEAL}"
    try:
        wrong = (name for name, expected in sealed.items() if digest(folder / name) != expected)
        return next((f"{name} does not match its SHA-256" for name in wrong), None)
    except FileNotFoundError as error:  # removed since it was listed
        return f"{error.filename} is missing"


def damaged(folder: Path, what: str) -> CorruptError:
    """The error for a damaged folder: which one, what is wrong with it, and what to do."""
    return CorruptError(
        f"{folder} is damaged: {what}; the next run of the same command makes it again."
    )


def read_seal(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file that was sealed, by name; `OSError` or `ValueError` if damaged."""
    lines = (folder / SEAL).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("  ", 1) for line in lines]
    return {name: expected for expected, name in pairs}
