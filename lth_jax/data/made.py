"""The result of every maker of data, and the split of data without a test set."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lth_jax.keys import check_seed


class Examples(NamedTuple):
    """Inputs, targets and, if there are groups, the group of each example.

    Attributes:
      x: `(n, …)`; float32, uint8 (pixels) or int32 (tokens).
      y: int `(n,)` classes, or `(n, time)`, one per step of a sequence.
      group: int `(n,)`, or None.
    """

    x: NDArray
    y: NDArray
    group: NDArray | None = None


class Made(NamedTuple):
    """A data set from a maker.

    Attributes:
      train: training examples.
      test: test examples.
      classes: number of classes, or of symbols.
      groups: number of groups; 0 without groups.
    """

    train: Examples
    test: Examples
    classes: int
    groups: int = 0


class Source(NamedTuple):
    """A data generator, with the name and version of its stored data.

    Attributes:
      name: the data set's name.
      make: makes the data.
      config: the name of these files, seed or options; "" if there is only one.
      description: description of the configuration.
      version: version of the maker, `major.minor.patch`.
    """

    name: str
    make: Callable[[], Made]
    config: str = ""
    description: str = ""
    version: str = "1.0.0"


def split(whole: Examples, *, test: int, seed: int = 0) -> tuple[Examples, Examples]:
    """Splits examples by a seeded permutation, whose last `test` entries are the test examples.

    >>> kept, held_out = split(Examples(np.arange(5.0), np.arange(5)), test=2)
    >>> sorted([*kept.y.tolist(), *held_out.y.tolist()]), len(held_out.y)
    ([0, 1, 2, 3, 4], 2)
    """
    check_seed(seed)
    order = np.random.default_rng(seed).permutation(len(whole.y))
    rows = order[: len(order) - test], order[len(order) - test :]
    train, test_part = (
        Examples(*(None if a is None else a[r] for a in whole))  # type: ignore[arg-type]
        for r in rows
    )
    return train, test_part
