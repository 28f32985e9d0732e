"""The machine an experiment runs on: its devices, and what is kept for the next run on it."""

import collections
import functools
import os
from pathlib import Path

import jax
from ml_collections import ConfigDict

from experiments.fields import check_values
from experiments.flags import UserError
from experiments.messages import user_errors
from lth_jax import distributed, store

_HITS = "/jax/compilation_cache/cache_hits"
_MISSES = "/jax/compilation_cache/cache_misses"


def prepare(machine: ConfigDict) -> None:
    """Checks the machine part of a config and sets JAX up for it; call it before JAX is used.

    Raises:
      UserError: a field cannot be right, or there are fewer devices.
    """
    join(machine)
    make_cpu_devices(machine.devices // max(machine.processes, 1) or cores())
    _check_devices(machine)
    if machine.compilation_cache:
        _keep_compiled_programs()


def _check_devices(machine: ConfigDict) -> None:
    there, processes = jax.device_count(), jax.process_count()
    if machine.devices > there:
        kind = jax.local_devices()[0].device_kind
        who = "this machine has" if processes == 1 else f"its {processes} processes have"
        raise UserError(f"`machine.devices` is {machine.devices}; {who} {there} ({kind}).")
    if machine.devices % processes:
        raise UserError(
            f"`machine.devices` is {machine.devices}; it must be a multiple of the {processes} "
            "processes, which have as many each."
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
      UserError: a field cannot be right, or the environment describes no job.
    """
    check_values(machine, "machine.")
    if machine.coordinator:
        names = {name: f"machine.{name}" for name in ("coordinator", "processes", "process")}
        with user_errors(names):
            distributed.join(
                machine.coordinator,
                machine.processes,
                machine.process,
                timeout=machine.init_timeout_s,
            )
    elif machine.processes or machine.process:
        raise UserError("`machine.processes` and `machine.process` need `machine.coordinator`.")


def cores() -> int:
    """The processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def make_cpu_devices(number: int) -> None:
    """A virtual device per core, unless JAX has started already or their number is set."""
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if forced or jax.config.jax_num_cpu_devices > 0:  # type: ignore[attr-defined]
        return
    try:
        jax.config.update("jax_num_cpu_devices", min(number, cores()))
    except RuntimeError:  # JAX has started: its devices are what they are
        pass


def note_precision(compute_dtype: str) -> None:
    """Says what a narrow type costs where it does not pay."""
    if compute_dtype != "float32" and jax.default_backend() == "cpu":
        print(f"note: {compute_dtype} is slower than float32 on a CPU; it pays on accelerators")


def devices(machine: ConfigDict, members: int) -> int:
    """Over how many devices a population is split: those of the config, else all that have work."""
    processes = jax.process_count()
    of_each = min(jax.local_device_count(), -(-members // processes))
    return machine.devices or processes * of_each


def plan_cache(machine: ConfigDict) -> Path | None:
    """Where choices of plans are kept for later runs; None if nothing is to be kept."""
    return _cache() / "plans" if machine.compilation_cache else None


def compilations() -> str:
    """What this process compiled so far, and what it found compiled, in a few words."""
    counts = _events()
    return f"{counts[_MISSES]} programs compiled, {counts[_HITS]} from the cache"


def _keep_compiled_programs() -> None:
    """Lets JAX keep compiled programs in a folder of the user's, apart for each kind of CPU."""
    _events()
    kind = store.content_key([jax.__version__, jax.devices()[0].device_kind, _cpu_flags()])[:8]
    jax.config.update("jax_compilation_cache_dir", str(_cache() / f"compiled-{kind}"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _cache() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "lth_jax"


def _cpu_flags() -> str:
    """What the CPU can do, where the system shows it: a program compiled for more would crash."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


@functools.cache
def _events() -> collections.Counter[str]:
    """How often each event of JAX's has happened since the first call."""
    counter: collections.Counter[str] = collections.Counter()
    jax.monitoring.register_event_listener(lambda event, **_: counter.update([event]))
    return counter
