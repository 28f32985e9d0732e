"""Short text for people: tables and arrays in a `repr`."""

import copy
import dataclasses
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")

ABSENT = ("", "–")
"""Cells without a value."""
WIDTH = 100
"""Columns that a table takes at most."""


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    limit: int = 40,
    width: int | None = WIDTH,
    left: int | None = None,
) -> str:
    """A table in plain text.

    Args:
      header: the names of the columns.
      rows: their cells; those beyond `limit` are counted.
      limit: how many rows are shown.
      width: the columns of text that it takes at most, by shortening its first column; None for as
        many as it needs.
      left: how many columns are text, set to the left; by default those that hold other things
        than numbers.

    >>> print(table(["leaf", "kept"], [["w", "12"], ["bias", "4"]]))
    leaf  kept
    w       12
    bias     4
    """
    shown = [list(map(str, row)) for row in rows[:limit]]
    lines = [list(header), *shown]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for i in (len(header) - 1, 0) if width else ():  # the last column of text, then the first
        over = sum(widths) + 2 * (len(widths) - 1) - (width or 0)
        widths[i] = max(min(widths[i], 12), widths[i] - max(over, 0))
    right = [
        (bool(shown) and all(_is_number(row[i]) for row in shown)) if left is None else i >= left
        for i in range(len(header))
    ]

    def fit(cell: str, width: int, numeric: bool) -> str:
        cell = cell if len(cell) <= width else cell[: width - 1] + "…"
        return cell.rjust(width) if numeric else cell.ljust(width)

    text = ["  ".join(map(fit, line, widths, right)).rstrip() for line in lines]
    return "\n".join(text + ([f"… and {len(rows) - limit} more"] if len(rows) > limit else []))


def full_width(table: "Table") -> int:
    """The columns of a terminal that a table of rich takes if nothing is cut off."""
    from rich.console import Console
    from rich.measure import Measurement

    wide = Console(width=10_000)
    return Measurement.get(wide, wide.options, table).maximum


def without_empty_columns(table: "Table") -> "Table":
    """A table of rich without the columns of which no cell has a value."""
    columns = [column for column in table.columns if not is_empty(list(column.cells))]
    kept = copy.copy(table)
    kept.columns = [dataclasses.replace(column, _index=i) for i, column in enumerate(columns)]
    return kept


def is_empty(cells: Sequence[Any]) -> bool:
    """Whether a column of a table has no value."""
    return bool(cells) and all(str(cell) in ABSENT for cell in cells)


def with_short_repr(cls: type[T]) -> type[T]:
    """A named tuple or data class whose `repr` gives long values by kind and size.

    >>> from typing import NamedTuple
    >>> @with_short_repr
    ... class Point(NamedTuple):
    ...     params: dict
    ...     step: int
    >>> Point({"kernel": np.ones((784, 300), np.float32)}, 3)
    Point(params={'kernel': float32[784, 300]}, step=3)
    """
    cls.__repr__ = _short_repr  # type: ignore[method-assign]
    return cls


def _short_repr(self: Any) -> str:
    names = getattr(self, "_fields", None) or [f.name for f in dataclasses.fields(self)]
    shown = (f"{name}={_abbreviated(getattr(self, name))}" for name in names)
    return f"{type(self).__name__}({', '.join(shown)})"


def _abbreviated(value: Any, items: int = 4, width: int = 100) -> str:
    """`repr` of a small value; kind and size of a large one."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and np.prod(value.shape) > 16:
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, types.FunctionType):
        return value.__qualname__
    if type(value) in (dict, list, tuple, set, frozenset) and len(value) > items:
        if not all(isinstance(one, int | float) for one in value) or len(value) > 3 * items:
            return f"{type(value).__name__} of {len(value)}"
    if type(value) is dict:
        inner = ", ".join(f"{key!r}: {_abbreviated(each)}" for key, each in value.items())
        shown = f"{{{inner}}}"
    elif type(value) is list:
        shown = f"[{', '.join(map(_abbreviated, value))}]"
    elif type(value) is tuple and value:
        shown = f"({', '.join(map(_abbreviated, value))}{',' * (len(value) == 1)})"
    else:
        shown = " ".join(repr(value).split())
    return shown if len(shown) <= width else f"{shown[: width - 1]}…"


def brief(value: Any) -> str:
    """A number, or the first and the last entries of an array, to four digits.

    >>> brief(np.arange(9.0)), brief(2 / 3)
    ('[0, 1, …, 8]', '0.6667')
    """
    if np.ndim(value) == 0:
        return f"{float(value):.4g}"
    flat = [f"{float(x):.4g}" for x in np.ravel(value)[[0, 1, -1] if np.size(value) > 4 else ...]]
    return f"[{', '.join(flat if np.size(value) <= 4 else [*flat[:2], '…', flat[2]])}]"


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, hours where there are any.

    >>> clock(75), clock(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "study"), counted(2, "study"), counted(1200, "cell")
    ('1 study', '2 studies', '1,200 cells')
    """
    plural = noun if number == 1 else f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {plural}"


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "").rstrip(" %"))
    except ValueError:
        return cell in ABSENT
    return True
