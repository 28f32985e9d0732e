"""Columns of CSV files: missing or unfit entries are refused, or treated as the user chooses."""

import numpy as np
import pytest

from lth_jax import data
from lth_jax.data import columns, tabular

ROWS = [f"{i},{i % 3},{'pq'[i % 2]}" for i in range(60)]


def table(*changes, names="a,b,y", rows=ROWS):
    """The bytes of a table in which some rows are others, by number from 1."""
    changed = list(rows)
    for number, row in changes:
        changed[number - 1] = row
    return "\n".join([names, *changed]).encode()


def read(raw, **more):
    return tabular.from_csv(raw, **{"target": "y", **more})


def whole(made):
    """Inputs in the order of the file's first column, which is a count."""
    x = np.concatenate([made.train.x, made.test.x])
    return x[np.argsort(x[:, 0], kind="stable")]


MARKED = ["", "NA", "na", "n/a", "nan", "NaN", " NULL ", "None", "?"]
ODD = ["-", "inf", "-Infinity", "1e400", "1e151", "x", "1_000", "1,5", "0x10"]


@pytest.mark.parametrize("entry", MARKED)
@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_missing_entry_is_refused_by_row_and_column(entry, column):
    row = ["3", "0", "q"]
    row[column] = entry
    where = (
        rf"row 4, column '{'aby'[column]}': .* is missing \(1 of 60 entries are\); set `missing`"
    )
    with pytest.raises(ValueError, match=where):
        read(table((4, ",".join(row))))


@pytest.mark.parametrize("entry", ODD)
def test_an_entry_that_is_no_number_is_refused_by_row_column_and_value(entry):
    quoted = f'"{entry}"'
    with pytest.raises(
        ValueError, match=rf"row 4, column 'a': '{entry}' is not a (finite )?number"
    ):
        read(table((4, f"{quoted},0,q")))


def test_a_number_among_texts_is_refused():
    with pytest.raises(ValueError, match=r"row 4, column 'y': '7' is a number, but 59 of .* 60"):
        read(table((4, "3,0,7")))
    assert read(table((4, "3,0,7")), categories=["y"]).classes == 3


def test_columns_that_are_not_used_are_not_looked_at():
    raw = table((4, "3,,q"), (9, "8,inf,p"), (11, "10,NA,p"))
    assert read(raw, columns=["a"]).train.x.shape == (48, 1)


def test_rows_with_missing_entries_are_dropped():
    made = read(table((4, "NA,0,q"), (9, "8,,p"), (11, "10,1,")), missing="drop")
    assert len(made.train.y) + len(made.test.y) == 57
    clean = [row for i, row in enumerate(ROWS, 1) if i not in (4, 9, 11)]
    np.testing.assert_array_equal(made.train.x, read(table(rows=clean)).train.x)
    with pytest.raises(ValueError, match="row 5, column 'a': 'x' is not a number"):
        read(table((4, "NA,0,q"), (5, "x,0,q")), missing="drop")  # the file's row, not what is left
    with pytest.raises(ValueError, match=r"'drop', which leaves 4 of the CSV file's 60 rows"):
        read(table(*((i, f"{i},NA,p") for i in range(5, 61))), missing="drop")


def test_a_missing_number_becomes_the_mean_of_the_training_rows():
    made = read(table((4, "3,NA,q"), (9, "8,NA,p")), missing="mean")
    x = whole(made)
    assert x.shape == (60, 2) and x[3, 1] == x[8, 1] == 0
    known = made.train.x[made.train.x[:, 1] != 0, 1].astype(float)
    assert known.mean() == pytest.approx(0, abs=1e-6) and known.std() == pytest.approx(1, abs=1e-6)
    texts = table((4, "3,,q"), rows=[f"{i},{'uvw'[i % 3]},{'pq'[i % 2]}" for i in range(60)])
    with pytest.raises(ValueError, match=r"row 4, column 'b'.* 'mean', but the column has cat"):
        read(texts, missing="mean")


def test_a_missing_entry_becomes_a_category_of_its_own():
    raw = table((4, "3,0,"), (9, "NA,2,"), names="a,y,b")
    x = whole(read(raw, missing="category"))
    assert x.shape == (60, 2 + 3)  # a, whether it is missing; p, q, missing
    assert x[:, 1].sum() == 1 and x[:, 4].sum() == 2 and (x[:, 2:].sum(axis=1) == 1).all()
    assert read(table(), missing="category").train.x.shape == (48, 2)


@pytest.mark.parametrize("missing", ["refuse", "mean", "category"])
def test_a_missing_target_can_only_be_dropped(missing):
    message = (
        r"row 4, column 'y': '' is missing \(1 of 60 entries are\); set `missing` to 'drop'\.$"
    )
    with pytest.raises(ValueError, match=message):
        read(table((4, "3,0,")), missing=missing)


def test_a_missing_group_is_dropped_or_a_group_of_its_own():
    raw = table((4, "3,,q"))
    assert read(raw, group="b", columns=["a"], missing="category").groups == 4
    assert read(raw, group="b", columns=["a"], missing="drop").groups == 3
    with pytest.raises(ValueError, match="row 4, column 'b': '' is missing"):
        read(raw, group="b", columns=["a"], missing="mean")


def test_markers_are_the_users():
    assert read(table((4, "-,0,q")), markers=["-"], missing="mean").train.x.shape == (48, 2)
    rows = [f"{i},{'NA' if i % 2 else 'DE'},{'pq'[i % 2]}" for i in range(60)]
    with pytest.raises(ValueError, match="row 2, column 'b': 'NA' is missing"):
        read(table(rows=rows))
    assert read(table(rows=rows), markers=[""]).train.x.shape == (48, 3)  # Namibia


def test_an_identifier_is_refused_unless_declared():
    rows = [f"id{i},{i % 3},{'pq'[i % 2]}" for i in range(60)]
    with pytest.raises(ValueError, match=r"column 'a' has 60 values in 60 rows, each of which"):
        read(table(rows=rows))
    assert read(table(rows=rows), categories=["a"]).train.x.shape == (48, 61)
    assert read(table(rows=rows), columns=["b"]).train.x.shape == (48, 1)


def test_a_continuous_target_is_refused_unless_declared():
    rows = [f"{i},{i % 3},{i * 0.1}" for i in range(60)]
    with pytest.raises(ValueError, match="target 'y' has 60 values in 60 rows, like a continuous"):
        read(table(rows=rows))
    assert read(table(rows=rows), categories=["y"]).classes == 60
    few = [f"{i},{i % 3},{i * 0.1}" for i in range(8)]
    with pytest.raises(ValueError, match="like a continuous"):
        read(table(rows=few))
    halves = [f"{i},{i % 3},{i % 4 / 2}" for i in range(60)]
    assert read(table(rows=halves)).classes == 4
    with pytest.raises(ValueError, match=r"the group 'a' has 60 values"):
        read(table(), group="a")


def test_declared_numbers_are_numbers_and_declared_categories_are_not():
    assert read(table(), categories=["b"]).train.x.shape == (48, 1 + 3)
    with pytest.raises(ValueError, match="row 1, column 'b': 'x0' is not a number, as `numbers`"):
        read(table(rows=[r.replace(",", ",x") for r in ROWS]), numbers=["b"], columns=["b"])


def test_large_integers_stay_apart():
    rows = [f"{i},1,{2**53 + i % 2}" for i in range(60)]
    assert read(table(rows=rows)).classes == 2
    assert read(table(rows=[r + ".0" if i % 4 else r for i, r in enumerate(rows)])).classes == 2


def test_columns_that_cannot_be_standardised_are_refused():
    rows = [f"{i},{'1' if i == 0 else 'NA'},{'pq'[i % 2]}" for i in range(60)]
    order = np.random.default_rng(0).permutation(60)
    rows[0], rows[order[-1]] = rows[order[-1]], rows[0]  # the only entry is in a test row
    with pytest.raises(ValueError, match="column 'b' cannot be standardised"):
        read(table(rows=rows), missing="mean")
    with pytest.raises(ValueError, match="column 'b' of the CSV file has no entries"):
        read(table(rows=[f"{i},,{'pq'[i % 2]}" for i in range(60)]), missing="mean")


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (
            {"missing": "median"},
            ValueError,
            "`missing` is .* must be one of: .*refuse",
        ),
        ({"missing": None}, ValueError, "`missing` is 'None'; "),
        ({"columns": "a"}, TypeError, "`columns` must be a list of texts, got 'a'"),
        ({"markers": "NA"}, TypeError, "`markers` must be a list of texts, got 'NA'"),
        ({"numbers": 5}, TypeError, "`numbers` must be a list of texts, got 5"),
        ({"categories": ["z"]}, ValueError, "must have a column 'z', it has"),
        ({"numbers": ["y"]}, ValueError, "`numbers` must not contain 'y', which is the target"),
        ({"numbers": ["a"], "categories": ["a"]}, ValueError, "`numbers` must not contain 'a'"),
        ({"columns": ["a", "a"]}, ValueError, "`columns` must name inputs, each once"),
    ],
)
def test_bad_options_are_refused(wrong, error, message):
    with pytest.raises(error, match=message):
        read(table(), **wrong)


def test_a_table_of_one_column_has_no_input():
    with pytest.raises(ValueError, match="`columns` must name inputs"):
        tabular.from_csv(b"y\n" + b"p\nq\n" * 5, target="y")


def test_a_one_hot_code_beyond_the_memory_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(columns, "_MOST_BYTES", 60 * 60 * 8 - 1)
    rows = [f"id{i},{i % 3},{'pq'[i % 2]}" for i in range(60)]
    with pytest.raises(ValueError, match="one-hot code exceeds 4 GiB"):
        read(table(rows=rows), categories=["a"])


def test_the_options_reach_the_file_through_load(tmp_path):
    (tmp_path / "t.csv").write_bytes(table((4, "-,0,q"), (9, "8,2,")))
    asked = {
        "data_dir": tmp_path / "d",
        "seed": 0,
        "validation": 0,
        "file": str(tmp_path / "t.csv"),
    }
    with pytest.raises(ValueError, match="row 9, column 'y': '' is missing"):
        data.load("csv", target="y", **asked)
    options = {"missing": "drop", "markers": ("", "-"), "categories": ("b",), "numbers": ("a",)}
    loaded = data.load("csv", target="y", **asked, **options)
    assert loaded.train.x.shape[1] == 1 + 3
    assert len(loaded.train.y) + len(loaded.test.y) == 58
    with pytest.raises(TypeError, match="`numbers` must be a list of texts"):
        data.load("csv", target="y", **asked, numbers={"a"})
