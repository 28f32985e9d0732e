"""Files of sparse networks: safetensors whose metadata name the format and the shapes."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lth_jax import trees
from lth_jax.coding.bits import Reader, pack_fixed, to_bytes, unpack_fixed
from lth_jax.coding.errors import TicketError
from lth_jax.exchange import tensor_file
from lth_jax.exchange.dense import check_same_arrays
from lth_jax.exchange.errors import ExchangeError
from lth_jax.exchange.sparse import Packed, bcoo, pack_nm, unpack_nm
from lth_jax.exchange.written import Written, write
from lth_jax.layouts import Layout, Layouts, resolve
from lth_jax.pruning.checks import check_mask
from lth_jax.store.leaves import nest
from lth_jax.types import Mask, Params

METADATA = "lth_jax.exchange"
BCOO, NM = "bcoo", "nm"
_PARTS = {BCOO: ("data", "indices"), NM: ("values", "indices")}


def save_bcoo(path: str | Path, params: Params, mask: Mask, *, overwrite: bool = False) -> Written:
    """Writes `to_bcoo(params, mask)`: the arrays `NAME.data` and `NAME.indices` of each leaf.

    Args:
      path: the file, a safetensors file that `load_sparse` reads.
      params: tree of arrays.
      mask: tree like `params`, True = kept.
      overwrite: whether to replace an existing file.

    Raises:
      ExchangeError: the file exists.
      ValueError: `mask` does not fit `params`.
      TypeError: a leaf of `mask` is not bool.

    >>> import tempfile
    >>> params, mask = {"w": np.eye(3, dtype=np.float32)}, {"w": np.eye(3, dtype=bool)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "net.safetensors")
    ...     written = save_bcoo(path, params, mask)
    ...     load_sparse(path)["w"].nse
    3
    """

    def arrays(name: str, leaf: np.ndarray, keep: np.ndarray) -> tuple[dict[str, Any], Any]:
        indices = np.argwhere(keep).astype(np.int32)
        return {f"{name}.data": leaf[keep], f"{name}.indices": indices}, list(leaf.shape)

    return _save(path, params, mask, {"format": BCOO}, arrays, overwrite)


def save_nm(
    path: str | Path,
    params: Params,
    mask: Mask,
    pattern: tuple[int, int] = (2, 4),
    *,
    layouts: Layouts | None = None,
    overwrite: bool = False,
) -> Written:
    """Writes each pruned leaf as `NAME.values` and `NAME.indices` (see `pack_nm`).

    Indices take ⌈log2 m⌉ bits each, the first in the low bits.

    Args:
      path: the file, a safetensors file that `load_sparse` reads.
      params: tree of arrays.
      mask: tree like `params`; leaves without a pruned weight stay dense.
      pattern: `(n, m)`.
      layouts: leaf name to layout, for kernels of more than two axes.
      overwrite: whether to replace an existing file.

    Raises:
      ExchangeError: a pruned leaf is not N:M, its layout is not known, or the file exists.
      ValueError: `mask` does not fit `params`.
      TypeError: a leaf of `mask` is not bool.

    >>> import tempfile
    >>> params, mask = {"w": np.eye(4, dtype=np.float32)}, {"w": np.eye(4, dtype=bool)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "net.safetensors")
    ...     written = save_nm(path, params, mask, (1, 4))
    ...     load_sparse(path)["w"].m
    4
    """
    known, (n, m) = resolve(params, layouts), pattern

    def arrays(name: str, leaf: np.ndarray, keep: np.ndarray) -> tuple[dict[str, Any], Any]:
        if name not in known:
            raise ExchangeError(
                f"The layout of '{name}', of shape {leaf.shape}, is needed: pass `layouts`."
            )
        try:
            packed = pack_nm(leaf, keep, n, m, known[name])
        except ExchangeError as error:
            raise ExchangeError(f"`mask` at '{name}' is not {n}:{m}: {error}.") from None
        bits = pack_fixed(packed.indices.ravel().astype(np.int64), (m - 1).bit_length())
        code = np.frombuffer(to_bytes(bits), np.uint8)
        entry = {"shape": list(leaf.shape), "layout": known[name].axes}
        return {f"{name}.values": packed.values, f"{name}.indices": code}, entry

    return _save(path, params, mask, {"format": NM, "n": n, "m": m}, arrays, overwrite)


def _save(
    path: str | Path, params: Params, mask: Mask, about: Any, arrays: Any, overwrite: bool
) -> Written:
    check_mask(jax.tree.map(np.asarray, mask), params)
    found, entries, wanted = {}, {}, {}
    kept = trees.to_named(mask)
    leaves = {name: np.asarray(leaf) for name, leaf in trees.to_named(params).items()}
    for name, leaf in leaves.items():
        keep = np.asarray(kept[name])
        wanted[name] = np.where(keep, leaf, np.zeros((), leaf.dtype))
        if keep.all():
            found[name] = leaf
        else:
            parts, entries[name] = arrays(name, leaf, keep)
            if twice := sorted(set(parts) & set(leaves)):
                raise ExchangeError(f"Two arrays of the file have the name '{twice[0]}'.")
            found |= parts
    data = tensor_file.to_bytes(found, {METADATA: json.dumps({**about, "leaves": entries})})
    check_same_arrays(_to_named_dense(*tensor_file.from_bytes(data)), wanted)
    return write(path, data, params, overwrite=overwrite)


def load_sparse(path: str | Path) -> Any:
    """The tree of a file of `save_bcoo` or `save_nm`, with `BCOO` or `Packed` leaves.

    Args:
      path: the file.

    Returns:
      Nested dictionaries of the saved leaves, in their dtypes; leaves without a pruned weight are
      NumPy arrays. `to_dense` gives plain arrays.

    Raises:
      ExchangeError: the file is not one of these, or JAX would convert a dtype.
      OSError: the file cannot be read.

    >>> import tempfile
    >>> params, mask = {"w": np.eye(2, dtype=np.float32)}, {"w": np.eye(2, dtype=bool)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "net.safetensors")
    ...     written = save_bcoo(path, params, mask)
    ...     load_sparse(path)["w"]
    BCOO(float32[2, 2], nse=2)
    """
    arrays, metadata = tensor_file.read(path)
    named = {
        name: bcoo(name, *leaf)
        if isinstance(leaf, tuple) and not isinstance(leaf, Packed)
        else leaf
        for name, leaf in _parts(arrays, metadata).items()
    }
    return nest([(tuple(name.split("/")), leaf) for name, leaf in named.items()])


def check_tensors(path: str | Path) -> None:
    """Raises `ExchangeError` unless a file is whole: safetensors, and the sparse leaves in it."""
    arrays, metadata = tensor_file.read(path)
    try:
        if METADATA in metadata:
            _to_named_dense(arrays, metadata)
    except (IndexError, ValueError) as error:
        raise ExchangeError(f"'{path}' is not a complete sparse network file: {error}") from None


def _to_named_dense(arrays: tensor_file.Arrays, metadata: dict[str, str]) -> dict[str, Any]:
    """All leaves as dense NumPy arrays, which keep every dtype."""

    def one(leaf: Any) -> np.ndarray:
        if isinstance(leaf, Packed):
            return unpack_nm(leaf)
        if not isinstance(leaf, tuple):
            return leaf
        data, indices, shape = leaf
        out = np.zeros(shape, data.dtype)
        out[tuple(indices.T)] = data
        return out

    return {name: one(leaf) for name, leaf in _parts(arrays, metadata).items()}


def _parts(arrays: tensor_file.Arrays, metadata: dict[str, str]) -> dict[str, Any]:
    """Leaf name to an array, a `Packed`, or `(data, indices, shape)` of a BCOO leaf."""
    try:
        about = json.loads(metadata[METADATA])
        taken = {f"{name}.{part}" for name in about["leaves"] for part in _PARTS[about["format"]]}
        found: dict[str, Any] = {name: a for name, a in arrays.items() if name not in taken}
        for name, entry in about["leaves"].items():
            first, second = (arrays[f"{name}.{part}"] for part in _PARTS[about["format"]])
            if about["format"] == BCOO:
                found[name] = first, second, tuple(entry)
            else:
                width, reader = (about["m"] - 1).bit_length(), Reader(second.tobytes())
                places = unpack_fixed(reader.bits(first.size * width), width)
                indices = places.reshape(first.shape).astype(np.uint8)
                layout = Layout.of_axes(entry["layout"])
                found[name] = Packed(first, indices, about["m"], layout, tuple(entry["shape"]))
        return found
    except (KeyError, TypeError, ValueError, TicketError) as error:
        raise ExchangeError(f"The file holds no sparse network: {error!r}") from None
