"""What every export returns: the file, its size beside dense, and the error of its outputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lth_jax import trees
from lth_jax.exchange.errors import ExchangeError
from lth_jax.store import files

Path_ = str | Path


class Written(NamedTuple):
    """An exported file that was read again and compared.

    Attributes:
      path: the file.
      bytes: its size.
      dense_bytes: the size of all parameters, dense, in their own dtypes.
      error: the largest difference of the outputs, relative to their largest entry; None for
        formats of arrays, which are compared bit for bit.
    """

    path: Path
    bytes: int
    dense_bytes: int
    error: float | None = None

    def __repr__(self) -> str:
        what = "read back exactly"
        if self.error is not None:
            what = f"outputs agree to {self.error:.0e} of their largest entry"
        if self.error == 0:
            what = "outputs are equal"
        return f"{self.path}: {self.bytes:,} bytes, dense {self.dense_bytes:,}; {what}"


def dense_bytes(params: Any) -> int:
    """The bytes of all leaves."""
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(params))


def write(
    path: Path_, data: bytes, params: Any, *, overwrite: bool, error: float | None = None
) -> Written:
    """Writes a file atomically.

    Raises:
      ExchangeError: the file exists, and `overwrite` is false.
      StoreError: the file cannot be written.
    """
    check_free(path, overwrite)
    files.write(Path(path), data, make_folder=False)
    return Written(Path(path), len(data), dense_bytes(params), error)


def check_free(path: Path_, overwrite: bool) -> None:
    """Raises `ExchangeError` if the file exists and `overwrite` is false."""
    if Path(path).exists() and not overwrite:
        raise ExchangeError(f"`path` is '{path}', which exists; `overwrite` replaces it.")


def compare_outputs(what: str, wanted: Any, found: Callable[[], Any], tolerance: float) -> float:
    """The largest difference of two outputs, relative to the largest entry of each array.

    Args:
      what: the format, for the message.
      wanted: the outputs of the network, a tree of arrays.
      found: returns the outputs of the export, its leaves in the same order.
      tolerance: allowed difference.

    Raises:
      ExchangeError: the outputs differ by more.

    >>> compare_outputs("ONNX", np.array([4.0, 2.0]), lambda: [np.array([4.0, 2.1])], 0.1)
    0.025
    """
    pairs = zip(jax.tree.leaves(wanted), jax.tree.leaves(found()), strict=True)
    worst = 0.0
    for name, (a, b) in zip(trees.names(wanted), pairs, strict=True):
        a, b = (np.asarray(x).astype(np.float64) for x in (a, b))
        if a.shape != b.shape:
            raise ExchangeError(
                f"The {what} file has an output of shape {b.shape} where the network has {a.shape}."
            )
        gap = np.max(np.abs(a - b), initial=0.0) / max(np.max(np.abs(a), initial=0.0), 1e-30)
        if not gap <= tolerance:
            raise ExchangeError(
                f"The {what} file differs from the network at output '{name}' by {gap:.1e} of its "
                f"largest entry; `tolerance` allows {tolerance:.0e}."
            )
        worst = max(worst, float(gap))
    return round(worst, 12)
