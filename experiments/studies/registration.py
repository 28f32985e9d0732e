"""Registered protocols: `protocols/CLAIM.jsonl` is the log of a study's texts and numbers."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.configs.base import NO_RECONSTRUCTION
from experiments.studies.common import FULL, LAPTOP
from experiments.studies.protocol import Study
from lth_jax.cli.programs import UserError
from lth_jax.measures.protocol_log import Version, append_version, read_log
from lth_jax.store import content_key

FOLDER = Path(__file__).parent / "protocols"
ADDED: dict[str, dict[str, Any]] = {
    "prune": {"at_start": False, "budget": "", "rounds": 1, "reconstruct": NO_RECONSTRUCTION},
    "train": {"crop_area": 0.0, "eval_examples": 0},
    "average": {"window": 0},
}
"""Fields that `configs/base.py` got after the first protocols, with their defaults.

A protocol omits them at their defaults, so that a new field changes no registered protocol.
"""


def content_of(study: Study) -> dict[str, Any]:
    """The texts and numbers of a study that decide its answer, JSON-like."""
    numbers = {size: numbers_of(study.get_config(size)) for size in (LAPTOP, FULL)}
    return {"protocol": study.protocol._asdict(), **numbers}


def numbers_of(config: ConfigDict) -> dict[str, Any]:
    """The part of a study's config that affects its answer, without `ADDED` at their defaults."""
    whole = config.to_dict()
    whole.pop("machine", None)
    return _without_added(whole)


def _without_added(part: dict[str, Any], name: str = "") -> dict[str, Any]:
    usual = ADDED.get(name, {})
    return {
        key: _without_added(value, key) if isinstance(value, dict) else value
        for key, value in part.items()
        if key not in usual or value != usual[key]
    }


def versions(claim: str, folder: Path = FOLDER) -> list[Version]:
    """All versions of a protocol, the oldest first."""
    return read_log(folder / f"{claim}.jsonl")


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

    Raises:
      UserError: the protocol is registered already, or no reason is given.
    """
    path = folder / f"{study.protocol.claim}.jsonl"
    try:
        return append_version(path, content_of(study), reason, data_seen=data_seen)
    except ValueError as error:
        raise UserError(str(error).replace("`reason`", "`--reason`")) from error
