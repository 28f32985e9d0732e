"""C9's evidence is whole."""

import numpy as np
import pytest
from scipy import special, stats

from experiments.studies import c09_mixing as study
from tests.experiments.studies.study_runs import runner_in, tiny


def test_smoothing_moves_as_much_of_the_label_as_mixup_and_cutmix():
    numbers = study.get_config("laptop").study
    # E min(λ, 1 − λ) = 2 E[λ; λ < ½] = I_½(α + 1, α)
    alpha = numbers.mixup
    assert special.betainc(alpha + 1, alpha, 0.5) == pytest.approx(numbers.smoothing)
    rng, time = np.random.default_rng(0), 40
    share = stats.beta(numbers.cutmix, numbers.cutmix).rvs(40_000, random_state=rng)
    side = np.floor((1 - share) * time).astype(int)
    first = rng.integers(0, time, len(side)) - side // 2
    replaced = (np.minimum(first + side, time) - np.maximum(first, 0)) / time
    moved = np.minimum(replaced, 1 - replaced).mean()
    assert moved == pytest.approx(numbers.smoothing, abs=0.01)


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = tiny(study.get_config("laptop"))
    config.experiment.prune.levels = 2
    config.experiment.control_levels = (2,)
    with runner_in(tmp_path) as runner:
        evidence = study.gather(runner, config)
    for part in (*evidence.primaries, *evidence.secondary):
        assert np.isfinite(part.values).all() and len(part.values) == 2, part.name
    assert {row["arm"] for row in evidence.rows} == set(study.PROTOCOL.arms)
    agreed = {(r["arm"], r["metric"]): r["value"] for r in evidence.rows if r["replicate"] == 0}
    assert agreed["plain", "κ within"] == agreed["plain", "κ with plain"] < 1
    assert len(evidence.notes) == 2 and "of 2 seeds lie between them" in evidence.notes[0]
    study.draw(evidence.rows)
