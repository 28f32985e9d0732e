"""Stopping politely: a signal becomes a question that is answered between two segments."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from lth_jax.store.processes import ALONE, Team


class Interrupted(SystemExit):
    """The process was asked to stop and did, with its state saved.

    Its exit code is 128 + the signal's number, as shells have it: 143 for SIGTERM, 130 for SIGINT.
    """

    def __init__(self, signum: int):
        super().__init__(128 + signum)
        self.signal = signal.Signals(signum).name


class Stop:
    """Whether, and by which signal, the process was asked to stop."""

    def __init__(self) -> None:
        self.signum: int | None = None

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.signum is not None

    def check(self, team: Team = ALONE) -> None:
        """Raises `Interrupted` if a signal has come; call it when the state is saved.

        Args:
          team: the processes that stop together, whichever of them it came to.
        """
        latest = max(int(signum) for signum in team.gather(str(self.signum or 0)))
        if latest:
            raise Interrupted(latest)


@contextlib.contextmanager
def on_signals() -> Iterator[Stop]:
    """Within the block the first SIGTERM or SIGINT only sets a flag; a second one acts at once.

    Handlers belong to the main thread: entering the block elsewhere raises `ValueError`.

    >>> with on_signals() as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     stop.requested
    True
    """
    stop = Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(signum: int, frame: FrameType | None) -> None:
        del frame
        stop.signum = signum
        put_back()

    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        put_back()
