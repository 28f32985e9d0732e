"""Wall time, CPU time, and whether other processes compete for the cores."""

import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STAT = Path("/proc/stat")
CROWDED = 0.1  # the share of all CPU time that others may use, or that must be idle


class Load(NamedTuple):
    """CPU seconds since the machine started, of all its cores.

    Attributes:
      others: used by other processes, or taken by the host of a virtual machine.
      idle: used by none.
    """

    others: float
    idle: float


def now() -> NDArray[np.float64]:
    """Seconds of wall time and of this process's CPU time, from arbitrary origins."""
    return np.array([time.perf_counter(), time.process_time()])


def load() -> Load | None:
    """What other processes have used so far; None where it is unknown (not on Linux).

    >>> STAT.exists() == (load() is not None)
    True
    """
    try:
        ticks = [int(field) for field in STAT.read_text().split("\n")[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, idle, waiting, *rest = (t / os.sysconf("SC_CLK_TCK") for t in ticks)
    own = sum(os.times()[:4])  # with its finished children
    return Load(user + nice + system + sum(rest) - own, idle + waiting)


def crowded(before: Load | None, after: Load | None, seconds: float) -> bool:
    """Whether other processes took cores from this one: they ran, and few cores were idle.

    Args:
      before: from `load`.
      after: from `load`, so many seconds later.
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
