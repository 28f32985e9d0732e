"""The lottery of signs: who wins is known."""

import numpy as np
import pytest

from lth_jax.measures.sign_lottery import sign_lottery


def test_tickets_win_where_any_unit_can_and_lone_units_one_time_in_four():
    found = sign_lottery(np.random.default_rng(3), 4000)
    for losses, lost in (
        (found.dense, 0.75**16),
        (found.ticket, 0.75**16),
        (found.reinit, 0.75),
        (found.shuffle, 0.75),
    ):
        won = losses < 1e-3
        assert np.allclose(losses[~won], 0.25, atol=1e-3)  # nothing in between
        assert (~won).mean() == pytest.approx(lost, abs=4 * np.sqrt(lost * (1 - lost) / 4000))


def test_a_ticket_of_the_only_unit_is_the_dense_network():
    found = sign_lottery(np.random.default_rng(4), 50, units=1)
    np.testing.assert_array_equal(found.dense, found.ticket)
    np.testing.assert_array_equal(found.dense, found.shuffle)


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="`units` 0 must be at least 1"):
        sign_lottery(np.random.default_rng(0), 5, units=0)
