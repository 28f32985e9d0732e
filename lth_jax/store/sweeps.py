"""Sweeps: a folder that the workers of one sweep share, beside the runs of its cells."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lth_jax.store import files, locks
from lth_jax.store.errors import StoreError
from lth_jax.store.hashing import content_key, plain
from lth_jax.store.processes import ALONE, Team
from lth_jax.store.runs import read_metrics


class Sweep:
    """What the workers of a sweep write down for each other; made by `open_sweep`.

    Attributes:
      path: the sweep's folder.
    """

    def __init__(self, path: Path, team: Team = ALONE):
        self.path, self._team = path, team

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What is recorded under a name, as JSON holds it.

        The first worker that asks makes and records it; others wait for it and read. A worker of
        several processes makes it in all of them, and records what process 0 made.
        """
        path = self.path / f"{name}.json"
        with contextlib.ExitStack() as held:
            if self._team.from_first(lambda: self._is_ours(path, held)):
                made = make()
                self._team.from_first(lambda: files.write_json(path, plain(made, name=name)))
        return self._team.from_first(lambda: files.read_json(path))

    def _is_ours(self, path: Path, held: contextlib.ExitStack) -> bool:
        """Whether a record is to be made here; if so, `held` has its lock."""
        if not path.exists():
            lock = self._lock(path.stem)
            held.enter_context(locks.hold(lock, what=f"{path.stem} of {self.path.name}"))
        return not path.exists()

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Appends a line to a file of records, whole even where several workers write.

        Numbers that are not finite are written as null.
        """
        if not self._team.first:
            return
        line = json.dumps(plain(record, name="record", nan_as_null=True)) + "\n"
        path = self.path / f"{name}.jsonl"
        with files.explained(path), path.open("ab", buffering=0) as file:
            file.write(line.encode())

    def records(self, name: str) -> list[dict[str, Any]]:
        """All records of `append`."""
        return self._team.from_first(lambda: read_metrics(self.path / f"{name}.jsonl"))

    @contextlib.contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Claims a part of the work for the length of a block, unless another worker has it."""
        with contextlib.ExitStack() as held:
            lock = locks.try_hold(self._lock(name))
            yield self._team.from_first(lambda: held.enter_context(lock))

    def _lock(self, name: str) -> Path:
        return self.path / "locks" / f"{name}.lock"


def open_sweep(root: str | Path, *, name: str, config: Any, team: Team = ALONE) -> Sweep:
    """Opens the folder of a sweep, new or begun before; any number of workers may.

    Args:
      root: the folder of all runs; the sweep is `sweeps/<name>-<first 8 digits of the hash>`.
      name: letters, digits, `.`, `_` and `-`.
      config: all that determines the sweep, as JSON's types.
      team: the processes that are one worker; process 0 writes.

    Raises:
      StoreError: the folder holds another sweep, or cannot be written.

    >>> import tempfile
    >>> sweep = open_sweep(tempfile.mkdtemp(), name="demo", config={"rate": [0.1, 0.01]})
    >>> sweep.once("plan", lambda: {"chunk": 4}), sweep.once("plan", lambda: {"chunk": 8})
    ({'chunk': 4}, {'chunk': 4})
    """
    found = Sweep(Path(root) / "sweeps" / f"{name}-{content_key(config)[:8]}", team)
    if content_key(found.once("config", lambda: config)) != content_key(config):
        raise StoreError(
            f"{found.path / 'config.json'} holds another sweep than the one asked for; restore "
            "it, or remove the folder to start anew."
        )
    team.check_sees(found.path / "config.json")
    return found
