"""Wall time, CPU time, and detection of other processes that use the cores."""

import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STAT = Path("/proc/stat")
CROWDED = 0.1  # fraction of all CPU time


class Load(NamedTuple):
    """CPU seconds of all cores since the machine started.

    Attributes:
      others: used by other processes, or by the host of a virtual machine.
      idle: used by none.
    """

    others: float
    idle: float


def now() -> NDArray[np.float64]:
    """Seconds of wall time and of this process's CPU time, from arbitrary origins."""
    return np.array([time.perf_counter(), time.process_time()])


def load() -> Load | None:
    """The CPU time used so far; None if unknown (not on Linux).

    >>> STAT.exists() == (load() is not None)
    True
    """
    try:
        ticks = [int(field) for field in STAT.read_text().split("\n")[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, idle, waiting, *rest = (t / os.sysconf("SC_CLK_TCK") for t in ticks)
    own = sum(os.times()[:4])  # includes finished child processes
    return Load(user + nice + system + sum(rest) - own, idle + waiting)


def crowded(before: Load | None, after: Load | None, seconds: float) -> bool:
    """Whether other processes competed for the cores: they ran, and few cores were idle.

    Args:
      before: from `load`.
      after: from `load`, `seconds` later.
      seconds: wall time between the two.

    >>> crowded(Load(0.0, 0.0), Load(0.5 * os.cpu_count(), 0.0), 1.0)
    True
    >>> crowded(Load(0.0, 0.0), Load(0.0, 0.5 * os.cpu_count()), 1.0)
    False
    """
    if before is None or after is None:
        return False
    most = CROWDED * max(seconds, 1e-9) * (os.cpu_count() or 1)
    return after.others - before.others > most and after.idle - before.idle < most
