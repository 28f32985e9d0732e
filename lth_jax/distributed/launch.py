"""Runs a command as jobs of a cluster, by submitit, and reads their states."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lth_jax.extras import needed_by
from lth_jax.legal import one_of, shown
from lth_jax.store import files

LOCAL, SLURM = CLUSTERS = ("local", "slurm")
FOLDER = "jobs"
RUNNING, STOPPED, FINISHED, FAILED = "running", "stopped", "finished", "failed"
STOP_SECONDS = 60  # for an orderly stop, before a kill
_NOTICE = 90  # seconds between the signal of a time limit and the end of the job
_EXTRA = "cluster"


class Job(NamedTuple):
    """A job of `submit`.

    Attributes:
      id: the cluster's number of the job.
      state: `"running"`, `"stopped"` (in the queue again if it was preempted), `"finished"` or
        `"failed"`; of a job of Slurm without a record, the state that `sacct` prints.
      log: the file of its output; that of its errors ends in `.err`.
    """

    id: str
    state: str
    log: str


@dataclasses.dataclass
class Command:
    """A command in a job: it stops gracefully when the job is preempted, and then runs again.

    Attributes:
      argv: the command; its exit code 0 is success.
      cwd: the folder where it runs.
      forwarded: the signals of the job that stop the command gracefully and for good. The command
        then has its own process group, to which a terminal sends no signals.
    """

    argv: list[str]
    cwd: str
    forwarded: tuple[signal.Signals, ...] = ()

    def __call__(self) -> None:
        """Runs the command.

        Raises:
          CalledProcessError: its exit code is not 0.
          SystemExit: a signal stopped it.
        """
        stopped: list[int] = []

        def forward(signum: int, frame: Any) -> None:
            if not stopped:  # a second signal would end the command at once
                self._child.terminate()
            stopped.append(signum)

        # Slurm sends the signal of a preemption to all processes of a job. The command ignores it,
        # since `checkpoint` stops the command.
        def ignore() -> None:
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)

        group = 0 if self.forwarded else None
        self._child = subprocess.Popen(
            self.argv, cwd=self.cwd, preexec_fn=ignore, process_group=group
        )
        for number in self.forwarded:
            signal.signal(number, forward)
        _record(RUNNING)
        code = self._child.wait()
        _record(STOPPED if stopped else FAILED if code else FINISHED)
        if stopped:
            sys.exit(code)
        if code:
            raise subprocess.CalledProcessError(code, self.argv)

    def checkpoint(self) -> Any:
        """Stops the command gracefully; submitit calls this when the job is preempted."""
        from submitit.helpers import DelayedSubmission

        self._child.terminate()
        # `Popen.wait` would wait for the lock of the call that this signal interrupts.
        ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
        end = time.monotonic() + STOP_SECONDS
        with contextlib.suppress(ChildProcessError):  # it has ended and was reaped
            while not os.waitid(os.P_PID, self._child.pid, ended) and time.monotonic() < end:
                time.sleep(0.1)
        self._child.kill()
        _record(STOPPED)
        return DelayedSubmission(Command(self.argv, self.cwd, self.forwarded))


def submit(
    argv: Sequence[str],
    *,
    cluster: str,
    folder: str | Path,
    workers: int = 1,
    gpus: int = 0,
    minutes: int = 60,
    partition: str = "",
    name: str = "lth",
) -> list[Any]:
    """Submits a command several times, as an array of jobs.

    A preempted job, or one at its time limit, stops its command by SIGTERM and returns to the
    queue. The command must therefore continue its work when it starts again.

    Args:
      argv: the command.
      cluster: `"slurm"`, or `"local"` for processes of this machine.
      folder: the folder of all runs; logs and states are in its subfolder `jobs`.
      workers: the number of jobs.
      gpus: the number of GPUs of each job.
      minutes: the time limit of each job.
      partition: the partition of Slurm; the default one if empty.
      name: the name of the jobs.

    Returns:
      The submitted jobs, as objects of submitit.

    Raises:
      MissingExtraError: submitit is not installed.
      ValueError: an unknown cluster, or this machine has no Slurm.
    """
    if cluster not in CLUSTERS:
        raise ValueError(f"`cluster` is {shown(cluster)}; it must be {one_of(CLUSTERS).words}.")
    with needed_by("Submitting jobs", _EXTRA):
        import submitit
    made = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
    place = Path(folder) / FOLDER / made
    try:
        executor = submitit.AutoExecutor(folder=place, cluster=cluster)
    except RuntimeError as error:
        raise ValueError("`cluster` is 'slurm', which is not available on this machine.") from error
    executor.update_parameters(
        name=name,
        timeout_min=minutes,
        gpus_per_node=gpus,
        slurm_signal_delay_s=_NOTICE,
        **({"slurm_partition": partition} if partition else {}),
    )
    # Of the signals of a terminal, local jobs get SIGINT from `stop` alone, and SIGHUP directly.
    forwarded = (signal.SIGTERM, signal.SIGHUP) if cluster == LOCAL else ()
    command = Command([*argv], os.getcwd(), forwarded)
    with _without_sigint() if cluster == LOCAL else contextlib.nullcontext(), executor.batch():
        submitted = [executor.submit(command) for _ in range(workers)]
    jobs = {"cluster": cluster, "ids": [job.job_id for job in submitted]}
    files.write_json(place / "jobs.json", jobs)
    return submitted


@contextlib.contextmanager
def _without_sigint() -> Iterator[None]:
    """Context in which processes start that ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def stop(submitted: Sequence[Any]) -> None:
    """Stops local jobs gracefully, and waits for them.

    Args:
      submitted: the result of `submit`.
    """
    while left := [job for job in submitted if not job.done()]:
        for job in left:
            os.kill(int(job.job_id), signal.SIGTERM)
        time.sleep(0.5)


def jobs_of(folder: str | Path) -> list[Job]:
    """The jobs that were submitted for a folder of runs, oldest first."""
    return list(_jobs(Path(folder) / FOLDER))


def _jobs(root: Path) -> Iterator[Job]:
    for listed in sorted(root.glob("*/jobs.json")):
        place, submitted = listed.parent, files.read_json(listed)
        for id in submitted["ids"]:
            log = place / f"{id}_0_log.out"
            yield Job(id, _state(place, submitted["cluster"], id), str(log))


def _state(place: Path, cluster: str, id: str) -> str:
    path = place / f"{id}.state"
    state = path.read_text() if path.is_file() else "waiting"
    if state in (FINISHED, FAILED):
        return state
    if cluster == LOCAL:  # the number of a local job is that of its process
        return state if state == STOPPED or Path(f"/proc/{id}").exists() else FAILED
    with needed_by("The state of a job", _EXTRA):
        import submitit
    return str(submitit.SlurmJob(place, id).state).lower()


def _record(state: str) -> None:
    """Writes the state of the job that this process belongs to beside its logs."""
    import submitit

    job = submitit.JobEnvironment()
    files.write(job.paths.folder / f"{job.job_id}.state", state.encode())
