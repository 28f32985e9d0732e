"""Rows of a result, shown as a table."""

import io
import itertools
from collections.abc import Sequence
from typing import Any

import rich.console
import rich.measure
import rich.table

from lth_jax import extras

SHORT, LONG, WIDTH = 1_900, 100_000, 120
"""Characters of a `repr` and of printed text, and columns that a title may take."""
MORE = "… and {} more rows"


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

    def _rich(self) -> rich.table.Table:
        names = list(self._rows[0]) if self._rows else []
        table = rich.table.Table(*names)
        for row in self._rows:
            table.add_row(*(_shown(row[name]) for name in names))
        return table

    def __repr__(self) -> str:
        return rendered(self._rich())

    def __str__(self) -> str:
        return rendered(self._rich(), LONG)

    def _repr_html_(self) -> str:
        names = list(self._rows[0]) if self._rows else []
        head = "".join(f"<th>{name}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{_shown(row[name])}</td>" for name in names) + "</tr>"
            for row in self._rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rendered(table: rich.table.Table, limit: int = SHORT) -> str:
    """A table as plain text, at its full width: as many lines as fit `limit` characters."""
    wide = rich.console.Console(width=10_000)
    needed = rich.measure.Measurement.get(wide, wide.options, table).maximum
    file = io.StringIO()
    rich.console.Console(file=file, width=max(needed, WIDTH)).print(table)
    lines = [line.rstrip() for line in file.getvalue().rstrip().splitlines()]
    ends = itertools.accumulate(len(line) + 1 for line in lines)
    fit = sum(end <= limit - len(MORE) for end in ends)
    if fit == len(lines):
        return "\n".join(lines)
    return "\n".join([*lines[:fit], MORE.format(len(lines) - fit)])
