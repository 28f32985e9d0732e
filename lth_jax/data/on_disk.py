"""Examples on disk, read by row with TFDS's random access."""

from collections.abc import Callable
from typing import Any

import numpy as np


class OnDisk:
    """One feature of prepared examples as an array on disk; reads only the indexed rows.

    `leaf[rows]`, with an integer array or a slice, returns the same NumPy array as the feature in
    memory would. Threads may read concurrently.

    Args:
      source: random access to the examples: `source.__getitems__(rows)` returns dictionaries.
      name: name of the feature.
      rows: the rows of these examples, in order.
      convert: maps a stored array to its values.

    Attributes:
      shape: the whole array's shape.
      dtype: the dtype of the values.
    """

    def __init__(
        self, source: Any, name: str, rows: np.ndarray, convert: Callable[[Any], np.ndarray]
    ):
        self._source, self._name, self._rows, self._convert = source, name, rows, convert
        first = self[:1]
        self.shape = (len(rows), *first.shape[1:])
        self.dtype = first.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = self._rows[index].tolist()
        if not rows:
            return np.zeros((0, *self.shape[1:]), self.dtype)
        examples = self._source.__getitems__(rows)
        return self._convert(np.stack([example[self._name] for example in examples]))

    @property
    def nbytes(self) -> int:
        """The size of the whole array in memory."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def part(self, rows: np.ndarray) -> "OnDisk":
        """These rows, also on disk."""
        return OnDisk(self._source, self._name, self._rows[rows], self._convert)
