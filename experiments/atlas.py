"""Runs the studies of the article's claims and draws their atlas.

    python -m experiments.atlas [--size=smoke|laptop|full] [--only=C5,C9] [--again] [--root=runs]
                                [--manual_dir=FOLDER]
    python -m experiments.atlas plan C7 [--size=laptop]

A study writes its protocol's hash down before anything is drawn; what is finished is kept and never
run again, unless `--again` asks for it. `smoke` runs the controls with known answers alone,
`laptop` gives the verdicts on two cores, `full` needs a GPU, and MNIST's idx files and CIFAR-10's
archive in `--manual_dir`. `plan` runs a study on a few pilot seeds and says how many would decide
its question. The page is `runs/atlas/<size>/index.html`.
"""

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from ml_collections import ConfigDict

from experiments import machine as machines
from experiments.configs import base
from experiments.finished import add_folders, exit_code
from experiments.flags import UserError, nearest
from experiments.legal import one_of
from experiments.options import Options
from experiments.studies import STUDIES, family
from experiments.studies.common import SIZES, pilot
from experiments.studies.protocol import Study
from experiments.studies.study_runner import StudyRunner
from lth_jax import store as stores
from lth_jax.measures.claims import Evidence
from lth_jax.measures.judge import found, verdicts
from lth_jax.report.atlas import Chapter, write_atlas
from lth_jax.report.tables import csv_bytes, parquet_bytes, read_parquet
from lth_jax.store import files, locks, records

PILOT_SEEDS = 8
SEEDS = "seeds.parquet"


class Stamp(TypedDict):
    """What is read of `protocol.json`."""

    hash: str
    size: str


class Answer(TypedDict):
    """What is checked of `found.json`."""

    hash: str
    seeds_sha256: str | None


def run(size: str, claims: Sequence[str], bench: StudyRunner, *, again: bool = False) -> Path:
    """Runs the studies that are not finished, and draws the atlas of all that are.

    Args:
      size: `"smoke"`, `"laptop"` or `"full"`.
      claims: which.
      bench: what they train with.
      again: whether to run also those that are finished.

    Returns:
      The page.
    """
    for claim in claims:
        one, folder = STUDIES[claim], _folder(bench, size, claim)
        config = one.get_config(size)
        stamp = _stamp(one, config, size)
        if not again and (_found(folder) or {}).get("hash") == stamp["hash"]:
            print(f"{claim} is finished already")
            continue
        records.write(folder / "protocol.json", claim, stamp)
        _measure(one, config, size, folder, stamp["hash"], bench)
        draw(size, bench)
    return draw(size, bench)


def _measure(
    one: Study, config: ConfigDict, size: str, folder: Path, stamped: str, bench: StudyRunner
) -> None:
    claim, began = one.protocol.claim, time.perf_counter()
    print(f"{claim} {one.protocol.title}", flush=True)
    known = one.controls(config)
    evidence = Evidence((), ()) if size == "smoke" else one.gather(bench, config)
    if rows := [dict(row) for row in evidence.rows]:
        files.write(folder / SEEDS, parquet_bytes(rows))
        files.write(folder / "seeds.csv", csv_bytes(rows))
    result = found(one.protocol, evidence, known) | {
        "seeds_sha256": files.digest(folder / SEEDS) if rows else None,
        "hash": stamped,
        "seconds": time.perf_counter() - began,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": stores.environment(),
        "source": stores.source_fingerprint("lth_jax", "experiments"),
    }
    records.write(folder / "found.json", claim, result)


def draw(size: str, bench: StudyRunner) -> Path:
    """Draws the atlas of all finished studies of a size."""
    folders = {claim: _folder(bench, size, claim) for claim in STUDIES}
    done = {c: kept for c, f in folders.items() if (kept := _found(f))}
    judged = verdicts(done, family())
    chapters = []
    for claim, result in done.items():
        one, rows = STUDIES[claim], folders[claim] / SEEDS
        chapters.append(
            Chapter(
                protocol=one.protocol._asdict() | _own_setup(one.get_config(size)),
                found=result,
                judgement=judged[claim],
                figure=one.draw(read_parquet(rows)) if result["seeds_sha256"] else None,
                command=f"python -m experiments.atlas --size={size} --only={claim}",
            )
        )
    return write_atlas(Path(bench.machine.workdir) / "atlas" / size, size, chapters)


def _own_setup(config: ConfigDict) -> dict[str, str]:
    """What a size has been given in place of the protocol's set-up, where it differs."""
    return {"setup": config.study.setup} if "setup" in config.study else {}


def plan(claim: str, size: str, bench: StudyRunner) -> str:
    """How many seeds would decide a study, from a pilot on seeds that it will not use."""
    one = STUDIES[claim]
    config = one.get_config(size)
    if "experiment" in config:
        config = pilot(config, PILOT_SEEDS)
    config.study.seeds = PILOT_SEEDS
    evidence = one.gather(bench, config)
    lines = []
    for part in found(one.protocol, evidence, [])["primaries"]:
        need = part["needed"]
        told = f"about {need} seeds" if need else "no number: its δ is a margin"
        lines.append(f"{claim}, {part['name']}: δ = {part['delta']:g} {part['unit']}; {told}")
    return "\n".join(lines)


def _stamp(one: Study, config: ConfigDict, size: str) -> dict[str, Any]:
    """The protocol and its numbers as they are before the data are drawn, with their hash."""
    content = {"protocol": one.protocol._asdict(), "config": config.to_dict(), "size": size}
    content = {**content, "config": {k: v for k, v in content["config"].items() if k != "machine"}}
    stamped = datetime.now(UTC).isoformat(timespec="seconds")
    return {**content, "hash": stores.content_key(content), "stamped": stamped}


def _found(folder: Path) -> dict[str, Any] | None:
    """What a study found; None if it is not finished, or damaged, which is printed."""
    path, seeds = folder / "found.json", folder / SEEDS
    if not path.exists():
        return None
    try:
        result: Any = records.read(path, folder.name, Answer)
        stamp = records.read(folder / "protocol.json", folder.name, Stamp)
        if stamp["hash"] != result["hash"]:
            raise records.damaged(folder / "protocol.json", "another one was answered")
        if stamp["size"] != folder.parent.name:
            raise records.damaged(folder / "protocol.json", f"it is of the size '{stamp['size']}'")
        wanted = result["seeds_sha256"]
        if wanted and not (seeds.is_file() and files.digest(seeds) == wanted):
            raise records.damaged(seeds, "it is not the table that was written with the result")
    except stores.CorruptError as error:
        print(error)
        return None
    return result


def _folder(bench: StudyRunner, size: str, claim: str) -> Path:
    return Path(bench.machine.workdir) / "atlas" / size / claim


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 2 for what the user can mend."""
    parser = Options("experiments.atlas", str(__doc__))
    parser.add_argument("action", nargs="*", metavar="plan CLAIM", help="how many seeds it takes")
    parser.option("size", one_of(SIZES), "laptop", "of the studies")
    parser.add_argument("--only", default="", help="such as C5,C9; all by default")
    parser.add_argument("--again", action="store_true", help="run what is finished, too")
    add_folders(parser)

    def work() -> str:
        arguments = parser.parse_args(argv)
        claims = _claims(arguments.only.split(",") if arguments.only else list(STUDIES))
        machine = base.ladder().machine
        machine.workdir, machine.data_dir = arguments.root, arguments.data_dir
        machine.manual_dir = arguments.manual_dir
        machines.prepare(machine)
        with locks.in_use(Path(machine.workdir), "atlas"):
            command = ["python", "-m", "experiments.atlas", *sys.argv[1:]]
            bench = StudyRunner(machine, command, pilot=bool(arguments.action))
            if not arguments.action:
                return f"page: {run(arguments.size, claims, bench, again=arguments.again)}"
            if arguments.action[0] != "plan" or len(arguments.action) != 2:
                raise UserError(f"'{' '.join(arguments.action)}' is no action; say `plan CLAIM`.")
            return plan(_claims(arguments.action[1:])[0], arguments.size, bench)

    return exit_code(work)


def _claims(asked: Sequence[str]) -> list[str]:
    for claim in asked:
        if claim not in STUDIES:
            raise UserError(nearest("a study", claim, STUDIES))
    return [claim for claim in STUDIES if claim in asked]


if __name__ == "__main__":
    sys.exit(main())
