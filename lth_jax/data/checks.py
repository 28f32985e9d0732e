"""Checks of arguments, shared by the modules of this package."""

import numbers
import operator
from typing import Any


def check_integer(name: str, value: Any, low: int, high: int = 2**31 - 1) -> None:
    """Raises unless `value` is an integer in `low … high`.

    Args:
      name: the argument's name, for the message.
      value: the argument.
      low: the smallest allowed value.
      high: the largest allowed value.

    Raises:
      TypeError: if it is not an integer; booleans are refused.
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


def check_real(name: str, value: Any, low: float, high: float) -> None:
    """Raises unless `value` is a real number in `[low, high]`.

    Raises:
      TypeError: if it is not a number; booleans are refused.
      ValueError: if it is out of range or not finite.

    >>> check_real("gap", 2.0, 0.0, 1.0)
    Traceback (most recent call last):
    ValueError: `gap` must lie in [0.0, 1.0], got 2.0.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` must be a number, got {value!r}.")
    if not low <= float(value) <= high:  # also false for NaN
        raise ValueError(f"`{name}` must lie in [{low}, {high}], got {value}.")
