"""Locks between processes; the operating system frees them when their holder ends."""

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import filelock

from lth_jax.store.errors import StoreError
from lth_jax.store.files import explained

LOG = logging.getLogger(__name__)

_GLANCE = 1.0  # seconds; longer than `is_held` takes in another process


@contextlib.contextmanager
def hold(path: Path, *, what: str, wait: bool = True) -> Iterator[None]:
    """Holds the lock file `path` for the length of a `with` block.

    Args:
      path: the lock file; made if it is not there.
      what: what the lock protects, for messages.
      wait: whether to wait (with a line in the log) while another process holds it.

    Raises:
      StoreError: another process holds it and `wait` is false, or the file cannot be made.
    """
    lock = filelock.FileLock(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=_GLANCE)
        except filelock.Timeout:
            if not wait:
                raise StoreError(f"{what} is in use by another process.") from None
            LOG.warning("%s is in use by another process; waiting for it.", what)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def try_hold(path: Path) -> Iterator[bool]:
    """Holds a lock if it is free at this moment; yields whether it does."""
    lock = filelock.FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except (filelock.Timeout, OSError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextlib.contextmanager
def in_use(root: Path, what: str) -> Iterator[None]:
    """Marks a store as in use for the length of a `with` block, so that no garbage is collected.

    Runs, sweeps and nodes have locks of their own; this is for work that lies between nodes.

    Args:
      root: the store's folder.
      what: the user of the store, for messages.
    """
    path = root / "locks" / f"{what}-{os.getpid()}-{secrets.token_hex(4)}.lock"
    with hold(path, what=what):
        yield
    path.unlink(missing_ok=True)


def is_held(path: Path) -> bool:
    """Whether another process holds the lock at this moment; True, too, if it cannot be opened."""
    if not path.exists():
        return False
    with try_hold(path) as free:
        return not free
