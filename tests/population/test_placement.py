"""A population on eight devices, or in turn on one, is the population at once."""

import functools

import chex
import jax
import numpy as np
import pytest

from lth_jax import trees
from lth_jax.population import Plan, compile_segment, halved, train_population
from lth_jax.population.placement import check_plan, fitted, map_members
from tests.population.tiny import TRAIN, TRAINER, VALIDATION, members_of, pruned, records_of

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")


@functools.cache
def trained(plan):
    members = trees.index(pruned(members_of(8)), np.arange(8))  # buffers of its own
    segment = compile_segment(TRAINER, plan)
    records = records_of(members)
    for step, n in ((0, 5), (5, 3)):
        members, records, info = segment(
            members, records, TRAIN, VALIDATION, (), np.int32(step), np.int32(n)
        )
    return jax.tree.map(np.asarray, (members.params, members.opt_state, records, info))


@pytest.mark.parametrize(
    "plan",
    [
        Plan(8, devices=8),
        Plan(8, devices=2, vmapped=2),
        Plan(8, vmapped=1),
        pytest.param(Plan(8, "host", vmapped=4), marks=pytest.mark.slow),
        pytest.param(Plan(8, "host", devices=4), marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_where_members_run_does_not_change_them(plan):
    chex.assert_trees_all_close(trained(plan), trained(Plan(8)), atol=1e-5)


def test_devices_exchange_nothing():
    segment = compile_segment(TRAINER, Plan(8, devices=8))
    members = members_of(8)
    args = (members, records_of(members), TRAIN, VALIDATION, (), np.int32(0), np.int32(5))
    text = segment.lower(*args).compile().as_text()
    assert not [name for name in COLLECTIVES if name in text]
    shapes = jax.eval_shape(lambda *a: a, *args)
    assert segment.lower(*shapes).out_info is not None


def test_a_member_lives_on_its_device():
    segment = compile_segment(TRAINER, Plan(8, devices=8))
    members = members_of(8)
    args = (TRAIN, VALIDATION, (), np.int32(0), np.int32(5))
    after, *_ = segment(members, records_of(members), *args)
    assert all(len(leaf.sharding.device_set) == 8 for leaf in jax.tree.leaves(after))
    kernel = after.params["Dense_0"]["kernel"]
    assert {shard.data.shape[0] for shard in kernel.addressable_shards} == {1}


@pytest.mark.slow
def test_a_population_comes_back_bound_to_no_device():
    members = members_of(3)
    done, records, _ = train_population(
        TRAINER, members, TRAIN, VALIDATION, plan=Plan(8, devices=8), stop=5
    )
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves((done, records))} == {1}
    assert done.alive.shape == (3,)
    four = jax.tree.map(lambda leaf: jax.numpy.concatenate([leaf, leaf[:1]]), (done, records))
    alive = jax.jit(map_members(lambda m: m.alive, Plan(4, devices=2), [True]))
    assert alive(four[0]).shape == (4,)  # other devices take it as it is


def test_data_are_copied_to_the_devices_once():
    segment = compile_segment(TRAINER, Plan(8, devices=8))
    first = segment._everywhere("train", TRAIN)
    kept = segment._everywhere("validation", VALIDATION)
    assert segment._everywhere("train", TRAIN) is first
    other = trees.index(TRAIN, slice(8))
    chex.assert_trees_all_equal(segment._everywhere("train", other), other)
    assert segment._everywhere("validation", VALIDATION) is kept


def test_functions_of_several_kinds_of_arguments():
    def f(a, shared, b):
        return {"sum": a + shared * b}

    a, b = np.arange(4.0), np.arange(8.0).reshape(4, 2)
    for plan in (Plan(4), Plan(4, vmapped=2), Plan(4, devices=2, vmapped=1)):
        out = map_members(f, plan, (True, False, True))(a, np.float32(3), b)
        np.testing.assert_array_equal(out["sum"], a[:, None] + 3 * b)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(0), "`chunk` is 0"),
        (Plan(1, "loop"), "`driver` is 'loop'"),
        (Plan(9, devices=9), "`devices` is 9; this process has 8"),
        (Plan(1, devices=0), "`devices` is 0"),
        (Plan(5, devices=2), "`chunk` is 5; it must be a multiple of `devices`"),
        (Plan(4, vmapped=3), "`vmapped` is 3; it must divide the 4"),
        (Plan(4, vmapped=0), "`vmapped` is 0"),
    ],
)
def test_a_plan_that_cannot_run_is_refused(plan, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_plan(plan)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "plan", [Plan(7), Plan(12, devices=4), Plan(12, vmapped=3), Plan(6, vmapped=2), Plan(1)]
)
def test_halving_ends_in_one_member_per_device(plan):
    seen = [plan]
    while (smaller := halved(seen[-1])) is not None:
        check_plan(smaller)
        assert smaller.chunk < seen[-1].chunk
        seen.append(smaller)
    assert seen[-1].share == 1


@pytest.mark.parametrize(
    ("plan", "devices", "processes", "found"),
    [
        (Plan(8, devices=4), 8, 1, Plan(8, devices=4)),
        (Plan(8, devices=4), 8, 2, Plan(8, devices=4)),
        (Plan(8, devices=4), 3, 1, Plan(8, devices=2, vmapped=2)),
        (Plan(6, "host", 3), 2, 1, Plan(6, "host", 1, 2)),
        (Plan(8, vmapped=1), 4, 2, Plan(8, devices=4, vmapped=1)),
        (Plan(12, devices=3, vmapped=2), 4, 2, Plan(12, devices=2, vmapped=2)),
    ],
)
def test_a_plan_made_elsewhere_keeps_what_is_vectorised_together(plan, devices, processes, found):
    assert fitted(plan, devices, processes) == found
    assert (found.vmapped or found.share) == (plan.vmapped or plan.share)


def test_a_plan_that_processes_cannot_share_is_refused():
    with pytest.raises(ValueError, match="1 groups of 8 members cannot be divided over 2 processe"):
        fitted(Plan(8), 4, 2)
