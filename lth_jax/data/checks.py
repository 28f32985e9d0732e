"""Checks of arguments that several files of this room share."""

import operator
from typing import Any


def check_integer(name: str, value: Any, low: int, high: int = 2**31 - 1) -> None:
    """Raises unless `value` is an integer in `low … high`.

    Args:
      name: the argument's name, for the message.
      value: what was given.
      low: the least value allowed.
      high: the greatest value allowed.

    Raises:
      TypeError: if it is not an integer (booleans are not).
      ValueError: if it is out of range.

    >>> check_integer("validation", -1, 0)
    Traceback (most recent call last):
    ValueError: `validation` must lie in 0 … 2147483647, got -1.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"`{name}` must be an integer, got {value!r}.")
    if not low <= number <= high:
        raise ValueError(f"`{name}` must lie in {low} … {high}, got {value}.")
