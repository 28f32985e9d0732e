"""N2: every width leaves the same number of weights, and the numbers are those of the protocol."""

import numpy as np
import pytest

from experiments.studies import n2_pool as n2
from tests.experiments.studies.study_runs import runner_in, tiny


@pytest.mark.parametrize("size", ["laptop", "full"])
def test_every_width_ends_at_the_same_number_of_weights(size):
    config = n2.get_config(size)
    for width in config.study.widths:
        cell = n2.cell_of(config, width).experiment
        kept = 50 * width * (1 - cell.prune.rate) ** cell.prune.levels
        assert kept == 50 * config.study.base == 1600
        assert cell.control_levels == (cell.prune.levels,)
    assert config.study.draws >= width // config.study.base


def test_results_are_those_of_planted_accuracies():
    rising = {2: (60.0, 50.0, 52.0), 4: (64.0, 49.0, 52.0), 8: (66.0, 48.0, 52.0)}
    accuracy = {
        width: {
            n2.TICKET: np.full(3, ticket),
            n2.RANDOM: np.full(3, random),
            n2.BEST: np.full(3, best),
            n2.SHUFFLE: np.full(3, random),
        }
        for width, (ticket, random, best) in rising.items()
    }
    parts, secondary = n2.results(accuracy, 2.0, 10.0)
    assert [part.values[0] for part in parts] == [12.0, 16.0]
    found = {part.name: part.values[0] for part in secondary}
    assert found["ticket, W = 4 − W = 2"] == 8.0
    assert found["ticket − random, W = 8"] == 36.0
    assert found["ticket − best of W/32, W = 8"] == 28.0
    assert found["edge over random per doubling, ticket − best of W/32"] == 8.0 - 2.0
    assert found["edge, last − first doubling"] == 6.0 - 10.0
    assert found["shuffle − random, W = 8"] == 0.0


@pytest.mark.exhaustive
def test_the_evidence_is_whole(tmp_path):
    config = tiny(n2.get_config("laptop"))
    config.study.update(base=8, widths=(16, 32), draws=4, block=8, chunk=4)
    with runner_in(tmp_path) as runner:
        evidence = n2.gather(runner, config)
    for part in (*evidence.primaries, *evidence.secondary):
        assert np.isfinite(part.values).all(), part.name
    assert {row["arm"] for row in evidence.rows} == set(n2.PROTOCOL.arms)
    n2.draw(evidence.rows)
