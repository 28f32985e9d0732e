"""Distillation and averaged weights by config, from runs that trained."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments import build, runner
from experiments.groups import Sharing, jobs
from lth_jax import store as stores
from lth_jax.cli.programs import UserError
from lth_jax.coding.stored import read_stored
from lth_jax.population.segment import training_batch
from lth_jax.sweeps import groups
from tests.experiments import tiny


def config_in(workdir, **experiment):
    config = tiny.get_config()
    config.machine.workdir = str(workdir)
    config.experiment.prune.levels = 1
    config.experiment.controls = ("random",)
    config.experiment.update_from_flattened_dict(experiment)
    return config


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return runner.run(config_in(tmp_path_factory.mktemp("runs")), [])


def taught(teacher, **experiment):
    named = {"train.distill.teacher": teacher.name, **experiment}
    return config_in(teacher.parent, name="student", **named)


def networks(folder):
    """`{(arm, replicate): weights}` at the end of training."""
    found = read_stored(stores.Store(folder.parent), folder, ("dense", "ticket", "random"))
    return {(one.arm, one.replicate): one.params["Dense_0/kernel"] for one in found}


@pytest.mark.slow
def test_without_weight_a_taught_run_is_a_plain_one(teacher):
    student = runner.run(taught(teacher, **{"train.distill.weight": 0.0}), [])
    plain, found = networks(teacher), networks(student)
    assert plain.keys() == found.keys() and student != teacher
    for one, weights in plain.items():
        np.testing.assert_allclose(found[one], weights, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["all", "own"])
def test_the_teachers_are_the_dense_networks_of_the_run(teacher, who):
    config = taught(teacher, **{"train.distill.who": who, "train.distill.weight": 1.0})
    task = build.task(config.experiment, build.dataset(config))
    dense = list(read_stored(stores.Store(teacher.parent), teacher, ("dense",)))
    [own] = [one for one in dense if one.replicate == 1]
    asked = dense if who == "all" else [own]
    rows, x = np.array([5, 2]), np.asarray(task.data.train.x)
    hyper = {name: np.float32(value) for name, value in task.hyper.items()}
    member = Anybody(jax.random.key(0), {**hyper, "replicate": np.int32(1)})
    batch = training_batch(task.trainer, member, task.data.train, rows, 0)
    for logits, one in zip(batch.y.logits, asked, strict=True):
        hidden = x[rows].reshape(2, -1) @ one.params["Dense_0/kernel"] + one.params["Dense_0/bias"]
        wanted = np.maximum(hidden, 0) @ one.params["Dense_1/kernel"] + one.params["Dense_1/bias"]
        np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)


class Anybody:
    """The fields of a member that a lesson reads."""

    def __init__(self, data_key, hyper):
        self.data_key, self.hyper = data_key, hyper


@pytest.mark.slow
def test_other_teachers_are_other_constants_of_one_program(teacher):
    other = runner.run(config_in(teacher.parent, name="other", seed=1), [])
    sharing = Sharing()
    cells = [({"name": one.name}, taught(one)) for one in (teacher, other)]
    found = groups(jobs(cells, sharing))
    assert len(found) == 2 and len(sharing.programs) == 1
    first, second = (group.jobs[0].experiment.identity for group in found)
    assert first.training == second.training and first.constants != second.constants


@pytest.mark.slow
def test_unlabelled_examples_are_new_and_add_to_each_batch(teacher):
    changes = {"data.unlabelled": 800, "train.distill.unlabelled": 7}
    config = taught(teacher, **changes)
    loaded, plain = build.dataset(config), build.dataset(config_in(teacher.parent))
    np.testing.assert_array_equal(loaded.train.x, plain.train.x)  # what the teachers learnt from
    assert loaded.answers["unlabelled"].shape == (2, 800, 10)
    assert loaded.fingerprint != plain.fingerprint
    seen = {x.tobytes() for part in (plain.train, plain.validation) for x in part.x}
    assert not seen & {x.tobytes() for x in loaded.unlabelled}
    task = build.task(config.experiment, loaded)
    member = Anybody(jax.random.key(0), {**task.hyper, "replicate": 0})
    batch = training_batch(task.trainer, member, task.data.train, np.arange(20), 0)
    assert batch.x.shape == (27, 8, 8, 1) and batch.y.weight.tolist() == [0.5] * 20 + [1.0] * 7


@pytest.mark.slow
def test_a_run_of_averaged_weights_keeps_what_it_tested(teacher):
    """Averaging the last step alone is no averaging; over more steps it is another network."""
    last = runner.run(config_in(teacher.parent, name="mean", **{"train.average.start": 30}), [])
    more = runner.run(config_in(teacher.parent, name="mean", **{"train.average.start": 10}), [])
    plain, same, mean = map(networks, (teacher, last, more))
    np.testing.assert_allclose(same["dense", 0], plain["dense", 0], atol=1e-6)
    assert np.abs(mean["dense", 0] - plain["dense", 0]).max() > 1e-3
    kept = mean["ticket", 0] != 0
    assert kept.mean() < 0.6 and mean["ticket", 0].shape == plain["ticket", 0].shape


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.distill.teacher": "nobody"}, "nobody"),
        (
            {"train.distill.weight": 1.5},
            r"`train.distill.weight` is 1.5; .* number in \[0, 1\]",
        ),
        (
            {"train.distill.temperature": 0.0},
            r"`train.distill.temperature` is 0.0; .* number in \(0,",
        ),
        ({"train.distill.who": "some"}, "`train.distill.who` is 'some'"),
        ({"train.distill.unlabelled": 5}, "needs `train.distill.teacher` and `data.unlabelled`"),
        ({"train.distill.who": "own", "replicates": 3}, "has 2 dense networks for 3 replicates"),
        (
            {"train.mixup": 0.5},
            r"`train\.distill\.teacher` needs unchanged examples; set .*`?train\.mixup",
        ),
        ({"data.name": "breast_cancer"}, r"do not accept inputs \(30,\)"),
        ({"train.average.start": 31}, "`train.average.start` is 31; .* `train.steps`, 30"),
        ({"train.average.start": 5, "rewind.step": 5}, "must lie above the rewind step, 5"),
        ({"train.average.every": 0}, "`train.average.every` is 0; it must be an integer in 1"),
    ],
)
def test_what_cannot_be_taught_is_refused(teacher, changes, message):
    with pytest.raises(UserError, match=message):
        runner.run(taught(teacher, **changes), [])


@pytest.mark.slow
def test_an_unfinished_run_cannot_teach(teacher, tmp_path):
    config = config_in(tmp_path)
    with stores.open_run(tmp_path, name="half", config=ConfigDict({"a": 1}).to_dict(), env={}):
        pass
    config.experiment.train.distill.teacher = "half"
    with pytest.raises(
        UserError, match=r"`train.distill.teacher` is 'half'.*run must be finished; half-"
    ):
        runner.run(config, [])


@pytest.mark.slow
def test_a_sweep_over_unlabelled_examples_finds_their_answers(teacher):
    cells = [
        ({"n": n}, taught(teacher, **{"data.unlabelled": 40, "train.distill.unlabelled": n}))
        for n in (0, 3)
    ]
    found = jobs(cells, Sharing())
    assert [set(job.experiment.task.trainer.constants) for job in found] == [
        {"answers"},
        {"answers", "unlabelled"},
    ]
