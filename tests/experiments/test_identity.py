"""A run is what its config stands for: changed functions, data and teachers make another one."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import linen as nn

from experiments import build, finished, runner, sweep
from experiments.flags import recorded
from lth_jax import models
from lth_jax import store as stores
from lth_jax.analysis.measurement import AnalysisError, check_unchanged
from lth_jax.coding.stored import read_stored
from lth_jax.lottery.running import run_identity
from tests.experiments import tiny

FLAG = "JAX_USE_SIMPLIFIED_JAXPR_CONSTANTS"


class Net(nn.Module):
    """A user's network, whose activation and width are changed in place."""

    activation = staticmethod(nn.relu)
    width: int = 6

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(self.width)(x.reshape(x.shape[0], -1))
        return nn.Dense(10)(type(self).activation(x))


def config_in(workdir, **experiment):
    config = tiny.get_config()
    config.machine.update(workdir=str(workdir), progress=False)
    config.experiment.replicates = 1
    config.experiment.prune.levels = 0
    config.experiment.controls = ()
    config.experiment.train.update(steps=4, eval_every=4)
    config.experiment.update_from_flattened_dict(experiment)
    return config


def measured(run):
    machine = config_in(run.parent).machine
    machine.update(data="device")
    result = finished.open_finished(machine, run.name).result
    check_unchanged(result)
    return result


@pytest.mark.slow
def test_a_registered_network_that_is_changed_is_another_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(models.NETWORKS, "mine", Net)
    monkeypatch.setattr(runner, "write_report", lambda *_: "")  # which takes the longest
    config = config_in(tmp_path)
    config.experiment.model.name, config.experiment.model.options = "mine", {}

    def run():
        return runner.run(config, ["python"])

    first = run()
    assert measured(first).program == json.loads((first / "identity.json").read_text())["training"]
    monkeypatch.setattr(Net, "activation", staticmethod(nn.gelu))
    with pytest.raises(AnalysisError, match=f"{first.name} was trained with another network"):
        measured(first)
    second = run()
    monkeypatch.setitem(models.NETWORKS, "mine", functools.partial(Net, width=7))
    third = run()
    assert len({first, second, third}) == 3
    assert "is already finished" not in capsys.readouterr().out
    monkeypatch.setitem(models.NETWORKS, "mine", Net)
    monkeypatch.setattr(Net, "activation", staticmethod(nn.relu))
    assert run() == first
    assert f"{first.name} is already finished" in capsys.readouterr().out
    assert {info.status for info in stores.list_runs(tmp_path)} == {"finished"}


def students(teachers, **experiment):
    """A sweep over two teachers, whose weight is all of the loss."""
    field = "experiment.train.distill.teacher"
    for name in teachers:
        changes = {"train.distill.teacher": name, "train.distill.weight": 1.0, "name": "student"}
        yield {field: name}, config_in(teachers[name].parent, **changes, **experiment)


def weights(folder):
    [one] = read_stored(stores.Store(folder.parent), folder, ("dense",))
    return one.params["Dense_0/kernel"]


def main(workdir):
    """Trains two teachers, then a student of each, in a sweep and alone in another folder."""
    runs = [runner.run(config_in(workdir / "sweep", seed=seed), []) for seed in (0, 1)]
    cells = list(students({run.name: run for run in runs}, seed=5))
    sweep.run_sweep(cells[0][1], cells, ["python"])
    students_of = {}
    for _, config in cells:
        cell = build.experiment_of(config.experiment, build.dataset(config))
        own = config.experiment
        folder = stores.run_folder(own.name, recorded(own), run_identity(cell))
        students_of[own.train.distill.teacher] = Path(config.machine.workdir) / folder
    alone = {}
    for i, run in enumerate(runs):
        folder = workdir / f"alone {i}"
        teacher = runner.run(config_in(folder, seed=i), [])
        [(_, config)] = students({teacher.name: teacher}, seed=5)
        alone[run.name] = runner.run(config, [])
    found = [[weights(of[run.name]) for run in runs] for of in (students_of, alone)]
    assert np.abs(found[0][0] - found[0][1]).max() > 1e-4
    np.testing.assert_allclose(*found, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("hoisted", ["0", "1"])
def test_a_sweep_over_teachers_trains_each_student_on_its_own(tmp_path, hoisted):
    command = [sys.executable, "-m", "tests.experiments.test_identity", str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": ".", FLAG: hoisted}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    main(Path(sys.argv[1]))
