"""Reads the idx format of MNIST and Fashion-MNIST (LeCun, Cortes and Burges)."""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np

SIZE = (28, 28)  # pixels of an image of MNIST and Fashion-MNIST
_UBYTE = 0x08
_NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_idx(path: Path) -> np.ndarray:
    """Reads an idx file of unsigned bytes, gzipped if its name ends in `.gz`.

    The layout is two zero bytes, the type (8 = unsigned byte), the number of dimensions, one
    big-endian uint32 per dimension, then the data in C order.

    Args:
      path: the file.

    Returns:
      uint8 array of the file's shape.

    Raises:
      ValueError: if the file is missing, not gzip despite its name, of another type, or of another
        length than its header states.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "labels"
    >>> _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))
    >>> read_idx(file).tolist()
    [7, 9]
    """
    raw = _contents(path)
    if len(raw) < 4 or raw[:3] != bytes([0, 0, _UBYTE]):
        raise ValueError(
            f"'{path}' must be an idx file of unsigned bytes, which begins with 000008, "
            f"but it begins with {raw[:3].hex() or 'nothing'}."
        )
    start = 4 + 4 * raw[3]
    shape = struct.unpack(f">{raw[3]}I", raw[4:start]) if len(raw) >= start else ()
    if len(raw) != start + math.prod(shape) or not shape:
        raise ValueError(
            f"'{path}' must hold {shape} bytes, by its header, "
            f"but {max(len(raw) - start, 0)} follow the header: it is truncated or damaged."
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _contents(path: Path) -> bytes:
    raw = _stored(path)
    try:
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"'{path}' cannot be read: {error}.") from error


def _stored(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"'{path}' cannot be read: {error}.") from error


def read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads the images and labels of one split, and checks that they match.

    Args:
      folder: the folder with the four files under their usual names, gzipped or not.
      split: 'train' or 'test'.

    Returns:
      uint8 images of shape `(n, 28, 28, 1)` and uint8 labels of shape `(n,)`.

    Raises:
      ValueError: if a file is missing or damaged, images have another size, or images and labels
        do not match.
    """
    image_file, label_file = (_find(folder, name) for name in _NAMES[split])
    images, labels = read_idx(image_file), read_idx(label_file)
    if images.ndim != 3 or labels.shape != images.shape[:1] or not len(labels):
        raise ValueError(
            f"'{image_file}' and '{label_file}' must hold (n, h, w) images and n labels, "
            f"got shapes {images.shape} and {labels.shape}."
        )
    if images.shape[1:] != SIZE:
        found, wanted = (" × ".join(map(str, size)) for size in (images.shape[1:], SIZE))
        raise ValueError(f"'{image_file}' must hold images of {wanted} pixels, got {found}.")
    if labels.max() > 9:
        raise ValueError(f"'{label_file}' must hold labels 0 … 9, got {labels.max()}.")
    return images[..., None], labels


def digest(folder: Path) -> str:
    """Twelve hexadecimal digits of the SHA-256 of the four files.

    Raises:
      ValueError: if a file is missing or cannot be read.
    """
    hashed = hashlib.sha256()
    for names in _NAMES.values():
        for name in names:
            hashed.update(hashlib.sha256(_stored(_find(folder, name))).digest())
    return hashed.hexdigest()[:12]


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise ValueError(f"`manual_dir` must hold '{name}' or '{name}.gz', but '{folder}' does not.")
