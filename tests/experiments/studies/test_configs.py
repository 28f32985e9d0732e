"""Every study's numbers, at every size, are an experiment that can be run."""

from pathlib import Path

import numpy as np
import pytest

from experiments import build
from experiments.configs.studies.common import SIZES
from experiments.studies import MODULES, study
from tests.experiments.studies.bench import bench_in

MNIST = Path(__file__).parents[4] / "shared" / "data" / "mnist"


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


@pytest.mark.parametrize("claim", MODULES)
def test_a_size_with_another_set_up_says_so(claim):
    laptop, full = (study(claim).get_config(size) for size in ("laptop", "full"))
    assert "setup" not in laptop.study
    assert ("setup" in full.study) == ("experiment" in full)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return str(tmp_path_factory.mktemp("data"))


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST's files are not there")
@pytest.mark.parametrize("claim", ["C5", "ORIGINAL"])
def test_the_full_size_is_a_study_of_mnist(claim, tmp_path, prepared):
    one = study(claim)
    config = one.get_config("full")
    experiment = config.experiment
    experiment.replicates = 2
    experiment.data.update(validation=30, train_examples=120)
    experiment.train.update(steps=4, eval_every=2)
    small = {"pilot_seeds": 2, "rates": (1e-3,), "children": 2, "points": 3, "late": 2}
    config.study.update({k: v for k, v in small.items() if k in config.study})
    with bench_in(tmp_path) as bench:
        bench.machine.update(manual_dir=str(MNIST), data_dir=prepared)
        evidence = one.gather(bench, config)
    assert bench.dataset(config).name == "mnist"
    for part in evidence.primaries:
        assert np.isfinite(part.values).all(), part.name
    one.draw(evidence.rows)
