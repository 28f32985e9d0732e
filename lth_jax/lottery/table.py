"""Rows of a result, shown as a table."""

import io
import itertools
from collections.abc import Sequence
from typing import Any

import rich.console
import rich.table

from lth_jax import extras, text

SHORT, LONG, WIDTH, SHORT_ROWS = 1_900, 100_000, 120, 30
"""Characters of a `repr` and of printed text, columns that a title may take, rows of a `repr`."""


class Table(Sequence[dict[str, Any]]):
    """Rows of a result; shown as a table, in notebooks as HTML.

    Args:
      rows: dictionaries with the same keys.
    """

    def __init__(self, rows: Sequence[dict[str, Any]]):
        self._rows = list(rows)

    def __getitem__(self, index: Any) -> Any:
        return Table(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def to_pandas(self) -> Any:
        """The rows as a `pandas.DataFrame`.

        Raises:
          lth_jax.extras.MissingExtraError: pandas is not installed.
        """
        return extras.lazy("pandas", "`to_pandas`", "pandas").DataFrame(self._rows)

    def to_arrow(self) -> Any:
        """The rows as a `pyarrow.Table`.

        Raises:
          lth_jax.extras.MissingExtraError: PyArrow is not installed.
        """
        return extras.lazy("pyarrow", "`to_arrow`").Table.from_pylist(self._rows)

    def _rich(self, most: int) -> rich.table.Table:
        """The first rows, numbers to the right."""
        names = list(self._rows[0]) if self._rows else []
        cells = [[_shown(row[name]) for name in names] for row in self._rows[:most]]
        return text.plain_table(names, cells, left=_text_columns(self._rows[:most], names))

    def __repr__(self) -> str:
        return rendered(self._rich(SHORT_ROWS), hidden=max(len(self) - SHORT_ROWS, 0))

    def __str__(self) -> str:
        return rendered(self._rich(len(self)), LONG)

    def _repr_html_(self) -> str:
        names = list(self._rows[0]) if self._rows else []
        head = "".join(f"<th>{name}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{_shown(row[name])}</td>" for name in names) + "</tr>"
            for row in self._rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _text_columns(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> int:
    """How many columns there are before the first numbers."""
    numbers = (any(isinstance(row[name], int | float) for row in rows) for name in names)
    return next((i for i, is_number in enumerate(numbers) if is_number), len(names))


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rendered(table: rich.table.Table, limit: int = SHORT, hidden: int = 0) -> str:
    """A table as plain text, at its full width.

    Args:
      table: one line for each row.
      limit: as many lines are shown as have so many characters.
      hidden: rows that the table lacks, to be counted with those that are not shown.
    """
    file = io.StringIO()
    rich.console.Console(file=file, width=max(text.full_width(table), WIDTH)).print(table)
    lines = [line.rstrip() for line in file.getvalue().rstrip().splitlines()]
    ends = itertools.accumulate(len(line) + 1 for line in lines)
    fit = sum(end <= limit for end in ends)
    left = len(lines) - fit + hidden
    return "\n".join([*lines[:fit], *([f"… and {left:,} more rows"] if left else ())])
