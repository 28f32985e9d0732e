"""Where each data set comes from: a name and its options become a folder of prepared data."""

import difflib
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lth_jax.data import builders, idx
from lth_jax.data.checks import check_integer
from lth_jax.data.prepare import prepare, prepared_folders

_DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
_IDX_REMEDY = (
    "give a `manual_dir` that holds train-images-idx3-ubyte, train-labels-idx1-ubyte, "
    "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each as it is or with .gz"
)
_STOCK_REMEDY = "put one there that TFDS prepared with file_format='array_record'"


def find(name: str, data_dir: Path, manual_dir: Path | None, options: dict[str, Any]) -> Path:
    """The folder of a data set's prepared data, which are made if they are not there.

    Args:
      name: a key of `SOURCES`.
      data_dir: the root of all prepared data.
      manual_dir: the folder of files that only their user can provide.
      options: keyword arguments of the source.

    Raises:
      ValueError: if the name or an option is unknown, or the source cannot be used.
    """
    if name not in SOURCES:
        known = ", ".join(SOURCES)
        raise ValueError(f"`name` must be one of {known}, got '{name}'{_hint(name, SOURCES)}")
    parameters = inspect.signature(SOURCES[name]).parameters.values()
    allowed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in allowed:
            raise ValueError(
                f"`{option}` is no option of '{name}', which takes "
                f"{', '.join(allowed) or 'none'}{_hint(option, allowed)}"
            )
    return SOURCES[name](data_dir, manual_dir, **options)


def _hint(value: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(str(value), known, n=1)
    return f"; did you mean '{nearest[0]}'?" if nearest else "."


def _digits(data_dir: Path, manual_dir: Path | None) -> Path:
    return prepare(builders.Digits, data_dir)


def _mnist1d(data_dir: Path, manual_dir: Path | None, *, data_seed: int = 42) -> Path:
    check_integer("data_seed", data_seed, 0, 2**32 - 1)
    return prepare(builders.Mnist1d, data_dir, config=f"seed_{data_seed}")


def _mnist_5k(data_dir: Path, manual_dir: Path | None) -> Path:
    return prepare(builders.Mnist5k, data_dir)


def _mnist(data_dir: Path, manual_dir: Path | None) -> Path:
    return _from_idx(builders.Mnist, data_dir, manual_dir)


def _fashion_mnist(data_dir: Path, manual_dir: Path | None) -> Path:
    if manual_dir is None and _DEBIAN_FASHION_MNIST.is_dir():
        manual_dir = _DEBIAN_FASHION_MNIST
    return _from_idx(builders.FashionMnist, data_dir, manual_dir)


def _cifar10(data_dir: Path, manual_dir: Path | None) -> Path:
    return _only_copy(data_dir / "cifar10", _STOCK_REMEDY)


def _from_idx(builder: type[builders.Mnist], data_dir: Path, manual_dir: Path | None) -> Path:
    """Data of idx files are kept under the files' digest: two data sets share those names."""
    if manual_dir is None:
        return _only_copy(data_dir / builder.name, _IDX_REMEDY)
    return prepare(builder, data_dir, config=idx.digest(manual_dir), manual_dir=manual_dir)


def _only_copy(root: Path, remedy: str) -> Path:
    """The one prepared data set below `root`, whoever made it."""
    folders = prepared_folders(root)
    if len(folders) == 1:
        return folders[0]
    found = " and ".join(f"'{folder}'" for folder in folders) or "none"
    raise ValueError(f"`data_dir` must hold one copy of '{root.name}', found {found}: {remedy}.")


SOURCES = {
    "digits": _digits,
    "mnist1d": _mnist1d,
    "mnist_5k": _mnist_5k,
    "mnist": _mnist,
    "fashion_mnist": _fashion_mnist,
    "cifar10": _cifar10,
}
"""Every data set by name: `(data_dir, manual_dir, **options) -> folder`."""
