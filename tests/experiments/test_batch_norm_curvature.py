"""A small residual network with BatchNorm through every command that measures curvature."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments import learning_rates, runner, spectrum, stability
from lth_jax import store
from lth_jax.analysis.spectrum import MODES
from lth_jax.analysis.stability import RENEWAL, renewal_of
from lth_jax.coding.stored import read_stored
from lth_jax.store.analyses import analyses
from lth_jax.types import Batch
from tests.experiments import tiny

STEPS = 20


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = tiny.get_config()
    experiment = config.experiment
    experiment.name = "resnet8"
    experiment.data.update(train_examples=60, validation=60)
    experiment.model.name = "resnet"
    experiment.model.options = ConfigDict({"blocks": (1, 1, 1), "width": 4})
    experiment.train.update(steps=STEPS, eval_every=10, batch_size=30)
    experiment.optimizer.update(name="sgd", learning_rate=0.05, momentum=0.0)
    experiment.prune.update(rate=0.5, levels=1)
    experiment.controls = ("random",)
    config.machine.workdir = str(tmp_path_factory.mktemp("runs"))
    return config


@pytest.fixture(scope="module")
def run(config):
    return runner.run(config, ["python", "-m", "experiments.run"])


def nodes(run, kind):
    shelf = store.Store(run.parent)
    return [(entry["labels"], shelf.read(entry["key"])) for entry in analyses(run, kind)]


@pytest.mark.slow
def test_spectra_differ_by_the_mode_of_the_statistics(run):
    options = ["--examples=30", "--steps=12", "--k=1", "--probes=2", "--surface=0", "--levels=1"]
    top = {}
    for mode in MODES:
        words = [*options, f"--mode={mode}", "--arms=ticket", "--points=retrained"]
        assert spectrum.main([run.name, "--root", str(run.parent), *words]) == 0
        labels, node = nodes(run, "spectrum")[-1]
        assert (labels["arm"], labels["point"]) == ("ticket", "retrained")
        one = next(read_stored(store.Store(run.parent), run, ("ticket",)))
        assert node.meta["size"] == sum(int(leaf.sum()) for leaf in one.mask.values())
        top[mode] = float(node.arrays["largest"][0])
    assert top["train"] > 0 and abs(top["train"] - top["evaluate"]) > 1e-2 * top["train"]


@pytest.mark.exhaustive
def test_learning_rates_are_swept(run):
    words = ["--rates=0.01,0.05", "--examples=30"]
    assert learning_rates.main([run.name, "--root", str(run.parent), *words]) == 0
    found = nodes(run, "learning_rates")
    assert {labels["arm"] for labels, _ in found} == {"dense", "ticket", "random"}
    for _, node in found:
        assert np.isfinite(node.arrays["relative_sharpness"]).all()
        assert not node.meta["unmeasured"]
        assert (node.arrays["start_edge"] > 0).all()


@pytest.mark.exhaustive
def test_children_of_one_start_have_statistics_of_their_own_along_the_line(config):
    page = stability.analyse_all(config, (0,), levels=(0,), points=3)
    [(_, node)] = nodes(page.parent.parent, "stability")
    loss = node.arrays["train_loss"]
    assert loss.shape == (2, 1, 3) and np.isfinite(loss).all()
    assert (np.ptp(loss, axis=-1) > 0).all()


def test_few_data_are_shown_again():
    few = Batch(np.arange(5), np.arange(5))
    renewal = renewal_of(few, 3)
    assert renewal.x.shape == (RENEWAL, 3)
    assert renewal.x[:3].ravel().tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
