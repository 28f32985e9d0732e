"""When to save unfinished work: by time, which bounds the cost of saves and of a kill."""

import time
from collections.abc import Callable

from lth_jax.store.processes import ALONE, Team

SAVE_SECONDS = 10.0
"""Seconds of work that a kill repeats at most, by default."""


class SaveTimer:
    """Decides after each segment whether to save, so that a kill repeats at most `seconds` of work.

    With t the time since the last save, or since the start, and d the time that the next segment
    takes at the speed of the fastest one, a save is due if t + d > `seconds`: without it, a kill
    at the end of the next segment repeats more. A segment that takes longer than `seconds` is
    saved at its end, and repeated whole. Work that ends within `seconds` is not saved at all.

    Saves that take s seconds cost s / (t + s) of the work. With 10 seconds and any segments,
    t > 5, so saving costs less than 2 % while s < 0.1.

    Args:
      seconds: seconds of work that may be repeated; 0 saves each segment.
      team: the processes that save together; the clock of process 0 decides for all.
      clock: the time in seconds.

    >>> now = iter([0.0, 4.0, 8.0, 12.0])
    >>> timer = SaveTimer(10.0, clock=lambda: next(now))
    >>> timer.due(100, 100), timer.due(100, 100), timer.due(100, 100)
    (False, True, True)
    """

    def __init__(
        self,
        seconds: float = SAVE_SECONDS,
        team: Team = ALONE,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._seconds, self._team, self._clock = seconds, team, clock
        self._saved = self._last = clock()
        self._pace = float("inf")  # the fewest seconds for a step: the first segment may compile

    def due(self, steps: int, following: int) -> bool:
        """Whether to save now, after a segment; all processes of the team call it together.

        Args:
          steps: number of steps of the segment, ≥ 1.
          following: number of steps of the next segment.
        """
        return self._team.on_leader(lambda: self._due(steps, following))

    def _due(self, steps: int, following: int) -> bool:
        now = self._clock()
        self._pace = min(self._pace, (now - self._last) / steps)
        self._last = now
        return now - self._saved + following * self._pace > self._seconds or not self._seconds

    def saved(self) -> None:
        """Restarts the clock; call it after a save."""
        self._saved = self._last = self._clock()
