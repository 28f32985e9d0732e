"""Tables with groups: a generated one with a known gap, scikit-learn's, and any CSV file.

Features are float32 `(n, features)`; numbers are standardised by the training rows.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lth_jax.data import columns as columns_
from lth_jax.data.checks import check_integer, check_real
from lth_jax.data.columns import CATEGORY, MARKERS, NUMBER, Column
from lth_jax.data.made import Examples, Made, split
from lth_jax.keys import check_seed
from lth_jax.legal import check_name

TEST_FRACTION = 0.2  # of a table's rows
MISSING = ("refuse", "drop", "mean", "category")
"""The treatments of a CSV file's missing entries."""


def grouped(
    *,
    features: int = 10,
    minority: float = 0.1,
    gap: float = 0.3,
    apart: bool = False,
    visible: bool = True,
    train: int = 4000,
    test: int = 4000,
    test_minority: float | None = None,
    data_seed: int = 0,
) -> Made:
    """Two groups with different linear rules, at the angle `π · gap`.

    `x ~ N(0, I)` and `y = [w_g · x > 0]`. Inputs are isotropic, so the rules disagree on exactly
    the fraction `gap` of them. A classifier with the majority's rule has error 0 on the majority
    and `gap` on the minority. A classifier with access to the group can have error 0 on both.

    Args:
      features: number of features, without the group's.
      minority: the probability of group 1.
      gap: the probability that the rules disagree, if both use all features.
      apart: whether each rule has its own half of the features; the rules then disagree with
        probability 1/2, whatever `gap`.
      visible: whether the group is another feature, −1 or 1.
      train: number of training examples.
      test: number of test examples.
      test_minority: the probability of group 1 in the test examples; `minority` by default.
      data_seed: seed of all draws.

    >>> made = grouped(features=3, train=8, test=4)
    >>> made.train.x.shape, made.groups
    ((8, 4), 2)
    """
    check_integer("features", features, 2)
    shares = (minority, minority if test_minority is None else test_minority)
    for name, value in zip(("minority", "test_minority", "gap"), (*shares, gap), strict=True):
        check_real(name, value, 0.0, 1.0)
    for name, flag in (("apart", apart), ("visible", visible)):
        if not isinstance(flag, bool):
            raise TypeError(f"`{name}` must be True or False, got {flag!r}.")
    for name, count in (("train", train), ("test", test)):
        check_integer(name, count, 1)
    check_seed(data_seed, "data_seed")
    rng, n = np.random.default_rng(data_seed), train + test
    group = (rng.random(n) < np.repeat(shares, (train, test))).astype(np.int32)
    x = rng.standard_normal((n, features), np.float32)
    basis, _ = np.linalg.qr(rng.standard_normal((features, 2)))
    rules = basis @ np.array([[1, np.cos(np.pi * gap)], [0, np.sin(np.pi * gap)]])
    if apart:
        rules = np.where(np.arange(features)[:, None] < features // 2, *np.eye(2)[:, None]) * basis
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

    The class is whether the disease progressed more than in half of the patients. The group is the
    sex as coded in the table (1 or 2), which is also a feature.
    """
    from sklearn.datasets import load_diabetes

    table = load_diabetes(scaled=False)
    y = (table.target > np.median(table.target)).astype(np.int32)
    group = table.data[:, table.feature_names.index("sex")].astype(np.int32) - 1
    return _made(table.data, np.ones(table.data.shape[1], bool), y, group, classes=2, groups=2)


def from_csv(
    raw: bytes,
    *,
    target: str,
    columns: Sequence[str] = (),
    group: str | None = None,
    numbers: Sequence[str] = (),
    categories: Sequence[str] = (),
    missing: str = "refuse",
    markers: Sequence[str] = MARKERS,
) -> Made:
    r"""Reads a table from the bytes of a CSV file whose first row contains the columns' names.

    Columns of numbers are standardised; others become one column per value (one-hot). The values of
    the target and the group are numbered in numerical order if all are numbers, else in text order.
    The kind of a column is declared, or inferred from all its entries. Columns that are neither
    input, target nor group are ignored.

    Args:
      raw: the file's bytes, in UTF-8.
      target: name of the column of classes.
      columns: names of the inputs; by default all but the target, including the group.
      group: name of the column of groups, if there are any.
      numbers: inputs that are numbers.
      categories: columns that are categories, although their values are numbers or many. Otherwise
        an input with more than 100 values, or more values than half of the rows, is refused as an
        identifier, and such a target as a continuous quantity.
      missing: the treatment of missing entries. "refuse": an error. "drop": their rows are omitted.
        "mean": numbers are replaced by the mean of the training rows. "category": for categories,
        missing is another value; numbers are replaced by the mean, and another input is 1 there and
        0 elsewhere. A missing target can only be dropped.
      markers: texts of missing entries, in upper or lower case.

    Raises:
      ValueError: if an argument or the file is not legal, an entry does not fit its column or is
        missing (the message states row, column and entry), or there are too few rows or classes.
      TypeError: if an argument that must be a list of names is a single text.

    >>> made = from_csv(b"size,colour,kind\n1,red,a\n2,blue,b\n3,red,a\n9,red,b\n7,blue,b\n",
    ...                 target="kind")
    >>> made.train.x.shape, made.classes  # size, blue, red
    ((4, 3), 2)
    """
    lists = {"columns": columns, "numbers": numbers, "categories": categories, "markers": markers}
    for argument, value in lists.items():
        texts = isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)
        if not texts:
            raise TypeError(f"`{argument}` must be a list of texts, got {value!r}.")
    check_name("missing", missing, MISSING)
    table = columns_.read(raw, markers)
    inputs = tuple(columns) or tuple(name for name in table if name != target)
    declared = _declared(table, inputs, target, numbers, categories)
    labels = (target,) if group is None else (target, group)
    fixed = (target,) if missing == "category" else labels
    used = columns_.select(table, tuple(dict.fromkeys((*labels, *inputs))), fixed, missing)
    y, classes = columns_.labels_of(used[target], "target", declared=target in categories)
    if classes < 2:
        raise ValueError(f"the target '{target}' must have two values or more, got {classes}.")
    groups, members = 0, None
    if group is not None:
        members, groups = columns_.labels_of(used[group], "group", declared=group in categories)
    parts = [_inputs(used[name], declared.get(name), missing) for name in inputs]
    x = np.concatenate([part for part, _ in parts], axis=1)
    scaled = np.concatenate([flags for _, flags in parts])
    made = _made(x, scaled, y, members, classes=classes, groups=groups)
    for i, name in enumerate(np.repeat(inputs, [len(flags) for _, flags in parts])):
        if not all(np.isfinite(part.x[:, i]).all() for part in made[:2]):
            raise ValueError(
                f"column '{name}' cannot be standardised by its training rows: they have no entry, "
                "or are almost equal compared with the others."
            )
    return made


def _declared(
    table: dict[str, Column],
    inputs: Sequence[str],
    target: str,
    numbers: Sequence[str],
    categories: Sequence[str],
) -> dict[str, str]:
    """The declared kinds of the columns, by name; checks them."""
    if target in inputs:
        raise ValueError(f"`columns` must not contain the target, '{target}'.")
    if not inputs or len(set(inputs)) < len(inputs):
        raise ValueError(f"`columns` must name inputs, each once, got {list(inputs)}.")
    declared = dict.fromkeys(numbers, NUMBER) | dict.fromkeys(categories, CATEGORY)
    for name in declared:
        if name not in table:
            raise ValueError(f"the CSV file must have a column '{name}', it has {list(table)}.")
    if twice := set(numbers) & {target, *categories}:
        raise ValueError(
            f"`numbers` must not contain '{min(twice)}', which is the target or in `categories`."
        )
    return declared


def _inputs(column: Column, declared: str | None, missing: str) -> tuple[NDArray, NDArray]:
    """A column as `(n, k)`, NaN to be filled with the mean, and which of the k to standardise."""
    gone = column.missing
    if columns_.kind_of(column, declared) == CATEGORY:
        if gone.any() and missing == "mean":
            raise ValueError(
                f"{column.at(int(np.argmax(gone)))} is missing and `missing` is 'mean', but the "
                "column has categories; set `missing` to 'drop' or 'category'."
            )
        part = columns_.one_hot(column, declared=declared == CATEGORY)
        return part, np.zeros(part.shape[1], bool)
    values = columns_.numbers_of(column)[:, None]
    if not gone.any() or missing == "mean":
        return values, np.array([True])
    return np.concatenate([values, gone[:, None]], axis=1), np.array([True, False])


def _classified(table: object) -> Made:
    """A table of scikit-learn with numbers and classes."""
    x, y = table.data, table.target.astype(np.int32)  # type: ignore[attr-defined]
    return _made(x, np.ones(x.shape[1], bool), y, None, classes=int(y.max()) + 1)


def _made(
    x: NDArray, scaled: NDArray, y: NDArray, group: NDArray | None, *, classes: int, groups: int = 0
) -> Made:
    """Splits a table and standardises the columns marked in `scaled` by its training rows.

    NaN becomes the mean of the training rows, 0; it remains if these have only NaN.
    """
    train, test = split(Examples(x, y, group), test=round(TEST_FRACTION * len(y)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # columns that are all NaN
        mean, std = np.nanmean(train.x, axis=0), np.nanstd(train.x, axis=0)
        varies = np.nanmax(train.x, axis=0) > np.nanmin(train.x, axis=0)
    # The computed deviation of equal numbers is often not 0, but a rounding error.
    mean, std = np.where(scaled, mean, 0), np.where(scaled & varies, std, 1)

    @np.errstate(over="ignore")  # the caller refuses infinities
    def standardised(part: Examples) -> Examples:
        filled = np.where(np.isnan(part.x), mean, part.x)
        return part._replace(x=((filled - mean) / std).astype(np.float32))

    return Made(standardised(train), standardised(test), classes, groups)
