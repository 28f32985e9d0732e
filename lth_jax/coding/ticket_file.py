"""The `.ticket` file: a mask, its values or their initialiser, and provenance.

A ticket is a safetensors container with one blob of bytes for every mask and every leaf of values,
and a manifest in its header. Reading one needs only numpy and JSON, executes no code, and verifies
the SHA-256 of all decoded arrays. Values may be given by an initialiser and a key: a ticket at
initialisation is a key and a mask.

docs/ticket_format.md defines every byte. Every later release reads version 1.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from lth_jax.coding import container, reader, writer
from lth_jax.coding.errors import TicketError
from lth_jax.coding.reader import MAX_BYTES, Contents, LeafArrays, Ticket
from lth_jax.store import files
from lth_jax.types import Key, Mask, Params, Prunable

PathLike = str | os.PathLike[str]


@contextmanager
def naming(path: PathLike) -> Iterator[None]:
    """Context that adds the path to a `TicketError`."""
    try:
        yield
    except TicketError as error:
        raise TicketError(f"'{os.fspath(path)}' is not a readable ticket: {error}.") from None


def save(
    path: PathLike, mask: Mask, params: Params | None = None, *, prunable: Prunable, **options: Any
) -> None:
    """Writes a ticket to a file atomically.

    Args:
      path: path of the file; its folder must exist.
      mask: as in `encode`, like the further arguments.
      params: a tree like `mask` whose kept values are stored, or None for a mask alone.
      prunable: a tree like `mask` of Python booleans.
      **options: `precision`, `initializer` and `provenance`.

    Raises:
      store.StoreError: if the file cannot be written (no such folder, permissions, a full disk).
      ValueError: as `encode` raises it.
      TypeError: as `encode` raises it.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "mask.ticket")
    ...     save(path, {"w": np.eye(3, dtype=bool)}, prunable={"w": True})
    ...     int(load(path).mask["w"].sum())
    3
    """
    data = writer.encode(mask, params, prunable=prunable, **options)
    files.write(Path(path), data, make_folder=False)


def load(
    path: PathLike,
    *,
    like: Any = None,
    init: Callable[[Key], Params] | None = None,
    max_bytes: int = MAX_BYTES,
) -> Ticket:
    """Reads a ticket from a file, and verifies the SHA-256 of all leaves.

    Args:
      path: path of the file.
      like: a tree with the leaves' names, shapes and dtypes, whose structure the result has (see
        `decode`); nested dictionaries by default.
      init: `key -> params`, for a ticket with values of an initialiser.
      max_bytes: maximal bytes of decoded masks and values.

    Returns:
      The ticket, with NumPy arrays of the saved shapes: bool masks, and values in the saved dtypes.

    Raises:
      TicketError: the file is not a readable ticket; the message names it and the reason.
      ValueError: if `like` does not fit, or `init` is needed and missing.
      OSError: the file cannot be read.

    >>> load("nowhere.ticket")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'nowhere.ticket'
    """
    with naming(path):
        return reader.decode(Path(path).read_bytes(), like=like, init=init, max_bytes=max_bytes)


def inspect(path: PathLike, *, max_bytes: int = MAX_BYTES) -> Contents:
    """Reads a file's header only: leaves, codes, provenance and sizes.

    Args:
      path: path of the file.
      max_bytes: maximal bytes of decoded masks and values, by the sizes that the header states.

    Returns:
      The header: the manifest, the range of each blob in the file, and sizes in bytes.

    Raises:
      TicketError: the file is not a readable ticket; the message names it and the reason.
      TypeError: `path` is bytes.
      OSError: the file cannot be read.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "mask.ticket")
    ...     save(path, {"w": np.eye(3, dtype=bool)}, prunable={"w": True})
    ...     inspect(path).mask_bytes("w")
    1
    """
    if isinstance(path, bytes):
        raise TypeError("`path` is bytes; `inspect` reads a file, `decode` and `table` take bytes.")
    with naming(path), open(path, "rb") as file:
        return _contents(file, max_bytes)


def load_leaf(path: PathLike, name: str, *, max_bytes: int = MAX_BYTES) -> LeafArrays:
    """Reads one leaf; of the file only the header and that leaf's bytes.

    The SHA-256 of the leaf is verified, except in a ticket with values of an initialiser: there it
    covers values that the file does not hold.

    Args:
      path: path of the file.
      name: the name of the leaf, such as `"Dense_0/kernel"`.
      max_bytes: maximal bytes of decoded masks and values of all leaves, by the sizes that the
        header states.

    Returns:
      NumPy arrays of the saved shape: the mask, bool, and the values in the saved dtype, exactly 0
      where pruned. The values are None if the file holds masks only, or values of an initialiser.

    Raises:
      TicketError: the file is not a readable ticket; the message names it and the reason.
      ValueError: the ticket has no leaf of that name.
      OSError: the file cannot be read.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "mask.ticket")
    ...     save(path, {"w": np.eye(2, dtype=bool)}, prunable={"w": True})
    ...     load_leaf(path, "w").mask.tolist()
    [[True, False], [False, True]]
    """
    with naming(path), open(path, "rb") as file:
        contents = _contents(file, max_bytes)
        leaves = {leaf.name: leaf for leaf in contents.manifest.leaves}
        if name not in leaves:
            raise ValueError(f"`name` is {name!r}; the ticket's leaves are {list(leaves)[:20]}.")
        return reader.decode_leaf(leaves[name], contents, lambda blob: _read(file, blob))


def _contents(file: BinaryIO, max_bytes: int) -> Contents:
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    head = start + file.read(container.header_size(start, size) - len(start))
    return reader.open_header(head, size, max_bytes)


def _read(file: BinaryIO, blob: container.Blob) -> bytes:
    file.seek(blob.start)
    return file.read(blob.stop - blob.start)
