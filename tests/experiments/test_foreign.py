"""Networks of every framework, named in a config, through all commands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments import frontier, latency, measure, runner, spectrum, sweep
from lth_jax import grid as h
from lth_jax import store as stores
from lth_jax import structure as st
from lth_jax.cli.programs import UserError
from lth_jax.models import as_model
from lth_jax.report import read_run
from tests import foreign
from tests.experiments import tiny
from tests.thinning import sampled

NAMES = {"linen": "Linen", "nnx": "Nnx", "equinox": "equinox", "haiku": "haiku", "plain": "plain"}
SMALL = {spectrum: ("--k=2", "--steps=8", "--probes=1", "--surface=3", "--points=retrained")}
UNITS = {"granularity": "units", "scope": "layerwise"}


def config_of(workdir, framework, **changes):
    config = tiny.get_config()
    experiment = config.experiment
    experiment.data.update(name="tests.foreign:data", validation=8, train_examples=0)
    experiment.data.options, experiment.model.options = ConfigDict(), ConfigDict()
    experiment.model.name = f"tests.foreign:{NAMES[framework]}"
    experiment.train.update(steps=4, eval_every=2, batch_size=8)
    experiment.prune.levels = 1
    experiment.controls = ()
    experiment.update_from_flattened_dict(changes)
    config.machine.update(workdir=str(workdir), chunk=2, driver="scan", progress=False)
    return config


def command(module, workdir, path):
    return module.main([str(path), f"--root={workdir}", *SMALL.get(module, ())])


@pytest.mark.parametrize(
    ("framework", "prune", "controls", "modules"),
    sampled(
        [
            ("haiku", {}, ("reinit", "shuffle"), (spectrum, measure, frontier)),
            ("haiku", UNITS, ("scratch",), ()),
            ("equinox", UNITS, ("scratch", "random_units"), (spectrum, latency)),
            ("nnx", UNITS, ("scratch",), (latency,)),
            ("plain", UNITS, ("scratch",), ()),
        ],
        3,
    ),
)
def test_a_run_of_a_foreign_network_is_measured(tmp_path, framework, prune, controls, modules):
    changes = {f"prune.{name}": value for name, value in prune.items()}
    path = runner.run(config_of(tmp_path, framework, controls=controls, **changes), ["python"])
    record = read_run(stores.Store(tmp_path), path)
    assert record.arms == ["dense", "ticket", *controls]
    assert [command(module, tmp_path, path) for module in modules] == [0] * len(modules)


@pytest.mark.slow
def test_a_sweep_over_methods_and_rates_trains_each_method_as_a_population(tmp_path):
    config = config_of(tmp_path, "nnx")
    grid = h.product(
        [
            h.sweep("experiment.optimizer.learning_rate", [1e-3, 1e-2]),
            h.sweep("experiment.prune.rate", [0.4, 0.5]),
            h.sweep("experiment.prune.method", ["static", "rigl"]),
        ]
    )
    sweep.run_sweep(config, list(sweep.cells(config, grid)), ["python"])
    assert {run.status for run in stores.list_runs(tmp_path)} == {"finished"}
    assert len(stores.list_runs(tmp_path)) == 8


@pytest.mark.slow
def test_a_regression_is_measured_without_accuracy(tmp_path, capsys):
    own = {"model.name": "tests.experiments.own:Net", "data.name": "tests.experiments.own:outputs"}
    config = config_of(tmp_path, "linen", **own, **{"train.loss": "squared_error"})
    path = runner.run(config, ["python"])
    assert command(measure, tmp_path, path) == 0
    for module in (latency, frontier):
        assert command(module, tmp_path, path) == 2
        assert "has the metrics loss; " in capsys.readouterr().err


def test_criteria_that_look_into_layers_need_linen(tmp_path):
    config = config_of(tmp_path, "nnx", **{"prune.criterion": "wanda", "prune.examples": 8})
    with pytest.raises(UserError, match="available for Linen modules only"):
        runner.run(config, ["python"])


@pytest.mark.parametrize("framework", NAMES)
def test_from_scratch_every_kernel_is_drawn_by_the_inputs_that_are_left(framework):
    """Half of the hidden units: the last kernel's deviation grows by √2, the first stays."""
    network = as_model(foreign.NETWORKS[framework]())
    x, _ = foreign.data(2)
    params, state = network.init(jax.random.key(0), x)
    found = st.find_groups(
        lambda params, x: network.apply(params, state, x, train=False)[0], params, jnp.asarray(x)
    )
    [group] = found.groups
    mask = st.expand(found, {group.name: jnp.arange(group.units) < group.units // 2})
    layouts = network.layouts(x) if network.layouts else {}
    may, fan = st.prunable(found), st.fan_of(None)
    scaled = st.rescale(params, mask, may, fan, layouts=layouts)
    factors = jax.tree.map(
        lambda a, b: np.unique(
            np.round(np.asarray(a, float)[b != 0] / np.asarray(b)[b != 0], 4)
        ).tolist(),
        scaled,
        params,
    )
    moved = [f for f in jax.tree.leaves(factors, is_leaf=lambda f: isinstance(f, list)) if f]
    assert moved.count([1.4142]) == 1 and moved.count([1.0]) == len(moved) - 1
