"""Planted masks are recognised in any order of units; random ones have the score of chance."""

import itertools

import numpy as np
import pytest

from lth_jax.data import planted
from lth_jax.measures import recovery

RNG = np.random.default_rng(0)


def masks(density, inputs=6, hidden=4, classes=3):
    return RNG.random((inputs, hidden)) < density, RNG.random((hidden, classes)) < density


def test_the_best_match_is_the_best_of_all():
    found, wanted = masks(0.5), masks(0.5, hidden=3)
    total = wanted[0].sum() + wanted[1].sum()
    by_hand = max(
        (found[0][:, list(pi)] & wanted[0]).sum() + (found[1][list(pi)] & wanted[1]).sum()
        for pi in itertools.permutations(range(4), 3)
    )
    assert recovery.recovered(found, wanted) == pytest.approx(by_hand / total)


def test_a_planted_ticket_is_found_in_any_order_of_units_and_beyond_chance():
    mask = planted.teacher(hidden=16).mask
    wanted = mask["Dense_0"]["kernel"], mask["Dense_1"]["kernel"]
    order = RNG.permutation(16)
    found = wanted[0][:, order], wanted[1][order]
    assert recovery.recovered(found, wanted) == 1
    by_chance = recovery.chance(found, wanted, seed=0)
    assert 0.2 < by_chance.mean() and by_chance.max() < 0.6  # above the density, 0.2: units match


def test_chance_keeps_as_much_and_repeats():
    empty, full = (tuple(np.full(s, value) for s in ((6, 4), (4, 3))) for value in (False, True))
    assert recovery.chance(empty, full, seed=0, draws=3).tolist() == [0, 0, 0]
    found, wanted = masks(0.5), masks(0.3)
    first, again = (recovery.chance(found, wanted, seed=1, draws=5) for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    ("found", "wanted", "message"),
    [
        (masks(1, hidden=3), masks(1), "of no more hidden units"),
        (masks(1), masks(1, inputs=5), "must hold weights of the inputs and classes"),
        (masks(1), masks(0), "of which 0 are kept"),
        ((np.ones((2, 3)), np.ones((2, 3))), masks(1), "`found` must hold masks"),
    ],
)
def test_masks_that_do_not_fit_are_refused(found, wanted, message):
    with pytest.raises(ValueError, match=message):
        recovery.recovered(found, wanted)
