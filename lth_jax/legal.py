"""Legal values of arguments and options: what a value may be, as a check and in words."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np

MOST = 2**31 - 1  # steps, rows and counts are int32
LARGEST, TINIEST = (float(x) for x in (np.finfo(np.float32).max, np.finfo(np.float32).tiny))


class Legal(NamedTuple):
    """Which values a field may have.

    Attributes:
      words: after "it must be".
      holds: `value -> bool`.
      names: the legal names, where values are names.
    """

    words: str
    holds: Callable[[Any], bool]
    names: Collection[str] = ()


def whole(low: int, high: int = MOST) -> Legal:
    """Integers in `low … high`."""

    def holds(value: Any) -> bool:
        integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
        return integer and low <= value <= high

    return Legal(f"an integer in {low} … {high}", holds)


def real(low: float, high: float = LARGEST, *, above: bool = False, below: bool = False) -> Legal:
    """Real numbers that float32 can hold.

    Args:
      low: the least.
      high: the greatest.
      above: whether `low` itself is excluded.
      below: whether `high` itself is excluded.
    """

    def holds(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            return False
        number: Any = abs(value)
        held = number == 0 or TINIEST <= number <= LARGEST  # neither NaN nor infinite
        inside = low <= value <= high
        return bool(held and inside and not ((above and value == low) or (below and value == high)))

    ends = f"{'(' if above else '['}{low:g}, {high:.3g}{')' if below else ']'}"
    return Legal(f"a number in {ends}", holds)


def several(each: Legal, words: str) -> Legal:
    """Tuples whose entries are legal and differ."""

    def holds(value: Any) -> bool:
        return (
            isinstance(value, tuple | list)
            and all(isinstance(one, str | int | float) for one in value)
            and all(map(each.holds, value))
            and len(set(value)) == len(value)
        )

    return Legal(words, holds, each.names)
