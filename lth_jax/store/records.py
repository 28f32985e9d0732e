"""Typed JSON files and lines of logs, each with its SHA-256 and the name of its folder."""

import functools
import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

from lth_jax.store import files
from lth_jax.store.errors import CorruptError
from lth_jax.store.hashing import content_key, plain

MADE_AGAIN = "the next run of the same command makes it again"
SEAL, FOLDER = "sha256", "folder"

T = TypeVar("T")


def write(path: Path, folder: str, value: Mapping[str, Any]) -> None:
    """Replaces a record atomically.

    Args:
      path: the file.
      folder: the name of the run or sweep that the record belongs to.
      value: its content, JSON-like, without keys `"folder"` and `"sha256"`.
    """
    files.write_json(path, sealed({FOLDER: folder, **plain(dict(value), name=path.stem)}))


def read(path: Path, folder: str, kind: type[T], remedy: str = MADE_AGAIN) -> T:
    """The content of a record, checked: its seal, its folder, and its shape.

    Args:
      path: the file.
      folder: the name of the run or sweep that it must belong to.
      kind: a `TypedDict`.
      remedy: how to repair a damaged file, for the error.

    Raises:
      CorruptError: in one sentence, if the file is missing, is not JSON, was changed after it was
        written, belongs to another folder, or has another shape.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "plan.json")
    >>> write(path, "demo", {"chunk": 8})
    >>> read(path, "demo", dict)
    {'chunk': 8}
    """
    content = unsealed(files.read_json(path), path, remedy)
    owner = content.pop(FOLDER, None)
    if owner != folder:
        raise damaged(path, f"it belongs to '{owner}', not to '{folder}'", remedy)
    check(content, kind, path)
    return content  # type: ignore[return-value]


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """A record with the SHA-256 of its canonical JSON.

    >>> unsealed(sealed({"level": 1}), Path("x.json"))
    {'level': 1}
    """
    return {**content, SEAL: content_key(content)}


def unsealed(found: Any, path: Path, remedy: str = MADE_AGAIN) -> dict[str, Any]:
    """A record without its seal; raises `CorruptError` if the seal is missing or does not match."""
    if not isinstance(found, dict) or SEAL not in found:
        raise damaged(path, f"it has no `{SEAL}`", remedy)
    content = {name: value for name, value in found.items() if name != SEAL}
    if content_key(content) != found[SEAL]:
        raise damaged(path, "it does not match its SHA-256", remedy)
    return content


def owner(path: Path) -> str:
    """The name that the seal of a line covers: the file's folder and its stem.

    >>> owner(Path("runs/sweeps/demo-1b8466c9/plan-0a.json"))
    'demo-1b8466c9/plan-0a'
    """
    return f"{path.absolute().parent.name}/{path.stem}"


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Appends a line with its SHA-256 to a log, atomically even if several processes write.

    Args:
      path: the log.
      record: the line, as for `write`; numbers that are not finite are written as null.
    """
    line = sealed(plain({FOLDER: owner(path), **record}, name="record", nan_as_null=True))
    with files.explained(path), path.open("ab", buffering=0) as file:
        file.write(f"{json.dumps(line)}\n".encode())


def read_line(
    line: bytes, path: Path, remedy: str = MADE_AGAIN, *, needs_seal: bool = True
) -> dict[str, Any]:
    """The record in a line of `append`, checked.

    Args:
      line: the line.
      path: the log.
      remedy: as for `read`.
      needs_seal: whether a line with neither seal nor folder is an error. Earlier versions wrote
        such lines into the logs of runs.

    Raises:
      CorruptError: the line is not JSON, was changed after it was written, or belongs to another
        log.
    """
    try:
        found = files.parse_json(line.decode())
    except (ValueError, RecursionError) as error:
        raise damaged(path, str(error), remedy) from error
    if not needs_seal and isinstance(found, dict) and not {SEAL, FOLDER} & set(found):
        return found
    content = unsealed(found, path, remedy)
    if content.pop(FOLDER, None) != owner(path):
        raise damaged(path, "it has lines of another file", remedy)
    return content


def check(value: Any, kind: Any, path: Path) -> None:
    """Raises `CorruptError` unless the content of a file has a type."""
    if problem := mismatch(value, kind):
        raise damaged(path, problem)


def mismatch(value: Any, kind: Any, name: str = "its content") -> str | None:
    """How a JSON value differs from a type; None if it does not.

    Args:
      value: from JSON.
      kind: `Any`, a `TypedDict`, `dict[str, …]`, `list[…]`, a union, or a JSON type.
      name: name of the value, for messages.

    >>> mismatch({"rows": [0, "1"]}, dict[str, list[int]])
    '`rows[1]` is not of the type int'
    """
    origin = get_origin(kind)
    if kind is Any:
        return None
    if origin in (types.UnionType, Union):
        fits = any(mismatch(value, one, name) is None for one in get_args(kind))
        return None if fits else f"{name} is not of the type {kind}"
    if is_typeddict(kind):
        return _differs(value, kind, name)
    if not isinstance(value, origin or kind) or (isinstance(value, bool) and kind is not bool):
        return f"{name} is not of the type {(origin or kind).__name__}"
    problems: Any = ()
    if origin is list:
        bare = "" if name == "its content" else name.strip("`")
        inner = get_args(kind)[0]
        problems = (mismatch(v, inner, f"`{bare}[{i}]`") for i, v in enumerate(value))
    elif origin is dict:
        problems = (mismatch(v, get_args(kind)[1], f"`{key}`") for key, v in value.items())
    return next(filter(None, problems), None)


def _differs(value: Any, kind: Any, name: str) -> str | None:
    if not isinstance(value, dict):
        return f"{name} is not of the type dict"
    if missing := sorted(kind.__required_keys__ - set(value)):
        return f"`{missing[0]}` is missing"
    hints = _hints(kind)
    problems = (mismatch(v, hints[key], f"`{key}`") for key, v in value.items() if key in hints)
    return next(filter(None, problems), None)


_hints = functools.cache(get_type_hints)  # a list of runs reads a thousand records


def damaged(path: Path, what: str, remedy: str = MADE_AGAIN) -> CorruptError:
    """The error for a damaged file: its path, the damage, and how to repair it."""
    return CorruptError(f"{path} is damaged: {what}; {remedy}.")
