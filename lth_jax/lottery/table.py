"""Tables of results."""

import html
import itertools
from collections.abc import Sequence
from typing import Any

from lth_jax import extras, text

SHORT, SHORT_ROWS, HTML_ROWS = 1_800, 30, 200
"""Characters and rows of a `repr`, and rows of a notebook."""


HEADS = {"control": "ticket minus"}
"""Printed heads of columns; rows, data frames and files keep the names."""


class Table(Sequence[dict[str, Any]]):
    """A sequence of rows; printed as a table, in notebooks as HTML.

    Args:
      rows: dictionaries with the same keys.
      note: sentences that are printed below it.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], note: str = ""):
        self._rows, self.note = list(rows), note

    def __getitem__(self, index: Any) -> Any:
        one = self._rows[index]
        return Table(one, self.note) if isinstance(index, slice) else one

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

    def _text(self, most: int) -> str:
        names = list(self._rows[0]) if self._rows else []
        cells = [[_shown(row[name]) for name in names] for row in self._rows[:most]]
        return text.table([HEADS.get(name, name) for name in names], cells, limit=most, width=None)

    def __repr__(self) -> str:
        shown = cut(self._text(SHORT_ROWS), hidden=max(len(self) - SHORT_ROWS, 0))
        return f"{shown}\n{self.note}".rstrip()

    def __str__(self) -> str:
        return f"{self._text(len(self))}\n{self.note}".rstrip()

    def _repr_html_(self) -> str:
        names = list(self._rows[0]) if self._rows else []
        head = "".join(f"<th>{html.escape(HEADS.get(name, name))}</th>" for name in names)
        cells = ([html.escape(_shown(row[name])) for name in names] for row in self[:HTML_ROWS])
        body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in cells)
        left = len(self) - HTML_ROWS
        more = f"<caption>… and {left:,} more rows</caption>" if left > 0 else ""
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        return f"<table>{more}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def cut(shown: str, hidden: int = 0) -> str:
    """The first lines of a table, as many as a `repr` shows, and the number of further rows.

    Args:
      shown: a table in plain text.
      hidden: number of rows that it lacks.
    """
    lines = shown.splitlines()
    ends = itertools.accumulate(len(line) + 1 for line in lines)
    fit = sum(end <= SHORT for end in ends)
    left = len(lines) - fit + hidden
    return "\n".join([*lines[:fit], *([f"… and {left:,} more rows"] if left else ())])
