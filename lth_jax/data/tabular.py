"""Tables with groups: one whose gap is known, scikit-learn's, and any CSV file.

Features are float32 `(n, features)`; numbers are standardised by the training rows.
"""

import csv
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lth_jax.data.checks import check_integer, check_real
from lth_jax.data.made import Examples, Made, split
from lth_jax.keys import check_seed

TEST_FRACTION = 0.2  # of a table's rows


def grouped(
    *,
    features: int = 10,
    minority: float = 0.1,
    gap: float = 0.3,
    visible: bool = True,
    train: int = 4000,
    test: int = 4000,
    data_seed: int = 0,
) -> Made:
    """Two groups, each with a linear rule of its own; the angle between them is `π · gap`.

    `x ~ N(0, I)` and `y = [w_g · x > 0]`. Inputs are isotropic, so the rules disagree on exactly
    the fraction `gap` of them: who learns the majority's rule alone is always right on the majority
    and errs with probability `gap` in the minority. Who knows the group can always be right.

    Args:
      features: how many, without the group's.
      minority: the probability of group 1.
      gap: the probability that the rules disagree.
      visible: whether the group is one more feature, −1 or 1.
      train: examples to train on.
      test: examples to test on.
      data_seed: decides everything that is drawn.

    >>> made = grouped(features=3, train=8, test=4)
    >>> made.train.x.shape, made.groups
    ((8, 4), 2)
    """
    check_integer("features", features, 2)
    for name, value in (("minority", minority), ("gap", gap)):
        check_real(name, value, 0.0, 1.0)
    if not isinstance(visible, bool):
        raise TypeError(f"`visible` must be True or False, got {visible!r}.")
    for name, count in (("train", train), ("test", test)):
        check_integer(name, count, 1)
    check_seed(data_seed, "data_seed")
    rng, n = np.random.default_rng(data_seed), train + test
    group = (rng.random(n) < minority).astype(np.int32)
    x = rng.standard_normal((n, features), np.float32)
    basis, _ = np.linalg.qr(rng.standard_normal((features, 2)))
    rules = basis @ np.array([[1, np.cos(np.pi * gap)], [0, np.sin(np.pi * gap)]])
    y = ((x @ rules)[np.arange(n), group] > 0).astype(np.int32)
    if visible:
        x = np.concatenate([x, 2 * group[:, None].astype(np.float32) - 1], axis=1)
    columns = x, y, group
    seen, unseen = (
        Examples(*(a[rows] for a in columns)) for rows in (slice(train), slice(train, n))
    )
    return Made(seen, unseen, classes=2, groups=2)


def iris() -> Made:
    """150 flowers, 4 features, 3 species (Fisher, 1936)."""
    from sklearn.datasets import load_iris

    return _classified(load_iris())


def wine() -> Made:
    """178 wines, 13 features, 3 cultivars (Forina et al., 1988)."""
    from sklearn.datasets import load_wine

    return _classified(load_wine())


def breast_cancer() -> Made:
    """569 tumours, 30 features, malignant or benign (Street, Wolberg and Mangasarian, 1993)."""
    from sklearn.datasets import load_breast_cancer

    return _classified(load_breast_cancer())


def diabetes() -> Made:
    """442 patients, 10 features (Efron et al., 2004).

    The class is whether the disease progressed more than in half of the patients, the group the
    sex as coded in the table (1 or 2), which is also a feature.
    """
    from sklearn.datasets import load_diabetes

    table = load_diabetes(scaled=False)
    y = (table.target > np.median(table.target)).astype(np.int32)
    group = table.data[:, table.feature_names.index("sex")].astype(np.int32) - 1
    return _made(table.data, np.ones(table.data.shape[1], bool), y, group, classes=2, groups=2)


def from_csv(
    raw: bytes, *, target: str, columns: Sequence[str] = (), group: str | None = None
) -> Made:
    r"""A table from the bytes of a CSV file whose first row holds the columns' names.

    Columns of numbers are standardised; others become one column per value (one-hot). The target's
    and the group's values are numbered in their order: by number if all are, else as text.

    Args:
      raw: UTF-8.
      target: the column of the classes.
      columns: the columns that are inputs; all but the target by default, the group among them.
      group: the column of the groups, if there are any.

    Raises:
      ValueError: if a column is not there, a row is too short or long, an entry is empty, or there
        are too few rows or classes.

    >>> made = from_csv(b"size,colour,kind\n1,red,a\n2,blue,b\n3,red,a\n9,red,b\n7,blue,b\n",
    ...                 target="kind")
    >>> made.train.x.shape, made.classes  # size, blue, red
    ((4, 3), 2)
    """
    table = _columns(raw)
    inputs = tuple(columns) or tuple(name for name in table if name != target)
    if target in inputs:
        raise ValueError(f"`columns` must not hold the target, '{target}'.")
    for name in (target, *inputs, *(() if group is None else (group,))):
        if name not in table:
            raise ValueError(f"the CSV file must hold a column '{name}', it has {list(table)}.")
    y, classes = _numbered(table[target])
    if classes < 2:
        raise ValueError(f"the target '{target}' must take two values or more, got {classes}.")
    groups, members = 0, None
    if group is not None:
        members, groups = _numbered(table[group])
    parts = [_numeric_or_one_hot(table[name]) for name in inputs]
    x = np.concatenate([part for part, _ in parts], axis=1)
    scaled = np.concatenate([np.full(part.shape[1], number) for part, number in parts])
    return _made(x, scaled, y, members, classes=classes, groups=groups)


def _columns(raw: bytes) -> dict[str, list[str]]:
    """A CSV file's columns by name, complete."""
    try:
        rows = [row for row in csv.reader(io.StringIO(raw.decode("utf-8-sig"))) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"the CSV file cannot be read: {error}.") from error
    if len(rows) < 6:
        raise ValueError(f"the CSV file must hold names and 5 rows or more, got {len(rows)} lines.")
    names, *entries = rows
    if len(set(names)) < len(names):
        raise ValueError(f"the CSV file's columns must have names of their own, got {names}.")
    for number, row in enumerate(entries, start=1):
        if len(row) != len(names) or not all(entry.strip() for entry in row):
            raise ValueError(f"row {number} of the CSV file must fill {len(names)} columns: {row}.")
    return {name: [row[i].strip() for row in entries] for i, name in enumerate(names)}


def _as_numbers(column: Sequence[str]) -> NDArray[np.float64] | None:
    try:
        numbers = np.array([float(entry) for entry in column])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def _numbered(column: Sequence[str]) -> tuple[NDArray, int]:
    """Which of a column's distinct values each entry is, and how many there are."""
    numbers = _as_numbers(column)
    values, index = np.unique(column if numbers is None else numbers, return_inverse=True)
    return index.astype(np.int32), len(values)


def _numeric_or_one_hot(column: Sequence[str]) -> tuple[NDArray, bool]:
    """A column as `(n, k)`, and whether it holds numbers."""
    numbers = _as_numbers(column)
    if numbers is not None:
        return numbers[:, None], True
    index, values = _numbered(column)
    return np.eye(values)[index], False


def _classified(table: object) -> Made:
    """A table of scikit-learn with classes and numbers only."""
    x, y = table.data, table.target.astype(np.int32)  # type: ignore[attr-defined]
    return _made(x, np.ones(x.shape[1], bool), y, None, classes=int(y.max()) + 1)


def _made(
    x: NDArray,
    scaled: NDArray,
    y: NDArray,
    group: NDArray | None,
    *,
    classes: int,
    groups: int = 0,
) -> Made:
    """Splits a table and standardises the columns marked in `scaled` by its training rows."""
    train, test = split(Examples(x, y, group), test=round(TEST_FRACTION * len(y)))
    mean, std = train.x.mean(axis=0), train.x.std(axis=0)
    mean, std = np.where(scaled, mean, 0), np.where(scaled & (std > 0), std, 1)
    train, test = (
        part._replace(x=((part.x - mean) / std).astype(np.float32)) for part in (train, test)
    )
    return Made(train, test, classes, groups)
