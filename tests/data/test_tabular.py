import numpy as np
import pytest

from lth_jax.data import tabular

CSV = b"""age,city,sex,income
20,Rome,m,low
30,"Paris, Texas",f,high
40,Rome,f,low
50,Oslo,m,high
60,Oslo,m,high
"""


def majority_rule(made):
    """The least-squares rule of the majority's training examples, without the group's column."""
    x, y, group = made.train
    rows = group == 0
    return np.linalg.lstsq(x[rows, :-1], 2.0 * y[rows] - 1, rcond=None)[0]


@pytest.mark.parametrize("gap", [0.0, 0.2, 1.0])
def test_the_majority_rule_errs_in_the_minority_at_the_rate_of_the_gap(gap):
    made = tabular.grouped(gap=gap, minority=0.3, train=20_000, test=20_000)
    x, y, group = made.test
    wrong = (x[:, :-1] @ majority_rule(made) > 0) != y
    assert wrong[group == 0].mean() < 0.02
    assert wrong[group == 1].mean() == pytest.approx(gap, abs=0.02)
    assert group.mean() == pytest.approx(0.3, abs=0.01)


def test_rules_apart_use_their_own_halves_of_the_features():
    made = tabular.grouped(
        apart=True, minority=0.1, test_minority=0.5, train=4000, test=20_000, visible=False
    )
    x, y, group = made.test
    assert group.mean() == pytest.approx(0.5, abs=0.02) and made.train.group.mean() < 0.12
    for g in (0, 1):
        signs = 2 * y[group == g] - 1
        matter = np.abs((signs[:, None] * x[group == g]).mean(axis=0)) > 0.04
        assert not matter[np.arange(10) // 5 != g].any() and matter.any()


def test_the_group_is_a_feature_where_it_is_visible():
    seen, unseen = (tabular.grouped(visible=v, train=50, test=5) for v in (True, False))
    np.testing.assert_array_equal(seen.train.x[:, -1], 2 * seen.train.group - 1)
    np.testing.assert_array_equal(seen.train.x[:, :-1], unseen.train.x)
    np.testing.assert_array_equal(seen.train.y, unseen.train.y)


@pytest.mark.parametrize(
    ("make", "rows", "features", "classes", "groups"),
    [
        (tabular.iris, 150, 4, 3, 0),
        (tabular.wine, 178, 13, 3, 0),
        (tabular.breast_cancer, 569, 30, 2, 0),
        (tabular.diabetes, 442, 10, 2, 2),
    ],
)
def test_tables_are_standardised_by_their_training_rows(make, rows, features, classes, groups):
    made = make()
    assert len(made.train.y) + len(made.test.y) == rows and len(made.test.y) == round(rows / 5)
    assert (made.classes, made.groups) == (classes, groups)
    assert made.train.x.shape[1] == features and made.train.x.dtype == np.float32
    np.testing.assert_allclose(made.train.x.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(made.train.x.std(axis=0), 1, atol=1e-5)
    if groups:
        assert np.bincount(np.concatenate([p.group for p in made[:2]])).tolist() == [235, 207]


def test_a_csv_file_by_its_columns():
    made = tabular.from_csv(CSV, target="income", columns=["age", "city"], group="sex")
    assert (made.classes, made.groups) == (2, 2)
    x, y, group = (np.concatenate(pair) for pair in zip(*made[:2], strict=True))
    order = np.argsort(x[:, 0])  # by age
    cities = [[0, 0, 1], [0, 1, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0]]  # Oslo, Paris, Rome
    assert x[order, 1:].tolist() == cities
    assert y[order].tolist() == [1, 0, 1, 0, 0] and group[order].tolist() == [1, 0, 0, 1, 1]


def test_all_columns_but_the_target_are_inputs_by_default():
    assert tabular.from_csv(CSV, target="income").train.x.shape == (4, 1 + 3 + 2)


def test_classes_that_are_numbers_are_in_the_order_of_numbers():
    rows = "".join(f"{i},{target}\n" for i, target in enumerate([10, 9, 10, 9, 100]))
    made = tabular.from_csv(b"a,b\n" + rows.encode(), target="b")
    x, y = (np.concatenate([getattr(p, name) for p in made[:2]]) for name in ("x", "y"))
    assert y[np.argsort(x[:, 0])].tolist() == [1, 0, 1, 0, 2]


@pytest.mark.parametrize(
    ("raw", "asked", "message"),
    [
        (CSV, {"target": "wage"}, "must have a column 'wage', it has .'age', 'city'"),
        (
            CSV,
            {"target": "sex", "columns": ["sex"]},
            "`columns` must not contain the target, 'sex'",
        ),
        (CSV, {"target": "age", "group": "race"}, "must have a column 'race'"),
        (CSV + b"70,Rome,m\n", {"target": "sex"}, "row 6 of the CSV file must fill 4 columns"),
        (CSV + b"70,,m,low\n", {"target": "sex"}, "row 6, column 'city': '' is missing"),
        (CSV[:40], {"target": "sex"}, "5 rows or more"),
        (CSV.replace(b"sex", b"age"), {"target": "city"}, "distinct names"),
        (b"\xff" + CSV, {"target": "sex"}, "cannot be read"),
        (CSV.replace(b"high", b"low"), {"target": "income"}, "two values or more, got 1"),
    ],
)
def test_bad_tables_are_refused(raw, asked, message):
    with pytest.raises(ValueError, match=message):
        tabular.from_csv(raw, **asked)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"gap": 1.5}, ValueError),
        ({"test_minority": 2}, ValueError),
        ({"visible": 1}, TypeError),
        ({"apart": 1}, TypeError),
    ],
)
def test_bad_arguments_are_refused(wrong, error):
    with pytest.raises(error, match=f"`{next(iter(wrong))}` must"):
        tabular.grouped(**wrong)


@pytest.mark.parametrize("constant", [0.1, 1 / 3, 1e6 + 0.1])
def test_a_constant_column_is_not_scaled_by_a_rounding_error(constant):
    x = np.full((50, 2), constant)
    x[:, 1] = np.arange(50)
    made = tabular._made(x, np.ones(2, bool), np.arange(50) % 2, None, classes=2)
    for part in made[:2]:
        np.testing.assert_allclose(part.x[:, 0], 0, atol=1e-6)
