"""Simulated families survive as often as the closed forms predict."""

import numpy as np
import pytest

from lth_jax.measures import families, odds


def test_families_live_as_the_closed_forms_say():
    winners = families.simulate(np.random.default_rng(0), 20, 30, 0.2, families=200_000)
    assert np.mean(winners.clones > 0) == pytest.approx(
        odds.clones_survive(20, 0.2).item(), abs=5e-3
    )
    assert np.mean(winners.varied > 0) == pytest.approx(
        odds.varied_survive(20, 15).item(), abs=5e-3
    )


def test_clones_are_as_safe_at_the_break_even_point():
    even = (odds.varied_survive(100, 50).item() - 0.01) / 0.99  # where clones survive as often
    winners = families.simulate(np.random.default_rng(1), 100, 100, even, families=2_000_000)
    assert families.log_survival(winners) == pytest.approx(0.0, abs=6e-3)  # 3.5 standard errors
