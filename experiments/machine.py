"""Setup of the machine that a config describes: devices, processes and caches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments.fields import check_values
from experiments.messages import user_errors
from lth_jax import distributed
from lth_jax.cli.programs import UserError
from lth_jax.machine import cache_compiled_programs, cache_folder, cores, make_cpu_devices
from lth_jax.sweeps import PlanOptions

RECORDED_TASK = "experiments.finished:recorded_task"


def prepare(machine: ConfigDict) -> None:
    """Checks the machine part of a config and sets JAX up for it; call it before JAX is used.

    Raises:
      UserError: a field is invalid, or there are fewer devices.
    """
    join(machine)
    make_cpu_devices(machine.devices // max(machine.processes, 1) or cores())
    _check_devices(machine)
    if machine.compilation_cache:
        cache_compiled_programs()


def origin(machine: ConfigDict, command: Sequence[str]) -> dict[str, Any]:
    """What a run records of its origin: its command, and how `lth export` makes its task again."""
    folders = {name: machine[name] for name in ("data_dir", "manual_dir") if machine[name]}
    where = {name: str(Path(folder).absolute()) for name, folder in folders.items()}
    return {"command": list(command), "task": {"function": RECORDED_TASK, **where}}


def _check_devices(machine: ConfigDict) -> None:
    there, processes = jax.device_count(), jax.process_count()
    if machine.devices > there:
        kind = jax.local_devices()[0].device_kind
        who = "this machine has" if processes == 1 else f"its {processes} processes have"
        raise UserError(f"`machine.devices` is {machine.devices}; {who} {there} ({kind}).")
    if machine.devices % processes:
        raise UserError(
            f"`machine.devices` is {machine.devices}; it must be a multiple of the {processes} "
            "processes; each process uses the same number."
        )
    if machine.chunk % max(machine.devices, processes):
        of = "`machine.devices`, which" if machine.devices else "the number of processes, which"
        raise UserError(
            f"`machine.chunk` is {machine.chunk}; it must be a multiple of {of} "
            f"is {max(machine.devices, processes)}."
        )


def join(machine: ConfigDict) -> None:
    """Joins the `jax.distributed` job of a config, if it has one.

    Raises:
      UserError: a field is invalid, or the environment describes no job.
    """
    check_values(machine, "machine.")
    if machine.coordinator:
        names = {name: f"machine.{name}" for name in ("coordinator", "processes", "process")}
        with user_errors(names=names):
            distributed.join(
                machine.coordinator,
                machine.processes,
                machine.process,
                timeout=machine.init_timeout_s,
            )
    elif machine.processes or machine.process:
        raise UserError("`machine.processes` and `machine.process` need `machine.coordinator`.")


def note_precision(compute_dtype: str) -> None:
    """Prints a note if a narrow dtype is slower than float32."""
    if compute_dtype != "float32" and jax.default_backend() == "cpu":
        print(f"note: {compute_dtype} is slower than float32 on a CPU, faster on accelerators")


def plan_options(machine: ConfigDict) -> PlanOptions:
    """The options of plans that a config sets; chosen plans are cached unless caching is off."""
    cache = cache_folder() / "plans" if machine.compilation_cache else None
    return PlanOptions(machine.chunk, machine.driver, machine.devices, cache)
