"""The mean of the weights, for members that begin to average at steps of their own."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax import trees
from lth_jax.landscape import renew_state
from lth_jax.lottery import Splits, node_training
from lth_jax.models import MLP, ResNet
from lth_jax.population import segment
from lth_jax.population.averaging import average_of, averaged, mean_network
from lth_jax.pruning.transforms import mask_slots, masked
from tests.population.tiny import TRAIN, VALIDATION, examples, make_trainer, members_of

STEPS = 9
MASK = {"w": jnp.array([True, False, True])}
START = {"w": jnp.array([1.0, 0.0, -2.0])}


def path(tx):
    """The weights after each step on |w + ½|² from START, and the optimizer's last state."""

    def step(carry, step):
        params, state = carry
        grads = jax.tree.map(lambda w: 2 * w + 1, params)
        updates, state = tx.update(grads, state, params, mask=MASK, step=step)
        params = optax.apply_updates(params, updates)
        return (params, state), params["w"]

    (_, state), weights = jax.lax.scan(step, (START, tx.init(START)), jnp.arange(STEPS))
    return weights, state


@jax.jit
@jax.vmap
def members(start, every):
    weights, state = path(averaged(masked(optax.adam(0.1)), start=start, every=every))
    return weights, average_of(state)["w"]


def test_each_member_averages_by_its_own_numbers():
    starts, everies = jnp.array([1, 3, 9, 2]), jnp.array([1, 2, 5, 7])
    weights, means = members(starts, everies)
    plain, _ = path(masked(optax.adam(0.1)))
    for i, (start, every) in enumerate(zip(starts.tolist(), everies.tolist(), strict=True)):
        np.testing.assert_allclose(weights[i], plain, rtol=1e-6)  # training is not touched
        counted = np.asarray(weights[i], np.float64)[start - 1 :: every]
        np.testing.assert_allclose(means[i], counted.mean(axis=0), rtol=1e-5)
    assert (means[:, 1] == 0).all()  # what is pruned


def test_before_it_begins_the_mean_is_the_latest_weights():
    weights, mean = members(jnp.array([STEPS + 1]), jnp.array([1]))
    np.testing.assert_array_equal(mean[0], weights[0, -1])


def test_where_training_is_set_back_the_mean_begins_anew():
    tx = averaged(optax.sgd(1.0), start=2, every=1)
    w, state = jnp.float32(0.0), None
    state = tx.init(w)
    for step in (0, 1, 2, 0, 1):
        updates, state = tx.update(jnp.float32(1.0), state, w, step=step)
        w = optax.apply_updates(w, updates)
    assert (float(w), float(average_of(state)), int(state.terms)) == (-5.0, -5.0, 1)


def member_of_mean(start):
    """A member with a BatchNorm that stands at other weights than its mean's, and its data."""
    trainer = make_trainer(ResNet(blocks=(1,), width=2, classes=3), make_optimizer=swa(start))
    data = examples(0, (8, 8, 1))
    return trainer, trees.index(members_of(1, trainer, data), 0), data


def swa(start):
    return lambda h: averaged(optax.adam(h["learning_rate"]), start=start, every=1)


@pytest.mark.slow
def test_the_mean_network_has_statistics_of_its_own():
    trainer, member, data = member_of_mean(1)
    mean = jax.tree.map(lambda w: 2 * w + 0.1, member.params)
    state = member.opt_state._replace(average=mean)
    found = jax.jit(mean_network(trainer.model, 16))(member._replace(opt_state=state), data)
    chex.assert_trees_all_equal(found.params, mean)
    batches = [trees.index(data, slice(i, i + 16)) for i in (0, 16, 32)]
    wanted = renew_state(trainer.model.apply, mean, member.state, batches)
    chex.assert_trees_all_close(found.state, wanted, rtol=1e-5)
    with pytest.raises(ValueError, match=f"`batch_size` is 99, but there are {len(data.y)} train"):
        mean_network(trainer.model, 99)(member, data)


@pytest.mark.slow
def test_a_ladder_tests_keeps_and_prunes_the_mean():
    """Of four steps the last two count: the segment's curves and the results are the mean's."""
    trainer = make_trainer(MLP((8, 3)), make_optimizer=swa(3), eval_every=4)
    trainer = trainer._replace(eval_member=mean_network(trainer.model, 8))
    member = trees.index(members_of(1, trainer), 0)
    weights, stood = [], member
    rows = segment.batch_rows(trainer, member, 0)

    @jax.jit
    def one_step(member, rows, step):
        batch = segment.training_batch(trainer, member, TRAIN, rows, step)
        return segment.train_step(trainer, member, batch, step)[0]

    for step in range(4):
        stood = one_step(stood, rows[step], step)
        weights.append(stood.params)
    mean = jax.tree.map(lambda *w: sum(w[2:]) / 2, *weights)
    run = jax.jit(
        lambda *members: segment.train_segment(trainer, *members, TRAIN, VALIDATION, 0, 4)
    )
    after, record, info = run(member, segment.init_record(member))
    chex.assert_trees_all_close(after.params, weights[-1], rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_close(record.best_params, mean, rtol=1e-5, atol=1e-7)
    wanted = segment.evaluate(trainer, mean, {}, VALIDATION)
    np.testing.assert_allclose(info["validation_loss"], wanted["loss"], rtol=1e-5)
    data = Splits(TRAIN, VALIDATION, VALIDATION)
    results, end, _ = node_training.measure(trainer, after, record, data)
    np.testing.assert_allclose(results["test_loss_final"], wanted["loss"], rtol=1e-5)
    chex.assert_trees_all_close(end.params, mean, rtol=1e-5, atol=1e-7)


def test_slots_of_the_mean_can_be_masked():
    tx = averaged(masked(optax.adam(0.1)), start=1, every=1)
    state = tx.init({"w": jnp.ones(3)})
    assert average_of(mask_slots(tx, state, MASK))["w"].tolist() == [1.0, 0.0, 1.0]


def test_a_state_without_averages_is_refused():
    with pytest.raises(ValueError, match=r"`opt_state` must hold one state of `averaged`, .* 0"):
        average_of(optax.adam(0.1).init(START))


def test_strict_dtype_promotion_holds():
    tx = averaged(optax.sgd(0.1), start=jnp.int32(2), every=jnp.int32(2))
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    with jax.numpy_dtype_promotion("strict"):
        state = jax.eval_shape(lambda p: tx.update(p, tx.init(p), p, step=jnp.int32(0))[1], params)
    assert average_of(state)["w"].dtype == jnp.bfloat16
