"""Short text for people: tables and arrays in a `repr`."""

import dataclasses
import re
import shutil
import sys
import textwrap
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")

ABSENT = ("", "–")
"""Cells without a value."""
WIDTH = 100
"""The maximum width, in columns, of a table in a `repr` and of a note."""
LONG = 32
"""A page wraps the text of a table cell beyond this number of characters."""
NARROW = 24
"""The minimum width, in columns, of a wrapped text in a table."""


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    limit: int = 40,
    width: int | None = WIDTH,
) -> str:
    """A table in plain text; columns of numbers are set to the right.

    Args:
      header: the names of the columns.
      rows: their cells; those beyond `limit` are counted.
      limit: number of rows shown.
      width: the maximum width in columns, reached by shortening the last and the first column if
        they are text; None for no limit. Numbers are never shortened.

    >>> print(table(["leaf", "kept"], [["w", "12"], ["bias", "4"]]))
    leaf  kept
    w       12
    bias     4
    """
    shown = [list(map(_printable, row)) for row in rows[:limit]]
    lines = [list(header), *shown]
    widths = _widths(header, shown)
    right = [_is_numeric([row[i] for row in shown]) for i in range(len(header))]
    for i in (len(header) - 1, 0) if width else ():
        over = sum(widths) + 2 * (len(widths) - 1) - (width or 0)
        if not right[i]:
            widths[i] = max(min(widths[i], 12), widths[i] - max(over, 0))

    def fit(cell: str, width: int, numeric: bool) -> str:
        cell = cell if len(cell) <= width else cell[: width - 1] + "…"
        return cell.rjust(width) if numeric else cell.ljust(width)

    text = ["  ".join(map(fit, line, widths, right)).rstrip() for line in lines]
    return "\n".join(text + ([f"… and {len(rows) - limit} more"] if len(rows) > limit else []))


class TextTable(NamedTuple):
    """A table for terminals and files; `str` formats it at its full width.

    Attributes:
      header: the names of the columns.
      rows: their cells.
      title: a line above it.
      note: sentences below it.
      keys: number of columns at the left that identify a row.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    note: str = ""
    keys: int = 1

    def fitted(self, width: int | None = None, *, drop: bool = False) -> str:
        """The table within a number of columns, or at its full width; no number is cut.

        Columns without a value are left out. Where the rest is too wide, texts are wrapped between
        words; where that is not enough, the table is split into several, one below the other, each
        with the key columns; with `drop`, a line names the columns of all but the first instead.

        >>> wide = TextTable(["level", "dense", "ticket"], [["1", "31.4±8.8", "30.1±2.0"]])
        >>> print(wide.fitted(16))
        level     dense
            1  31.4±8.8
        <BLANKLINE>
        level    ticket
            1  30.1±2.0
        """
        columns = [[name, *(row[i] for row in self.rows)] for i, name in enumerate(self.header)]
        filled = [not self.rows or any(cell not in ABSENT for cell in one[1:]) for one in columns]
        kept = [one for one, has_values in zip(columns, filled, strict=True) if has_values]
        keys = sum(filled[: self.keys])
        shown, *rest = _parts(kept, keys, width)
        note, parts = self.note, [shown, *rest]
        if drop and rest:
            names = ", ".join(one[0] for part in rest for one in part[keys:])
            note, parts = f"{note} A wider terminal has more columns: {names}.".strip(), [shown]
        whole = "\n\n".join("\n".join(_lines(part)) for part in parts)
        below = textwrap.fill(note, min(width or WIDTH, WIDTH), break_on_hyphens=False)
        return "\n".join(filter(None, [self.title, whole, below]))

    def __str__(self) -> str:
        return self.fitted()


def print_tables(*tables: TextTable, drop: bool = False) -> None:
    """Prints tables within the width of a terminal; elsewhere, such as in a file, at full width.

    Args:
      *tables: the tables.
      drop: see `TextTable.fitted`.
    """
    print("\n\n".join(table.fitted(terminal_width(), drop=drop) for table in tables))


def terminal_width() -> int | None:
    """The columns of the terminal that the process prints to; None if it prints elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _parts(columns: list[list[str]], keys: int, width: int | None) -> Iterator[list[list[str]]]:
    """Columns in groups that each take at most `width` if they can; each begins with the keys."""
    if width is None or _width(columns) <= width:
        yield columns
        return
    columns = [_wrapped(one, max(width // 3, NARROW)) for one in columns]
    first, part = columns[:keys], columns[:keys]
    for one in columns[keys:]:
        if len(part) > keys and _width([*part, one]) > width:
            yield part
            part = list(first)
        part = [*part, one]
    yield part


def _wrapped(column: list[str], width: int) -> list[str]:
    """A column of text whose cells have line breaks between words; numbers as they are."""
    if _is_numeric(column[1:]):
        return column
    fold = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    return ["\n".join(fold.wrap(cell)) for cell in column]


def _width(columns: Sequence[Sequence[str]]) -> int:
    longest = [max(len(line) for cell in one for line in cell.split("\n")) for one in columns]
    return sum(longest) + 2 * (len(columns) - 1)


def _lines(columns: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, several for a row whose cells have line breaks."""
    rows = []
    for cells in zip(*columns, strict=True):
        broken = [cell.split("\n") for cell in cells]
        for i in range(max(map(len, broken))):
            rows.append([lines[i] if i < len(lines) else "" for lines in broken])
    return table(rows[0], rows[1:], limit=len(rows), width=None).split("\n") if rows else []


def _widths(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]


def _printable(cell: Any) -> str:
    """A cell without control characters, which could move a terminal's cursor."""
    text = str(cell)
    return text if text.isprintable() else repr(text)[1:-1]


def with_short_repr(cls: type[T]) -> type[T]:
    """Decorates a named tuple or data class: its `repr` shows long values by kind and size.

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
    """Seconds as minutes and seconds, with hours if there are any.

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


def listing(words: Iterable[str]) -> str:
    """Words as an enumeration.

    >>> listing(["dense"]), listing(["dense", "ticket", "random"])
    ('dense', 'dense, ticket and random')
    """
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def column_kinds(cells: Sequence[Sequence[str]]) -> list[str]:
    """The kind of each column: `"number"`, `"text"` or `"long text"`; the first row is the header.

    >>> column_kinds([["leaf", "kept"], ["w", "12"], ["bias", "4"]])
    ['text', 'number']
    """
    columns = list(zip(*cells[1:], strict=True))
    return [
        "number" if _is_numeric(column) else "long text" if max(map(len, column)) > LONG else "text"
        for column in columns
    ] or ["text"] * len(cells[0])


def _is_numeric(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers, with a sign, a unit or an interval if they have one."""
    filled = [cell for cell in cells if cell not in ABSENT]
    return bool(filled) and all(re.match(r"[+−-]?(\.?\d|(nan|inf)$)", cell) for cell in filled)
