"""The columns of a CSV file: numbers or categories, inferred or declared.

An entry that does not fit its column, or is missing, raises an error with its row, column and
value, unless the caller has chosen how to treat it.
"""

import csv
import io
from collections.abc import Callable, Collection, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MARKERS = ("", "NA", "N/A", "NaN", "null", "None", "?")
"""Entries that mark a missing value, in upper or lower case."""

NUMBER, CATEGORY = "number", "category"

FEWEST_ROWS = 5
_MOST_VALUES = 100  # of an undeclared column of categories
_LARGEST = 1e150  # with a finite square, for the standard deviation
_MOST_BYTES = 1 << 32  # of a one-hot matrix


class Column(NamedTuple):
    """One column of a table.

    Attributes:
      name: the column's name.
      entries: the text in each row, without surrounding spaces.
      missing: the missing entries.
      rows: the number of each row in the file; the first below the names is 1.
    """

    name: str
    entries: list[str]
    missing: NDArray[np.bool_]
    rows: NDArray[np.int64]

    def part(self, rows: NDArray[np.bool_]) -> "Column":
        """The column with only the rows that are True."""
        kept = [entry for entry, keep in zip(self.entries, rows, strict=True) if keep]
        return Column(self.name, kept, self.missing[rows], self.rows[rows])

    def at(self, i: int) -> str:
        """The position and value of an entry, for messages."""
        return f"row {self.rows[i]}, column '{self.name}': {self.entries[i][:40]!r}"

    @property
    def present(self) -> list[str]:
        """The entries that are not missing."""
        return [e for e, gone in zip(self.entries, self.missing, strict=True) if not gone]


def read(raw: bytes, markers: Collection[str] = MARKERS) -> dict[str, Column]:
    r"""Reads the columns of a CSV file by name.

    Args:
      raw: the file's bytes in UTF-8; the first row contains the names.
      markers: texts of missing entries, in upper or lower case.

    Raises:
      ValueError: if there are fewer than 5 rows, or a row does not have one entry per name.

    >>> read(b"a,b\n1,x\n2,NA\n3,x\n4,y\n5,y\n")["b"].missing.tolist()
    [False, True, False, False, False]
    """
    try:
        lines = [row for row in csv.reader(io.StringIO(raw.decode("utf-8-sig"))) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"the CSV file cannot be read: {error}.") from error
    if len(lines) <= FEWEST_ROWS:
        raise ValueError(
            f"the CSV file must have names and {FEWEST_ROWS} rows or more, got {len(lines)} lines."
        )
    names, *rows = lines
    if len(set(names)) < len(names):
        raise ValueError(f"the CSV file's columns must have distinct names, got {names}.")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise ValueError(
                f"row {number} of the CSV file must fill {len(names)} columns, got {len(row)}: "
                f"{row}."
            )
    gone = {marker.strip().casefold() for marker in markers}
    numbers = np.arange(1, len(rows) + 1)
    table = {}
    for i, name in enumerate(names):
        entries = [row[i].strip() for row in rows]
        missing = np.array([entry.casefold() in gone for entry in entries])
        table[name] = Column(name, entries, missing, numbers)
    return table


def kind_of(column: Column, declared: str | None = None) -> str:
    """Determines whether a column contains numbers or categories.

    All entries must be numbers, or none. A column with both, with an infinity or with a number
    above 1e150 is refused, unless it is declared as categories.

    Args:
      column: a column; at least one entry must not be missing.
      declared: `NUMBER` or `CATEGORY`, or None to infer it.

    Raises:
      ValueError: an entry does not fit; the message names its row, its column and the entry.
    """
    numbers = [_number(entry) for entry in column.entries]
    there = np.flatnonzero(~column.missing).tolist()
    if not there:
        raise ValueError(f"column '{column.name}' of the CSV file has no entries.")
    if declared == CATEGORY:
        return CATEGORY
    texts = [i for i in there if numbers[i] is None]
    if declared is None and len(texts) == len(there):
        return CATEGORY
    remedy = "correct it, or name the column in `categories`"
    if declared is None and 2 * len(texts) > len(there):
        odd = next(i for i in there if numbers[i] is not None)
        raise ValueError(
            f"{column.at(odd)} is a number, but {len(texts)} of the column's {len(there)} entries "
            f"are not; {remedy}."
        )
    for i in there:
        value = numbers[i]
        if value is None or not abs(value) <= _LARGEST:  # also false for NaN
            wrong = "is not a number" if value is None else "is not a finite number up to 1e150"
            why = (
                "`numbers` declares"
                if declared
                else f"{len(there) - len(texts)} of the column's {len(there)} entries are"
            )
            raise ValueError(
                f"{column.at(i)} {wrong}, as {why}; {remedy}, or the entry in `markers` if it "
                "marks a missing value."
            )
    return NUMBER


def _number(entry: str) -> float | None:
    try:
        return None if "_" in entry else float(entry)  # Python reads 1_000 as a number
    except ValueError:
        return None


def numbers_of(column: Column) -> NDArray[np.float64]:
    """The entries of a column of numbers, NaN where missing."""
    pairs = zip(column.entries, column.missing, strict=True)
    return np.array([np.nan if gone else float(entry) for entry, gone in pairs])


def codes_of(column: Column) -> tuple[NDArray[np.int32], int]:
    """Numbers a column's distinct values; returns the number of each entry, and of values.

    The values are in numerical order if all are numbers, else in text order. Missing entries count
    as one more value, the last.
    """
    present = column.present
    numeric = all(_number(entry) is not None and np.isfinite(float(entry)) for entry in present)
    # Decimals are exact; floats would merge large integers.
    value_of: Callable[[str], Any] = Decimal if numeric else str
    order = {value: i for i, value in enumerate(sorted({value_of(entry) for entry in present}))}
    pairs = zip(column.entries, column.missing, strict=True)
    codes = [len(order) if gone else order[value_of(entry)] for entry, gone in pairs]
    return np.array(codes, np.int32), len(order) + bool(column.missing.any())


def one_hot(column: Column, *, declared: bool) -> NDArray[np.float64]:
    """One-hot encodes a column of categories: `(n, values)`.

    Raises:
      ValueError: if the column has many values and is not declared as categories, or the matrix
        exceeds 4 GiB.
    """
    codes, values = codes_of(column)
    if not declared and values > most_values(len(codes)):
        raise ValueError(
            f"column '{column.name}' has {values} values in {len(codes)} rows, each of which "
            f"would become an input (such as {column.present[0][:40]!r}); leave it out of "
            "`columns`, or name it in `categories`."
        )
    if 8 * values * len(codes) > _MOST_BYTES:
        raise ValueError(
            f"column '{column.name}' has {values} values in {len(codes)} rows, whose one-hot "
            "code exceeds 4 GiB; leave it out of `columns`."
        )
    return (codes[:, None] == np.arange(values)).astype(np.float64)


def most_values(rows: int) -> int:
    """The largest number of values of an undeclared column of categories.

    >>> most_values(8), most_values(60), most_values(10_000)
    (10, 30, 100)
    """
    return min(_MOST_VALUES, max(10, rows // 2))


def labels_of(column: Column, what: str, *, declared: bool) -> tuple[NDArray[np.int32], int]:
    """Classes or groups: `codes_of` for a column with few values.

    Args:
      column: the column.
      what: "target" or "group", for messages.
      declared: whether the column is declared as categories.

    Raises:
      ValueError: if the column has as many values as a continuous quantity or a name, and is not
        declared.
    """
    kind = kind_of(column, CATEGORY if declared else None)
    codes, values = codes_of(column)
    most, rows = most_values(len(codes)), len(codes)
    if kind == NUMBER and any(float(entry) % 1 for entry in column.present):
        most = min(most, rows // 2)  # fractions with few repetitions
    if not declared and values > most:
        raise ValueError(
            f"the {what} '{column.name}' has {values} values in {rows} rows, like a continuous "
            f"quantity or a name; name it in `categories` if each is a separate {what}."
        )
    return codes, values


def select(
    table: dict[str, Column], names: Sequence[str], labels: Collection[str], missing: str
) -> dict[str, Column]:
    """Selects columns of a table, and its rows by the treatment of missing entries.

    Args:
      table: all columns.
      names: names of the selected columns.
      labels: the columns among them whose missing entries cannot be filled in.
      missing: "refuse"; "drop" to omit rows with a missing entry in these columns; "mean" or
        "category" to keep them for filling in.

    Raises:
      ValueError: an entry is missing that may not be (the first is named), or fewer than 5 rows
        remain.
    """
    for name in names:
        if name not in table:
            raise ValueError(f"the CSV file must have a column '{name}', it has {list(table)}.")
    found = {name: table[name] for name in names}
    if missing == "drop":
        whole = ~np.any([column.missing for column in found.values()], axis=0)
        if whole.sum() < FEWEST_ROWS:
            raise ValueError(
                f"`missing` is 'drop', which leaves {whole.sum()} of the CSV file's {len(whole)} "
                f"rows; {FEWEST_ROWS} are required."
            )
        return {name: column.part(whole) for name, column in found.items()}
    for name, column in found.items():
        if column.missing.any() and (missing == "refuse" or name in labels):
            at = column.at(int(np.argmax(column.missing)))
            raise ValueError(
                f"{at} is missing ({column.missing.sum()} of {len(column.rows)} entries are); set "
                + ("`missing` to 'drop'." if name in labels else _CHOICES)
            )
    return found


_CHOICES = (
    "`missing` to 'drop' (the row), 'mean' (of the column) or 'category' (a separate one), or "
    "`markers` to what marks a missing entry."
)
