"""Every change that Python makes to files below a folder, seen before it happens.

So a test can copy what a kill at that moment would leave, or refuse the change as a full disk does.
What native code writes (arrays) is not seen.
"""

import collections
import contextlib
import errno
import os
import re
import shutil
import sys
import threading
from pathlib import Path

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
GROWS = ("open", "os.mkdir")
"""The changes that need space."""

_watched = {}  # root -> act; audit hooks cannot be removed
_busy = threading.local()


def _hook(event, args):
    if not _watched or event not in (*GROWS, "os.rename", "os.remove", "os.rmdir"):
        return
    if event == "open" and not (isinstance(args[2], int) and args[2] & WRITES):
        return
    if isinstance(args[0], int) or getattr(_busy, "now", False):
        return
    path = Path(os.fsdecode(args[1] if event == "os.rename" else args[0])).absolute()
    for root, act in list(_watched.items()):
        if path.is_relative_to(root):
            _busy.now = True
            try:
                act(event, path)
            finally:
                _busy.now = False


sys.addaudithook(_hook)


@contextlib.contextmanager
def watching(root, act):
    """Within the block `act(event, path)` is called before each change below `root`."""
    _watched[root] = act
    try:
        yield
    finally:
        del _watched[root]


def kind(root, path):
    """What a path is, without what differs between runs: hashes, keys, numbers, temporary names.

    >>> root = Path("/runs")
    >>> kind(root, root / "tiny-12345678" / ".env.json.17-0123456789abcdef.tmp")
    'tiny-#/env.json'
    """
    name = path.relative_to(root).as_posix()
    name = re.sub(r"\.([^/]+)\.\d+-[0-9a-f]{16}\.tmp", r"\1", name)
    name = re.sub(r"incomplete\.[^/]*?_", "", name)
    return re.sub(r"[0-9a-f]{64}|(?<=-)[0-9a-f]{8}|(?<=/)[0-9a-f]{2}(?=/|$)|\d{6,}", "#", name)


def full_disk(root, at):
    """Refuses all growth below `root` from the first change of one kind on."""
    full = []

    def act(event, path):
        if event in GROWS and (full or kind(root, path) == at):
            full.append(path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    return watching(root, act)


def every_kind(root):
    """Lists the kinds of all changes that need space, in the order of their first."""
    found = {}

    def act(event, path):
        if event in GROWS:
            found.setdefault(kind(root, path), event)

    return watching(root, act), found


def copies(root, target, wanted):
    """Copies `root` before changes: what a kill there would leave.

    Args:
      root: the folder.
      target: where copies go; each is a folder of the same name.
      wanted: `(event, kind, n) -> whether`; n counts the changes of a kind from 0.

    Returns:
      The context manager, and the copies by `(event, kind, n)`.
    """
    found, counts, lock = {}, collections.Counter(), threading.Lock()

    def act(event, path):
        at = (event, kind(root, path))
        with lock:
            key = (*at, counts[at])
            counts[at] += 1
            if not wanted(*key):
                return
            found[key] = target / f"{len(found):03d}" / root.name
            with contextlib.suppress(shutil.Error):  # another thread's files come and go
                shutil.copytree(root, found[key])

    return watching(root, act), found
