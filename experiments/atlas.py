"""Runs the studies of the article's claims and writes the atlas page.

    python -m experiments.atlas [--size=smoke|laptop|full] [--only=C5,C9] [--again] [--root=runs]
                                [--manual_dir=FOLDER]
    python -m experiments.atlas plan C7 [--size=laptop]

Each study records the hash of its protocol before it starts. Finished studies are not run again
unless `--again` is given. `smoke` runs only the controls with known answers; `laptop` gives the
verdicts on two cores; `full` needs a GPU, and the files of MNIST and CIFAR-10 in `--manual_dir`.
`plan` runs a study on a few pilot seeds and prints the number of seeds that its question needs. The
page is `runs/atlas/<size>/index.html`.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import machine as machines
from experiments.configs import base
from experiments.finished import add_folders, exit_code
from experiments.flags import UserError
from experiments.options import Options
from experiments.studies import STUDIES, family
from experiments.studies.common import SIZES, pilot
from experiments.studies.protocol import Study
from experiments.studies.study_runner import StudyRunner
from lth_jax.legal import nearest, one_of
from lth_jax.measures.claims import Evidence
from lth_jax.measures.judge import found, verdicts
from lth_jax.report import answers
from lth_jax.report.atlas import Chapter, write_atlas
from lth_jax.store import locks

PILOT_SEEDS = 8


def run(size: str, claims: Sequence[str], runner: StudyRunner, *, again: bool = False) -> Path:
    """Runs the unfinished studies and writes the atlas of all finished ones.

    Args:
      size: `"smoke"`, `"laptop"` or `"full"`.
      claims: the claims to run.
      runner: trains the networks of the studies.
      again: whether to run finished studies again.

    Returns:
      The path of the page.
    """
    for claim in claims:
        one, folder = STUDIES[claim], _folder(runner, size, claim)
        config = one.get_config(size)
        stamp = answers.stamp_of(one.protocol, _numbers(config), size)
        if not again and (answers.read_answer(folder, size) or {}).get("hash") == stamp["hash"]:
            print(f"{claim} is already finished")
            continue
        answers.write_stamp(folder, stamp)
        _measure(one, config, size, folder, stamp["hash"], runner)
        draw(size, runner)
    return draw(size, runner)


def _measure(
    one: Study, config: ConfigDict, size: str, folder: Path, stamped: str, runner: StudyRunner
) -> None:
    claim, began = one.protocol.claim, time.perf_counter()
    print(f"{claim} {one.protocol.title}", flush=True)
    known = one.controls(config)
    evidence = Evidence((), ()) if size == "smoke" else one.gather(runner, config)
    seconds, sources = time.perf_counter() - began, ("lth_jax", "experiments")
    answers.write_answer(folder, one.protocol, evidence, known, stamped, seconds, sources)


def _numbers(config: ConfigDict) -> dict[str, Any]:
    """The part of a study's config that affects its answer."""
    return {name: value for name, value in config.to_dict().items() if name != "machine"}


def draw(size: str, runner: StudyRunner) -> Path:
    """Writes the atlas of all finished studies of a size."""
    folders = {claim: _folder(runner, size, claim) for claim in STUDIES}
    found_all = {c: answers.read_answer(folder, size) for c, folder in folders.items()}
    done = {claim: kept for claim, kept in found_all.items() if kept}
    judged = verdicts(done, family())
    chapters = []
    for claim, result in done.items():
        one, rows = STUDIES[claim], answers.read_rows(folders[claim], result)
        chapters.append(
            Chapter(
                protocol=one.protocol._asdict() | _own_setup(one.get_config(size)),
                found=result,
                judgement=judged[claim],
                figure=one.draw(rows) if rows else None,
                command=f"python -m experiments.atlas --size={size} --only={claim}",
            )
        )
    return write_atlas(Path(runner.machine.workdir) / "atlas" / size, size, chapters)


def _own_setup(config: ConfigDict) -> dict[str, str]:
    """The set-up of this size, if it differs from the protocol's."""
    return {"setup": config.study.setup} if "setup" in config.study else {}


def plan(claim: str, size: str, runner: StudyRunner) -> str:
    """The number of seeds that a study needs, from a pilot on other seeds."""
    one = STUDIES[claim]
    config = one.get_config(size)
    if "experiment" in config:
        config = pilot(config, PILOT_SEEDS)
    config.study.seeds = PILOT_SEEDS
    evidence = one.gather(runner, config)
    lines = []
    for part in found(one.protocol, evidence, [])["primaries"]:
        need = part["needed"]
        words = f"about {need} seeds" if need else "no number of seeds: its δ is a margin"
        lines.append(f"{claim}, {part['name']}: δ = {part['delta']:g} {part['unit']}; {words}")
    return "\n".join(lines)


def _folder(runner: StudyRunner, size: str, claim: str) -> Path:
    return Path(runner.machine.workdir) / "atlas" / size / claim


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 2 for errors of the user."""
    parser = Options("experiments.atlas", str(__doc__))
    parser.add_argument(
        "action",
        nargs="*",
        metavar="plan CLAIM",
        help="print the number of seeds that a study needs",
    )
    parser.option("size", one_of(SIZES), "laptop", "size of the studies")
    parser.add_argument("--only", default="", help="such as C5,C9; all by default")
    parser.add_argument("--again", action="store_true", help="run finished studies again")
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
            runner = StudyRunner(machine, command, pilot=bool(arguments.action))
            if not arguments.action:
                return f"page: {run(arguments.size, claims, runner, again=arguments.again)}"
            if arguments.action[0] != "plan" or len(arguments.action) != 2:
                raise UserError(
                    f"'{' '.join(arguments.action)}' is not an action; the action is `plan CLAIM`."
                )
            return plan(_claims(arguments.action[1:])[0], arguments.size, runner)

    return exit_code(work)


def _claims(asked: Sequence[str]) -> list[str]:
    for claim in asked:
        if claim not in STUDIES:
            raise UserError(nearest("a study", claim, STUDIES))
    return [claim for claim in STUDIES if claim in asked]


if __name__ == "__main__":
    sys.exit(main())
