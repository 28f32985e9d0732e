"""Joins a job of several processes, and exits with one sentence if one is lost."""

import os
import sys
import threading
import time

import jax

from lth_jax import store
from lth_jax.distributed import cluster
from lth_jax.distributed.relay import relay

AUTO = "auto"


def join(
    coordinator: str = AUTO, processes: int = 0, process: int = 0, *, timeout: int = 300
) -> None:
    """Joins a `jax.distributed` job; call it before JAX is used.

    Every process but the first connects to the coordinator through its own relay, so that the loss
    of a process raises an error at the next exchange instead of aborting the others. Does nothing
    if the process has already joined a job.

    Args:
      coordinator: `HOST:PORT` of process 0, or `"auto"` to read the environment variables of Slurm
        or a TPU pod.
      processes: number of processes; not with `"auto"`.
      process: number of this process; not with `"auto"`.
      timeout: seconds to wait for the others. If they do not join, the program exits with one
        sentence and code 2.

    Raises:
      ValueError: if an argument is not legal, or the environment describes no job.

    >>> join("localhost:1234", processes=2, process=2)
    Traceback (most recent call last):
    ValueError: `process` is 2; it must be at least 0 and below `processes`, 2.
    """
    job = _job(coordinator, processes, process)
    if jax.distributed.is_initialized():
        return
    # Its native handler of SIGTERM would replace ours.
    jax.config.update("jax_enable_preemption_service", False)
    late = threading.Timer(timeout, _give_up, [job.coordinator, timeout])
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            coordinator_address=_address(job, timeout),
            num_processes=job.processes,
            process_id=job.process,
            # Longer than ours, which exits with one sentence.
            initialization_timeout=timeout + 60,
            heartbeat_timeout_seconds=timeout,
        )
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"`coordinator` is '{coordinator}': {error}") from error
    finally:
        late.cancel()


def _job(coordinator: str, processes: int, process: int) -> cluster.Job:
    """The job in the arguments or the environment.

    JAX recognises more environments, but connects to the coordinator directly, and aborts the
    process if that dies.
    """
    if coordinator != AUTO:
        if not 0 <= process < processes:
            raise ValueError(
                f"`process` is {process}; it must be at least 0 and below `processes`, {processes}."
            )
        return cluster.Job(coordinator, processes, process)
    if processes or process:
        raise ValueError("`processes` and `process` need the address in `coordinator`.")
    found = cluster.job(os.environ)
    if found is None:
        raise ValueError(
            "`coordinator` is 'auto': no environment variables of Slurm or of a TPU pod describe a "
            "job; set HOST:PORT of process 0, `processes` and `process`."
        )
    return found


def _address(job: cluster.Job, timeout: float) -> str:
    """The address at which this process connects: a relay's, unless it is the coordinator."""
    if job.process == 0:
        return job.coordinator
    host, _, port = job.coordinator.rpartition(":")

    def end() -> None:
        """Exits if the main thread has not, because it had no exchange with the other processes."""
        time.sleep(timeout / 2)
        team = store.Team(job.process, job.processes)
        print(f"error: {store.lost(team, 'process 0 is gone')}", file=sys.stderr, flush=True)
        os._exit(2)

    # gRPC uses a proxy for localhost too. JAX 0.10 warns of any such variable, so it is only
    # extended, not added.
    if any(name.lower().endswith("_proxy") for name in os.environ):
        no_proxy = "no_grpc_proxy" if "no_grpc_proxy" in os.environ else "no_proxy"
        os.environ[no_proxy] = f"{os.environ.get(no_proxy, '')},127.0.0.1".strip(",")
    return f"127.0.0.1:{relay(host.strip('[]'), int(port), end)}"


def _give_up(coordinator: str, timeout: float) -> None:
    """Exits, because JAX cannot stop waiting."""
    print(
        f"error: not all processes of the job connected to {coordinator} within {timeout} seconds; "
        "start all with the same coordinator.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)
