"""Commands, configs, studies and benchmarks.

A program of this package (`python -m experiments.run`) takes seconds to import JAX. During the
import and after its end, a signal ends it with one message.
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


if sys.argv[:1] == ["-m"]:  # Python sets this while it imports the module of `-m experiments.NAME`
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, _end)
