"""The outer format: a safetensors container, read and written with JSON only.

Eight bytes give the length of a JSON header; the header names byte ranges ("tensors") of what
follows. Any safetensors reader can open the file. This reader accepts only files in the form of
this writer, because files may come from untrusted sources.
"""

import json
import math
import struct
from typing import Any, NamedTuple, NoReturn

from lth_jax.coding.errors import TicketError

METADATA = "lth_jax.ticket"
_MAX_HEADER = 64 * 2**20
_MAX_DEPTH = 100  # well below the recursion limit of JSON parsers
_MAX_INTEGER_BITS = 14_284  # 4300 digits, which Python parses by default
_LENGTH = struct.Struct("<Q")


class Blob(NamedTuple):
    """The range of a blob: bytes `start:stop` of the file."""

    start: int
    stop: int


class Container(NamedTuple):
    """The contents of a header.

    Attributes:
      manifest: the JSON value that was given to `write`.
      blobs: the range of each blob.
      size: the bytes of the whole file.
    """

    manifest: Any
    blobs: dict[str, Blob]
    size: int


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; NaN and infinities are a `ValueError`.

    >>> canonical_json({"b": 1, "a": [True, None]})
    '{"a":[true,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def check_json(value: Any, path: str = "") -> None:
    """Raises `TicketError` unless `read` returns `value` unchanged (tuples as lists).

    >>> check_json({"level": {1: 2}})
    Traceback (most recent call last):
    lth_jax.coding.errors.TicketError: at '/level' the key 1 is not a str
    """
    where = f"at '{path[:80]}' " if path else ""
    if path.count("/") > _MAX_DEPTH:
        raise TicketError(f"it is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TicketError(f"{where}the key {key!r} is not a str")
            check_json(item, f"{path}/{key.replace('/', '_')}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            check_json(item, f"{path}/{i}")
    elif isinstance(value, int) and not isinstance(value, bool):
        if value.bit_length() > _MAX_INTEGER_BITS:
            raise TicketError(f"{where}an integer has more than 4300 digits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise TicketError(f"{where}{value} is not JSON; numbers must be finite")
    elif not (value is None or isinstance(value, str | bool)):
        raise TicketError(f"{where}{str(value)[:80]!r} of type {type(value).__name__} is not JSON")


def write(manifest: Any, blobs: dict[str, bytes]) -> bytes:
    """The bytes of a container.

    Args:
      manifest: any JSON value.
      blobs: bytes by name, laid out in this order.

    Raises:
      TicketError: if the header is longer than 64 MiB.

    >>> data = write({"a": 1}, {"x": b"123"})
    >>> read(data, len(data)).manifest
    {'a': 1}
    """
    header: dict[str, Any] = {"__metadata__": {METADATA: canonical_json(manifest)}}
    end = 0
    for name, blob in blobs.items():
        header[name] = {"dtype": "U8", "shape": [len(blob)], "data_offsets": [end, end + len(blob)]}
        end += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to eight bytes
    _check_length(len(text))
    return _LENGTH.pack(len(text)) + text + b"".join(blobs.values())


def header_size(start: bytes, size: int) -> int:
    """The number of bytes before the blobs, from a file's first eight bytes and size.

    Raises:
      TicketError: the file is too short, or the header longer than 64 MiB.
    """
    if len(start) < _LENGTH.size:
        raise TicketError(f"a file of {size} bytes is too short for a ticket")
    (length,) = _LENGTH.unpack(start[: _LENGTH.size])
    if length > size - _LENGTH.size:
        raise TicketError(f"its header states {length} bytes in a file of {size}")
    _check_length(length)
    return _LENGTH.size + length


def _check_length(header: int) -> None:
    if header > _MAX_HEADER:
        raise TicketError(f"its header takes {header} bytes; at most {_MAX_HEADER} are allowed")


def read(head: bytes, size: int) -> Container:
    """Reads a header.

    Args:
      head: at least the file's first `header_size` bytes.
      size: bytes of the whole file.

    Raises:
      TicketError: the header is not in the form of `write`.
    """
    start = header_size(head, size)
    header = _parse(head[_LENGTH.size : start])
    if not isinstance(header, dict):
        raise TicketError("its header is not a JSON object")
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(METADATA), str):
        raise TicketError(f"its header has no {METADATA!r}: a safetensors file, but not a ticket")
    blobs = {}
    end = 0
    for name, entry in header.items():
        length = _blob_length(name, entry, end)
        blobs[name] = Blob(start + end, start + end + length)
        end += length
    if start + end != size:
        raise TicketError(f"its header describes {start + end} bytes, but the file has {size}")
    return Container(_parse(metadata[METADATA]), blobs, size)


def _blob_length(name: str, entry: Any, end: int) -> int:
    """The length of a blob that must begin where the one before it ended."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise TicketError(f"its header's entry {name[:80]!r} is not that of a tensor")
    shape = entry["shape"]
    if entry["dtype"] != "U8" or not isinstance(shape, list) or len(shape) != 1:
        raise TicketError(f"{name[:80]!r} is not a one-dimensional array of bytes")
    (length,) = shape
    if type(length) is not int or length < 0 or entry["data_offsets"] != [end, end + length]:
        raise TicketError(f"{name[:80]!r} does not begin where the blob before it ends")
    return length


def _parse(text: bytes | str) -> Any:
    try:
        if isinstance(text, bytes):
            text = text.decode()
        return json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite
        )
    except TicketError:
        raise
    except (ValueError, RecursionError) as error:
        raise TicketError(f"its header is not JSON: {str(error)[:80]}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise TicketError("its header has a key twice")
    return found


def _finite(text: str) -> float:
    """Rejects numbers such as 1e999, which are JSON but overflow."""
    value = float(text)
    return value if math.isfinite(value) else _refuse(text[:80])


def _refuse(constant: str) -> NoReturn:
    raise TicketError(f"its header holds {constant}, which is not JSON")
