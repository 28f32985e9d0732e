"""Rows of a result, shown as a table."""

import io
from collections.abc import Sequence
from typing import Any

import rich.console
import rich.table

from lth_jax import extras


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
        return extras.lazy("pandas", "`to_pandas`").DataFrame(self._rows)

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


def rendered(table: rich.table.Table) -> str:
    """A table as plain text."""
    file = io.StringIO()
    # In a notebook rich displays what it prints, whatever `file` is.
    rich.console.Console(file=file, width=120, force_jupyter=False).print(table)
    return file.getvalue().rstrip()
