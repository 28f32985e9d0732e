"""Runs the studies of the article's claims and writes the atlas page.

    python -m experiments.atlas [--size=smoke|laptop|full] [--round=discovery|replication]
                                [--only=C5,C9] [--seed=1] [--workers=2] [--again] [--root=runs]
                                [--manual_dir=FOLDER]
    python -m experiments.atlas plan C7 [--size=laptop]
    python -m experiments.atlas needs C7 [--size=full]
    python -m experiments.atlas register C7 --reason=TEXT [--data_seen=yes|no]
    python -m experiments.atlas document docs [--size=laptop]

The page is `runs/atlas/<size>/index.html`.

A verdict needs two rounds: the discovery, and a replication on other seeds and data. Each study has
seeds and data of its own, and its protocol must be the last version in its log
(`experiments/studies/protocols`), to which `register` appends. `--seed=1` gives all studies seeds
and data that no published round used; their page is `runs/atlas/<size>-seed-1/index.html`. Finished
studies are not run again unless `--again` is given. `--workers=2` runs two studies at a time; times
are measured alone, at the end. `smoke` runs only the controls with known answers; `laptop` gives
the verdicts on two cores; `full` needs a GPU, and the files of MNIST and CIFAR-10 in
`--manual_dir`.
`plan` runs a study on a few pilot seeds and prints the number of seeds that its question needs.
`needs` prints the least memory and time of one accelerator for a round of a study that is finished
at laptop size.
`document` writes the finished studies as a page of a documentation site into a folder.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import machine as machines
from experiments.configs import base
from experiments.finished import add_folders
from experiments.studies import STUDIES, registration
from experiments.studies.chapters import SOURCE, chapters_of, folder_of
from experiments.studies.common import LAPTOP, PILOT, SIZES, at_round, experiments_of
from experiments.studies.needs import needs
from experiments.studies.rounds import Round, run
from experiments.studies.study_runner import StudyRunner
from lth_jax.analysis.roofline import A100
from lth_jax.cli.options import Options
from lth_jax.cli.programs import UserError, exit_code
from lth_jax.legal import nearest, one_of, whole
from lth_jax.measures.judge import DISCOVERY, ROUNDS, summarise_round
from lth_jax.report import answers
from lth_jax.report.atlas import document
from lth_jax.store import locks

PILOT_SEEDS = 8


def plan(claim: str, size: str, runner: StudyRunner) -> str:
    """The number of seeds that a study needs, from a pilot on other seeds."""
    one = STUDIES[claim]
    config = at_round(one.get_config(size), claim, PILOT)
    config.study.seeds = PILOT_SEEDS
    for experiment in experiments_of(config):
        experiment.replicates = PILOT_SEEDS
    evidence = one.gather(runner, config)
    lines = []
    for part in summarise_round(one.protocol, evidence, [])["primaries"]:
        need = part["needed"]
        words = f"about {need} seeds" if need else "no number of seeds: its δ is a margin"
        lines.append(f"{claim}, {part['name']}: δ = {part['delta']:g} {part['unit']}; {words}")
    return "\n".join(lines)


def needed(claim: str, size: str, runner: StudyRunner) -> str:
    """The least memory and time that a round of a study needs on one accelerator.

    Raises:
      UserError: the study is not finished at laptop size.
    """
    one = STUDIES[claim]
    done = answers.read_rounds(folder_of(runner, LAPTOP, claim), LAPTOP)
    if not done:
        raise UserError(
            f"`needs` scales the steps of {claim} at laptop size, which has not run; run "
            f"`python -m experiments.atlas --only={claim}` first."
        )
    config = one.get_config(size)
    config.machine = runner.machine
    steps = next(iter(done.values()))["member_steps"]
    bounds = needs(config, one.get_config(LAPTOP), steps)
    return f"{claim} at {size} size: {bounds.described(A100)}"


def register(claim: str, reason: str, data_seen: str) -> str:
    """Appends the present protocol of a study to its log."""
    line = registration.register(STUDIES[claim], reason, data_seen=data_seen == "yes")
    return f"{claim}: version {line['version']} is registered, {line['hash'][:8]}."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 2 for errors of the user."""
    parser = Options("experiments.atlas", str(__doc__))
    parser.add_argument(
        "action",
        nargs="*",
        metavar="plan|needs|register CLAIM, document FOLDER",
        help="print the number of seeds or the accelerator that a study needs, register its "
        "protocol, or write the page of a documentation site",
    )
    parser.option("size", one_of(SIZES), "laptop", "size of the studies")
    parser.option("round", one_of(ROUNDS), DISCOVERY, "round of the studies")
    parser.option("seed", whole(0), 0, "0, or another number for other seeds and data")
    parser.add_argument("--reason", default="", help="of `register`: why a protocol changed")
    parser.option("data_seen", one_of(("yes", "no")), "yes", "whether data had been seen by then")
    parser.add_argument("--only", default="", help="such as C5,C9; all by default")
    parser.option("workers", whole(1), 1, "processes that run one study each at a time")
    parser.add_argument("--again", action="store_true", help="run finished studies again")
    add_folders(parser)

    def work() -> str:
        arguments = parser.parse_args(argv)
        claims = _claims(arguments.only.split(",") if arguments.only else list(STUDIES))
        machine = base.ladder().machine
        machine.workdir, machine.data_dir = arguments.root, arguments.data_dir
        machine.manual_dir = arguments.manual_dir
        machines.prepare(machine)
        action, rest = (arguments.action or ["run"])[0], arguments.action[1:]
        actions = ("run", "plan", "needs", "register", "document")
        if action not in actions or len(rest) != (action != "run"):
            raise UserError(
                f"'{' '.join(arguments.action)}' is not an action; the actions are `plan CLAIM`, "
                "`needs CLAIM`, `register CLAIM` and `document FOLDER`."
            )
        if action == "document":
            runner = StudyRunner(machine)
            chapters = chapters_of(arguments.size, runner, arguments.seed)
            return str(document(Path(rest[0]), arguments.size, chapters, SOURCE))
        if rest:
            [claim] = _claims(rest)
        if action == "register":
            return register(claim, arguments.reason, arguments.data_seen)
        if action == "needs":
            return needed(claim, arguments.size, StudyRunner(machine))
        with locks.in_use(Path(machine.workdir), "atlas"):
            command = ["python", "-m", "experiments.atlas", *sys.argv[1:]]
            runner = StudyRunner(machine, command, pilot=action == "plan")
            if action == "plan":
                return plan(claim, arguments.size, runner)
            this = Round(arguments.size, arguments.round, arguments.seed)
            options = {"again": arguments.again, "workers": arguments.workers}
            return f"page: {run(this, claims, runner, **options)}"

    return exit_code(work)


def _claims(asked: Sequence[str]) -> list[str]:
    for claim in asked:
        if claim not in STUDIES:
            raise UserError(nearest("a study", claim, STUDIES))
    return [claim for claim in STUDIES if claim in asked]


if __name__ == "__main__":
    sys.exit(main())
