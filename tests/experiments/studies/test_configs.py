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
        if experiment.train.share:
            pool = experiment.data.options.to_dict().get("train", 60_000)  # MNIST's
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


def shortened(config):
    """A full size that keeps its data and its networks and takes a few steps."""
    experiment = config.experiment
    share = bool(experiment.train.share)
    experiment.replicates = 2
    experiment.data.update(validation=30, train_examples=120)
    experiment.train.update(steps=4, eval_every=2, batch_size=16, share=40 * share)
    if "popup" in config.study:
        config.study.popup.update(seeds=2, widths=(4, 8), steps=3)
    small = {
        "late": 2,
        "children": 2,
        "points": 3,
        "seeds": 8,
        "hidden": (2, 4),
        "densities": (0.5, 0.2),
        "examples": (20, 30, 40) if share else 20,
        "asked": (30, 40),
        "noises": (0.0, 0.4),
        "slow": 1e-4,
        "temperatures": (2.0,),
        "weights": (0.5,),
        "null_seeds": 2,
        "rounds": 3,
        "pilot_seeds": 2,
    }
    config.study.update({k: v for k, v in small.items() if k in config.study})
    if "rates" in config.study:
        config.study.rates = config.study.rates[:3]
    return config


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST's files are not there")
@pytest.mark.parametrize("claim", ["C2", "C5", "C6", "C8", "C13", "C14", "CRITERIA", "ORIGINAL"])
def test_the_full_size_is_a_study_of_mnist(claim, tmp_path, prepared):
    one = study(claim)
    config = shortened(one.get_config("full"))
    with bench_in(tmp_path) as bench:
        bench.machine.update(manual_dir=str(MNIST), data_dir=prepared)
        evidence = one.gather(bench, config)
    assert bench.dataset(config).name == "mnist"
    for part in evidence.primaries:
        assert np.isfinite(part.values).all(), part.name
    one.draw(evidence.rows)
