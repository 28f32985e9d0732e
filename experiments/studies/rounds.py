"""Runs the studies of a round, one after the other or in workers."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments import machine as machines
from experiments.studies import pipeline, registration
from experiments.studies.chapters import draw, folder_of
from experiments.studies.common import SMOKE, at_round
from experiments.studies.protocol import STUDIES
from experiments.studies.study_runner import StudyRunner
from lth_jax.cli.programs import UserError, exit_code
from lth_jax.machine import core_shares, in_processes
from lth_jax.measures.claims import Evidence
from lth_jax.report import answers
from lth_jax.store import locks


class Round(NamedTuple):
    """A round of all studies.

    Attributes:
      size: of the studies.
      name: one of `judge.ROUNDS`.
      seed: 0 for the rounds of the published atlas; another number gives all studies other seeds
        and data.
    """

    size: str
    name: str
    seed: int = 0


def run(
    this: Round,
    claims: Sequence[str],
    runner: StudyRunner,
    *,
    again: bool = False,
    workers: int = 1,
) -> Path:
    """Runs the unfinished studies of a round and writes the atlas of all finished ones.

    Args:
      this: the round.
      claims: of the studies.
      runner: trains their networks, or those of one worker.
      again: whether finished studies run again.
      workers: processes, each of which runs one study at a time on its share of the cores, the
        longest first, by the times of another round or else by `Study.minutes`. Studies that
        measure time train their networks first, and measure alone, at the end.

    Returns:
      The path of the page.

    Raises:
      UserError: a protocol is not registered as it is, or a worker failed.
    """
    jobs = list(claims)
    if this.size != SMOKE:
        for claim in claims:
            registration.check(STUDIES[claim])
        jobs.insert(0, pipeline.NAME)
    if workers > 1:
        jobs.sort(key=lambda claim: -_seconds(this, runner, claim))
        machine = runner.machine.to_dict()
        given = {"machine": machine, "command": runner.command, "again": again}
        _in_workers(workers, jobs, this=this, **given)
        return draw(this.size, runner, this.seed)
    for claim in jobs:
        finish(claim, this, runner, again=again)
        draw(this.size, runner, this.seed)
    return draw(this.size, runner, this.seed)


def _seconds(this: Round, runner: StudyRunner, claim: str) -> float:
    """The longest time of a study's finished rounds, or else about what a round takes."""
    done = answers.read_rounds(folder_of(runner, this.size, claim, this.seed), this.size)
    usual = 60 * STUDIES[claim].minutes if claim != pipeline.NAME else 0.0
    return max((one["seconds"] for one in done.values()), default=usual)


def finish(
    claim: str,
    this: Round,
    runner: StudyRunner,
    *,
    again: bool = False,
    spent: float = 0.0,
    only_train: bool = False,
) -> None:
    """Runs a study of a round, or the controls of the pipeline, unless it is finished.

    Args:
      claim: of the study, or `pipeline.NAME`.
      this: the round.
      runner: trains its networks.
      again: whether a finished study runs again.
      spent: seconds that have gone into its networks, which count as its own.
      only_train: whether to train its networks, of a study that measures time, and no more.
    """
    one, size = None if claim == pipeline.NAME else STUDIES[claim], this.size
    protocol, get_config = one[:2] if one else (pipeline.PROTOCOL, pipeline.get_config)
    config = at_round(get_config(size), claim, this.name, this.seed)
    folder = folder_of(runner, size, claim, this.seed) / this.name
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
    this: Round,
    machine: Mapping[str, Any],
    command: Sequence[str],
    **options: Any,
) -> None:
    """A worker's process: `finish` of a study."""

    def work() -> str:
        config = ConfigDict(machine)
        machines.prepare(config)
        with locks.in_use(Path(config.workdir), "atlas"):
            finish(claim, this, StudyRunner(config, command), **options)
        return f"{claim} is {'trained' if options.get('only_train') else 'finished'}"

    sys.exit(exit_code(work))


def _is_timed(claim: str) -> bool:
    return claim != pipeline.NAME and STUDIES[claim].train is not None
