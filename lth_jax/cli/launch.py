"""Options of a command that runs as jobs of a cluster."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from lth_jax.cli.options import Options, reader
from lth_jax.cli.programs import UserError
from lth_jax.distributed.launch import CLUSTERS, FAILED, LOCAL, jobs_of, stop, submit
from lth_jax.extras import MissingExtraError
from lth_jax.legal import one_of, text, whole
from lth_jax.text import counted

OPTIONS = ("--launch", "--workers", "--gpus", "--time", "--partition")
Launch = Callable[[Sequence[str], str, str], bool]
"""`(arguments, folder, name)`: submits jobs with these arguments that work on a folder; returns
whether they have finished."""


def launched(argv: Sequence[str], module: str) -> tuple[list[str], Launch | None]:
    """Takes the options of a launch out of a command line.

    Args:
      argv: the program's name and its arguments.
      module: the module for `python -m`, which the jobs run.

    Returns:
      The rest of the command line, and a function that submits jobs; None without `--launch`.

    Raises:
      UserError: a value is not legal, or an option lacks `--launch`.
    """
    own = [a for a in argv if a.partition("=")[0] in OPTIONS]
    rest = [a for a in argv if a not in own]
    if not own:
        return rest, None
    parser = Options(module, "")
    parser.add_argument("--launch", type=reader(one_of(CLUSTERS), str))
    parser.option("workers", whole(1), 1, "jobs")
    parser.option("gpus", whole(0), 0, "of each job")
    parser.option(
        "time", whole(1)._replace(words="minutes, an integer from 1"), 60, "limit of each job"
    )
    parser.option("partition", text("the name of a partition"), "", "of Slurm")
    given = parser.parse_args(own)
    if not given.launch:
        raise UserError(f"`{own[0].partition('=')[0]}` needs `--launch`, which is not given.")

    def launch(arguments: Sequence[str], folder: str, name: str) -> bool:
        return _launch(given, [sys.executable, "-m", module, *arguments], folder, name)

    return rest, launch


def _launch(given: Any, command: Sequence[str], folder: str, name: str) -> bool:
    """Submits the jobs, and waits for those of this machine; whether they have finished."""
    try:
        submitted = submit(
            command,
            cluster=given.launch,
            folder=folder,
            workers=given.workers,
            gpus=given.gpus,
            minutes=given.time,
            partition=given.partition,
            name=name,
        )
    except (MissingExtraError, ValueError) as error:
        raise UserError(str(error).replace("`cluster`", "`--launch`")) from error
    print(f"{counted(given.workers, 'job')}: {', '.join(job.job_id for job in submitted)}")
    print(f"logs: {submitted[0].paths.folder}", flush=True)
    if given.launch == LOCAL:
        try:
            for job in submitted:
                job.wait()
        except (SystemExit, KeyboardInterrupt):  # a signal
            print(f"stopping {counted(given.workers, 'job')}", file=sys.stderr, flush=True)
            stop(submitted)
            raise
        known = {job.job_id for job in submitted}
        failed = [one for one in jobs_of(folder) if one.id in known and one.state == FAILED]
        if failed:
            raise UserError(
                f"{len(failed)} of {counted(given.workers, 'job')} failed; the first log is "
                f"{failed[0].log.removesuffix('.out')}.err."
            )
    return bool(given.launch == LOCAL)
