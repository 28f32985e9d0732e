"""The job and the process number, from the environment variables of Slurm or a TPU pod.

JAX reads the same variables, but connects to the coordinator directly. Here the address is
returned, so that a relay can be used (see `lth_jax.distributed.relay`).
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

_FIRST_PORT, _PORTS, _TPU_PORT = 61440, 4096, 8476


class Job(NamedTuple):
    """A process of a `jax.distributed` job.

    Attributes:
      coordinator: `HOST:PORT` of process 0.
      processes: number of processes.
      process: number of this process.
    """

    coordinator: str
    processes: int
    process: int


def job(environ: Mapping[str, str]) -> Job | None:
    """The job in the environment variables; None outside of Slurm and TPU pods.

    >>> job({"TPU_WORKER_HOSTNAMES": "tpu-0,tpu-1", "TPU_WORKER_ID": "1"})
    Job(coordinator='tpu-0:8476', processes=2, process=1)
    """
    return _slurm(environ) or _tpu(environ)


def _tpu(environ: Mapping[str, str]) -> Job | None:
    """The job of a TPU pod, from the variables of its workers in Kubernetes."""
    hosts = [host for host in environ.get("TPU_WORKER_HOSTNAMES", "").split(",") if host]
    process = environ.get("TPU_WORKER_ID", "")
    if not hosts or not process.isdigit() or int(process) >= len(hosts):
        return None
    port = environ.get("JAX_COORDINATOR_PORT") or _TPU_PORT
    return Job(f"{hosts[0]}:{port}", len(hosts), int(process))


def _slurm(environ: Mapping[str, str]) -> Job | None:
    """The job of a process that `srun` started, except under MPI.

    The port is `JAX_COORDINATOR_PORT`, or derived from the number of the Slurm job.

    >>> variables = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[003-009],big1"}
    >>> _slurm(variables | {"SLURM_NTASKS": "8", "SLURM_PROCID": "2"})
    Job(coordinator='node003:61447', processes=8, process=2)
    """
    names = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID")
    if any(name not in environ for name in names) or any(n.startswith("OMPI_") for n in environ):
        return None
    number, nodes, processes, process = (environ[name] for name in names)
    first = re.match(r"([^,\[]+)(?:\[(\d+))?", nodes)
    if first is None:
        return None
    host = f"{first[1]}{first[2] or ''}"
    port = environ.get("JAX_COORDINATOR_PORT") or _FIRST_PORT + int(number) % _PORTS
    return Job(f"{host}:{port}", int(processes), int(process))
