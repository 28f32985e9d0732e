"""The manifest of a ticket: typed records, checked before decoding."""

import hashlib
import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from lth_jax.coding.container import canonical_json
from lth_jax.coding.errors import TicketError
from lth_jax.coding.quantize import Precision
from lth_jax.coding.values import DTYPES

VERSION = 1
"""Every later release reads files of this and all earlier versions."""

EMBEDDED, INITIALIZER, NONE = "embedded", "initializer", "none"
MASK, VALUES = "mask:", "values:"
"""Prefixes of blob names."""

_SOURCES = (EMBEDDED, INITIALIZER, NONE)
_MAX_LEAVES = 1 << 16
_MAX_NAME = 1024
_MAX_AXES = 32
_MAX_KEY = 16
_MAX_ENTRIES = 2**63 // max(dtype.itemsize for dtype in DTYPES.values())
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Leaf(NamedTuple):
    """One leaf of the parameters.

    Attributes:
      name: the path of the leaf, as `trees.path_name` writes it.
      shape: its shape.
      dtype: the name of its dtype.
      prunable: whether it may be pruned.
      kept: the number of kept entries.
      codec: the code of its mask, a name in `codecs.CODECS`.
      precision: the precision of its values.
      sha256: of its mask, packed to bits, followed by its kept values.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    prunable: bool
    kept: int
    codec: str
    precision: Precision
    sha256: str

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)


class InitialKey(NamedTuple):
    """The initialiser of the values, and its key.

    Attributes:
      name: the name of the initialiser, chosen by the author.
      implementation: the key's generator, as `jax.random.key_impl` names it.
      data: the key's words.
    """

    name: str
    implementation: str
    data: tuple[int, ...]


class Manifest(NamedTuple):
    """A ticket without its arrays.

    Attributes:
      version: version of the format.
      values: source of the values: "embedded", "initializer" or "none" (a mask only).
      initializer: the initialiser, if it is the source.
      leaves: all leaves, in the order of the tree that was saved.
      provenance: its origin, any JSON object.
    """

    version: int
    values: str
    initializer: InitialKey | None
    leaves: tuple[Leaf, ...]
    provenance: dict[str, Any]


def is_name(name: str) -> bool:
    """Whether a leaf name is valid: printable parts joined by `/`, none of them `.`, `..` or empty.

    The empty name is that of a single array.

    >>> is_name("Dense_0/kernel"), is_name("../../etc/passwd")
    (True, False)
    """
    parts = name.split("/")
    ordinary = name == "" or not any(part in ("", ".", "..") for part in parts)
    return ordinary and name.isprintable() and len(name) <= _MAX_NAME


def check_count(leaves: int) -> None:
    """Raises `TicketError` for too many leaves.

    This check and those below apply to writing and reading.
    """
    if leaves > _MAX_LEAVES:
        raise TicketError(f"it has {leaves} leaves; at most {_MAX_LEAVES} are allowed")


def check_nesting(names: Iterable[str]) -> None:
    """Raises `TicketError` if a leaf is nested in another one, as `a/b` in `a`."""
    known = set(names)
    for name in sorted(known):
        parts = name.split("/")
        for end in range(1, len(parts)):
            if (outer := "/".join(parts[:end])) in known:
                raise TicketError(f"leaf '{name}' lies inside the leaf '{outer}'")


def check_shape(shape: tuple[Any, ...]) -> None:
    """Raises `TicketError` for a shape that numpy does not support.

    numpy counts the entries without the axes of length 0, so an empty array can be too large.
    """
    counts = all(type(n) is int and n >= 0 for n in shape)
    if not counts or len(shape) > _MAX_AXES or math.prod(n or 1 for n in shape) >= _MAX_ENTRIES:
        raise TicketError(
            f"{str(list(shape))[:80]} is not the shape of a leaf: at most {_MAX_AXES} axes and "
            f"2**63 bytes are allowed"
        )


def check_precision(precision: Precision, axes: int) -> None:
    """Raises `TicketError` for an unknown precision, or one that a leaf of `axes` cannot have."""
    kind, bits, axis = precision
    integers = kind == "integers"
    known = type(bits) is int and (2 <= bits <= 8 if integers else bits == 0)
    placed = axis is None or (integers and type(axis) is int and -axes <= axis < axes)
    if kind not in ("exact", "bfloat16", "integers") or not known or not placed:
        raise TicketError(f"{str(precision)[:120]} is not a precision of this library")


def check_initial_key(key: InitialKey) -> None:
    """Raises `TicketError` for a key or names that JSON cannot hold as `InitialKey` does."""
    if type(key.name) is not str or type(key.implementation) is not str:
        raise TicketError(f"an initialiser is named by a str, not by {str(key.name)[:80]!r}")
    words = all(type(n) is int and 0 <= n < 2**32 for n in key.data)
    if not words or len(key.data) > _MAX_KEY:
        raise TicketError(f"its key is not a row of at most {_MAX_KEY} words of 32 bits")


def leaf_sha256(mask: np.ndarray, kept: np.ndarray | None) -> str:
    """SHA-256 of a mask, packed to bits, and of the kept values, if any."""
    found = hashlib.sha256(np.packbits(mask, bitorder="little").tobytes())
    if kept is not None:
        found.update(kept.tobytes())
    return found.hexdigest()


def digest(manifest: Manifest) -> str:
    """SHA-256 of a manifest, including the digests of its leaves."""
    return hashlib.sha256(canonical_json(_to_json(manifest)).encode()).hexdigest()


def _to_json(manifest: Manifest) -> dict[str, Any]:
    leaves = [{**leaf._asdict(), "shape": list(leaf.shape)} for leaf in manifest.leaves]
    for leaf in leaves:
        leaf["precision"] = leaf["precision"]._asdict()
    initializer = manifest.initializer
    key = initializer and {**initializer._asdict(), "data": list(initializer.data)}
    return {**manifest._asdict(), "leaves": leaves, "initializer": key}


def to_json(manifest: Manifest) -> dict[str, Any]:
    """The JSON object for `from_json`, including its digest."""
    return {**_to_json(manifest), "sha256": digest(manifest)}


def from_json(value: Any, max_bytes: int) -> Manifest:
    """Reads and checks a manifest, before memory of the claimed sizes is allocated.

    Args:
      value: the parsed JSON.
      max_bytes: maximal bytes of all decoded masks and values.

    Raises:
      TicketError: the manifest is invalid.
    """
    version = _field(value, "version", int)
    if version != VERSION:
        raise TicketError(f"it has version {version}; this library reads versions up to {VERSION}")
    entries = _field(value, "leaves", list)
    check_count(len(entries))
    leaves = tuple(_leaf(entry) for entry in entries)
    if len({leaf.name for leaf in leaves}) < len(leaves):
        raise TicketError("two of its leaves have one name")
    decoded = sum(leaf.size * (1 + DTYPES[leaf.dtype].itemsize) for leaf in leaves)
    if decoded > max_bytes:
        raise TicketError(f"decoded it takes {decoded} bytes; `max_bytes` allows {max_bytes}")
    values = _field(value, "values", str)
    key = value.get("initializer")
    if values not in _SOURCES or (key is None) == (values == INITIALIZER):
        raise TicketError(f"its values come from {values[:80]!r}, which is not one of {_SOURCES}")
    provenance = _field(value, "provenance", dict)
    initializer = None if key is None else _initial_key(key)
    manifest = Manifest(version, values, initializer, leaves, provenance)
    if value != to_json(manifest):
        raise TicketError("its manifest does not match its SHA-256")
    return manifest


def _field(entry: Any, name: str, kind: type) -> Any:
    found = entry.get(name) if isinstance(entry, dict) else None
    if type(found) is not kind:  # not isinstance: True must not count as an integer
        raise TicketError(f"its header has no {kind.__name__} {name!r} where one is needed")
    return found


def _count(entry: Any, name: str) -> int:
    found = _field(entry, name, int)
    if not 0 <= found < 2**63:
        raise TicketError(f"its header holds a {name!r} of {found}")
    return found


def _leaf(entry: Any) -> Leaf:
    leaf = Leaf(
        name=_field(entry, "name", str),
        shape=_shape(_field(entry, "shape", list)),
        dtype=_field(entry, "dtype", str),
        prunable=_field(entry, "prunable", bool),
        kept=_count(entry, "kept"),
        codec=_field(entry, "codec", str),
        precision=_precision(_field(entry, "precision", dict), len(entry["shape"])),
        sha256=_field(entry, "sha256", str),
    )
    if not is_name(leaf.name):
        raise TicketError(f"{leaf.name[:80]!r} cannot be the name of a leaf")
    if leaf.dtype not in DTYPES:
        raise TicketError(f"leaf {leaf.name!r} has the unknown dtype {leaf.dtype[:80]!r}")
    if leaf.kept > leaf.size or (leaf.kept < leaf.size and not leaf.prunable):
        raise TicketError(f"leaf {leaf.name!r} cannot keep {leaf.kept} of {leaf.size} entries")
    if not _SHA256.fullmatch(leaf.sha256):
        raise TicketError(f"leaf {leaf.name!r} has no SHA-256")
    return leaf


def _shape(shape: list[Any]) -> tuple[int, ...]:
    check_shape(tuple(shape))
    return tuple(shape)


def _precision(entry: dict[str, Any], axes: int) -> Precision:
    precision = Precision(
        _field(entry, "kind", str), _count(entry, "bits"), entry.get("channel_axis")
    )
    check_precision(precision, axes)
    return precision


def _initial_key(entry: Any) -> InitialKey:
    names = _field(entry, "name", str), _field(entry, "implementation", str)
    key = InitialKey(*names, tuple(_field(entry, "data", list)))
    check_initial_key(key)
    return key
