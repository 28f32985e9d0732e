"""What is measured of networks: of a run that trained, and of each kind as it begins."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments import build, measure, runner
from experiments.configs import base
from lth_jax import report, trees
from lth_jax import store as stores
from lth_jax.analysis.behaviour import Instrument
from lth_jax.coding.stored import Stored
from lth_jax.report import behaviour
from tests.experiments import tiny


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A finished run on a planted ticket."""
    config = tiny.get_config()
    config.machine.workdir = str(tmp_path_factory.mktemp("runs"))
    experiment = config.experiment
    experiment.data.update(name="planted", validation=0)
    experiment.data.options = ConfigDict({"hidden": 4, "train": 300, "test": 90})
    experiment.data.train_examples = 0
    experiment.model.options = ConfigDict({"features": (8, 4)})
    experiment.prune.levels, experiment.controls = 1, ("random",)
    return runner.run(config, [])


@pytest.mark.slow
def test_a_run_is_measured_once_and_drawn(planted, capsys):
    command = [planted.name, "--root", str(planted.parent), "--examples", "90"]
    assert measure.main(command) == 0 == measure.main(command)
    assert str(planted) in capsys.readouterr().out
    shelf = stores.Store(planted.parent)
    found = behaviour.read(shelf, planted)
    run = report.read_run(shelf, planted)
    [accuracies] = [level.results["test_accuracy_final"] for level in run.levels if not level.level]
    np.testing.assert_allclose(found.scores["accuracy/0"][:2], accuracies, atol=1e-6)
    losses = run.levels[0].results["test_loss_final"]
    np.testing.assert_allclose(found.scores["nll"][:2], losses, rtol=1e-5)
    assert found.scores["recovered"][0] == 1.0 > found.scores["recovered"][2:].max()
    assert 0 < found.scores["recovered_by_chance"][2:].min() < 1
    page = (planted / "report" / "index.html").read_text()
    assert all(f"figures/{name}.svg" in page for name in ("recovery", "confusion"))
    assert "<em>Calibration</em>" in page  # not drawn: one pruned level is one point of a line
    assert (planted / "report" / "data" / "behaviour.csv").exists()


def subject_of(model, options, data, data_options, tmp_path):
    """An instrument for an experiment, and a network of it that was never trained."""
    config = base.ladder()
    config.machine.data_dir = str(tmp_path)
    experiment = config.experiment
    experiment.data.update(name=data, validation=0, options=ConfigDict(data_options))
    experiment.train.update(batch_size=4)
    experiment.model.name, experiment.model.options = model, ConfigDict(options)
    loaded = build.dataset(config)
    task = build.task(experiment, loaded)
    instrument = Instrument(task, 8, loaded.groups.get("test"))
    params, state = task.trainer.model.init(jax.random.key(0), task.data.test.x[:1])
    named = [trees.to_named(jax.tree.map(np.asarray, tree)) for tree in (params, state)]
    mask = {name: np.ones(leaf.shape, bool) for name, leaf in named[0].items()}
    return instrument, instrument.subject(
        Stored("dense", 0, 0, 1.0, None, "", "", mask, *named, dict.fromkeys(mask, True))
    )


TOKENS = {"symbols": 5, "delay": 3, "train": 20, "test": 12}
SEQUENCE = {"width": 8, "vocabulary": 5, "classes": 5}


def kinds(scores):
    return {name.partition("/")[0] for name in scores}


USUAL = {"ece", "nll", "brier", "gradient_norm"}


@pytest.mark.slow
def test_attention_of_every_head_is_looked_at(tmp_path):
    options = {**SEQUENCE, "layers": 1, "heads": 2, "hidden": 8, "every_step": False}
    look, network = subject_of("transformer_decoder", options, "delayed_recall", TOKENS, tmp_path)
    scores = look.scores(network)
    assert kinds(scores) == USUAL | {"attention_entropy", "head_importance"}
    spread = [v for name, v in scores.items() if name.startswith("attention_entropy/")]
    assert len(spread) == 2 and all(0.5 < v <= 1 for v in spread)  # untrained: nearly even
    assert look.confusions(network).shape == (1, 5, 5) and look.confusions(network).sum() == 8


@pytest.mark.slow
def test_recurrent_matrices_begin_orthogonal(tmp_path):
    look, network = subject_of("gru", SEQUENCE, "delayed_recall", TOKENS, tmp_path)
    scores = look.scores(network)
    assert kinds(scores) == USUAL | {"spectral_radius"}
    radii = [v for name, v in scores.items() if name.startswith("spectral_radius/")]
    np.testing.assert_allclose(radii, [1.0, 1.0, 1.0], rtol=1e-5)


def test_inactive_units_are_counted_and_groups_are_separate(tmp_path):
    data = {"train": 20, "test": 12, "features": 3}
    look, network = subject_of("mlp", {"features": (4, 2)}, "grouped", data, tmp_path)
    layer = network.params["Dense_0"]
    off = layer | {"bias": np.where(np.arange(4) < 3, -100.0, layer["bias"])}
    scores = look.scores(network._replace(params=network.params | {"Dense_0": off}))
    assert scores["dead_units/Dense_0"] == 0.75
    assert kinds(scores) == USUAL | {"dead_units"}
    counts = look.confusions(network)
    assert counts.shape[0] == len(np.unique(look.groups)) and counts.sum() == 8


@pytest.mark.slow
def test_a_number_of_examples_below_1_is_refused(planted, capsys):
    command = [planted.name, "--root", str(planted.parent), "--examples", "0"]
    assert measure.main(command) == 2
    assert "`--examples` is 0; it must be an integer" in capsys.readouterr().err
