"""Members trained together are the members trained alone; nothing of one touches another."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lth_jax import trees
from lth_jax.data import indices
from lth_jax.models import ResNet
from lth_jax.population import Plan, chunks, compile_segment, segment, train_chunk, train_population
from lth_jax.population.train_chunks import segment_ends
from tests.population.tiny import (
    STEPS,
    TRAIN,
    TRAINER,
    VALIDATION,
    examples,
    make_trainer,
    members_of,
    pruned,
)


@functools.cache
def segment_of(chunk, driver="scan"):
    return compile_segment(TRAINER, Plan(chunk, driver))


def train(members, chunk, driver="scan", stop=20, start=0):
    """`train_population`, with the compiled segments shared between the tests of this file."""
    n = members.alive.shape[0]
    done = []
    for rows in chunks(n, chunk):
        part = trees.index(members, rows)
        infos = []
        records = jax.vmap(segment.init_record)(part)
        ends = segment_ends(start, stop, STEPS)
        result = train_chunk(
            segment_of(chunk, driver),
            part,
            records,
            TRAIN,
            VALIDATION,
            (),
            start=start,
            ends=ends,
            on_segment=lambda step, m, r, info, infos=infos: infos.append(
                jax.tree.map(np.array, info)
            ),
        )
        done.append((*result, jax.tree.map(lambda *a: np.stack(a, 1), *infos)))
    return jax.tree.map(lambda *a: jnp.concatenate(a)[:n], *done)


@pytest.fixture(scope="module")
def alone():
    """Three members, each trained by itself."""
    return train(pruned(members_of(3)), 1)


@pytest.mark.parametrize(("chunk", "driver"), [(3, "scan"), (2, "scan"), (1, "host"), (3, "host")])
def test_n_members_agree_with_n_single_runs(alone, chunk, driver):
    together = train(pruned(members_of(3)), chunk, driver)
    chex.assert_trees_all_close(together[0].params, alone[0].params, atol=1e-5)
    chex.assert_trees_all_close(together[2], alone[2], atol=1e-5)


def test_a_repeat_is_equal_bit_for_bit(alone):
    chex.assert_trees_all_equal(train(pruned(members_of(3)), 1), alone)


def test_training_in_two_parts_is_training_in_one(alone):
    halfway, records, _ = train(pruned(members_of(3)), 1, stop=10)
    members, records = jax.tree.map(
        lambda *a: jnp.concatenate(a),
        *[
            train_chunk(
                segment_of(1),
                trees.index(halfway, rows),
                trees.index(records, rows),
                TRAIN,
                VALIDATION,
                (),
                start=10,
                ends=[15, 20],
            )
            for rows in chunks(3, 1)
        ],
    )
    chex.assert_trees_all_equal((members, records), alone[:2])


def test_a_segment_of_any_length_is_the_same_program():
    start = pruned(members_of(2))
    whole = train(start, 2, stop=5)[0]
    members = trees.index(start, np.arange(2))  # buffers of its own, to be donated
    records = jax.vmap(segment.init_record)(members)
    members, _ = train_chunk(
        segment_of(2), members, records, TRAIN, VALIDATION, (), start=0, ends=[2, 3, 5]
    )
    chex.assert_trees_all_equal(members.params, whole.params)
    assert segment_of(2)._cache_size() == 1


@pytest.mark.parametrize(("vmapped", "traces"), [(None, 2), (1, 1)])
def test_the_loop_of_a_segment_is_traced_once(vmapped, traces):
    """Under `vmap` its update is traced as a condition, for the shapes, and as a select."""
    calls = []

    def make_optimizer(hyper):
        made = TRAINER.make_optimizer(hyper)

        def update(*args, **more):
            calls.append("update")
            return made.update(*args, **more)

        return made._replace(update=update)

    trainer, members = TRAINER._replace(make_optimizer=make_optimizer), pruned(members_of(4))
    records = segment.init_records(members)
    program = compile_segment(trainer, Plan(4, vmapped=vmapped))
    program.lower(members, records, TRAIN, VALIDATION, (), np.int32(0), np.int32(STEPS))
    assert len(calls) == 2 * traces  # each time once to see which slots stay 0


def test_pruned_weights_and_their_slots_stay_zero(alone):
    members = alone[0]
    off = ~members.mask["Dense_0"]["kernel"]
    adam = members.opt_state
    for leaf in (
        members.params["Dense_0"]["kernel"],
        optax.tree.get(adam, "mu")["Dense_0"]["kernel"],
        optax.tree.get(adam, "nu")["Dense_0"]["kernel"],
    ):
        assert not np.asarray(leaf)[np.asarray(off)].any()
        assert np.asarray(leaf)[~np.asarray(off)].all()


def test_the_early_stop_step_is_where_the_validation_loss_is_smallest(alone):
    _, records, info = alone
    losses_ = info["validation_loss"]
    np.testing.assert_array_equal(records.best_step, STEPS * (1 + losses_.argmin(axis=1)))
    np.testing.assert_array_equal(records.best_loss, losses_.min(axis=1))
    best = segment.evaluate(TRAINER, trees.index(records.best_params, 0), {}, VALIDATION)
    np.testing.assert_allclose(best["loss"], records.best_loss[0], rtol=1e-6)


def test_a_diverged_member_is_frozen_and_touches_nobody():
    calm = train(members_of(3, rates=[1e-2, 1e-2, 1e-2]), 3)
    wild = train(members_of(3, rates=[1e-2, 1e30, 1e-2]), 3)
    others = np.array([0, 2])
    chex.assert_trees_all_equal(
        trees.index(wild[0].params, others), trees.index(calm[0].params, others)
    )
    np.testing.assert_array_equal(wild[0].alive, [True, False, True])
    at = int(wild[1].diverged_at[1])
    assert 0 < at < 20
    np.testing.assert_array_equal(wild[1].diverged_at[others], [-1, -1])
    seen = wild[2]["validation_loss"][1]
    assert np.isnan(seen[at // STEPS :]).all()
    longer = train(wild[0], 3, start=20, stop=25)
    chex.assert_trees_all_equal(trees.index(longer[0].params, 1), trees.index(wild[0].params, 1))


def test_evaluation_in_blocks_is_evaluation_at_once():
    member = trees.index(members_of(1), 0)
    blocks = segment.evaluate(TRAINER, member.params, member.state, VALIDATION)
    once = segment.evaluate(
        TRAINER._replace(eval_batch_size=1000), member.params, member.state, VALIDATION
    )
    chex.assert_trees_all_close(blocks, once, rtol=1e-6)


def test_without_validation_examples_there_is_no_early_stop():
    member = trees.index(members_of(1), 0)
    nothing = trees.index(VALIDATION, slice(0))
    record, info = segment.observe(TRAINER, member, segment.init_record(member), nothing, 5)
    assert np.isnan(info["validation_loss"]) and int(record.best_step) == -1


@pytest.mark.slow
def test_the_schedule_and_the_offsets_reach_the_optimizer():
    trainer = TRAINER._replace(
        make_optimizer=lambda h: optax.sgd(h["learning_rate"]),
        schedule=optax.linear_schedule(1.0, 0.0, 10),
    )
    member = trees.index(members_of(1, trainer), 0)
    batch = trees.index(TRAIN, slice(8))

    def moved(step, **offsets):
        hyper = member.hyper | {name: jnp.int32(value) for name, value in offsets.items()}
        after, _ = segment.train_step(trainer, member._replace(hyper=hyper), batch, step)
        return float(optax.global_norm(jax.tree.map(jnp.subtract, after.params, member.params)))

    assert moved(5) == pytest.approx(moved(0) / 2, rel=1e-5)
    assert moved(0, schedule_offset=5) == moved(5)
    assert moved(10) == 0.0
    rows = segment.batch_rows(trainer, member, 3)
    shifted = member._replace(hyper=member.hyper | {"data_offset": jnp.int32(3)})
    np.testing.assert_array_equal(segment.batch_rows(trainer, shifted, 0), rows)


def test_a_member_with_a_share_sees_that_alone():
    trainer = TRAINER._replace(
        examples_per_replicate=16,
        order=lambda key, step, steps: indices(key, step, steps=steps, batch_size=8, size=16),
    )
    for replicate, first in ((0, 0), (2, 32)):
        member = trees.index(members_of(1, trainer), 0)
        member = member._replace(hyper=member.hyper | {"replicate": jnp.int32(replicate)})
        rows = segment.batch_rows(trainer, member, 0)
        assert set(rows[:2].ravel().tolist()) == set(range(first, first + 16))  # one epoch
        own = segment.own_share(trainer, member, TRAIN)
        chex.assert_trees_all_equal(own, trees.index(TRAIN, slice(first, first + 16)))


@pytest.mark.parametrize("driver", ["scan", pytest.param("host", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_batch_norm_and_dropout_go_through(driver):
    trainer = make_trainer(ResNet(blocks=(1,), width=4, classes=3, dropout=0.5))
    data = examples(2, (4, 4, 1))
    members = members_of(2, trainer, data)
    same = jnp.broadcast_to(members.init_key[0], (2,))
    members = jax.vmap(
        lambda i, d: segment.init_member(trainer, i, d, {"learning_rate": 1e-2}, data.x[:1])
    )(same, members.data_key)
    # The same batches in the same order: what differs is the dropout alone.
    trainer = trainer._replace(
        order=lambda key, step, steps: jnp.zeros((steps, 8), int) + jnp.arange(8)
    )
    done, _, history = train_population(
        trainer, members, data, data, plan=Plan(2, driver), stop=STEPS
    )
    mean = done.state["batch_stats"]
    chex.assert_trees_all_equal_shapes(mean, members.state["batch_stats"])
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(mean))
    first, second = trees.unstack(done.params)
    assert optax.global_norm(jax.tree.map(jnp.subtract, first, second)) > 1e-3
    assert history["validation_loss"].shape == (1, 2)
