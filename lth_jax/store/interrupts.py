"""Signals that stop a program: at once, or after a segment with its state saved."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from lth_jax.store.processes import ALONE, Team

_MOMENT = 0.01  # seconds


class Interrupted(SystemExit):
    """The process stopped at a signal.

    Its exit code is 128 + the signal's number, as in shells: 143 for SIGTERM, 130 for SIGINT.

    Attributes:
      code: the exit code.
      signal: the signal's name.
      agreed: whether all processes of a job stop together.
    """

    code: int

    def __init__(self, signum: int, *, agreed: bool = False):
        super().__init__(128 + signum)
        self.signal, self.agreed = signal.Signals(signum).name, agreed


class Stop:
    """Whether a signal to stop has arrived, and which."""

    def __init__(self) -> None:
        self.signum: int | None = None

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.signum is not None

    def check(self, team: Team = ALONE) -> None:
        """Raises `Interrupted` if a signal has arrived; call it where work can be saved.

        Args:
          team: the processes that stop together, whichever received it.
        """
        latest = max(int(signum) for signum in team.gather(str(self.signum or 0)))
        if latest:
            raise Interrupted(latest, agreed=True)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Context in which the first SIGTERM or SIGINT raises `Interrupted` at once.

    A second signal goes to the previous handlers. For work that need not be saved: start-up,
    preparing data, drawing figures. Native code, such as a compilation, ends first.

    >>> with contextlib.suppress(Interrupted), interruptible():
    ...     signal.raise_signal(signal.SIGTERM)
    ...     print("never")
    """

    def stop(signum: int) -> None:
        raise Interrupted(signum)

    with contextlib.ExitStack() as handled:

        def handle() -> None:
            handled.enter_context(_handled_once(stop))

        handle()
        with _raised_again(handle):
            yield


@contextlib.contextmanager
def _raised_again(handle: Callable[[], None]) -> Iterator[None]:
    """Context in which an `Interrupted` that Python drops is raised again after a short time.

    Python drops exceptions in callbacks of the garbage collector (JAX has one), of weak references,
    and in `__del__`, where the signal may arrive.

    Args:
      handle: installs the signal handlers again.
    """
    before = sys.unraisablehook

    def hook(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, Interrupted):
            return before(dropped)
        handle()
        to = (threading.main_thread().ident, signal.Signals[dropped.exc_value.signal])
        again = threading.Timer(_MOMENT, signal.pthread_kill, to)
        again.daemon = True
        return again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        if sys.unraisablehook is hook:  # else another hook was installed on top of it
            sys.unraisablehook = before


@contextlib.contextmanager
def on_signals() -> Iterator[Stop]:
    """Context in which the first SIGTERM or SIGINT only sets a flag.

    A second signal goes to the previous handlers: within `interruptible` it raises `Interrupted`.
    Handlers belong to the main thread: entering the block elsewhere raises `ValueError`.

    >>> with on_signals() as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     stop.requested
    True
    """
    stop = Stop()

    def note(signum: int) -> None:
        stop.signum = signum

    with _handled_once(note):
        yield stop


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Context that defers signals; the last one is handled when the block ends.

    For short calls that must not be left halfway: Orbax runs an event loop to which threads of
    TensorStore report, and each prints a traceback once that loop is closed. In threads other than
    the main one, where no handler runs, the block changes nothing.

    >>> with on_signals() as stop:
    ...     with postponed():
    ...         signal.raise_signal(signal.SIGTERM)
    ...         print(stop.requested)
    ...     print(stop.requested)
    False
    True
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    with contextlib.ExitStack() as after:  # all of it runs, whatever a handler raises
        after.callback(lambda: signal.raise_signal(came[-1]) if came else None)
        for number in (signal.SIGTERM, signal.SIGINT):
            after.callback(signal.signal, number, signal.getsignal(number))
            signal.signal(number, lambda signum, frame: came.append(signum))
        yield


@contextlib.contextmanager
def _handled_once(act: Callable[[int], None]) -> Iterator[None]:
    """Context in which the first signal restores the old handlers and calls `act`."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def put_back() -> None:
        for number, handler in before.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, handler)

    def handle(signum: int, frame: FrameType | None) -> None:
        del frame
        put_back()
        act(signum)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        put_back()
