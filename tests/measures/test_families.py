"""Simulated families survive as often as the closed forms predict."""

import numpy as np
import pytest

from lth_jax.measures import families


@pytest.mark.parametrize(("cost", "offspring"), [(2.0, 15), (1.0, 30), (4.0, 7)])
def test_families_live_as_the_closed_forms_say(cost, offspring):
    winners = families.simulate(np.random.default_rng(0), 20, 30, 0.2, cost, families=200_000)
    clones, varied = np.mean(winners.clones > 0), np.mean(winners.varied > 0)
    assert clones == pytest.approx(families.clones_survive(20, 0.2).item(), abs=5e-3)
    assert varied == pytest.approx(families.varied_survive(20, offspring).item(), abs=5e-3)


def test_exact_values_at_the_ends():
    assert families.varied_survive([1, 2, 1e12], [1, 2, 1e9]) == pytest.approx(
        [1, 0.75, 1e-3], rel=1e-3
    )
    assert families.clones_survive(10, [0.0, 1.0]).tolist() == [0.1, 1.0]
    assert families.break_even(10, [0.1, 1.0]).tolist() == [0.0, 1.0]


def test_clones_are_as_safe_at_the_break_even_point():
    even = families.break_even(100, families.varied_survive(100, 50)).item()
    winners = families.simulate(np.random.default_rng(1), 100, 100, even, families=2_000_000)
    assert families.log_survival(winners) == pytest.approx(0.0, abs=6e-3)  # 3.5 standard errors
