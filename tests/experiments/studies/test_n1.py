"""N1: random tickets are the like of IMP's, and the odds are those of the protocol."""

import jax
import numpy as np
import pytest

from experiments import build
from experiments.studies import n1_lottery_odds as n1
from experiments.studies.common import vary
from lth_jax import keys, trees
from lth_jax.analysis import random_tickets as made
from lth_jax.data import Dataset
from lth_jax.lottery import Start, retrain
from lth_jax.measures.odds import BOUND, MEASURED
from lth_jax.population.placement import Plan
from lth_jax.types import Batch
from tests.experiments.studies.study_runs import runner_in, tiny

COUNTS = {"Dense_0/kernel": 100, "Dense_1/kernel": 30, "Dense_2/kernel": 20}


def small():
    config = tiny(n1.get_config("laptop"), replicates=2)
    config.experiment.prune.update(levels=2, rate=0.3)
    config.experiment.control_levels = (1, 2)
    config.study.update(draws=96, widths=(6, 24), tail=0.25, examples=20, block=40, chunk=8)
    return config


@pytest.fixture(scope="module")
def task():
    config, rng = small(), np.random.default_rng(0)
    split = Batch(rng.normal(size=(128, 40)).astype(np.float32), rng.integers(10, size=128))
    data = Dataset("made", split, split, split, classes=10, fingerprint="")
    return build.task(config.experiment, data)


@pytest.fixture(scope="module")
def starts(task):
    like, found = task.shapes[0], []
    for i in range(2):
        named = trees.to_named(like)
        mask = {
            name: (np.arange(np.prod(leaf.shape)) < COUNTS.get(name, 99)).reshape(leaf.shape)
            for name, leaf in named.items()
        }
        found.append(Start({}, mask, jax.random.key(i), replicate=i))
    return found


def members_of(task, starts):
    of, draw = (grid.ravel() for grid in np.indices((2, 3)))
    return made.random_members(task, keys.from_seed(1), starts, of, draw)


@pytest.mark.slow
def test_random_tickets_keep_the_counts_and_the_order_of_their_models(task, starts):
    members = members_of(task, starts)
    masks = {name: np.asarray(leaf) for name, leaf in trees.to_named(members.mask).items()}
    for name, count in COUNTS.items():
        assert (masks[name].reshape(6, -1).sum(axis=1) == count).all()
        assert len({mask.tobytes() for mask in masks[name]}) == 6  # each at other places
    weights = np.asarray(members.params["Dense_0"]["kernel"])
    assert not weights[~masks["Dense_0/kernel"]].any()
    assert len({one.tobytes() for one in weights}) == 6
    assert members.hyper["replicate"].tolist() == [0, 0, 0, 1, 1, 1]
    order = jax.random.key_data(members.data_key)
    assert (order[:3] == order[0]).all() and (order[3:] != order[0]).any()


@pytest.mark.slow
def test_random_tickets_train_as_retrained_networks_do(tmp_path, monkeypatch, task, starts):
    config = small()
    config.study.update(block=4, chunk=4, draws=3)
    with runner_in(tmp_path) as runner:
        fake = type("Fake", (), {"fingerprint": "made"})
        monkeypatch.setattr(runner, "task", lambda config: task)
        monkeypatch.setattr(runner, "dataset", lambda config: fake)
        found = runner.random_tickets(config, starts)
        monkeypatch.setattr(made.population, "train", None)  # the second call reads
        assert (runner.random_tickets(config, starts) == found).all()
    members = made.random_members(
        task, runner.seeds(config).root, starts, *(g.ravel() for g in np.indices((2, 3)))
    )
    same = [
        Start(
            trees.to_named(trees.index(members.params, i)),
            trees.to_named(trees.index(members.mask, i)),
            members.data_key[i],
            replicate=i // 3,
        )
        for i in range(6)
    ]
    again = retrain(task, same, plan=Plan(6)).results["test_accuracy_final"]
    assert found.ravel() == pytest.approx(100 * again, abs=1)  # one of 128 test examples


@pytest.mark.slow
def test_the_criteria_keep_as_many_weights_as_imp_does(tmp_path):
    config = n1.get_config("laptop")
    task = build.task(config.experiment, _data())
    points = trees.to_named(task.trainer.model.init(jax.random.key(0), np.zeros((1, 40)))[0])
    origin = Start(points, {}, jax.random.key(0))
    ticket = origin._replace(data_key=jax.random.key(5))
    with runner_in(tmp_path) as runner:
        runner.task = lambda config: task
        found = n1._criteria(runner, config, [origin], [ticket], 0.6**6)
    for name, (start,) in found.items():
        kept = {leaf: int(mask.sum()) for leaf, mask in start.mask.items() if mask.ndim == 2}
        assert kept == {"Dense_0/kernel": 60, "Dense_1/kernel": 15}, name
        assert start.data_key == ticket.data_key


def _data():
    rng = np.random.default_rng(0)
    split = Batch(rng.normal(size=(4000, 40)).astype(np.float32), rng.integers(10, size=4000))
    return Dataset("made", split, split, split, classes=10, fingerprint="")


def test_curves_stop_where_a_seed_has_no_number():
    sample = np.random.default_rng(0).uniform(size=(3, 400))
    rows = n1.curves(sample, np.full(3, 1.2), 0.05)
    last = {arm: max(r["points"] for r in rows if r["arm"] == arm) for arm in (MEASURED, BOUND)}
    assert last[MEASURED] < 0.5 < last[BOUND]  # the largest draw is half a point up


def test_odds_grow_by_as_much_for_each_doubling_of_the_width():
    odds = {width: {"ticket": np.array([5.0, 6.0]) + i} for i, width in enumerate((16, 32, 64))}
    *each, growth = n1.widths_compared(odds, delta=5.0)
    assert [part.values[0] for part in each] == [5, 6, 7] and growth.values.tolist() == [1, 1]


@pytest.mark.slow
def test_the_evidence_is_whole(tmp_path):
    config = small()
    config.study.level = 1
    config = vary(config, model__options__features=(12, 10))
    with runner_in(tmp_path) as runner:
        evidence = n1.gather(runner, config)
    for part in (*evidence.primaries, *evidence.secondary):
        assert np.isfinite(part.values).all(), part.name
    assert {row["arm"] for row in evidence.rows if row["metric"] == n1.ODDS} == {*n1.PROTOCOL.arms}
    widths = {(row["width"], row["arm"]) for row in evidence.rows if row["metric"] == n1.BY_WIDTH}
    assert widths == {(w, arm) for w in (6, 12, 24) for arm in ("ticket", "reinit", "shuffle")}
    assert len({tuple(row) for row in evidence.rows}) == 1  # a table has the first row's columns
    n1.draw(evidence.rows)
