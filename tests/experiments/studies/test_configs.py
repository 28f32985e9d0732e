"""Every study's numbers, at every size, are an experiment that can be run."""

import pytest

from experiments import build
from experiments.configs.studies.common import SIZES
from experiments.studies import MODULES, study


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("claim", MODULES)
def test_every_replicate_has_examples_of_its_own(claim, size):
    config = study(claim).get_config(size)
    cells = [config[name] for name in ("experiment", "conv") if name in config]
    cells += [config.heads.experiment] if "heads" in config else []
    for experiment in cells:
        build.check(experiment)
        pool = experiment.data.options.to_dict().get("train")
        if experiment.train.share:
            needed = experiment.replicates * experiment.train.share + experiment.data.validation
            assert needed <= pool
