"""Answers to claims on disk: the protocol, stamped before any data are drawn, and the results.

A folder, `CLAIM/ROUND`, holds `protocol.json`, `found.json`, and the rows as `seeds.parquet` and
`seeds.csv`. An answer is read only if its protocol was stamped for it and no file changed since.
"""

import contextlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from lth_jax.measures.claims import Control, Evidence, Protocol, Row
from lth_jax.measures.judge import ROUNDS, Found, summarise_round
from lth_jax.report.tables import csv_bytes, parquet_bytes, read_parquet
from lth_jax.store import CorruptError, content_key, environment, files, records, source_fingerprint

PROTOCOL, FOUND, SEEDS = "protocol.json", "found.json", "seeds.parquet"


class Stamp(TypedDict):
    """The fields of `protocol.json` that are read."""

    hash: str
    size: str


class Answer(TypedDict):
    """The fields of `found.json` that are checked."""

    hash: str
    seeds_sha256: str | None


def stamp_of(protocol: Protocol, numbers: Mapping[str, Any], size: str) -> dict[str, Any]:
    """A protocol with its numbers, their hash, and the time.

    Args:
      protocol: the protocol.
      numbers: seeds, δ, settings: JSON-like, all that determines the answer.
      size: size of the study.
    """
    content = {"protocol": protocol._asdict(), "config": dict(numbers), "size": size}
    return {**content, "hash": content_key(content), "stamped": _now()}


def write_stamp(folder: Path, stamp: Mapping[str, Any]) -> None:
    """Writes a stamp into the folder of a claim and round, unless it has one of this protocol."""
    with contextlib.suppress(CorruptError):
        if records.read(folder / PROTOCOL, _owner(folder), Stamp)["hash"] == stamp["hash"]:
            return
    records.write(folder / PROTOCOL, _owner(folder), stamp)


def write_answer(
    folder: Path,
    protocol: Protocol,
    evidence: Evidence,
    controls: Sequence[Control],
    stamped: str,
    seconds: float,
    sources: Sequence[str],
) -> None:
    """Writes the results of a study.

    Args:
      folder: the folder with the stamp.
      protocol: the protocol.
      evidence: the results.
      controls: the controls with their numbers.
      stamped: the hash of the stamp.
      seconds: duration of the study.
      sources: the packages whose code determines the results.
    """
    rows = [dict(row) for row in evidence.rows]
    if rows:
        files.write(folder / SEEDS, parquet_bytes(rows))
        files.write(folder / "seeds.csv", csv_bytes(rows))
    result = summarise_round(protocol, evidence, controls) | {
        "seeds_sha256": files.digest(folder / SEEDS) if rows else None,
        "hash": stamped,
        "seconds": seconds,
        "finished": _now(),
        "environment": environment(),
        "source": source_fingerprint(*sources),
    }
    records.write(folder / FOUND, _owner(folder), result)


def read_answer(folder: Path, size: str) -> Found | None:
    """The results of a study; None if it is not finished or, with a printed message, damaged.

    Args:
      folder: the folder of the study.
      size: the required size of the study.
    """
    path, seeds = folder / FOUND, folder / SEEDS
    if not path.exists():
        return None
    try:
        result: Any = records.read(path, _owner(folder), Answer)
        stamp = records.read(folder / PROTOCOL, _owner(folder), Stamp)
        if stamp["hash"] != result["hash"]:
            raise records.damaged(folder / PROTOCOL, "the result belongs to another protocol")
        if stamp["size"] != size:
            raise records.damaged(folder / PROTOCOL, f"it is of the size '{stamp['size']}'")
        wanted = result["seeds_sha256"]
        if wanted and not (seeds.is_file() and files.digest(seeds) == wanted):
            raise records.damaged(seeds, "it is not the table that was written with the result")
    except CorruptError as error:
        print(error)
        return None
    answer: Found = result
    return answer


def read_rounds(folder: Path, size: str) -> dict[str, Found]:
    """The finished rounds of a study, in order.

    Args:
      folder: the folder of the study.
      size: the required size of the study.
    """
    found_all = {name: read_answer(folder / name, size) for name in ROUNDS}
    return {name: answer for name, answer in found_all.items() if answer}


def read_rows(folder: Path, answer: Found) -> list[Row]:
    """The seed-level rows of an answer; empty without any."""
    return read_parquet(folder / SEEDS) if answer["seeds_sha256"] else []


def _owner(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
