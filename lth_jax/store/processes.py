"""The processes of one `jax.distributed` job: exchange of results; process 0 writes.

All processes of a job run one program in lockstep. Inputs from outside (existing files, the time,
signals) must be the same in all of them, so one process reads these and sends them to the others.
A single process is a team of one and sends nothing.
"""

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from lth_jax.store.errors import LostProcessError, StoreError
from lth_jax.store.hashing import content_key, plain

T = TypeVar("T")

_NATIVE = re.compile("[A-Z_]+: ")  # the beginning of a native status, as "UNKNOWN: Gloo …"


@dataclasses.dataclass(frozen=True)
class Team:
    """Processes that call the same methods on one shared folder; process 0 writes.

    Attributes:
      index: the index of this process.
      count: the number of processes.
    """

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is process 0."""
        return self.index == 0

    def gather(self, text: str) -> list[str]:
        """The text of each process, in order; all must call it together.

        Raises:
          LostProcessError: one of them ended.

        >>> Team().gather("here")
        ['here']
        """
        if self.count == 1:
            return [text]
        from jax.experimental import multihost_utils

        own = np.frombuffer(text.encode(), np.uint8)
        with lost_process_errors(self):
            sizes = multihost_utils.process_allgather(np.int32(own.size))
            padded = np.zeros(max(sizes.max(), 1), np.uint8)
            padded[: own.size] = own
            rows = multihost_utils.process_allgather(padded)
        return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]

    def on_leader(self, make: Callable[[], T]) -> T:
        """The result of `make`, called in process 0 only; the other processes receive it as JSON.

        Raises:
          StoreError: in the other processes, if `make` raised in process 0.

        >>> Team().on_leader(lambda: 3)
        3
        """
        if self.count == 1:
            return make()
        if not self.first:
            found = json.loads(self.gather("")[0])
            if "error" in found:
                raise StoreError(found["error"])
            return found["value"]
        try:
            value = make()
            text = json.dumps({"value": plain(value, name="value")})
        except Exception as error:
            self.gather(json.dumps({"error": str(error)}))
            raise
        self.gather(text)
        return value

    def each(self, make: Callable[[], T]) -> T:
        """The result of `make` here, once it has returned in all processes.

        Raises:
          StoreError: if it raised in another process; its own exception is unchanged.

        >>> Team().each(lambda: 3)
        3
        """
        failed: Exception | None = None
        try:
            value = make()
        except Exception as error:
            failed = error
        problems = self.gather(str(failed or ""))
        if failed:
            raise failed
        for i, problem in enumerate(problems):
            if problem:
                raise StoreError(f"process {i} of {self.count} cannot begin: {problem}")
        return value

    def check_sees(self, path: Path) -> None:
        """Raises `StoreError` in all processes unless each can read a file of process 0."""

        def see() -> None:
            if not path.exists():
                raise StoreError(f"{path} is not there; all processes need one shared folder.")

        self.each(see)

    def check_same(self, **facts: Any) -> None:
        """Raises unless all processes have the same facts, compared by their hashes.

        Args:
          **facts: JSON-like values by name.

        Raises:
          StoreError: in all processes; the message names the first fact that differs.

        >>> Team().check_same(config={"seed": 0})
        """
        hashes = {name: content_key(fact) for name, fact in facts.items()}
        everywhere = [json.loads(text) for text in self.gather(json.dumps(hashes))]
        for name, digest in everywhere[0].items():
            odd = [str(i) for i, theirs in enumerate(everywhere) if theirs.get(name) != digest]
            if odd:
                raise StoreError(
                    f"process {', '.join(odd)} of {self.count} differs from process 0 in its "
                    f"{name}; start all processes with the same {name}."
                )


ALONE = Team()
"""One process that works by itself, whether it belongs to a job or not."""


@contextlib.contextmanager
def lost_process_errors(team: Team) -> Iterator[None]:
    """Context in which an error of the connection to other processes is a `LostProcessError`."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        # JAX 0.10.2 raises what a collective reports as either, by where it happened.
        native = isinstance(error, jax.errors.JaxRuntimeError) or _NATIVE.match(str(error))
        if team.count == 1 or not native:
            raise
        raise LostProcessError(lost(team, str(error).partition("\n")[0])) from error


def lost(team: Team, reason: str) -> str:
    """The error message of a process that stops because it lost another.

    Args:
      team: the processes, with the index of this one.
      reason: how the loss was noticed, one line.

    Returns:
      The message, one sentence, for a `LostProcessError`.

    >>> lost(Team(index=1, count=4), "UNKNOWN: Gloo")
    'process 1 of 4 stops because another process was lost or failed (UNKNOWN: Gloo); start all ...'
    """
    return (
        f"process {team.index} of {team.count} stops because another process was lost or failed "
        f"({reason}); start all processes again to continue."
    )


def everyone() -> Team:
    """All processes of this one's `jax.distributed` job, which may be this one alone.

    >>> everyone()
    Team(index=0, count=1)
    """
    return Team(jax.process_index(), jax.process_count())


def to_host(tree: Any) -> Any:
    """Copies of all arrays on the host, in every process, also of distributed arrays.

    All processes that hold parts must call it together.

    >>> to_host({"w": jax.numpy.ones(2)})
    {'w': array([1., 1.], dtype=float32)}
    """
    return jax.tree.map(
        lambda leaf: np.array(_gathered(leaf) if is_distributed(leaf) else leaf), tree
    )


def _gathered(leaf: jax.Array) -> Any:
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(leaf, tiled=True)


def is_distributed(leaf: Any) -> bool:
    """Whether an array has parts in other processes.

    >>> is_distributed(jax.numpy.ones(2))
    False
    """
    return isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
