"""Every study's numbers, at every size, are an experiment that can be run."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from experiments import checks
from experiments.studies import STUDIES
from experiments.studies.common import SIZES, experiments_of
from lth_jax.data import cifar
from tests.experiments.studies.study_runs import runner_in

MNIST = Path(__file__).parents[4] / "shared" / "data" / "mnist"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("claim", STUDIES)
def test_every_replicate_has_examples_of_its_own(claim, size):
    config = STUDIES[claim].get_config(size)
    for experiment in experiments_of(config):
        checks.check(experiment)
        if experiment.train.share:
            pool = experiment.data.options.to_dict().get("train", 60_000)  # MNIST's
            needed = experiment.replicates * experiment.train.share + experiment.data.validation
            assert needed <= pool


@pytest.mark.parametrize("claim", STUDIES)
def test_a_size_with_another_set_up_states_it(claim):
    laptop, full = (STUDIES[claim].get_config(size) for size in ("laptop", "full"))
    assert "setup" not in laptop.study
    assert ("setup" in full.study) == ("experiment" in full)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files that full sizes read: MNIST's, where they are, and some in CIFAR-10's layout."""
    folder = tmp_path_factory.mktemp("files")
    for path in MNIST.glob("*") if MNIST.is_dir() else ():
        (folder / path.name).symlink_to(path)
    layout, rng = cifar.CIFAR10, np.random.default_rng(0)
    (folder / layout.python).mkdir()
    for stem in (*layout.train, *layout.test):
        pixels, labels = rng.integers(0, 256, (40, 3072), np.uint8), np.arange(40) % 10
        content = {b"data": pixels, layout.key: labels.tolist(), b"batch_label": b"some"}
        (folder / layout.python / stem).write_bytes(pickle.dumps(content, protocol=2))
    return str(folder)


DATA = {"C4": "cifar10", "C11": "delayed_recall"}  # the others: MNIST
DATA |= dict.fromkeys(("N1", "N2"), "mnist1d")
DATA |= {
    "C10": "experiments.studies.c10_attention:passages",
    "N4": "experiments.studies.n4_reconstruction:passages",
}
QUICK = ("C7",)  # run in the slow tier, the others on request
FEWER = {"layers": 2, "stages": ((8, 8), (16, 16)), "delay": 8}


def shortened(config):
    """A full size that keeps its data, takes a few steps, and has fewer of its slowest layers."""
    share = bool(config.experiment.train.share)
    for experiment in experiments_of(config):
        experiment.replicates = 2
        made = "train" in experiment.data.options
        experiment.data.update(validation=30, train_examples=0 if made else 120)
        experiment.train.update(steps=4, eval_every=2, batch_size=16, share=40 * share)
        experiment.optimizer.warmup = min(experiment.optimizer.warmup, 1)
        for options in (experiment.model.options, experiment.data.options):
            options.update({name: few for name, few in FEWER.items() if name in options})
    if "conv" in config:
        config.conv.model.options.width = 4
        config.conv_plain.model.options.stages = ((4, 4, 4),)
    small = {
        "late": 2,
        "children": 2,
        "points": 3,
        "seeds": 8,
        "hidden": (2, 4),
        "steps": (4,),
        "further": 2,
        "margin": 0.0,
        "densities": (0.5, 0.2),
        "examples": (30, 40) if isinstance(config.study.get("examples"), tuple) else 20,
        "noises": (0.0, 0.4),
        "halves": (-12, -11),
        "most": 0,
        "curved": 2,
        "members": (2,),
        "temperatures": (2.0,),
        "weights": (0.5,),
        "null_seeds": 2,
        "rounds": 3,
        "pilot_seeds": 2,
        "siblings": 2,
        "batch": 16,
        "draws": 96,
        "tail": 0.25,
        "block": 40,
        "chunk": 8,
        "widths": (64, 128),
    }
    config.study.update({k: v for k, v in small.items() if k in config.study})
    if "halves" in config.study:
        config.study.steps = (4, 8)
    if "rates" in config.study:
        config.study.rates = config.study.rates[:3]
    return config


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(claim, marks=pytest.mark.slow if claim in QUICK else pytest.mark.exhaustive)
        for claim in STUDIES
        if claim != "C1"
    ],
)
def test_the_full_size_runs_from_end_to_end(claim, tmp_path, prepared, files):
    one = STUDIES[claim]
    config = shortened(one.get_config("full"))
    if config.experiment.data.name == "mnist" and not MNIST.is_dir():
        pytest.skip("MNIST's files are not there")
    with runner_in(tmp_path) as runner:
        runner.machine.update(manual_dir=files, data_dir=prepared)
        evidence = one.gather(runner, config)
    assert runner.dataset(config).name == DATA.get(claim, "mnist")
    for part in evidence.primaries:
        assert np.isfinite(part.values).all(), part.name
    one.draw(evidence.rows)
