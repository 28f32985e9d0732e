"""C1's curve and its simulation agree."""

import numpy as np
import pytest

from experiments.studies import c01_biology as c1
from experiments.studies.common import at_round


def test_the_simulation_agrees_with_the_curve():
    config = at_round(c1.get_config("laptop"), "C1", "discovery")
    config.study.update(seeds=12, types=(10, 100))
    evidence = c1.gather(None, config)
    assert len(evidence.primaries) == 3 and len(evidence.rows) == 2 * 24 * (12 + 1)
    for k, part in zip((100, 50, 25), evidence.primaries, strict=True):
        exact = (1 - 0.99**k - 0.01) / 0.99
        assert np.mean(part.values) == pytest.approx(exact, abs=4e-3)  # 4 standard errors
    assert len(c1.draw(evidence.rows).axes) == 3
