"""Networks retrained from given weights: a run's own again, kept, found and refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax import lottery, trees
from lth_jax.lottery import retraining, starts
from lth_jax.measures.overlap import member_kappas
from lth_jax.population import Plan, planning
from lth_jax.pruning.criteria import magnitude
from lth_jax.pruning.masks import prunable_leaves
from lth_jax.pruning.one_shot import at_count, largest_weights
from lth_jax.pruning.prune import prune
from lth_jax.pruning.scopes import layerwise
from lth_jax.store import StoreError
from tests.lottery.test_run import Net, X, Y, run, task

PLAN = Plan(2)
KEY = jax.random.key(0)
PARAMS = {
    "Dense_0": {"kernel": np.ones((5, 2), np.float32), "bias": np.ones(2, np.float32)},
    "Dense_1": {"kernel": np.ones((6, 5), np.float32), "bias": np.ones(5, np.float32)},
}
MASK = jax.tree.map(lambda leaf: leaf > 0, PARAMS)
START = lottery.Start(PARAMS, MASK, KEY)
SHARED = pytest.param(True, marks=pytest.mark.slow)


@pytest.mark.parametrize("shared_order", [False, SHARED])
@pytest.mark.slow
def test_networks_retrained_as_they_began_are_the_runs_own(shared_order, tmp_path, monkeypatch):
    result = run(shared_order=shared_order, controls=("shuffle",), levels=1)
    places = [("dense", 0), ("ticket", 1), ("shuffle", 1)]
    starts = [one for arm, level in places for one in result.starts(level, arm=arm)]
    own = [one for arm, level in places for one in result.tickets(level, arm=arm)]
    again = lottery.retrain(task(), starts, plan=PLAN, store=tmp_path)
    for one, network in zip(again.networks(), own, strict=True):
        for leaf, value in trees.to_named(network.trained).items():
            np.testing.assert_allclose(one.params[leaf], value, atol=1e-6)
    monkeypatch.setattr(retraining, "train_node", None)  # nothing is trained again
    found = lottery.retrain(task(), starts, plan=PLAN, store=tmp_path)
    jax.tree.map(np.testing.assert_array_equal, tuple(found), tuple(again))
    with pytest.raises(TypeError, match="NoneType"):
        lottery.retrain(task(steps=13), starts, plan=PLAN, store=tmp_path)


@pytest.mark.slow
def test_starts_are_trees_or_named_leaves_with_orders_and_numbers_of_their_own():
    rate = {"learning_rate": 1.0}
    own = task(optimizer=lambda hyper: optax.sgd(hyper["learning_rate"]), hyper=rate)
    params, _ = own.trainer.model.init(jax.random.key(1), X[:1])
    mask = jax.tree.map(lambda leaf: leaf > 0 if leaf.ndim > 1 else True, params)
    tree = lottery.Start(params, mask, jax.random.key(2))
    named = tree._replace(params=trees.to_named(params), mask=trees.to_named(mask))
    other = tree.reordered(jax.random.key(3))
    still = tree._replace(hyper={"learning_rate": 0.0})
    found = lottery.retrain(own, [tree, named, other, still], plan=Plan(4)).params["Dense_0/kernel"]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[1], found[2])
    kept, before = (np.asarray(part["Dense_0"]["kernel"]) for part in (mask, params))
    assert not found[:, ~kept].any()
    np.testing.assert_array_equal(found[3], before * kept)


@pytest.mark.slow
@pytest.mark.parametrize("busy", [False, True])
def test_a_measured_plan_is_kept_with_the_store(busy, tmp_path, monkeypatch):
    monkeypatch.setattr(planning.clocks, "crowded", lambda *args: busy)
    rate = {"learning_rate": 1.0}
    own = task(optimizer=lambda hyper: optax.sgd(hyper["learning_rate"]), hyper=rate)
    starts = [START.reordered(KEY, order) for order in range(4)]
    found = lottery.retrain(own, starts, store=tmp_path)
    monkeypatch.setattr(retraining, "train_node", None)
    jax.tree.map(np.testing.assert_array_equal, found, lottery.retrain(own, starts, store=tmp_path))


def test_masks_of_one_shot_are_each_networks_own():
    own = task()
    keys = [jax.random.key(i) for i in range(3)]
    points = [trees.to_named(own.trainer.model.init(key, X[:1])[0]) for key in keys]
    starts = [lottery.Start(points[i], {}, keys[i], replicate=i) for i in range(3)]
    like, scope = own.shapes[0], layerwise()
    count = scope.counts(like, 0.5, prunable=prunable_leaves(like))
    pruner = at_count(prune(magnitude(), scope), count)
    root, rows = jax.random.key(0), [np.zeros((3, 2), int)]
    chosen = lottery.one_shot_starts(own, starts, pruner, root, scored=points, rows=rows)
    masks = trees.stack([start.mask for start in chosen])
    alike = largest_weights(trees.stack(points), 0.5)
    np.testing.assert_array_equal(member_kappas(masks, alike), 1.0)
    for start in chosen:
        assert not any(start.params[leaf][~kept].any() for leaf, kept in start.mask.items())


@pytest.mark.parametrize(
    ("starts", "plan", "sentence"),
    [
        ([], PLAN, "`starts` is empty"),
        ([START], "fast", "`plan` is 'fast'"),
        (
            [START, START._replace(params=PARAMS["Dense_0"])],
            PLAN,
            r"`starts\[1\].params` has leaves",
        ),
        (
            [START._replace(mask={"Dense_0": MASK["Dense_0"]})],
            PLAN,
            r"`starts\[0\].mask` has leaves",
        ),
        (
            [START._replace(mask=PARAMS)],
            PLAN,
            r"`starts\[0\].mask` at 'Dense_0/bias' has dtype float32",
        ),
        ([START._replace(data_key=0)], PLAN, r"`starts\[0\].data_key` must be a typed"),
        ([START._replace(hyper={"learning_rate": 1.0})], PLAN, "'learning_rate', which the task's"),
    ],
)
def test_mistakes_are_refused_before_any_work(starts, plan, sentence, monkeypatch):
    monkeypatch.setattr(retraining, "train_node", None)
    with pytest.raises((ValueError, TypeError), match=sentence):
        lottery.retrain(task(), starts, plan=plan)


def test_rows_of_a_replicate_are_its_share():
    assert task().own_rows(3) == slice(0, len(task().data.train.y))
    shared = lottery.Task(
        Net(), (X, Y), optimizer=optax.sgd(0.1), batch_size=8, steps=2, examples_per_replicate=10
    )
    assert shared.own_rows(3) == slice(30, 40)


@pytest.mark.slow
def test_starts_that_a_run_does_not_have_are_refused():
    result = run(controls=("reinit", "shuffle"), levels=1)
    assert len(result.starts(1, arm="shuffle")) == len(result.starts(0, arm="dense"))
    with pytest.raises(ValueError, match="`arms` holds 'reinit', which has other initial weights"):
        result.starts(1, arm="reinit")
    with pytest.raises(StoreError, match="has no arm 'shufle' at level 1; it has 'dense' at level"):
        result.starts(1, arm="shufle")
    with pytest.raises(StoreError, match="has no arm 'ticket' at level 2"):
        result.starts(2)


def test_half_precision_starts_have_fingerprints():
    half = START._replace(params=jax.tree.map(lambda w: jnp.asarray(w, jnp.bfloat16), PARAMS))
    named = [starts.by_name(one) for one in (START, half)]
    assert len({starts.start_fingerprint(one) for one in named}) == 2
