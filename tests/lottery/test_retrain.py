"""Networks retrained from given weights: a run's own again, kept, found and refused."""

import jax
import numpy as np
import optax
import pytest

from lth_jax import lottery, trees
from lth_jax.lottery import retrain as module
from lth_jax.measures.overlap import member_kappas
from lth_jax.population import Plan
from lth_jax.pruning.criteria import magnitude
from lth_jax.pruning.masks import prunable_leaves
from lth_jax.pruning.one_shot import at_count, largest_weights
from lth_jax.pruning.prune import prune
from lth_jax.pruning.scopes import layerwise
from tests.lottery.test_run import Net, X, Y, run, task

PLAN = Plan(2)


@pytest.fixture(scope="module", params=[False, True], ids=["own order", "shared order"])
def result(request):
    return run(shared_order=request.param)


@pytest.mark.parametrize(("arm", "level"), [("dense", 0), ("ticket", 2), ("shuffle", 1)])
def test_networks_retrained_as_they_began_are_the_runs_own(result, arm, level):
    starts = result.starts(level, arm=arm)
    again = lottery.retrain(task(), starts, plan=PLAN)
    for one, own in zip(again.networks(), result.tickets(level, arm=arm), strict=True):
        for leaf, value in trees.to_named(own.trained).items():
            np.testing.assert_allclose(one.params[leaf], value, atol=1e-6)


def test_trees_and_named_leaves_start_alike_and_a_store_finds_them(tmp_path, monkeypatch):
    own = task()
    params, _ = own.trainer.model.init(jax.random.key(1), X[:1])
    mask = jax.tree.map(lambda leaf: leaf > 0 if leaf.ndim > 1 else leaf == leaf, params)
    tree = lottery.Start(params, mask, jax.random.key(2))
    named = tree._replace(params=trees.to_named(params), mask=trees.to_named(mask))
    other = tree.reordered(jax.random.key(3))
    found = lottery.retrain(own, [tree, named, other], plan=PLAN, store=tmp_path)
    for leaf in jax.tree.leaves(found.params):
        np.testing.assert_array_equal(leaf[0], leaf[1])
    assert not np.array_equal(*found.params["Dense_0/kernel"][1:])
    assert not found.params["Dense_0/kernel"][:, ~np.asarray(mask["Dense_0"]["kernel"])].any()
    monkeypatch.setattr(module, "train_node", None)  # nothing is trained again
    again = lottery.retrain(task(), [tree, named, other], plan=PLAN, store=tmp_path)
    jax.tree.map(np.testing.assert_array_equal, tuple(found), tuple(again))
    with pytest.raises(TypeError, match="NoneType"):
        lottery.retrain(task(steps=13), [tree], plan=PLAN, store=tmp_path)


def test_a_learning_rate_of_its_own_and_a_measured_plan():
    own = task(optimizer=lambda hyper: optax.sgd(hyper["learning_rate"]), steps=2)
    params, _ = own.trainer.model.init(jax.random.key(1), X[:1])
    mask = jax.tree.map(lambda leaf: leaf == leaf, params)
    starts = [
        lottery.Start(params, mask, jax.random.key(2), hyper={"learning_rate": rate})
        for rate in (0.0, 0.1)
    ]
    found = lottery.retrain(own, starts).params["Dense_0/kernel"]
    np.testing.assert_array_equal(found[0], params["Dense_0"]["kernel"])
    assert not np.array_equal(found[0], found[1])


def test_masks_of_one_shot_are_each_networks_own():
    own = task()
    keys = [jax.random.key(i) for i in range(3)]
    points = [trees.to_named(own.trainer.model.init(key, X[:1])[0]) for key in keys]
    starts = [
        lottery.Start(p, {}, k, replicate=i)
        for i, (p, k) in enumerate(zip(points, keys, strict=True))
    ]
    like, scope = own.shapes[0], layerwise()
    pruner = at_count(
        prune(magnitude(), scope), scope.counts(like, 0.5, prunable=prunable_leaves(like))
    )
    root, rows = jax.random.key(0), [np.zeros((3, 2), int)]
    chosen = lottery.one_shot_starts(own, starts, pruner, root, scored=points, rows=rows)
    alike = largest_weights(trees.stack(points), 0.5)
    masks = trees.stack([start.mask for start in chosen])
    np.testing.assert_array_equal(member_kappas(masks, alike), 1.0)
    assert all(
        not start.params[leaf][~m].any() for start in chosen for leaf, m in start.mask.items()
    )


@pytest.mark.parametrize(
    ("starts", "options", "sentence"),
    [
        ([], {}, "`starts` is empty"),
        ([None], {"plan": "fast"}, "`plan` is 'fast'"),
    ],
)
def test_mistakes_are_refused_before_any_work(starts, options, sentence):
    some = [lottery.Start({}, {}, jax.random.key(0)) for _ in starts]
    with pytest.raises(ValueError, match=sentence):
        lottery.retrain(task(), some, **options)


def test_rows_of_a_replicate_are_its_share():
    assert task().own_rows(3) == slice(0, len(task().data.train.y))
    shared = lottery.Task(
        Net(), (X, Y), optimizer=optax.sgd(0.1), batch_size=8, steps=2, examples_per_replicate=10
    )
    assert shared.own_rows(3) == slice(30, 40)
