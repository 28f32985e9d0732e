"""Configs become functions here and nowhere else.

A program of this package (`python -m experiments.run`) imports JAX and more for seconds before its
first line runs. Until then, and when it has ended, a signal ends it with one sentence.
"""

import os
import signal
import sys
from types import FrameType

STOPPED = "Stopped by {}; the same command continues."


def _end(signum: int, frame: FrameType | None) -> None:
    del frame
    os.write(2, f"{STOPPED.format(signal.Signals(signum).name)}\n".encode())
    os._exit(128 + signum)


if sys.argv[:1] == ["-m"]:  # Python's mark while it looks for the module of `-m experiments.NAME`
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, _end)
