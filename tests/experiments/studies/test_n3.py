"""N3's evidence agrees with its protocol."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.studies import n3_critical_density as n3
from lth_jax.measures.critical import Critical
from tests.experiments.studies.study_runs import runner_in, tiny


def test_slopes_are_means_over_settings_in_which_all_densities_exist():
    study = n3.get_config("laptop").study
    seeds = np.zeros(3)

    def at(place, reached=True):
        logs = -0.5 * np.log2(place.width) + (1.0 if place.steps == 600 else 0.0)
        return Critical(logs, logs + seeds, reached)

    found = {place: at(place) for place in n3.places_of(study)}
    assert n3.by_axis(study, found, "width") == pytest.approx(-0.5)
    assert n3.by_axis(study, found, "steps") == pytest.approx(1 / np.log2(3))
    assert n3.by_axis(study, found, "examples") == pytest.approx(0)
    for place in found:
        if place.examples == 1000:
            found[place] = Critical(9.0, 9.0 + seeds, reached=False)
    assert n3.by_axis(study, found, "width") == pytest.approx(-0.5)
    assert np.isnan(n3.by_axis(study, found, "examples")).all()


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(n3.get_config("laptop"), replicates=4)
    config.experiment.prune.levels = 2
    config.experiment.control_levels = (1,)
    sizes = {"widths": (8, 12), "steps": (10,), "examples": (32,), "levels": (1, 2)}
    config.study.update(ConfigDict({**sizes, "points": 3, "margin": 0.0}))
    with runner_in(tmp_path) as runner:
        evidence = n3.gather(runner, config)
    parts = {part.name: part.values for part in evidence.secondary}
    assert all(len(values) == 4 for values in parts.values())
    assert np.isfinite([parts[name] for name in parts if name.startswith("barrier")]).all()
    assert np.isfinite(parts["tickets stop earlier"]).all()
    assert len(evidence.primaries) == 1 and len(evidence.gate) == 4
    assert len(evidence.rows) == 2 * 2 * 4  # places, levels, seeds
    ladders = 2 * 4 * (1 + 2 + 1)  # rates, seeds, networks
    assert evidence.member_steps == 2 * 10 * (ladders + 2 * 4 * 3)
    n3.draw(evidence.rows)
