import numpy as np
import pytest
from scipy import stats

from lth_jax.data import sequences


def test_modular_addition_holds_every_pair_once():
    made = sequences.modular_addition(modulus=7, train=30)
    x, y = (np.concatenate([getattr(part, name) for part in made[:2]]) for name in ("x", "y"))
    assert len(made.train.y) == 30 and made.classes == 7
    assert {(a, b) for a, b, _ in x.tolist()} == {(a, b) for a in range(7) for b in range(7)}
    assert (x[:, 2] == 7).all() and (x[:, :2].sum(axis=1) % 7 == y).all()


def test_copy_asks_for_the_word_where_blanks_stand():
    x, y, _ = sequences.copy(symbols=4, length=3, delay=2, train=50, test=5).train
    assert (y[:, :5] == 4).all() and (y[:, 5:] == x[:, :3]).all()
    assert x[:, :3].max() == 3 and (x[:, 3:] == [4, 5, 4, 4, 4]).all()


def test_delayed_recall_tells_nothing_after_the_first_symbol():
    x, y, _ = sequences.delayed_recall(symbols=4, delay=3, train=4000, test=1).train
    assert (x[:, 0] == y).all()
    table = np.histogram2d(x[:, 1], y, bins=4)[0]
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_associative_recall_asks_for_a_key_that_was_shown():
    x, y, _ = sequences.associative_recall(keys=5, values=3, pairs=4, train=200, test=1).train
    keys, values = x[:, :8:2], x[:, 1:8:2]
    assert all(len(set(row)) == 4 for row in keys.tolist())
    asked = keys == x[:, 8:]
    assert (asked.sum(axis=1) == 1).all() and (values[asked] == y).all()
    assert values.max() == 2 and keys.min() == 3 and keys.max() == 7


def test_marked_recall_asks_for_the_one_marked_symbol():
    x, y, _ = sequences.marked_recall(symbols=5, length=6, train=200, test=1).train
    marked = x >= 5
    assert (marked.sum(axis=1) == 1).all() and (x[marked] - 5 == y).all()
    assert set(np.argmax(marked, axis=1)) == set(range(6))


def test_markov_follows_its_chain_and_costs_its_entropy_rate():
    chain = sequences.transitions(states=3, concentration=0.5, data_seed=1)
    made = sequences.markov(states=3, length=50, concentration=0.5, train=2000, test=1, data_seed=1)
    x, y, _ = made.train
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    counts = np.histogram2d(x.ravel(), y.ravel(), bins=3)[0]
    np.testing.assert_allclose(counts / counts.sum(axis=1, keepdims=True), chain, atol=0.02)
    np.testing.assert_allclose(
        np.bincount(x[:, 0]) / 2000, sequences.stationary(chain), atol=0.04
    )  # from the first step on
    assert -np.log(chain[x, y]).mean() == pytest.approx(sequences.entropy_rate(chain), rel=0.01)


def test_entropy_rate_of_known_chains():
    assert sequences.entropy_rate(np.eye(2)[::-1]) == 0
    biased = np.array([[0.9, 0.1], [0.1, 0.9]])
    assert sequences.entropy_rate(biased) == pytest.approx(stats.entropy([0.9, 0.1]))


MAKERS = [
    sequences.modular_addition,
    sequences.copy,
    sequences.delayed_recall,
    sequences.associative_recall,
    sequences.marked_recall,
    sequences.markov,
]


@pytest.mark.parametrize("make", MAKERS)
def test_a_seed_decides_everything(make):
    first, again, other = make(train=40), make(train=40), make(train=40, data_seed=1)
    np.testing.assert_array_equal(first.train.x, again.train.x)
    assert not np.array_equal(first.train.x, other.train.x)
    assert first.train.x.dtype == first.train.y.dtype == np.int32
    assert len(first.train.x) == 40 and first.train.y.max() < first.classes


@pytest.mark.parametrize(
    ("make", "wrong", "message"),
    [
        (sequences.modular_addition, {"modulus": 5, "train": 25}, "`train` must lie in 1 … 24"),
        (sequences.copy, {"delay": 0}, "`delay` must lie in 1"),
        (sequences.delayed_recall, {"symbols": 1}, "`symbols` must lie in 2"),
        (sequences.associative_recall, {"pairs": 9}, "`pairs` must be at most the 8 `keys`, got 9"),
        (sequences.marked_recall, {"length": 0}, "`length` must lie in 1"),
        (sequences.markov, {"concentration": 0.0}, "`concentration` must lie in"),
        (sequences.markov, {"test": 0}, "`test` must lie in 1"),
    ],
)
def test_bad_numbers_are_refused(make, wrong, message):
    with pytest.raises(ValueError, match=message):
        make(**wrong)
