"""XOR: exactly two whole units can solve it with six weights."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax.measures import xor


@pytest.fixture(scope="module")
def winners():
    """Every mask of six weights of H = 4 trained from many starts: `[starts, 924]`."""
    kept = np.array(list(combinations(range(12), 6)))
    mask = np.zeros((len(kept), 12), bool)
    np.put_along_axis(mask, kept, True, axis=1)
    masks = xor.Weights(jnp.asarray(mask[:, :8].reshape(-1, 4, 2)), jnp.asarray(mask[:, 8:]))
    weights = xor.draw(jax.random.key(0), 24, 4)
    each = jax.tree.map(lambda w: w[:, None], weights)
    return weights, masks, np.asarray(xor.solved(each, masks, steps=200))


def test_only_two_whole_units_ever_win(winners):
    _, masks, won = winners
    rows = np.asarray(masks.first).all(axis=-1) & np.asarray(masks.second)
    can = rows.sum(axis=1) == 2
    assert can.sum() == 6
    assert won[:, can].any()
    assert not won[:, ~can].any()


def test_a_mask_of_two_units_wins_where_the_pair_alone_does(winners):
    weights, masks, won = winners
    rows = np.asarray(masks.first).all(axis=-1) & np.asarray(masks.second)
    chosen = np.flatnonzero(rows.sum(axis=1) == 2)
    alone = np.asarray(xor.solved(xor.pairs(weights), steps=200))
    assert np.array_equal(np.sort(won[:, chosen].sum(axis=0)), np.sort(alone.sum(axis=0)))


def test_a_pair_wins_about_a_quarter_of_the_time():
    won = xor.solved(xor.pairs(xor.draw(jax.random.key(1), 2000, 2)))
    assert won.mean() == pytest.approx(0.23, abs=0.04)


def test_linear_networks_never_win():
    def linear(x):
        return x

    weights = xor.draw(jax.random.key(2), 100, 4)
    assert not xor.solved(weights, activation=linear, steps=200).any()


def test_dtypes_are_strict():
    with jax.numpy_dtype_promotion("strict"):
        assert xor.solved(xor.draw(jax.random.key(0), 2, 2), steps=1).dtype == jnp.bool
