"""The log of a study's protocol: a line of JSON for each version; lines are only appended.

Each line holds the hash of its content and of the line before it, so an edit of any line but the
last is detected.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from lth_jax.store import CorruptError, content_key, files


class Version(TypedDict):
    """A line of the log.

    Attributes:
      version: 1, 2, …
      hash: hash of `content`.
      date: date of its registration.
      reason: why it differs from the version before.
      data_seen: whether data of the study had been seen before the registration.
      content: JSON-like; the texts and numbers of the protocol.
      previous: the `content_key` of the line before; empty for the first.
    """

    version: int
    hash: str
    date: str
    reason: str
    data_seen: bool
    content: dict[str, Any]
    previous: str


def read_log(path: Path) -> list[Version]:
    """All versions, the oldest first; none if there is no file.

    Raises:
      CorruptError: a line is not a version, its hash is not that of its content, or it has changed
        since the next line was appended.
    """
    lines = path.read_text().splitlines() if path.is_file() else []
    found: list[Version] = []
    for number, line in enumerate(lines, start=1):
        try:
            one: Version = json.loads(line)
            is_whole = one["hash"] == content_key(one["content"])
            follows = one["previous"] == (content_key(dict(found[-1])) if found else "")
        except (ValueError, TypeError, KeyError) as error:
            raise CorruptError(f"{path} has no version in line {number}: {error}.") from error
        if not (is_whole and follows):
            where = f"before version {number}" if is_whole else f"in version {number}"
            raise CorruptError(f"{path} was edited {where}; lines are only appended.")
        found.append(one)
    return found


def append_version(path: Path, content: dict[str, Any], reason: str, *, data_seen: bool) -> Version:
    """Appends a version to a log, which may be new.

    Args:
      path: the file.
      content: JSON-like.
      reason: why it differs from the version before.
      data_seen: whether data of the study had been seen.

    Raises:
      ValueError: `content` is that of the last version, or `reason` is empty.
      CorruptError: see `read_log`.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "C7.jsonl")
    >>> append_version(path, {"rule": "a > b"}, "first", data_seen=False)["version"]
    1
    """
    found, hashed = read_log(path), content_key(content)
    if found and found[-1]["hash"] == hashed:
        raise ValueError(f"the protocol of {path.stem} is registered as version {len(found)}.")
    if not reason:
        raise ValueError(f"`reason` is empty; state why the protocol of {path.stem} changed.")
    line = Version(
        version=len(found) + 1,
        hash=hashed,
        date=datetime.now(UTC).date().isoformat(),
        reason=reason,
        data_seen=data_seen,
        content=content,
        previous=content_key(dict(found[-1])) if found else "",
    )
    text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in [*found, line])
    files.write(path, text.encode())
    return line
