"""Decodes tickets, with checks of all inputs."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lth_jax import trees
from lth_jax.coding import codecs, container, values
from lth_jax.coding import manifest as manifest_
from lth_jax.coding.errors import TicketError
from lth_jax.coding.manifest import InitialKey, Leaf, Manifest
from lth_jax.types import Key, Mask, Params, Prunable

MAX_BYTES = 1 << 32
"""Default limit of decoded bytes: 4 GiB."""


class Ticket(NamedTuple):
    """A decoded ticket, with numpy arrays in the saved dtypes.

    Attributes:
      mask: bool leaves.
      params: the kept values, exactly 0 where pruned; None if the file holds a mask only.
      prunable: Python booleans.
      manifest: the file's manifest.
    """

    mask: Mask
    params: Params
    prunable: Prunable
    manifest: Manifest

    def __repr__(self) -> str:
        leaves = self.manifest.leaves
        kept, size = (
            sum(number for leaf, number in zip(leaves, numbers, strict=True) if leaf.prunable)
            for numbers in (
                [leaf.kept for leaf in leaves],
                [math.prod(leaf.shape) for leaf in leaves],
            )
        )
        return f"Ticket({len(leaves)} leaves, keeps {kept:,} of {size:,} prunable weights)"


class LeafArrays(NamedTuple):
    """One decoded leaf.

    Attributes:
      mask: bool.
      values: the kept values, exactly 0 where pruned; None if the file does not hold them.
    """

    mask: np.ndarray
    values: np.ndarray | None


class Contents(NamedTuple):
    """A file's header, without decoded arrays.

    Attributes:
      manifest: leaves, provenance and source of the values.
      blobs: the range of each blob in the file, by name.
      header_bytes: the bytes before the first blob.
      file_bytes: the bytes of the whole file.
    """

    manifest: Manifest
    blobs: dict[str, container.Blob]
    header_bytes: int
    file_bytes: int

    def mask_bytes(self, name: str) -> int:
        """The bytes of a leaf's mask."""
        start, stop = self.blobs[manifest_.MASK + name]
        return stop - start

    def value_bytes(self, name: str) -> int:
        """The bytes of a leaf's values, 0 if the file has none."""
        start, stop = self.blobs.get(manifest_.VALUES + name, (0, 0))
        return stop - start


Read = Callable[[container.Blob], bytes]
"""Returns the bytes of a blob, from memory or from a file."""


def from_memory(data: bytes) -> Read:
    """Reads blobs from a whole file's bytes.

    >>> from_memory(b"abcdef")(container.Blob(2, 4))
    b'cd'
    """
    return lambda blob: data[blob.start : blob.stop]


def open_header(head: bytes, size: int, max_bytes: int) -> Contents:
    """Checks the header of a file of `size` bytes; `head` must extend to its first blob.

    Raises:
      TicketError: the header is invalid; the message gives the reason.
    """
    found = container.read(head, size)
    try:
        manifest = manifest_.from_json(found.manifest, max_bytes)
    except RecursionError:
        raise TicketError("its header is nested too deeply") from None
    expected = [manifest_.MASK + leaf.name for leaf in manifest.leaves]
    if manifest.values == manifest_.EMBEDDED:
        expected += [manifest_.VALUES + leaf.name for leaf in manifest.leaves]
    if list(found.blobs) != expected:
        raise TicketError("its entries do not match its leaves")
    return Contents(manifest, found.blobs, container.header_size(head, size), size)


def decode(
    data: bytes,
    *,
    like: Any = None,
    init: Callable[[Key], Params] | None = None,
    max_bytes: int = MAX_BYTES,
) -> Ticket:
    """Reads a whole ticket.

    Args:
      data: the bytes of the file.
      like: a tree with the leaves' names, shapes and dtypes (arrays or `jax.ShapeDtypeStruct`;
        dtypes that are not floating-point are ignored), whose structure the result has, such as an
        `nnx.State`. Nested dictionaries by default, as in Linen.
      init: `key -> params`, for a ticket with values of an initialiser.
      max_bytes: maximal bytes of decoded masks and values.

    Returns:
      The ticket, with numpy arrays.

    Raises:
      TicketError: the file is damaged, forged or unknown, or `init` gives other values than the
        saved ones.
      ValueError: `like` does not fit, or `init` is needed and missing.

    >>> from lth_jax.coding.writer import encode
    >>> data = encode([np.array([True, False])], [np.array([2.0, 3.0])], prunable=[True])
    >>> decode(data, like=[np.zeros(2)]).params
    [array([2., 0.])]
    """
    contents = open_header(data, len(data), max_bytes)
    manifest = contents.manifest
    made = _initial_values(manifest, init)
    read = from_memory(data)
    leaves = {x.name: decode_leaf(x, contents, read, made) for x in manifest.leaves}
    build = _builder(manifest, like)
    masked = manifest.values != manifest_.NONE
    return Ticket(
        build({name: leaf.mask for name, leaf in leaves.items()}),
        build({name: leaf.values for name, leaf in leaves.items()}) if masked else None,
        build({leaf.name: leaf.prunable for leaf in manifest.leaves}),
        manifest,
    )


def decode_leaf(
    leaf: Leaf, contents: Contents, read: Read, made: dict[str, np.ndarray] | None = None
) -> LeafArrays:
    """Decodes one leaf and verifies its hash; `made` holds the values of an initialiser.

    Raises:
      TicketError: the leaf is damaged; the message names the leaf and the reason.
    """
    try:
        mask_code = read(contents.blobs[manifest_.MASK + leaf.name])
        mask = codecs.decode(leaf.codec, mask_code, leaf.shape, leaf.kept)
        kept = _kept(leaf, mask, contents, read, made)
    except TicketError as error:
        raise TicketError(f"at leaf '{leaf.name}': {error}") from None
    except MemoryError:
        raise TicketError(f"at leaf '{leaf.name}': there is not enough memory for it") from None
    if contents.manifest.values == manifest_.INITIALIZER and made is None:
        return LeafArrays(mask, None)  # its hash covers values that are not in the file
    if manifest_.leaf_sha256(mask, kept) != leaf.sha256:
        what = "the initialiser gives other values than" if made else "it does not decode to"
        raise TicketError(f"at leaf '{leaf.name}': {what} those that were saved (SHA-256)")
    return LeafArrays(mask, None if kept is None else _dense(mask, kept))


def _kept(
    leaf: Leaf, mask: np.ndarray, contents: Contents, read: Read, made: dict[str, np.ndarray] | None
) -> np.ndarray | None:
    if made is not None:
        return made[leaf.name][mask]
    if contents.manifest.values != manifest_.EMBEDDED:
        return None
    code = read(contents.blobs[manifest_.VALUES + leaf.name])
    return values.decode(code, mask, values.DTYPES[leaf.dtype], leaf.precision)


def _dense(mask: np.ndarray, kept: np.ndarray) -> np.ndarray:
    out = np.zeros(mask.shape, kept.dtype)
    out[mask] = kept
    return out


def _initial_values(
    manifest: Manifest, init: Callable[[Key], Params] | None
) -> dict[str, np.ndarray] | None:
    """The values of the ticket's initialiser, by leaf; None without an initialiser."""
    if manifest.initializer is None:
        return None
    if init is None:
        raise ValueError(
            f"`init` is needed: the ticket's values are those of {manifest.initializer.name!r}."
        )
    params = init(restore_key(manifest.initializer))
    made = dict(zip(trees.names(params), map(np.asarray, jax.tree.leaves(params)), strict=True))
    for leaf in manifest.leaves:
        array = made.get(leaf.name)
        if array is None or (array.shape, array.dtype.name) != (leaf.shape, leaf.dtype):
            raise ValueError(f"`init` gives no {leaf.dtype}{list(leaf.shape)} at '{leaf.name}'.")
    return made


def restore_key(key: InitialKey) -> Key:
    """The stored typed key; `TicketError` if its words are not a valid key."""
    try:
        return jax.random.wrap_key_data(jnp.array(key.data, jnp.uint32), impl=key.implementation)
    except (TypeError, ValueError) as error:
        raise TicketError(f"its key cannot be restored: {str(error)[:80]}") from None


def _builder(manifest: Manifest, like: Any) -> Callable[[dict[str, Any]], Any]:
    """A function from leaves by name to a tree."""
    if like is None:
        manifest_.check_nesting(leaf.name for leaf in manifest.leaves)
        return _nest
    shapes = {leaf.name: leaf.shape for leaf in manifest.leaves}
    dtypes = {leaf.name: leaf.dtype for leaf in manifest.leaves}
    order, structure = trees.names(like), jax.tree.structure(like)
    odd = sorted(set(order) ^ set(shapes))
    if odd:
        raise ValueError(
            f"`like` does not have the leaves of the ticket; they differ at {odd[:3]}."
        )
    for name, leaf in zip(order, jax.tree.leaves(like), strict=True):
        if np.shape(leaf) != shapes[name]:
            raise ValueError(
                f"`like` has shape {np.shape(leaf)} at '{name}', the ticket {shapes[name]}."
            )
        dtype = getattr(leaf, "dtype", np.dtype(bool))  # of a mask, or unknown
        if jnp.issubdtype(dtype, jnp.floating) and dtype != dtypes[name]:
            raise ValueError(
                f"`like` has dtype {dtype} at '{name}', the ticket {dtypes[name]}; convert its "
                "parameters after decoding without `like`, or give a `like` of the ticket's dtype."
            )
    return lambda leaves: jax.tree.unflatten(structure, [leaves[name] for name in order])


def _nest(leaves: dict[str, Any]) -> Any:
    """Nested dictionaries: one level for each part of the names."""
    if list(leaves) == [""]:
        return leaves[""]
    root: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        node = root
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = leaf
    return root
