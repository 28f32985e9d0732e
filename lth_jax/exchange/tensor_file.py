"""The safetensors format, read and written with NumPy and JSON only.

Eight bytes, little-endian, give the length of a JSON header; the header names the dtype, shape and
byte range of each array in the rest of the file.
"""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lth_jax.coding.values import DTYPES
from lth_jax.exchange.errors import ExchangeError

Arrays = dict[str, np.ndarray]
_LENGTH = struct.Struct("<Q")
_MAX_HEADER = 100_000_000  # that of the format's own reader
_NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
_CODES = {name: code for code, name in _NAMES.items()}


def to_bytes(arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file.

    Args:
      arrays: arrays by name.
      metadata: text by name.

    Raises:
      ExchangeError: an array has a dtype that the format does not have.

    >>> arrays, metadata = from_bytes(to_bytes({"w": np.arange(3.0)}, {"by": "me"}))
    >>> arrays["w"].tolist(), metadata
    ([0.0, 1.0, 2.0], {'by': 'me'})
    """
    found = {name: np.asarray(array) for name, array in arrays.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end, blobs = 0, []
    # Wide dtypes come first, so that every array is aligned to its own dtype.
    for name in sorted(found, key=lambda name: (-found[name].itemsize, name)):
        array = found[name]
        if array.dtype.name not in _CODES:
            raise ExchangeError(
                f"'{name}' has dtype {array.dtype.name}, which safetensors does not support; "
                f"convert it to one of {', '.join(_CODES)}."
            )
        blobs.append(array.astype(DTYPES[array.dtype.name], copy=False).tobytes())
        start, end = end, end + len(blobs[-1])
        header[name] = {
            "dtype": _CODES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([_LENGTH.pack(len(text)), text, *blobs])


def from_bytes(data: bytes) -> tuple[Arrays, dict[str, str]]:
    """The arrays and the metadata of a safetensors file.

    Raises:
      ExchangeError: the bytes are not those of a safetensors file, or of a part of one.
    """
    if len(data) < _LENGTH.size:
        raise ExchangeError(f"{len(data)} bytes are too short for a safetensors file")
    (length,) = _LENGTH.unpack(data[: _LENGTH.size])
    start = _LENGTH.size + length
    if length > min(_MAX_HEADER, len(data) - _LENGTH.size):
        raise ExchangeError(
            f"it is not a safetensors file, or truncated: its header states {length} bytes in "
            f"{len(data)}"
        )
    try:
        header = json.loads(data[_LENGTH.size : start])
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ExchangeError("it is not a safetensors file: its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    return {name: _array(name, entry, data, start) for name, entry in header.items()}, metadata


def _array(name: str, entry: Any, data: bytes, start: int) -> np.ndarray:
    try:
        code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        numbers = False
    if not numbers or begin > end:
        raise ExchangeError(f"its header's entry '{name[:80]}' is not that of an array")
    if code not in _NAMES:
        raise ExchangeError(
            f"'{name[:80]}' has the dtype {str(code)[:20]!r}, which this reader does not support"
        )
    dtype = DTYPES[_NAMES[code]]
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ExchangeError(
            f"'{name[:80]}' has {end - begin} bytes, which do not match its shape and dtype"
        )
    if start + end > len(data):
        raise ExchangeError(
            f"it is truncated: '{name[:80]}' ends at byte {start + end} of {len(data)}"
        )
    return np.frombuffer(data[start + begin : start + end], dtype).reshape(shape)


def read(path: str | Path) -> tuple[Arrays, dict[str, str]]:
    """The arrays and the metadata of a safetensors file.

    Raises:
      ExchangeError: the file cannot be read; the message names it and the reason.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "one.safetensors")
    >>> _ = path.write_bytes(to_bytes({"w": np.arange(2.0)}))
    >>> read(path)[0]["w"].tolist()
    [0.0, 1.0]
    """
    try:
        return from_bytes(Path(path).read_bytes())
    except ExchangeError as error:
        raise ExchangeError(f"'{path}' cannot be read: {error}.") from None
