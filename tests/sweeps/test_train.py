"""Experiments without a config train as one population, and leave runs."""

import flax.linen as nn
import numpy as np
import optax
import pytest

from lth_jax import keys, store
from lth_jax.lottery import Seeds, Task, imp, make_experiment, make_ladder
from lth_jax.report.sweeps import read_sweep
from lth_jax.store import garbage
from lth_jax.sweeps import Job, PlanError, PlanOptions, finished, groups, train


@pytest.fixture(scope="module")
def jobs():
    """One network at two learning rates and two depths."""
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    data = (x, (x[:, 0] > 0).astype(int))
    task = Task(
        nn.Dense(2),
        data,
        optimizer=lambda h: optax.sgd(h["learning_rate"]),
        hyper={"learning_rate": 0.1},
        batch_size=4,
        steps=10,
    )
    found = []
    for rate in (0.1, 0.3):
        for levels in (1, 2):
            own = task.replace(hyper={"learning_rate": rate})
            ladder = make_ladder(own, imp(levels=levels))
            experiment = make_experiment(own, Seeds(keys.from_seed(0), 2), ladder)
            setting = {"learning_rate": rate, "levels": levels}
            found.append(Job(setting, "cell", setting, experiment))
    return found


@pytest.mark.slow
def test_jobs_train_as_one_population_and_are_read_again(jobs, tmp_path):
    [group] = groups(jobs)
    assert group.sizes == [4, 4, 4]  # both depths share the dense networks and level 1
    options, calls = PlanOptions(4, "scan", 1), []

    def again():
        return train(
            tmp_path, "rates", jobs, options=options, progress=False,
            on_start=lambda left, todo: calls.append((len(left), len(todo))),
        )  # fmt: skip

    assert again().path == again().path
    assert calls == [(4, 1), (0, 0)] and all(finished(tmp_path, jobs))
    rows = read_sweep(store.Store(tmp_path), again().path).rows
    accuracy = [row for row in rows if row["metric"] == "test_accuracy_final"]
    assert len(accuracy) == 2 * (2 * 2 + 2 * 3)  # rates, seeds of the dense network and tickets
    assert {row["run"] for row in rows} == {job.run for job in jobs}
    found = garbage.remove_sweep(store.Store(tmp_path), again().path)
    assert found == ([job.run for job in jobs], [], [])  # all are its own


def test_a_plan_for_other_devices_is_a_plan_error(jobs, tmp_path):
    with pytest.raises(PlanError, match="devices"):
        train(tmp_path, "rates", jobs, options=PlanOptions(3, "scan", 2), progress=False)


def test_settings_are_not_named_like_other_columns(jobs, tmp_path):
    named = [job._replace(setting={"run": i}) for i, job in enumerate(jobs)]
    with pytest.raises(ValueError, match=r"`setting` of a job has the name 'run'.*run, arm, level"):
        train(tmp_path, "rates", named, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("which", ["sweep", "job"])
def test_names_that_no_folder_may_have_are_refused_before_training(jobs, tmp_path, which):
    bad = [jobs[0]._replace(name="lr 0.1")] if which == "job" else jobs[:1]
    with pytest.raises(ValueError, match="`name` must be letters, digits"):
        train(tmp_path, "a/b" if which == "sweep" else "a", bad, options=PlanOptions(4, "scan", 1))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("later", [4, 0])
def test_a_sweep_keeps_the_plan_of_its_first_call(jobs, tmp_path, later):
    """Its nodes are found again when the option `chunk` of a later call differs."""
    old = jobs[0].experiment
    ladder = make_ladder(old.task, imp(levels=1), controls=("reinit",))
    job = jobs[0]._replace(experiment=make_experiment(old.task, old.seeds, ladder))
    assert groups([job])[0].sizes == [2, 4]  # the dense networks fit a narrower chunk
    first = PlanOptions(4 - later, "scan", 1)
    train(tmp_path, "a", [job], options=first, progress=False)
    nodes = set(store.Store(tmp_path).keys())
    garbage.remove_run(tmp_path / job.run)
    train(tmp_path, "a", [job], options=first._replace(chunk=later), progress=False)
    assert set(store.Store(tmp_path).keys()) == nodes
