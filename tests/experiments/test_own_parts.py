"""A user's own network, data, loss, criterion, method and control, named in a config."""

import inspect

import pytest
from ml_collections import ConfigDict

from experiments import build, checks, runner, sweep
from experiments.groups import Sharing, jobs
from lth_jax import grid as h
from lth_jax import store as stores
from lth_jax.cli.programs import UserError
from lth_jax.lottery.running import run_identity
from lth_jax.report import read_run
from lth_jax.sweeps import groups
from tests.experiments import own, tiny

HERE = "tests.experiments.own:"
LAST = inspect.getsource(own).count("\n")  # a line that raises KeyError


def config_of(workdir=None, **changes):
    """A small config of own network and data."""
    config = tiny.get_config()
    experiment = config.experiment
    experiment.data.update(name=f"{HERE}data", validation=8, train_examples=0)
    experiment.data.options = ConfigDict()
    experiment.model.name = f"{HERE}Net"
    experiment.model.options = ConfigDict({"width": 4})
    experiment.train.update(steps=6, eval_every=3, batch_size=8)
    experiment.prune.levels = 1
    experiment.controls = ()
    experiment.update_from_flattened_dict(changes)
    config.machine.update(chunk=2, driver="scan", progress=False)
    if workdir is not None:
        config.machine.workdir = str(workdir)
    return config


def experiment_of(workdir, **changes):
    config = config_of(workdir, **changes)
    checks.check(config.experiment)
    return build.experiment_of(config.experiment, build.dataset(config))


def run(workdir, **changes):
    path = runner.run(config_of(workdir, **changes), ["python"])
    return read_run(stores.Store(workdir), path)


def test_own_network_and_data_train(tmp_path):
    record = run(tmp_path)
    assert record.arms == ["dense", "ticket"]
    assert "test_accuracy_final" in record.levels[1].results


@pytest.mark.slow
@pytest.mark.parametrize("name", ["NnxNet", "eqx_net"])
def test_networks_of_other_frameworks_train(tmp_path, name):
    assert (
        run(tmp_path, **{"model.name": HERE + name, "controls": ("reinit",)}).arms[-1] == "reinit"
    )


@pytest.mark.slow
def test_everything_can_be_ones_own(tmp_path):
    record = run(
        tmp_path,
        **{
            "data.name": f"{HERE}outputs",
            "train.loss": f"{HERE}huber",
            "train.metrics": (f"{HERE}largest_error",),
            "optimizer.name": f"{HERE}sgd",
            "optimizer.schedule": f"{HERE}halves",
            "prune.criterion": f"{HERE}gradient",
            "prune.examples": 8,
            "prune.scope": f"{HERE}everywhere",
            "prune.schedule": f"{HERE}thirds",
            "prune.method": f"{HERE}slow_rigl",
            "prune.retrain": True,
            "controls": (f"{HERE}negated", "shuffle"),
            "control_levels": (2,),
        },
    )
    assert record.arms == ["dense", "ticket", "negated", "shuffle"]
    last = record.levels[2]
    assert {"test_loss_final", "test_largest_error_final"} <= last.results.keys()
    assert last.density == record.levels[1].density == pytest.approx(2 / 3, abs=0.02)


def test_a_function_that_is_changed_under_its_name_is_another_run(tmp_path, monkeypatch):
    def key():
        planned = experiment_of(tmp_path, **{"prune.criterion": f"{HERE}largest"})
        return run_identity(planned)["arms"]["ticket"]

    first, plain = key(), own.largest
    monkeypatch.setattr(own, "largest", lambda params, mask, **_: plain(params, mask))
    assert key() == first  # it computes the same
    monkeypatch.setattr(own, "largest", lambda params, mask, **_: params)
    assert key() != first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.name": "no_package:Net"}, "`model.name` is 'no_package:Net', which cannot be imp"),
        ({"model.name": f"{HERE}Absent"}, "`model.name` is .*Absent', which cannot be imported"),
        ({"model.name": f"{HERE}broken"}, "`model.name` is .*broken', .* ValueError: no such wid"),
        ({"model.name": f"{HERE}Net", "model.options": ConfigDict({"depth": 3})}, "depth"),
        ({"model.name": "mlpp"}, "`model.name` is 'mlpp'; did you mean 'mlp'"),
        ({"data.name": f"{HERE}halves"}, "`data.name` is .*, which fails"),
        ({"prune.criterion": f"{HERE}everywhere2"}, "`prune.criterion` is .*everywhere2'"),
        ({"prune.scope": f"{HERE}thirds"}, "`prune.scope` is .*thirds', which fails"),
        ({"prune.method": "rig"}, "`prune.method` is 'rig'; did you mean 'rigl'"),
        ({"prune.method": "rigl", "prune.method_options": ConfigDict({"pace": 1})}, "pace"),
        ({"train.loss": "l2"}, "`train.loss` is 'l2'"),
        ({"train.loss": f"{HERE}one_number"}, "`loss` must return one value per example"),
        (
            {"data.name": f"{HERE}data", "data.options": ConfigDict({"exmples": 60})},
            "an option of `data.options` is 'exmples'; did you mean 'examples'",
        ),
        (
            {"data.name": f"{HERE}absent"},
            r"`data.name` is .*absent', which fails: FileNotFoundError: .*nowhere.*\(.*own.py, ",
        ),
        (
            {"data.name": f"{HERE}holed"},
            r"`data.name` is .*holed': `train` has inputs that .* in example 7 at \(2,\)",
        ),
        (
            {"model.name": f"{HERE}Careless"},
            r"`model.name` is .*Careless', which fails: AttributeError: .*column.* \(.*own.py, ",
        ),
        (
            {"train.loss": f"{HERE}careless"},
            rf"`train.loss` is .*careless', .*: KeyError: 'scale' \(.*own.py, line {LAST}\)\.$",
        ),
        (
            {"train.metrics": (f"{HERE}careless",)},
            r"`train.metrics` is .*careless', which fails: KeyError: 'scale'",
        ),
        (
            {"prune.method": "gradual", "controls": ("reinit", "shuffle", "random")},
            "`controls` includes shuffle and random, but at level 1 `prune.method=gradual` starts",
        ),
        ({"prune.final": 0.05}, "`prune.final` is 0.05, which `prune.schedule=geometric` does not"),
    ],
)
def test_parts_that_cannot_be_right_are_named(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        runner.run(config_of(tmp_path, **changes), ["python"])


@pytest.mark.slow
def test_methods_are_swept_and_cells_of_one_method_are_one_population(tmp_path):
    config = config_of(tmp_path, **{"prune.method": "gradual"})
    cells = list(
        sweep.cells(
            config,
            h.product(
                [
                    h.sweep("experiment.prune.method", ["gradual", "rigl"]),
                    h.sweep("experiment.prune.rate", [0.3, 0.5]),
                ]
            ),
        )
    )
    found = groups(jobs(cells, Sharing()))
    assert sorted(len(group.jobs) for group in found) == [2, 2]
    sweep.run_sweep(config, cells, ["python"])
    for _, cell in cells:
        assert runner.run(cell, ["python"]).is_dir()  # each is already finished
