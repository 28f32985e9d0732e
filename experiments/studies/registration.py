"""The log of each study's protocol: a line for each version, only ever appended.

`protocols/CLAIM.jsonl` holds the texts and numbers of every version with their hash, the date, the
reason of the change, and whether data of the study had been seen before. Each line holds the hash
of the line before it.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from experiments.studies.common import FULL, LAPTOP
from experiments.studies.protocol import Study
from lth_jax.cli.programs import UserError
from lth_jax.store import content_key, files

FOLDER = Path(__file__).parent / "protocols"


class Version(TypedDict):
    """A line of the log.

    Attributes:
      version: 1, 2, …
      hash: of `content`.
      date: when it was registered.
      reason: why it differs from the version before.
      data_seen: whether data of the study had been seen by then.
      content: `protocol`, the texts, and `laptop` and `full`, the numbers.
      previous: the `content_key` of the line before; empty for the first.
    """

    version: int
    hash: str
    date: str
    reason: str
    data_seen: bool
    content: dict[str, Any]
    previous: str


def content_of(study: Study) -> dict[str, Any]:
    """The texts and numbers of a study that decide its answer, JSON-like."""
    numbers = {size: numbers_of(study, size) for size in (LAPTOP, FULL)}
    return {"protocol": study.protocol._asdict(), **numbers}


def numbers_of(study: Study, size: str) -> dict[str, Any]:
    """The config of a study without its `machine` part."""
    whole = study.get_config(size).to_dict()
    return {name: value for name, value in whole.items() if name != "machine"}


def versions(claim: str, folder: Path = FOLDER) -> list[Version]:
    """All versions of a protocol, the oldest first.

    Raises:
      UserError: a line is not the one that the next line was appended to.
    """
    path = folder / f"{claim}.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    found: list[Version] = [json.loads(line) for line in lines]
    for before, one in zip([None, *found], found, strict=False):
        if one["previous"] != (content_key(dict(before)) if before else ""):
            raise UserError(
                f"{path} was edited before version {one['version']}; lines are only appended."
            )
    return found


def check(study: Study, folder: Path = FOLDER) -> list[Version]:
    """The versions of a study, the last of which is the present one.

    Raises:
      UserError: the present protocol is not registered.
    """
    claim = study.protocol.claim
    found = versions(claim, folder)
    if not found or found[-1]["hash"] != content_key(content_of(study)):
        raise UserError(
            f"the protocol of {claim} differs from its last registered version; "
            f"`python -m experiments.atlas register {claim} --reason=TEXT` appends it to the log."
        )
    return found


def register(study: Study, reason: str, *, data_seen: bool, folder: Path = FOLDER) -> Version:
    """Appends the present protocol to the log.

    Args:
      study: the study.
      reason: why the protocol differs from the version before.
      data_seen: whether data of the study had been seen.
      folder: of the logs.

    Raises:
      UserError: the protocol is registered already, or no reason is given.
    """
    claim, content = study.protocol.claim, content_of(study)
    found = versions(claim, folder)
    hashed = content_key(content)
    if found and found[-1]["hash"] == hashed:
        raise UserError(f"the protocol of {claim} is registered as version {len(found)}.")
    if not reason:
        raise UserError(f"`--reason` is empty; state why the protocol of {claim} changed.")
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
    files.write(folder / f"{claim}.jsonl", text.encode())
    return line
