"""Text as windows of symbols; the target of each symbol is the next one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lth_jax.data.checks import check_integer
from lth_jax.data.made import Examples, Made
from lth_jax.legal import check_name

UNITS = ("bytes", "characters")
TEST_FRACTION = 0.1  # the last part of the text


def standard_library() -> bytes:
    """Python's language reference, from its documentation: English, about 0.5 MB.

    It differs between versions of Python, so data made from it are stored under its hash.
    """
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics)).encode()


def windows(
    raw: bytes, *, window: int = 64, unit: str = "characters", limit: int | None = None
) -> Made:
    """Cuts a text into windows that do not overlap; targets are the inputs shifted by one.

    The last tenth of the windows is the test split. A character's number is its rank among all that
    occur, sorted by code point; a byte is its own number.

    Args:
      raw: the text, UTF-8 if `unit` is `"characters"`.
      window: symbols per window.
      unit: `"characters"` or `"bytes"`.
      limit: number of symbols to use, from the beginning; all by default.

    Returns:
      int32 inputs and targets `(n, window)`; the classes are the symbols.

    Raises:
      ValueError: if a number is out of range, or the text is too short or not UTF-8.

    >>> made = windows(b"abracadabra" * 4, window=4)
    >>> made.train.x[0].tolist(), made.train.y[0].tolist(), made.classes
    ([0, 1, 4, 0], [1, 4, 0, 2], 5)
    """
    check_integer("window", window, 1)
    check_name("unit", unit, UNITS)
    if limit is not None:
        check_integer("limit", limit, 1)
    symbols, classes = _symbols(raw, unit, limit)
    n = (len(symbols) - 1) // window
    if n < 10:
        raise ValueError(
            f"the text must have symbols for 10 windows of {window} and one more, it has "
            f"{len(symbols)} symbols."
        )
    x, y = (symbols[at : at + n * window].reshape(n, window) for at in (0, 1))
    train = n - max(1, round(TEST_FRACTION * n))
    return Made(Examples(x[:train], y[:train]), Examples(x[train:], y[train:]), classes)


def _symbols(raw: bytes, unit: str, limit: int | None) -> tuple[np.ndarray, int]:
    if unit == "bytes":
        return np.frombuffer(raw, np.uint8)[:limit].astype(np.int32), 256
    try:
        points = np.frombuffer(raw.decode().encode("utf-32-le"), np.uint32)[:limit]
    except UnicodeDecodeError as error:
        raise ValueError(f"the text must be UTF-8 for `unit='characters'`: {error}.") from error
    alphabet, symbols = np.unique(points, return_inverse=True)
    return symbols.astype(np.int32), len(alphabet)


def unigram_bits(train: NDArray[Any], test: NDArray[Any], symbols: int) -> float:
    """Bits per test symbol of a model that predicts the frequencies of the training symbols.

    Frequencies have add-one smoothing.

    >>> unigram_bits(np.array([0, 1]), np.array([0, 1, 1]), symbols=2)
    1.0
    """
    counts = np.bincount(np.ravel(train), minlength=symbols) + 1.0
    return float(-np.mean(np.log2(counts / counts.sum())[np.ravel(test)]))
