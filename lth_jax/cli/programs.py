"""Programs that end with one message: for errors of the user, and after signals.

Nothing heavy is imported at the top, so that `end_at_once` works while JAX is imported.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TextIO

BROKEN_PIPE = 128 + signal.SIGPIPE
"""Exit code where the reader of a pipe closes it, as a shell reports it."""
STOPPED = "Stopped by {}; the same command continues."


class UserError(Exception):
    """A user error: printed as one message, exit code 2."""


def one_line(error: Exception) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split())


def to_null(stream: TextIO) -> None:
    """Redirects the further output of a stream of the process to the null device."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def end_at_once() -> None:
    """Makes SIGINT and SIGTERM end the process with a message, without clean-up."""

    def end(signum: int, frame: FrameType | None) -> None:
        del frame
        os.write(2, f"{STOPPED.format(signal.Signals(signum).name)}\n".encode())
        os._exit(128 + signum)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def run_main(main: Callable[[], None]) -> None:
    """Runs a program; prints a `UserError` as one message.

    Exit codes: 0; 2 for a `UserError`; 128 + the signal's number after a signal; `BROKEN_PIPE`.
    """
    from lth_jax.machine import collect_less_often

    collect_less_often()
    try:
        with ending_by_signal():
            main()
            sys.stdout.flush()
    except BrokenPipeError:
        to_null(sys.stdout)  # the interpreter flushes again when it exits, which must not fail
        sys.exit(BROKEN_PIPE)
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


def _silence_late_reports() -> None:
    """Suppresses reports of Orbax 0.12 and TensorStore about a save interrupted by a signal.

    While the interpreter exits, a coroutine may never have started, and a write may fail, in any
    thread, because the unfinished folder was removed.
    """
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    logging.disable()
    sys.unraisablehook = lambda unraisable: None
    threading.excepthook = lambda args: None


@contextlib.contextmanager
def ending_by_signal() -> Iterator[None]:
    """Context in which a signal, or the loss of another process, ends the program with a message.

    If other processes of a job are lost or still running, the program exits at once, because JAX's
    normal exit would wait for them.
    """
    import jax

    from lth_jax.store import Interrupted, LostProcessError, interruptible

    try:
        with interruptible():
            yield
    except LostProcessError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(2)
    except Interrupted as stop:
        _silence_late_reports()
        print(STOPPED.format(stop.signal), file=sys.stderr, flush=True)
        if sys.__stderr__ and sys.stderr is sys.__stderr__:
            to_null(sys.stderr)  # reports of threads and native code while it exits
        if jax.distributed.is_initialized() and not stop.agreed:
            os._exit(stop.code)
        raise


def exit_code(work: Callable[[], Any]) -> int:
    """Prints the result of `work` and returns 0; for errors of the user, prints a message: 2."""
    from lth_jax.store import StoreError

    try:
        with ending_by_signal():
            print(work())
    except (UserError, StoreError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0
