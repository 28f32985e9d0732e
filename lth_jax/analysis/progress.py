"""Progress of analyses: each finished measurement, if it is shown."""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from rich.console import Console

from lth_jax.text import clock

LEAST = 1.0  # seconds between two lines
_SHOW: ContextVar[Callable[[str], None]] = ContextVar("show", default=lambda text: None)


def note(text: str) -> None:
    """Shows a finished measurement within `shown`; elsewhere it does nothing."""
    _SHOW.get()(text)


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Context in which measurements are shown on stderr, with their number and the time.

    A terminal shows the last one; elsewhere there is a line at most every second.
    """
    console, began, last, done = Console(stderr=True), time.perf_counter(), 0.0, 0
    with console.status("measuring") if console.is_terminal else contextlib.nullcontext() as status:

        def show(text: str) -> None:
            nonlocal last, done
            spent, done = time.perf_counter() - began, done + 1
            line = f"{clock(spent)}, {done} measured: {text}"
            if status:
                status.update(line)
            elif spent - last >= LEAST:
                console.print(line, highlight=False, markup=False, soft_wrap=True)
                last = spent

        token = _SHOW.set(show)
        try:
            yield
        finally:
            _SHOW.reset(token)
