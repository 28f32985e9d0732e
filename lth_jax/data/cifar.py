"""Reads CIFAR-10 and CIFAR-100 in their authors' formats (Krizhevsky, 2009).

It reads the downloaded archive (`.tar.gz`) or the unpacked folder, of the binary or the Python
version. The pickles of the Python version may contain only arrays and plain values.
"""

import hashlib
import io
import pickle
import struct
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_PIXELS = 3 * 32 * 32
_DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, ImportError, LookupError, MemoryError, OSError),
    *(RecursionError, TypeError, ValueError, pickle.PickleError, struct.error, tarfile.TarError),
    zlib.error,
)
"""Errors of pickle, tarfile, zlib and NumPy for damaged bytes, found by damaging all versions."""


class Layout(NamedTuple):
    """The structure of the archives of one of the two data sets.

    Attributes:
      binary: the binary version's folder.
      python: the Python version's folder.
      train: files of the training split, without file extensions.
      test: files of the test split.
      labels: number of label bytes before an image in the binary version; the last one is used.
      key: name of the labels in the Python version.
      classes: number of classes.
    """

    binary: str
    python: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: int
    key: bytes
    classes: int

    @property
    def archives(self) -> tuple[str, str]:
        """The file names of the archives."""
        stem = self.python.removesuffix("-batches-py").removesuffix("-python")
        return f"{stem}-binary.tar.gz", f"{stem}-python.tar.gz"


CIFAR10 = Layout(
    binary="cifar-10-batches-bin",
    python="cifar-10-batches-py",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test=("test_batch",),
    labels=1,
    key=b"labels",
    classes=10,
)
CIFAR100 = Layout(
    binary="cifar-100-binary",
    python="cifar-100-python",
    train=("train",),
    test=("test",),
    labels=2,
    key=b"fine_labels",
    classes=100,
)


def read_split(manual_dir: Path, layout: Layout, split: str) -> tuple[NDArray, NDArray]:
    """Reads the images and labels of one split.

    Args:
      manual_dir: the folder with an archive or its unpacked folder.
      layout: `CIFAR10` or `CIFAR100`.
      split: `"train"` or `"test"`.

    Returns:
      uint8 images `(n, 32, 32, 3)` and int32 labels `(n,)`, the fine labels for CIFAR-100.

    Raises:
      ValueError: if there is no archive, or a file is missing or damaged.
    """
    path, is_binary = _find(Path(manual_dir), layout)
    folder = layout.binary if is_binary else layout.python
    stems: Sequence[str] = getattr(layout, split)
    names = [f"{folder}/{stem}{'.bin' if is_binary else ''}" for stem in stems]
    decode = _from_binary if is_binary else _from_pickle
    try:
        parts = [decode(raw, layout) for raw in _files(path, names)]
        pixels, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    except _DAMAGE as error:
        raise ValueError(
            f"'{path}' is damaged or does not have the format of its name: {error}."
        ) from error
    if (
        not len(labels)
        or len(labels) != len(images)
        or not 0 <= labels.min() <= labels.max() < layout.classes
    ):
        raise ValueError(f"'{path}' must hold a label 0 … {layout.classes - 1} for every image.")
    return images, labels.astype(np.int32)


def digest(manual_dir: Path, layout: Layout) -> str:
    """Twelve hexadecimal digits of the SHA-256 of the files that `read_split` reads.

    Raises:
      ValueError: if there is no archive, or it cannot be read.
    """
    path, _ = _find(Path(manual_dir), layout)
    hashed = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        try:
            with file.open("rb") as opened:
                hashed.update(hashlib.file_digest(opened, "sha256").digest())
        except OSError as error:
            raise ValueError(f"'{file}' cannot be read: {error}.") from error
    return hashed.hexdigest()[:12]


def _find(manual_dir: Path, layout: Layout) -> tuple[Path, bool]:
    """Finds an archive or its folder, and whether it is the binary version."""
    binary, python = layout.archives
    places = ((layout.binary, True), (binary, True), (layout.python, False), (python, False))
    for name, is_binary in places:
        if (manual_dir / name).exists():
            return manual_dir / name, is_binary
    wanted = ", ".join(f"'{name}'" for name, _ in places)
    raise ValueError(f"`manual_dir` must hold one of {wanted}, but '{manual_dir}' does not.")


def _files(path: Path, names: Sequence[str]) -> list[bytes]:
    if path.is_dir():
        return [(path.parent / name).read_bytes() for name in names]
    with tarfile.open(path) as archive:
        found = {m.name.removeprefix("./"): m for m in archive.getmembers() if m.isfile()}
        return [archive.extractfile(found[name]).read() for name in names]  # type: ignore[union-attr]


def _from_binary(raw: bytes, layout: Layout) -> tuple[NDArray, NDArray]:
    rows = np.frombuffer(raw, np.uint8).reshape(-1, layout.labels + _PIXELS)
    return rows[:, layout.labels :], rows[:, layout.labels - 1].astype(np.int32)


def _from_pickle(raw: bytes, layout: Layout) -> tuple[NDArray, NDArray]:
    content = _ArraysOnly(io.BytesIO(raw), encoding="bytes").load()
    return np.asarray(content[b"data"], np.uint8), np.asarray(content[layout.key], np.int32)


class _ArraysOnly(pickle.Unpickler):
    """Unpickles only arrays and plain values, because other pickles could run code."""

    _ALLOWED = frozenset(
        (f"numpy{core}", name)
        for core in ("", ".core.multiarray", "._core.multiarray")
        for name in ("ndarray", "dtype", "_reconstruct")
    ) | {("_codecs", "encode")}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it loads '{module}.{name}'")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)
