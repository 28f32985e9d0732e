"""C1's evidence is whole."""

import numpy as np

from experiments.studies import c01_biology as c1


def test_the_evidence_is_whole():
    config = c1.get_config("laptop")
    config.study.update(seeds=6, families=1000, grid_families=2000)
    config.study.grid_types = (10, 100)
    evidence = c1.gather(None, config)
    assert np.isfinite(evidence.primaries[0].values).all()
    assert len(evidence.rows) == 6 * 2 * 4 * 5
    assert len(c1.draw(evidence.rows).axes) == 5  # four maps and their colours
