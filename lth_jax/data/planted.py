"""Data with a known ticket: a sparse teacher labels them, and its mask is available."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lth_jax.data.checks import check_integer, check_real
from lth_jax.data.made import Examples, Made
from lth_jax.keys import check_seed


class Teacher(NamedTuple):
    """A sparse ReLU network that classifies the data without error, because it labelled them.

    Attributes:
      params: `{"Dense_0": {"kernel", "bias"}, …}`, float32, named as in `models.MLP`; exactly 0
        where pruned.
      mask: booleans of the same structure: the planted ticket; biases are all True.
    """

    params: Any
    mask: Any


def teacher(
    *,
    inputs: int = 20,
    hidden: int = 16,
    classes: int = 4,
    density: float = 0.2,
    data_seed: int = 0,
) -> Teacher:
    """Makes the teacher of `planted`: two layers in which every kept weight matters.

    `z = W₂ᵀ relu(W₁ᵀ x) + b`. Each hidden unit has the same number of random inputs and of classes;
    the classes have, as nearly as possible, equally many units. Weights have random signs and
    magnitudes uniform on `[½, 3/2] · √(2 / fan-in)`; b makes the classes' mean logits equal over
    standard normal inputs.

    Args:
      inputs: number of features.
      hidden: number of hidden units.
      classes: number of classes.
      density: fraction of the inputs, and of the classes, to which a unit is connected; both
        numbers are rounded, and at least 1.
      data_seed: seed of weights and mask.

    >>> t = teacher(inputs=10, hidden=10, density=0.3)
    >>> int(t.mask["Dense_0"]["kernel"].sum())
    30
    """
    for name, value in (("inputs", inputs), ("hidden", hidden)):
        check_integer(name, value, 1)
    check_integer("classes", classes, 2)
    check_seed(data_seed, "data_seed")
    check_real("density", density, 1e-6, 1.0)
    rng = np.random.default_rng([data_seed, 0])
    reads, feeds = (max(1, round(density * size)) for size in (inputs, classes))
    ranks = rng.permuted(np.tile(np.arange(inputs)[:, None], hidden), axis=0)
    turns = (np.arange(hidden)[:, None] * feeds + rng.permutation(classes)) % classes
    masks = (ranks < reads, turns < feeds)
    first, second = (_weights(rng, mask) for mask in masks)
    # E relu(w·x) = |w| / √(2π) for standard normal x
    mean = np.linalg.norm(first, axis=0) / np.sqrt(2 * np.pi) @ second
    kernels, biases = (first, second), (np.zeros(hidden), -mean)
    return Teacher(
        params=_layers(kernels, [b.astype(np.float32) for b in biases]),
        mask=_layers(masks, [np.ones(b.shape, bool) for b in biases]),
    )


def logits(params: Any, x: NDArray) -> NDArray:
    """A teacher's logits of `(n, inputs)`: float `(n, classes)`.

    >>> logits(teacher(inputs=3, classes=5).params, np.zeros((2, 3))).shape
    (2, 5)
    """
    first, second = params["Dense_0"], params["Dense_1"]
    active = np.maximum(x @ first["kernel"] + first["bias"], 0)
    return active @ second["kernel"] + second["bias"]


def planted(
    *,
    inputs: int = 20,
    hidden: int = 16,
    classes: int = 4,
    density: float = 0.2,
    train: int = 4000,
    test: int = 1000,
    data_seed: int = 0,
) -> Made:
    """Standard normal inputs `(inputs,)`, labelled by `teacher` with the same arguments.

    The teacher classifies all of them correctly, so accuracy 1 is possible, and the weights and the
    mask of a network with this accuracy are known.

    Args:
      inputs: see `teacher`.
      hidden: see `teacher`.
      classes: see `teacher`.
      density: see `teacher`.
      train: number of training examples.
      test: number of test examples.
      data_seed: seed of the teacher and the examples.

    >>> planted(train=3, test=2).train.x.shape
    (3, 20)
    """
    check_integer("train", train, 1)
    check_integer("test", test, 1)
    chosen = teacher(
        inputs=inputs, hidden=hidden, classes=classes, density=density, data_seed=data_seed
    )
    rng = np.random.default_rng([data_seed, 1])
    x = rng.standard_normal((train + test, inputs), np.float32)
    y = np.argmax(logits(chosen.params, x), axis=1).astype(np.int32)
    return Made(Examples(x[:train], y[:train]), Examples(x[train:], y[train:]), classes)


def _weights(rng: np.random.Generator, mask: NDArray) -> NDArray:
    sizes = rng.uniform(0.5, 1.5, mask.shape) * np.sqrt(2 / np.maximum(mask.sum(axis=0), 1))
    return np.where(mask, rng.choice([-1, 1], mask.shape) * sizes, 0).astype(np.float32)


def _layers(kernels: Any, biases: Any) -> Any:
    pairs = enumerate(zip(kernels, biases, strict=True))
    return {f"Dense_{i}": {"kernel": kernel, "bias": bias} for i, (kernel, bias) in pairs}
