"""This machine: virtual CPU devices, a cache of compiled programs, free disk space."""

import collections
import functools
import math
import os
import shutil
from pathlib import Path

import jax

from lth_jax import store
from lth_jax.text import counted

_HITS = "/jax/compilation_cache/cache_hits"
_MISSES = "/jax/compilation_cache/cache_misses"


def cores() -> int:
    """The number of processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def core_shares(number: int) -> list[list[int]]:
    """The cores of this process, dealt to `number` processes; all for each if they are fewer.

    The lists are empty where the system has no affinities.

    >>> len(core_shares(2))
    2
    """
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [mine[i::number] or mine for i in range(number)]


def confine(to: list[int]) -> None:
    """Confines this process to some cores; call it before JAX starts its threads."""
    if to:
        os.sched_setaffinity(0, to)


def make_cpu_devices(number: int) -> None:
    """Makes virtual CPU devices, at most one per core.

    Has no effect after JAX has started, or if `XLA_FLAGS` or `jax_num_cpu_devices` set a number.
    """
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if forced or jax.config.jax_num_cpu_devices > 0:  # type: ignore[attr-defined]
        return
    try:
        jax.config.update("jax_num_cpu_devices", min(number, cores()))
    except RuntimeError:  # JAX has started
        pass


def compilations() -> str:
    """How many programs this process compiled and read from the cache, as text."""
    counts = _events()
    return f"{counted(counts[_MISSES], 'program')} compiled, {counts[_HITS]} from the cache"


def cache_folder() -> Path:
    """The folder for data that later processes reuse: `$XDG_CACHE_HOME/lth_jax`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lth_jax"


def cache_compiled_programs() -> None:
    """Sets JAX's persistent compilation cache to a folder in `cache_folder()`.

    Each version of JAX, kind of device and set of CPU features has its own folder.
    """
    _events()
    kind = store.content_key([jax.__version__, jax.devices()[0].device_kind, _cpu_flags()])[:8]
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / f"compiled-{kind}"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _cpu_flags() -> str:
    """The CPU's features, if known: programs compiled for other features may crash."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


@functools.cache
def _events() -> collections.Counter[str]:
    """Counts of JAX's monitoring events since the first call."""
    counter: collections.Counter[str] = collections.Counter()
    jax.monitoring.register_event_listener(lambda event, **_: counter.update([event]))
    return counter


def free_disk(folder: str) -> int | None:
    """The free bytes of the disk of a folder; None if unknown."""
    path = Path(folder).absolute()
    there = next((one for one in (path, *path.parents) if one.exists()), None)
    try:
        return shutil.disk_usage(there).free if there else None
    except OSError:
        return None


def in_units(number: int) -> str:
    """A number of bytes with a binary unit.

    >>> in_units(10), in_units(1536), in_units(3 << 40)
    ('10 B', '1.5 KiB', '3 TiB')
    """
    power = min(int(math.log2(max(number, 1))) // 10, len(_UNITS) - 1)
    return f"{number / 1024**power:.3g} {_UNITS[power]}"


_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB")
