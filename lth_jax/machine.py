"""This machine: virtual CPU devices, a cache of compiled programs, free disk space."""

import collections
import functools
import gc
import math
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

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
    """Divides the cores of this process among `number` processes.

    If there are fewer cores than processes, the remaining processes get all cores. The lists are
    empty if the system does not support affinities.

    >>> len(core_shares(2))
    2
    """
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [mine[i::number] or mine for i in range(number)]


def in_processes(
    jobs: Mapping[str, Callable[[], object]], shares: Sequence[list[int]]
) -> dict[str, float]:
    """Calls each function in a separate process, as many at a time as there are shares.

    Args:
      jobs: functions that can be pickled, by name, in the order in which they start.
      shares: the cores of each of the processes, such as `core_shares(2)`.

    Returns:
      The seconds of those that ended without an exception and with exit code 0, by name.
    """
    context = multiprocessing.get_context("spawn")  # JAX has threads, so a fork may deadlock
    free, waiting, seconds = list(shares), list(jobs.items()), dict[str, float]()
    running: dict[Any, tuple[SpawnProcess, list[int], float]] = {}  # by sentinel
    try:
        while waiting or running:
            while waiting and free:
                (name, job), share = waiting.pop(0), free.pop()
                process = context.Process(target=_confined, args=(share, job), name=name)
                process.start()
                running[process.sentinel] = process, share, time.perf_counter()
            for sentinel in wait(list(running)):
                process, share, began = running.pop(sentinel)
                free.append(share)
                process.join()
                if process.exitcode == 0:
                    seconds[process.name] = time.perf_counter() - began
    finally:
        for process, _, _ in running.values():
            process.terminate()
        for process, _, _ in running.values():
            process.join()
    return seconds


def _confined(cores: list[int], job: Callable[[], object]) -> None:
    if cores:  # before JAX starts its threads
        os.sched_setaffinity(0, cores)
    collect_less_often()
    job()


def collect_less_often() -> None:
    """Makes Python's garbage collections rarer, and excludes all objects that exist already.

    Tracing makes millions of objects. With the defaults, collections took 2.3 s of a run of 20 s.
    """
    gc.freeze()
    gc.set_threshold(10_000, 20, 10)


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
