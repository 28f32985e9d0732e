"""Files that are whole or absent: atomic writes, and folders sealed by their SHA-256."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lth_jax.store.errors import CorruptError, StoreError

SEAL = "sha256"


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
    """Where the next content of `path` grows until it is whole: a hidden sibling.

    The name is always the same, so the leftovers of a killed writer are replaced by the next one;
    hence there may be one writer per path at a time (the callers hold locks).

    >>> temporary(Path("runs/a.json")).name
    '.a.json.tmp'
    """
    return path.with_name(f".{path.name}.tmp")


def sync(path: Path) -> None:
    """Forces a file, or the entries of a folder, to the disk (`fsync`)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(path: Path) -> None:
    """Renames `temporary(path)` to `path`, atomically, and forces the new name to the disk."""
    os.replace(temporary(path), path)
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replaces the content of a file atomically: a reader sees the old text or the new one."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary(path).write_text(text, encoding="utf-8")
        sync(temporary(path))
        publish(path)


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON; NaN and infinities are rejected (`ValueError`)."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file; `CorruptError` if it is missing or cannot be parsed."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CorruptError(f"{path} is missing.") from None
    except ValueError as error:  # both JSONDecodeError and UnicodeDecodeError
        raise CorruptError(f"{path} is damaged: {error}.") from error


def remove(path: Path) -> None:
    """Removes a folder and all in it, if it is there."""
    shutil.rmtree(path, ignore_errors=True)


def files_in(folder: Path) -> list[str]:
    """The relative names of all files below a folder, sorted, without the seal itself."""
    found = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())
    return sorted(name for name in found if name != SEAL)


def digest(path: Path) -> str:
    """The SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Writes the SHA-256 of every file below `folder` beside them, and forces all to the disk.

    The seal has the format of the `sha256sum` tool, so that `sha256sum -c sha256` checks a folder
    without this library.
    """
    lines = [f"{digest(folder / name)}  {name}\n" for name in files_in(folder)]
    (folder / SEAL).write_text("".join(lines), encoding="utf-8")
    for path in (*folder.rglob("*"), folder):
        sync(path)


def check_seal(folder: Path) -> None:
    """Raises `CorruptError` unless the folder holds the files and bytes that were sealed."""
    sealed = _read_seal(folder)
    present = set(files_in(folder))
    if missing := sorted(set(sealed) - present):
        raise damaged(folder, f"{missing[0]} is missing")
    if unknown := sorted(present - set(sealed)):
        raise damaged(folder, f"{unknown[0]} is not listed in {SEAL}")
    for name, expected in sealed.items():
        if digest(folder / name) != expected:
            raise damaged(folder, f"{name} does not match its SHA-256")


def damaged(folder: Path, what: str) -> CorruptError:
    """The error for a damaged folder: which one, what is wrong with it, and what to do."""
    return CorruptError(
        f"{folder} is damaged: {what}; remove this folder and the next run computes it again."
    )


def _read_seal(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / SEAL).read_text(encoding="utf-8").splitlines()
        pairs = [line.split("  ", 1) for line in lines]
        return {name: expected for expected, name in pairs}
    except (OSError, ValueError) as error:
        raise damaged(folder, f"{SEAL} cannot be read ({type(error).__name__})") from error
