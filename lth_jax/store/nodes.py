"""Results under keys of their inputs: computed once, read later, resumed after a kill."""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lth_jax import text
from lth_jax.store import checkpoints, files, locks
from lth_jax.store.errors import CorruptError, StoreError
from lth_jax.store.processes import ALONE, Team
from lth_jax.store.records import MADE_AGAIN

LOG = logging.getLogger(__name__)

_KEY = re.compile("[0-9a-f]{64}")


@text.with_short_repr
class Node(NamedTuple):
    """A finished result: host arrays in nested dictionaries, and facts that JSON can hold."""

    arrays: Any
    meta: dict[str, Any]


@text.with_short_repr
class Progress(NamedTuple):
    """The progress of an unfinished computation when it was last saved."""

    step: int
    tree: Any
    meta: dict[str, Any]


class Partial:
    """The saved progress of one unfinished node: its last two steps.

    `save` returns when the step is safe on disk, so a kill loses at most what came after the last
    `save` that returned. `SaveTimer` decides when to save.

    Args:
      folder: folder of the steps; one process, or team, at a time.
      team: the processes that do everything here together.

    Attributes:
      team: the processes.

    >>> import tempfile
    >>> import numpy as np
    >>> partial = Partial(Path(tempfile.mkdtemp()))
    >>> for step in (1, 2, 3):
    ...     partial.save(step, {"x": np.full(2, step)})
    >>> partial.load().step
    3
    """

    def __init__(self, folder: Path, team: Team = ALONE):
        self._folder, self.team = folder, team

    def save(self, step: int, tree: Any, meta: dict[str, Any] | None = None) -> None:
        """Saves the state after `step` steps; later steps of an earlier attempt are discarded.

        Args:
          step: number of finished steps, ≥ 0.
          tree: any pytree of arrays and typed keys.
          meta: facts that JSON can hold.

        Raises:
          StoreError: the step cannot be written (permissions, a full disk).
          ValueError, TypeError: the step is negative, or the tree or facts cannot be written.
        """
        if step < 0:
            raise ValueError(f"`step` must be ≥ 0, got {step}.")
        if self.team.first:
            for later in [s for s in self._steps() if s >= step]:
                files.remove(self._path(later))
            for left in self._folder.glob(".*.tmp"):  # a killed writer's; there is one at a time
                files.discard(left)
        path = self._path(step)
        checkpoints.save(path, tree, meta, name=self._name(step), packed=True, team=self.team)
        if self.team.first:
            for old in self._steps()[:-2]:
                files.remove(self._path(old))

    def load(self, like: Any = None) -> Progress | None:
        """The latest undamaged step; damaged ones are logged and discarded.

        Args:
          like: as for `checkpoints.restore`.

        Returns:
          The progress, or None when there is none.
        """
        step = self.team.on_leader(self._latest)
        if step is None:
            return None
        name = self._name(step)
        return Progress(step, *checkpoints.restore(self._path(step), like, name=name))

    def _latest(self) -> int | None:
        for step in reversed(self._steps()):
            try:
                checkpoints.check(self._path(step), self._name(step))
                return step
            except StoreError as error:
                LOG.warning("Stepping back behind step %d: %s", step, error)
                files.remove(self._path(step))
        return None

    def _steps(self) -> list[int]:
        return sorted(int(p.name) for p in self._folder.glob("*") if p.name.isdecimal())

    def _path(self, step: int) -> Path:
        return self._folder / f"{step:08d}"

    def _name(self, step: int) -> str:
        """The name that the hash of a step covers, so that no copy replaces another."""
        return f"{self._folder.name}/{step:08d}"


class Store:
    """A folder of nodes, shared by all runs and processes that use it.

    On disk: `nodes/<k2>/<key>/` holds finished nodes, `partial/<key>/` the progress of unfinished
    ones, `locks/` the locks that prevent two processes from computing the same node.

    Args:
      root: the store's folder; made when something is first written. Leftovers of killed writers
        in it are removed, unless a process is writing there.
      team: the processes that compute nodes here together, each calling the same methods with the
        same arguments; all see the folder.

    Attributes:
      root: the folder.
      team: the processes.

    >>> import tempfile
    >>> from lth_jax.store import content_key
    >>> store = Store(tempfile.mkdtemp())
    >>> import numpy as np
    >>> key = content_key({"what": "the first three squares"})
    >>> node = store.node(key, lambda partial: Node({"squares": np.arange(3) ** 2}, {"n": 3}))
    >>> node.arrays["squares"].tolist(), node.meta, store.has(key)
    ([0, 1, 4], {'n': 3}, True)
    """

    def __init__(self, root: str | Path, team: Team = ALONE):
        self.root, self.team = Path(root), team
        if team.first:
            self._sweep()

    def node(self, key: str, compute: Callable[[Partial], Node | tuple[Any, Any]]) -> Node:
        """The node of this key: read if it exists undamaged, else computed, written and read.

        A damaged node is logged, removed, and computed again. Two processes that need
        one key at once share the work: one computes while the other waits, logs that, and reads.

        Args:
          key: a SHA-256 in hex of all that determines the result (`content_key`).
          compute: `partial -> (arrays, meta)`; it may save its progress in `partial` and should
            begin with `partial.load`.

        Raises:
          StoreError: the store cannot be written, or the node has another format. The nodes that
            were there before are untouched.
        """
        self.ensure(key, compute)
        return self.read(key)

    def ensure(
        self, key: str, compute: Callable[[Partial], Node | tuple[Any, Any]], *, wait: bool = True
    ) -> bool:
        """Computes and writes the node of this key unless it exists undamaged.

        Args:
          key: as for `node`.
          compute: as for `node`.
          wait: whether to wait while another process computes it.

        Returns:
          Whether the node exists; False only if another process computes it and `wait` is false.
        """
        with contextlib.ExitStack() as held:
            if self.team.on_leader(lambda: self._is_ours(key, wait, held)):
                arrays, meta = compute(Partial(self._partial(key), self.team))
                checkpoints.save(self.path(key), arrays, meta, name=key, team=self.team)
                if self.team.first:
                    files.remove(self._partial(key))
        return self.team.on_leader(lambda: self.has(key))

    def _is_ours(self, key: str, wait: bool, held: contextlib.ExitStack) -> bool:
        """Whether this process computes a node; if so, `held` has its lock."""
        if self._mend(key):
            return False
        if wait:
            held.enter_context(locks.hold(self._lock(key), what=f"Node {key[:8]}"))
            free = True
        else:
            free = held.enter_context(locks.try_hold(self._lock(key)))
        return free and not self.has(key)

    def keys(self) -> Iterator[str]:
        """The keys of all finished nodes, in order."""
        return iter(self.team.on_leader(self._keys))

    def _keys(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("nodes/*/*") if _is_key(path.name))

    def facts(self, key: str) -> dict[str, Any]:
        """The `meta` of a finished node, checked; its arrays are neither read nor checked.

        Raises:
          CorruptError: the facts are damaged.
        """
        return checkpoints.facts(self.path(key), key)

    def has(self, key: str) -> bool:
        """Whether the node is finished; it may be damaged."""
        return self.path(key).is_dir()

    def problem(self, key: str) -> str | None:
        """A sentence on a node that is missing or damaged; None if it is intact.

        Raises:
          StoreError: it has another format, or cannot be read, for instance without permission.
        """
        try:
            checkpoints.check(self.path(key), key)
        except StoreError as error:
            if not self.has(key):  # from the start, or another process has removed it meanwhile
                return f"{self.path(key)} is missing; {MADE_AGAIN}."
            if isinstance(error, CorruptError):
                return str(error)
            raise
        return None

    def mend(self, key: str) -> bool:
        """Removes and logs a node if it is damaged; returns whether an intact one exists.

        While this waits for the node's lock, another process may compute it again.
        """
        return self.team.on_leader(lambda: self._mend(key))

    def _mend(self, key: str) -> bool:
        if not self.has(key):
            return False
        if self.problem(key) is None:
            return True
        with locks.hold(self._lock(key), what=f"Node {key[:8]}"):
            if self.has(key) and (problem := self.problem(key)):
                LOG.warning("%s", problem)
                self.remove(key)
            return self.has(key)

    def remove(self, key: str) -> None:
        """Removes a node at once for all readers; the caller holds its lock."""
        grown = files.temporary(self.path(key))
        with files.explained(self.path(key)):
            files.publish(self.path(key), grown)
        files.remove(grown)

    def read(self, key: str, like: Any = None) -> Node:
        """A finished node, every file checked against its SHA-256.

        Args:
          key: the node's key.
          like: as for `checkpoints.restore`.

        Raises:
          CorruptError: a file is damaged. StoreError: there is no such node, or another format.
        """
        return Node(*checkpoints.restore(self.path(key), like, name=key))

    def read_part(self, key: str, part: str) -> Node:
        """One entry of a finished node's arrays, and its `meta`; see `checkpoints.restore_part`.

        Raises:
          CorruptError: the facts or the entry are damaged. StoreError: another format.
        """
        return Node(*checkpoints.restore_part(self.path(key), part, key))

    def path(self, key: str) -> Path:
        """The folder of a node, which need not exist."""
        if not _is_key(key):
            raise ValueError(f"`key` must be a SHA-256 of 64 hex digits, got {key!r}.")
        return self.root / "nodes" / key[:2] / key

    def _partial(self, key: str) -> Path:
        return self.root / "partial" / key

    def _lock(self, key: str) -> Path:
        return self.root / "locks" / f"{key}.lock"

    def _sweep(self) -> None:
        leftovers = {path: files.owner(path) for path in self.root.glob("nodes/*/.*.tmp")}
        leftovers |= {path: path.name for path in self.root.glob("partial/*")}
        for path, key in leftovers.items():
            if _is_key(key) and (path.suffix == ".tmp" or self.has(key)):
                with locks.try_hold(self._lock(key)) as free:
                    if free:
                        files.remove(path)


def _is_key(text: str) -> bool:
    return _KEY.fullmatch(text) is not None
