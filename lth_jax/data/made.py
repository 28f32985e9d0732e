"""What every maker of data returns, and the one way to split what has no test set of its own."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lth_jax.keys import check_seed


class Examples(NamedTuple):
    """Inputs, targets and, where examples belong to groups, the group of each.

    Attributes:
      x: `(n, …)`; float32, uint8 (pixels) or int32 (tokens).
      y: int `(n,)` classes, or `(n, time)`, one for each step of a sequence.
      group: int `(n,)`, or None.
    """

    x: NDArray
    y: NDArray
    group: NDArray | None = None


class Made(NamedTuple):
    """A data set as it is made.

    Attributes:
      train: examples to train on.
      test: examples to test on.
      classes: number of classes, or of symbols.
      groups: number of groups; 0 where examples have none.
    """

    train: Examples
    test: Examples
    classes: int
    groups: int = 0


class Source(NamedTuple):
    """Data that a function makes, and what they are kept as.

    Attributes:
      name: the data set's name.
      make: makes the data.
      config: the name of this version of files, seed or options; "" if there is only one.
      description: of the configuration.
      version: of the maker, `major.minor.patch`.
    """

    name: str
    make: Callable[[], Made]
    config: str = ""
    description: str = ""
    version: str = "1.0.0"


def split(whole: Examples, *, test: int, seed: int = 0) -> tuple[Examples, Examples]:
    """Splits examples by a permutation that the seed decides: the last `test` of it are the test.

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
