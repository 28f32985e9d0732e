"""Runs the studies of the article's claims and writes the atlas page.

    python -m experiments.atlas [--size=smoke|laptop|full] [--round=discovery|replication]
                                [--only=C5,C9] [--workers=2] [--again] [--root=runs]
                                [--manual_dir=FOLDER]
    python -m experiments.atlas plan C7 [--size=laptop]
    python -m experiments.atlas needs C7 [--size=full]
    python -m experiments.atlas register C7 --reason=TEXT [--data_seen=yes|no]
    python -m experiments.atlas document docs [--size=laptop]

The page is `runs/atlas/<size>/index.html`.

A verdict needs two rounds: the discovery, and a replication on other seeds and data. Each study has
seeds and data of its own, and its protocol must be the last version in its log
(`experiments/studies/protocols`), to which `register` appends. Finished studies are not run again
unless `--again` is given. `--workers=2` runs two studies at a time; times are measured alone, at
the end. `smoke` runs only the controls with known answers; `laptop` gives the verdicts on
two cores; `full` needs a GPU, and the files of MNIST and CIFAR-10 in `--manual_dir`.
`plan` runs a study on a few pilot seeds and prints the number of seeds that its question needs.
`needs` prints the least memory and time of one accelerator for a round of a study that is finished
at laptop size.
`document` writes the finished studies as a page of a documentation site into a folder.
"""

import math
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import machine as machines
from experiments.configs import base
from experiments.finished import add_folders
from experiments.studies import STUDIES, pipeline, registration
from experiments.studies.common import LAPTOP, PILOT, SIZES, SMOKE, at_round, experiments_of
from experiments.studies.needs import needs
from experiments.studies.study_runner import StudyRunner
from lth_jax.analysis.roofline import A100
from lth_jax.cli.options import Options
from lth_jax.cli.programs import UserError, exit_code
from lth_jax.legal import nearest, one_of, whole
from lth_jax.machine import core_shares, in_processes
from lth_jax.measures.claims import Evidence
from lth_jax.measures.judge import DISCOVERY, ROUNDS, found, wrong_controls
from lth_jax.report import answers
from lth_jax.report.atlas import document, write_atlas
from lth_jax.report.chapters import Chapter
from lth_jax.store import locks

OUTCOMES = Path(__file__).parent / "studies" / "outcomes.toml"
"""By study and verdict: how the results compare with the expectation."""
PILOT_SEEDS = 8
SOURCE = (
    "The claims are those of “Applications and Interdisciplinary Connections”, the part of an "
    "overview article on the Lottery Ticket Hypothesis that lists what follows from it; “In the "
    "article” names the section and the paragraph. ORIGINAL is the hypothesis of Frankle and "
    "Carbin (2019, arXiv:1803.03635). C18, CRITERIA, N1, N2 and N3 are questions of this project "
    "on the article’s second paragraph; N4 is a question about pruning language models. There is "
    "no study C2, because N1 covers that claim."
)


def run(
    size: str,
    name: str,
    claims: Sequence[str],
    runner: StudyRunner,
    *,
    again: bool = False,
    workers: int = 1,
) -> Path:
    """Runs the unfinished studies of a round and writes the atlas of all finished ones.

    Args:
      size: of the studies.
      name: of the round.
      claims: of the studies.
      runner: trains their networks, or those of one worker.
      again: whether finished studies run again.
      workers: processes, each of which runs one study at a time on its share of the cores, those
        first that took longest in another round, or else the last ones, which are the largest.
        Studies that measure time train their networks first, and measure alone, at the end.

    Returns:
      The path of the page.

    Raises:
      UserError: a protocol is not registered as it is, or a worker failed.
    """
    jobs = list(claims)
    if size != SMOKE:
        for claim in claims:
            registration.check(STUDIES[claim])
        jobs.insert(0, pipeline.NAME)
    if workers > 1:
        order = [*filter(_is_timed, jobs), *(one for one in reversed(jobs) if not _is_timed(one))]
        jobs = sorted(order, key=lambda claim: -_seconds(runner, size, claim))
        machine = runner.machine.to_dict()
        given = {"machine": machine, "command": runner.command, "again": again}
        _in_workers(workers, jobs, size=size, name=name, **given)
        return draw(size, runner)
    for claim in jobs:
        finish(claim, size, name, runner, again=again)
        draw(size, runner)
    return draw(size, runner)


def _seconds(runner: StudyRunner, size: str, claim: str) -> float:
    """The longest time of a study's finished rounds; infinite without any."""
    done = answers.read_rounds(_folder(runner, size, claim), size)
    return max((one["seconds"] for one in done.values()), default=math.inf)


def finish(
    claim: str,
    size: str,
    name: str,
    runner: StudyRunner,
    *,
    again: bool = False,
    spent: float = 0.0,
    only_train: bool = False,
) -> None:
    """Runs a study of a round, or the controls of the pipeline, unless it is finished.

    Args:
      claim: of the study, or `pipeline.NAME`.
      size: of the study.
      name: of the round.
      runner: trains its networks.
      again: whether a finished study runs again.
      spent: seconds that have gone into its networks, which count as its own.
      only_train: whether to train its networks, of a study that measures time, and no more.
    """
    one = None if claim == pipeline.NAME else STUDIES[claim]
    protocol, get_config = one[:2] if one else (pipeline.PROTOCOL, pipeline.get_config)
    config = at_round(get_config(size), claim, name)
    folder = _folder(runner, size, claim) / name
    stamp = answers.stamp_of(protocol, registration.numbers_of(config), size)
    if not again and (answers.read_answer(folder, size) or {}).get("hash") == stamp["hash"]:
        print(f"{claim} is already finished")
        return
    print(f"{claim} {protocol.title}", flush=True)
    began = time.perf_counter() - spent
    answers.write_stamp(folder, stamp)
    if only_train:
        if one and one.train and size != SMOKE:
            one.train(runner, config)
        return
    known = one.controls(config) if one else pipeline.pipeline_controls(runner, config)
    evidence = one.gather(runner, config) if one and size != SMOKE else Evidence((), ())
    seconds, sources = time.perf_counter() - began, ("lth_jax", "experiments")
    answers.write_answer(folder, protocol, evidence, known, stamp["hash"], seconds, sources)


def _in_workers(workers: int, claims: Sequence[str], **options: Any) -> None:
    """`finish` for each study, in processes of their own, `workers` at a time.

    Each process has its share of the cores: on the same cores, two populations wait for each
    other's devices at every step, and take as long as one after the other.

    Raises:
      UserError: a process failed; the others have finished their studies.
    """
    shares, timed = core_shares(workers), [one for one in claims if _is_timed(one)]

    def work(claim: str, **more: Any) -> Callable[[], None]:
        return partial(_work, claim, **options, **more)

    spent = in_processes({one: work(one, only_train=one in timed) for one in claims}, shares)
    last = {one: work(one, spent=spent[one]) for one in timed if one in spent}
    measured = in_processes(last, core_shares(1))  # on all cores, as programs of users run
    if failed := [one for one in claims if one not in (measured if one in timed else spent)]:
        raise UserError(f"{', '.join(failed)} failed; the message stands above.")


def _work(
    claim: str,
    *,
    size: str,
    name: str,
    machine: Mapping[str, Any],
    command: Sequence[str],
    **options: Any,
) -> None:
    """A worker's process: `finish` of a study."""

    def work() -> str:
        config = ConfigDict(machine)
        machines.prepare(config)
        with locks.in_use(Path(config.workdir), "atlas"):
            finish(claim, size, name, StudyRunner(config, command), **options)
        return f"{claim} is {'trained' if options.get('only_train') else 'finished'}"

    sys.exit(exit_code(work))


def _is_timed(claim: str) -> bool:
    return claim != pipeline.NAME and STUDIES[claim].train is not None


def draw(size: str, runner: StudyRunner) -> Path:
    """Writes the atlas of all finished studies of a size."""
    return write_atlas(_folder(runner, size), size, chapters_of(size, runner), SOURCE)


def chapters_of(size: str, runner: StudyRunner) -> list[Chapter]:
    """The finished studies of a size, after the controls of the pipeline."""
    folder = _folder(runner, size)
    whole = answers.read_rounds(folder / pipeline.NAME, size)
    failed = {name: wrong_controls(one) for name, one in whole.items()}
    command = f"python -m experiments.atlas --size={size}"
    chapters = [Chapter(pipeline.PROTOCOL._asdict(), whole, None, command)] if whole else []
    outcomes = tomllib.loads(OUTCOMES.read_text())
    for claim in STUDIES:
        if one := _chapter(size, claim, runner):
            one = one._replace(failed=failed)
            outcome = outcomes.get(claim, {}).get(one.judgement["verdict"], "")
            chapters.append(one._replace(protocol=one.protocol | {"outcome": outcome}))
    return chapters


def _chapter(size: str, claim: str, runner: StudyRunner) -> Chapter | None:
    one, folder = STUDIES[claim], _folder(runner, size, claim)
    done = answers.read_rounds(folder, size)
    if not done:
        return None
    rows = [
        row | ({"replicate": row["replicate"] + 10**6 * i} if "replicate" in row else {})
        for i, (name, answer) in enumerate(done.items())
        for row in answers.read_rows(folder / name, answer)
    ]
    changes = [
        f"Version {v['version']}, {v['date']}"
        f"{', after data had been seen' if v['data_seen'] else ''}: {v['reason']}"
        for v in registration.versions(claim)
    ]
    return Chapter(
        protocol=one.protocol._asdict() | _own_setup(one.get_config(size)),
        rounds=done,
        figure=one.draw(rows) if rows else None,
        command=f"python -m experiments.atlas --size={size} --only={claim}",
        changes=changes,
    )


def _own_setup(config: ConfigDict) -> dict[str, str]:
    """The set-up of this size, if it differs from the protocol's."""
    return {"setup": config.study.setup} if "setup" in config.study else {}


def plan(claim: str, size: str, runner: StudyRunner) -> str:
    """The number of seeds that a study needs, from a pilot on other seeds."""
    one = STUDIES[claim]
    config = at_round(one.get_config(size), claim, PILOT)
    config.study.seeds = PILOT_SEEDS
    for experiment in experiments_of(config):
        experiment.replicates = PILOT_SEEDS
    evidence = one.gather(runner, config)
    lines = []
    for part in found(one.protocol, evidence, [])["primaries"]:
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
    done = answers.read_rounds(_folder(runner, LAPTOP, claim), LAPTOP)
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


def _folder(runner: StudyRunner, size: str, claim: str = "") -> Path:
    return Path(runner.machine.workdir) / "atlas" / size / claim


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
            chapters = chapters_of(arguments.size, runner)
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
            page = run(
                arguments.size,
                arguments.round,
                claims,
                runner,
                again=arguments.again,
                workers=arguments.workers,
            )
            return f"page: {page}"

    return exit_code(work)


def _claims(asked: Sequence[str]) -> list[str]:
    for claim in asked:
        if claim not in STUDIES:
            raise UserError(nearest("a study", claim, STUDIES))
    return [claim for claim in STUDIES if claim in asked]


if __name__ == "__main__":
    sys.exit(main())
