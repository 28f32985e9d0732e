"""Examples that stay on disk: read by their rows, through TFDS's random access."""

from collections.abc import Callable
from typing import Any

import numpy as np


class OnDisk:
    """One feature of prepared examples as an array of which only the indexed rows are read.

    `leaf[rows]`, where rows are an integer array or a slice, gives a NumPy array, the same one that
    the whole feature in memory would give. Threads may read at once.

    Args:
      source: random access to the examples: `source.__getitems__(rows)` gives dictionaries.
      name: the feature.
      rows: which of the examples these are, in order.
      convert: what makes the values of an array of what is stored.

    Attributes:
      shape: of the whole.
      dtype: of what is read.
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
        """The bytes of the whole, were it in memory."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def part(self, rows: np.ndarray) -> "OnDisk":
        """These rows, which stay on disk too."""
        return OnDisk(self._source, self._name, self._rows[rows], self._convert)
