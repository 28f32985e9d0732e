"""The machine an experiment runs on: its devices, and what is kept for the next run on it."""

import collections
import functools
import os
from pathlib import Path

import jax
from ml_collections import ConfigDict

from experiments.flags import UserError
from lth_jax import store
from lth_jax.training import DRIVERS

_HITS = "/jax/compilation_cache/cache_hits"
_MISSES = "/jax/compilation_cache/cache_misses"


def prepare(machine: ConfigDict) -> None:
    """Checks the machine part of a config and sets JAX up for it; call it before JAX is used.

    Raises:
      UserError: a field cannot be right, or devices are asked for that are not there.
    """
    if machine.driver and machine.driver not in DRIVERS:
        raise UserError(f"`machine.driver` is '{machine.driver}'; it must be one of {DRIVERS}.")
    for field in ("chunk", "devices"):
        if machine[field] < 0:
            raise UserError(
                f"`machine.{field}` is {machine[field]}; it must be 0 (measured) or more."
            )
    make_cpu_devices(machine.devices or cores())
    there = jax.local_device_count()
    if machine.devices > there:
        kind = jax.local_devices()[0].device_kind
        raise UserError(
            f"`machine.devices` is {machine.devices}; this machine has {there} ({kind})."
        )
    if machine.chunk % max(machine.devices, 1):
        raise UserError(
            f"`machine.chunk` is {machine.chunk}; it must be a multiple of `machine.devices`, "
            f"which is {machine.devices}."
        )
    if machine.compilation_cache:
        _keep_compiled_programs()


def cores() -> int:
    """The processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def make_cpu_devices(number: int) -> None:
    """A virtual device per core, unless JAX has started already or was told how many."""
    told = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if told or jax.config.jax_num_cpu_devices > 0:  # type: ignore[attr-defined]
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
    """Over how many devices a population is split: those asked for, else all that have work."""
    return machine.devices or min(jax.local_device_count(), members)


def learnt(machine: ConfigDict) -> Path | None:
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
    """What the CPU can do, where the system tells: a program compiled for more would crash."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


@functools.cache
def _events() -> collections.Counter[str]:
    """How often each event of JAX's has happened since the first call."""
    counter: collections.Counter[str] = collections.Counter()
    jax.monitoring.register_event_listener(lambda event, **_: counter.update([event]))
    return counter
