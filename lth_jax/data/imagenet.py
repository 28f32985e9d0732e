"""Reads ImageNet as TFDS prepares it, and resizes it (Russakovsky et al., 2015, ILSVRC)."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lth_jax.data import prepare
from lth_jax.data.made import Examples, Made
from lth_jax.extras import lazy, needed_by

tfds: Any = lazy("tensorflow_datasets", "Data set 'imagenet'")

NAME = "imagenet2012"
SPLITS = {"train": "train", "test": "validation"}
"""The labels of ImageNet's own test split are not public."""
CENTRE = 224 / 256  # side of the centre crop, as a fraction of the shorter side
_AHEAD = 256  # images that are read and resized in advance


def find(manual_dir: Path) -> Path:
    """The only folder of ImageNet below `manual_dir` that TFDS prepared.

    Raises:
      ValueError: if there is none, or more than one.
    """
    root = manual_dir / NAME
    found = sorted(path.parent for path in root.rglob("dataset_info.json"))
    if len(found) != 1:
        raise ValueError(
            f"`manual_dir` must hold one copy of '{NAME}' that TFDS prepared with "
            f"file_format='array_record'; '{root}' has {len(found)}."
        )
    return found[0]


def digest(folder: Path) -> str:
    """Twelve hexadecimal digits of the SHA-256 of TFDS's description, which lists the files."""
    return hashlib.sha256((folder / "dataset_info.json").read_bytes()).hexdigest()[:12]


def resized(folder: Path, size: int) -> Made:
    """Both splits as uint8 images `(size, size, 3)`; only some hundred are in memory.

    The shorter side becomes `256/224 · size` pixels, bilinearly with antialiasing, and the central
    square is kept.

    Args:
      folder: folder that TFDS prepared.
      size: pixels of each side.

    Raises:
      ValueError: if the files are not array_record files, or are damaged.
    """
    train, test = (_examples(folder, split, size) for split in SPLITS.values())
    builder = prepare.builder_of(folder)
    return Made(train, test, classes=builder.info.features["label"].num_classes)


def _examples(folder: Path, split: str, size: int) -> Examples:
    keep = {"image": tfds.decode.SkipDecoding()}
    source = prepare.rows_of(folder, split, decoders=keep)
    labels = prepare.columns(source, ["label"])["label"]
    images = _Images(source, range(len(source)), size)
    return Examples(cast(NDArray, images), labels.astype(np.int32))


class _Images:
    """Resized images of a split; has the part of an array's interface that `prepare` needs."""

    dtype = np.dtype(np.uint8)

    def __init__(self, source: Any, rows: range, size: int):
        self._source, self._rows, self.shape = source, rows, (len(rows), size, size, 3)

    def __getitem__(self, part: slice) -> "_Images":
        return _Images(self._source, self._rows[part], self.shape[1])

    def __iter__(self) -> Iterator[np.ndarray]:
        with needed_by("Data set 'imagenet'"):
            import grain
        part = slice(self._rows.start, self._rows.stop)
        images = grain.MapDataset.source(self._source).slice(part)
        images = images.map(lambda one: _resized(one["image"], self.shape[1]))
        # Threads, since decoding and resizing release the interpreter's lock; the order stays.
        yield from images.to_iter_dataset(grain.ReadOptions(prefetch_buffer_size=_AHEAD))


def _resized(encoded: bytes, side: int) -> np.ndarray:
    with needed_by("Data set 'imagenet'"):
        from PIL import Image

    with Image.open(io.BytesIO(encoded)) as image:
        kept = CENTRE * min(image.size)
        left, top = ((length - kept) / 2 for length in image.size)
        box = (left, top, left + kept, top + kept)
        found = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR, box)
    return np.asarray(found)
