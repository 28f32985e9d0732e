"""C1: families live as the closed forms say."""

import numpy as np
import pytest

from experiments.configs.studies import c01
from experiments.studies import c01_biology as c1
from lth_jax.measures import odds


def test_families_live_as_the_closed_forms_say():
    winners = c1.simulate(np.random.default_rng(0), 20, 30, 0.2, families=200_000)
    assert np.mean(winners.clones > 0) == pytest.approx(
        odds.clones_survive(20, 0.2).item(), abs=5e-3
    )
    assert np.mean(winners.varied > 0) == pytest.approx(
        odds.varied_survive(20, 15).item(), abs=5e-3
    )


def test_clones_are_as_safe_at_the_break_even_point():
    even = odds.break_even_repeats(100, 50).item()
    winners = c1.simulate(np.random.default_rng(1), 100, 100, even, families=2_000_000)
    assert c1.log_survival(winners) == pytest.approx(0.0, abs=6e-3)  # 3.5 standard errors


def test_the_evidence_is_whole():
    config = c01.get_config("laptop")
    config.study.update(seeds=6, families=1000, grid_families=2000)
    config.study.grid_types = (10, 100)
    evidence = c1.gather(None, config)
    assert np.isfinite(evidence.primaries[0].values).all()
    assert len(evidence.rows) == 6 * 2 * 4 * 5
    assert len(c1.draw(evidence.rows).axes) == 5  # four maps and their colours
