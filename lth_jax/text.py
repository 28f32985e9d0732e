"""Short text for people: tables and arrays in a `repr`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

WIDTH = 100
"""Columns that a table takes at most."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, limit: int = 40) -> str:
    """A table in plain text: text to the left, numbers to the right, at most `WIDTH` columns.

    The first column gives way where a row is too long; rows beyond `limit` are counted.

    >>> print(table(["leaf", "kept"], [["w", "12"], ["bias", "4"]]))
    leaf  kept
    w       12
    bias     4
    """
    shown = [list(map(str, row)) for row in rows[:limit]]
    lines = [list(header), *shown]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for i in (len(header) - 1, 0):  # the last column of text, then the first
        over = sum(widths) + 2 * (len(widths) - 1) - WIDTH
        widths[i] = max(min(widths[i], 12), widths[i] - max(over, 0))
    right = [bool(shown) and all(_is_number(row[i]) for row in shown) for i in range(len(header))]

    def fit(cell: str, width: int, numeric: bool) -> str:
        cell = cell if len(cell) <= width else cell[: width - 1] + "…"
        return cell.rjust(width) if numeric else cell.ljust(width)

    text = ["  ".join(map(fit, line, widths, right)).rstrip() for line in lines]
    return "\n".join(text + ([f"… and {len(rows) - limit} more"] if len(rows) > limit else []))


def brief(value: Any) -> str:
    """A number, or the first and the last entries of an array, to four digits.

    >>> brief(np.arange(9.0)), brief(2 / 3)
    ('[0, 1, …, 8]', '0.6667')
    """
    if np.ndim(value) == 0:
        return f"{float(value):.4g}"
    flat = [f"{float(x):.4g}" for x in np.ravel(value)[[0, 1, -1] if np.size(value) > 4 else ...]]
    return f"[{', '.join(flat if np.size(value) <= 4 else [*flat[:2], '…', flat[2]])}]"


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").rstrip(" %").isdigit() or cell in ("", "–")
