"""Prepared data on disk: made once, by one process at a time, whole or not at all."""

import contextlib
import io
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
import tensorflow_datasets as tfds

from lth_jax.data.on_disk import OnDisk
from lth_jax.types import Batch

_AT_ONCE = 4096  # examples


def prepare(
    builder: type[tfds.core.GeneratorBasedBuilder],
    data_dir: Path,
    *,
    config: str | tfds.core.BuilderConfig | None = None,
    manual_dir: Path | None = None,
) -> Path:
    """The folder of a builder's data, which are made first if they are not there.

    Processes that ask at once wait for the one that makes them. What a killed process left half
    made is made again. Data that are already there are not touched, so `data_dir` may then be
    read-only.

    Args:
      builder: a builder class.
      data_dir: the root of all prepared data.
      config: the builder's configuration or its name, if it has several.
      manual_dir: the folder with files that the builder reads.

    Returns:
      `data_dir/<name>[/<config>]/<version>`.

    Raises:
      ValueError: if `data_dir` cannot be written, or the builder cannot use its files.
    """
    chosen = tfds.core.BuilderConfig(name=config) if isinstance(config, str) else config
    folder = data_dir.joinpath(builder.name, chosen.name if chosen else "", str(builder.VERSION))
    if is_complete(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.parent / f"{folder.name}.lock"):
            if not is_complete(folder):
                _discard(folder)
                _make(builder, data_dir, chosen, manual_dir)
    except OSError as error:
        raise ValueError(f"`data_dir` '{data_dir}' cannot hold the data: {error}.") from error
    return folder


def is_complete(folder: Path) -> bool:
    """Does the folder hold a description of a data set and every file that it names?"""
    try:
        json.loads((folder / "dataset_info.json").read_bytes())
    except (OSError, ValueError):  # not there, or torn
        return False
    splits = tfds.builder_from_directory(folder).info.splits.values()
    return all((folder / name).is_file() for split in splits for name in split.filenames)


def prepared_folders(root: Path) -> list[Path]:
    """All complete data sets below a folder, made by our builders or by TFDS's own."""
    found = sorted(path.parent for path in root.rglob("dataset_info.json"))
    done = [folder for folder in found if not folder.name.startswith("incomplete.")]
    return [folder for folder in done if is_complete(folder)]


def _discard(folder: Path) -> None:
    """Removes what a killed process left behind: TFDS makes data beside their final place."""
    for leftover in [folder, *folder.parent.glob(f"incomplete.*_{folder.name}")]:
        shutil.rmtree(leftover, ignore_errors=True)


def _make(
    builder: type[tfds.core.GeneratorBasedBuilder],
    data_dir: Path,
    config: tfds.core.BuilderConfig | None,
    manual_dir: Path | None,
) -> None:
    settings = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    with _own_random_state(), _quiet():
        builder(data_dir=data_dir, config=config, file_format="array_record").download_and_prepare(
            download_config=settings
        )


@contextlib.contextmanager
def _own_random_state() -> Iterator[None]:
    """Gives the global generators back as they were: TFDS draws from them, MNIST-1D reseeds."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS's messages and bars off the screen, where a caller's table or bar may be."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


class Split(NamedTuple):
    """A split of a data set.

    Attributes:
      data: inputs, in memory or `OnDisk`, and labels, in memory.
      group: int32 `(n,)`, or None where examples have no groups.
    """

    data: Batch
    group: np.ndarray | None


def read(folder: Path, split: str, *, most_bytes: int | None = None) -> tuple[Split, int]:
    """Reads one split of a prepared data set.

    Args:
      folder: a prepared data set with an input and a label (`supervised_keys`), and perhaps a
        `group`.
      split: its name.
      most_bytes: inputs of more bytes are left on disk; None for none.

    Returns:
      The examples, in the order in which they were written, and the number of classes. Inputs are
      float32, bytes divided by 255, or int32 where they are tokens. Labels are int32.

    Raises:
      ValueError: if the files cannot be read without TensorFlow, or are damaged.
    """
    builder = tfds.builder_from_directory(folder)
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise ValueError(
            f"'{folder}' must be prepared with file_format='array_record', the one that is read "
            f"without TensorFlow, but it holds {builder.info.file_format.value}."
        )
    source = builder.as_data_source(split=split)
    x_name, y_name = builder.info.supervised_keys
    try:
        stored = OnDisk(source, x_name, np.arange(len(source)), _inputs)
        in_memory = most_bytes is None or stored.nbytes <= most_bytes
        names = [x_name, y_name, "group"] if in_memory else [y_name, "group"]
        found = _columns(source, [name for name in names if name in builder.info.features])
    except RuntimeError as error:  # array_record checks hashes of its own
        raise ValueError(f"'{folder}' is damaged; delete it and load again: {error}.") from error
    y, group = (found[name].astype(np.int32) if name in found else None for name in names[-2:])
    x = _inputs(found[x_name]) if in_memory else stored
    label = builder.info.features[y_name]
    return Split(Batch(x, y), group), getattr(label, "feature", label).num_classes


def _columns(source: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Some features of all examples, of which a few thousand are held whole at a time."""
    parts: dict[str, list[Any]] = {name: [] for name in names}
    for first in range(0, len(source), _AT_ONCE):
        rows = range(first, min(first + _AT_ONCE, len(source)))
        examples = source.__getitems__(rows)
        for name, part in parts.items():
            part.append(np.array([example[name] for example in examples]))
    return {name: np.concatenate(part) for name, part in parts.items()}


def _inputs(x: np.ndarray) -> np.ndarray:
    if x.dtype == np.int32:
        return x
    scale = np.float32(255 if x.dtype == np.uint8 else 1)
    return np.divide(x, scale, dtype=np.float32)
