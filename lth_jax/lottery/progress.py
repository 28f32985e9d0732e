"""A progress bar for a ladder: level, density, speed and time left."""

import importlib.util
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypedDict

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from lth_jax.lottery.node_training import Progress as Segment
from lth_jax.schema import LevelEntry
from lth_jax.text import clock


class Standing(TypedDict):
    """The progress of a ladder: levels, member-steps done and in all, member-steps per second."""

    levels: int
    done: int
    work: int
    speed: float


def print_line(text: str) -> None:
    """Prints a line on standard error, before the progress bar starts."""
    Console(stderr=True).print(text, highlight=False)


class Display:
    """A progress bar on a terminal or in a notebook; elsewhere a line per finished level.

    Args:
      title: the name of the run.
      work: member-steps of each level.
      shown: False to print nothing.
    """

    def __init__(self, title: str, work: Sequence[int], shown: bool):
        self._total = sum(work)
        self._levels = len(work) - 1
        self._finished = 0  # member-steps in finished nodes, read or trained
        self._nodes: dict[Any, tuple[int, float]] = {}  # member-steps and seconds of each
        self._steps, self._seconds = 0, 0.0  # their sums
        self._level: int | None = None  # the level of finished nodes without a line
        self._arms: dict[str, None] = {}
        self._began = time.perf_counter()
        # rich 15 draws a bar in a notebook with ipywidgets alone, and warns without.
        widgets = importlib.util.find_spec("ipywidgets") is not None
        self._console = Console(stderr=True, quiet=not shown)
        self._live = self._console.is_terminal or (self._console.is_jupyter and widgets)
        self._bar = Progress(
            BarColumn(bar_width=None),  # takes the rest of the line
            TextColumn("{task.percentage:>3.0f}% {task.fields[facts]}"),
            console=self._console,
            expand=True,
            disable=not (shown and self._live),
        )
        self._title = title
        self._task = self._bar.add_task(title, total=self._total, facts="compiling")

    def __enter__(self) -> Self:
        self.say(self._title)
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advance(self, segment: Segment) -> Standing:
        """Adds a finished segment, updates the bar, and returns the progress of the ladder.

        The speed is that of the run's page: the member-steps of the nodes that this process trains,
        over the seconds spent on them.
        """
        trained = (segment.step - segment.start) * len(segment.specs)
        done = self._finished + trained
        node = segment.level, segment.specs[0].key
        steps, seconds = self._nodes.get(node, (0, 0.0))
        self._nodes[node] = trained, segment.seconds
        self._steps += trained - steps
        self._seconds += segment.seconds - seconds
        speed = self._steps / max(self._seconds, 1e-9)
        facts = (
            f"level {segment.level}/{self._levels}, {100 * segment.densities[0]:.3g}% kept, "
            f"{speed:,.0f} member-steps/s, {clock((self._total - done) / speed)} left"
        )
        self._bar.update(self._task, completed=done, facts=facts)
        return {"levels": self._levels, "done": done, "work": self._total, "speed": speed}

    def node(self, entry: LevelEntry) -> None:
        """Adds a finished node; the next line states its level and arms."""
        if self._level is not None and entry.level != self._level:
            self.level()
        self._level = entry.level
        self._arms |= dict.fromkeys(entry.arms)
        self.done(entry.member_steps)

    def level(self) -> None:
        """Without a bar, prints a line for the nodes added since the last line."""
        if self._level is not None and not self._live:
            arms, share = ", ".join(self._arms), 100 * self._finished / self._total
            self.say(
                f"level {self._level}/{self._levels} ({arms}): {share:.0f}% after {self.spent()}"
            )
        self._level, self._arms = None, {}

    def done(self, member_steps: int) -> None:
        """Adds finished work."""
        self._finished += member_steps
        self._bar.update(self._task, completed=self._finished)

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text, highlight=False)

    def spent(self) -> str:
        """The time since the start, as text."""
        return clock(time.perf_counter() - self._began)
