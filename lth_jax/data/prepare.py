"""Prepared data on disk: made once, by one process at a time, with SHA-256 checksums."""

import contextlib
import functools
import io
import json
import logging
import math
import random
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import filelock
import numpy as np

from lth_jax.data.made import Examples, Made, Source
from lth_jax.data.on_disk import OnDisk
from lth_jax.extras import lazy
from lth_jax.store import files
from lth_jax.types import Batch

tfds: Any = lazy("tensorflow_datasets", "`lth_jax.data.load`")
LOG = logging.getLogger(__name__)

_AT_ONCE = 4096  # examples
_SHARD_BYTES = 2**28  # of inputs in a file, which TFDS holds in memory while it writes them
_MOST_DECODED = 2**28  # bytes of a split that is also kept as arrays


class DamagedError(ValueError):
    """Prepared data cannot be read."""


def prepare(source: Source, data_dir: Path) -> Path:
    """The folder of a source's data, which are made if they do not exist.

    Concurrent processes wait for the one that makes them. Every existing file is compared with its
    SHA-256. Data that a killed process left incomplete, or that are damaged, are made again, the
    latter with a warning in the log. Intact data are not modified, so `data_dir` may then be
    read-only.

    Args:
      source: the maker of the data.
      data_dir: the root of all prepared data.

    Returns:
      `data_dir/<name>[/<config>]/<version>`.

    Raises:
      ValueError: if `data_dir` is not writable, or the source cannot use its files.
    """
    folder = data_dir.joinpath(source.name, source.config, source.version)
    if damage(folder) is None:
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.parent / f"{folder.name}.lock"):
            if problem := damage(folder):
                if folder.exists():
                    LOG.warning("'%s' is damaged (%s) and is prepared again.", folder, problem)
                _discard(folder)
                try:
                    _keep_arrays(_make(source, data_dir), folder)
                    files.seal(folder)
                    files.sync_later(folder)
                except BaseException:
                    _discard(folder)
                    raise
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"`data_dir` '{data_dir}' cannot store the data: {_reason(error)}."
        ) from error
    return folder


def _reason(error: OSError | RuntimeError) -> str:
    """The operating system's message, which array_record hides in a `RuntimeError`."""
    if isinstance(error, OSError):  # TFDS's message is about unrelated sizes
        return str(error) if error.errno else str(error).partition(". ")[0]
    if refused := re.search(r"\w+\(\) failed: ([^;]+); (?:writing|opening|closing)", str(error)):
        return refused[1]
    raise error


def damage(folder: Path) -> str | None:
    """The first damage of data that `prepare` has made; None if they are intact."""
    return files.seal_problem(folder) if folder.is_dir() else "it is missing"


def prepared_folders(root: Path) -> dict[Path, str | None]:
    """All data sets below a folder, by our builders or TFDS's, and the damage of each."""
    found = sorted(path.parent for path in root.rglob("dataset_info.json"))
    return {f: _problem(f) for f in found if not f.name.startswith("incomplete.")}


def _problem(folder: Path) -> str | None:
    """The damage of a data set with our checksums or, if TFDS prepared it, without."""
    if (folder / files.SEAL).exists():
        return damage(folder)
    try:
        json.loads((folder / "dataset_info.json").read_bytes())
        splits = tfds.builder_from_directory(folder).info.splits.values()
    except _of_damage() as error:
        return f"its description cannot be read: {_first_line(error)}"
    named = [name for split in splits for name in split.filenames]
    lost = [name for name in named if not (folder / name).is_file()]
    return f"{lost[0]} is missing" if lost else None


def _of_damage() -> tuple[type[Exception], ...]:
    """The errors of TFDS, protobuf, array_record and NumPy for damaged files, found by damage."""
    from google.protobuf import json_format, message  # type: ignore[import-untyped]

    python = (ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError)
    others = (OSError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile)
    return (*python, *others, json_format.Error, message.Error)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _discard(folder: Path) -> None:
    """Removes incomplete data of a killed process, which TFDS writes next to their final folder."""
    for leftover in [folder, *folder.parent.glob(f"incomplete.*_{folder.name}")]:
        shutil.rmtree(leftover, ignore_errors=True)


def _make(source: Source, data_dir: Path) -> Made:
    with _own_random_state(), _quiet():
        builder = _builder(source, data_dir)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    return cast(Made, builder.made)


def _keep_arrays(made: Made, folder: Path) -> None:
    """Writes each split that fits as arrays, too: TFDS decodes one example at a time.

    Inputs that are decoded when they are read, such as images in files, are left out.
    """
    for split in ("train", "test"):
        named = {k: v for k, v in getattr(made, split)._asdict().items() if v is not None}
        arrays = {k: v for k, v in named.items() if isinstance(v, np.ndarray)}
        if len(arrays) == len(named) and sum(v.nbytes for v in arrays.values()) <= _MOST_DECODED:
            np.savez(_decoded(folder, split), **arrays)  # type: ignore[arg-type]


def _decoded(folder: Path, split: str) -> Path:
    """The file of a split's arrays; only data that `prepare` made have it."""
    return folder / f"{split}.npz"


def _builder(source: Source, data_dir: Path) -> Any:
    """A TFDS builder that writes array_record files with plain tensors.

    It needs neither TensorFlow nor a network, and writes the examples in the order in which they
    were made. It is not in TFDS's registry, because some data sets have the name of one of TFDS's.
    The class is defined here so that TFDS is imported only when data are loaded.
    """

    # TFDS 4.9's `GeneratorBasedBuilder` would need TensorFlow for more than 1 GB.
    class Builder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        name = source.name
        VERSION = tfds.core.Version(source.version)

        @functools.cached_property
        def made(self) -> Made:
            return source.make()

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self,
                description=source.name,
                features=tfds.features.FeaturesDict(_features(self.made)),
                supervised_keys=("x", "y"),
                disable_shuffling=True,
            )

        def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, Any]:
            return {s: _shards(getattr(self.made, s)) for s in ("train", "test")}

    config = None
    if source.config:
        config = tfds.core.BuilderConfig(name=source.config, description=source.description)
    return Builder(data_dir=data_dir, config=config, file_format="array_record")


def _features(made: Made) -> dict[str, Any]:
    x, y, _ = made.train
    label = tfds.features.ClassLabel(num_classes=made.classes)
    features = {
        "x": tfds.features.Tensor(shape=x.shape[1:], dtype=x.dtype, encoding=_encoding(x.dtype)),
        "y": label if y.ndim == 1 else tfds.features.Sequence(label, length=y.shape[1]),
    }
    if made.groups:
        features["group"] = tfds.features.ClassLabel(num_classes=made.groups)
    return features


def _encoding(dtype: Any) -> Any:
    """How TFDS stores an input; without raw bytes, each pixel is a number of variable length."""
    known = tfds.features.Encoding
    return known.BYTES if dtype == np.uint8 else known.NONE


def _rows(examples: Examples) -> Iterator[tuple[int, Any]]:
    columns = {k: v for k, v in examples._asdict().items() if v is not None}
    for i, row in enumerate(zip(*columns.values(), strict=True)):
        yield i, dict(zip(columns, row, strict=True))


def _shards(examples: Examples) -> list[Callable[[], Iterator[tuple[int, Any]]]]:
    """The examples in parts of `_SHARD_BYTES`, which TFDS writes to files of their own."""
    x = examples.x
    size = max(_SHARD_BYTES // max(math.prod(x.shape[1:]) * np.dtype(x.dtype).itemsize, 1), 1)

    def part(rows: slice) -> Examples:
        x, y, group = examples
        return Examples(x[rows], y[rows], None if group is None else group[rows])

    starts = range(0, len(examples.y), size)
    return [functools.partial(_rows, part(slice(i, i + size))) for i in starts]


@contextlib.contextmanager
def _own_random_state() -> Iterator[None]:
    """Restores the global generators, from which TFDS draws and which MNIST-1D reseeds."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses TFDS's messages and progress bars, which would disturb a caller's table or bar."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


class Split(NamedTuple):
    """One split of a data set.

    Attributes:
      data: inputs, in memory or `OnDisk`, and labels, in memory.
      group: int32 `(n,)`, or None without groups.
    """

    data: Batch
    group: np.ndarray | None


def read(
    folder: Path, split: str, *, most_bytes: int | None = None, as_bytes: bool = False
) -> tuple[Split, int]:
    """Reads one split of a prepared data set.

    Args:
      folder: a prepared data set with an input and a label (`supervised_keys`), and optionally a
        `group`.
      split: the split's name.
      most_bytes: inputs of more bytes stay on disk; None for none.
      as_bytes: whether uint8 inputs remain bytes.

    Returns:
      The examples in the order in which they were written, and the number of classes. Inputs are
      float32, uint8 divided by 255 or unchanged, or int32 tokens. Labels are int32.

    Raises:
      ValueError: if the files cannot be read without TensorFlow, or are damaged.
    """
    builder, convert = builder_of(folder), _unchanged if as_bytes else _inputs
    with _named(folder):
        x_name, y_name = builder.info.supervised_keys
        names, stored = [x_name, y_name, "group"], None
        if most_bytes is not None:
            source = rows_of(folder, split)
            stored = OnDisk(source, x_name, np.arange(len(source)), convert)
            if stored.nbytes > most_bytes:
                names.remove(x_name)
        label = builder.info.features[y_name]
        there = [name for name in names if name in builder.info.features]
        found = _columns_of(folder, split, there)
        y, group = (found[name].astype(np.int32) if name in found else None for name in names[-2:])
        x = convert(found[x_name]) if x_name in found else stored
    return Split(Batch(x, y), group), getattr(label, "feature", label).num_classes


def _columns_of(folder: Path, split: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Some features of a split, from its arrays if it has them."""
    if not (arrays := _decoded(folder, split)).exists():
        return columns(rows_of(folder, split), names)
    with np.load(arrays) as held:
        return {name: held[name] for name in names}


def builder_of(folder: Path) -> Any:
    """The TFDS builder of a prepared data set.

    Raises:
      ValueError: if the files cannot be read without TensorFlow, or are damaged.
    """
    with _named(folder):
        builder = tfds.builder_from_directory(folder)
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise ValueError(
            f"'{folder}' must be prepared with file_format='array_record', which is read "
            f"without TensorFlow, but it has {builder.info.file_format.value}."
        )
    return builder


def rows_of(folder: Path, split: str, **options: Any) -> "_Source":
    """Random access to the examples of a split; `options` are those of `as_data_source`."""
    builder = builder_of(folder)
    with _named(folder):
        return _Source(folder, builder.as_data_source(split=split, **options))


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Adds the folder's name to errors of reading its files."""
    try:
        yield
    except DamagedError:
        raise
    except _of_damage() as error:
        raise DamagedError(
            f"'{folder}' is damaged; delete it and load again: {_first_line(error)}."
        ) from error


class _Source:
    """Random access to examples on disk, with the folder's name in all errors."""

    def __init__(self, folder: Path, source: Any):
        self._folder, self._source = folder, source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row: int) -> Any:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> Any:
        with _named(self._folder):
            return self._source.__getitems__(rows)


def columns(source: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Some features of all examples, read a few thousand examples at a time."""
    parts: dict[str, list[Any]] = {name: [] for name in names}
    for first in range(0, len(source), _AT_ONCE):
        rows = range(first, min(first + _AT_ONCE, len(source)))
        examples = source.__getitems__(rows)
        for name, part in parts.items():
            part.append(np.array([example[name] for example in examples]))
    return {name: np.concatenate(part) for name, part in parts.items()}


def _unchanged(x: np.ndarray) -> np.ndarray:
    return x


def _inputs(x: np.ndarray) -> np.ndarray:
    if x.dtype == np.int32:
        return x
    scale = np.float32(255 if x.dtype == np.uint8 else 1)
    return np.divide(x, scale, dtype=np.float32)
