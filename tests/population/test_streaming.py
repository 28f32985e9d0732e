"""Training data on the host: the numbers of resident data, bit for bit."""

import threading
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import trees
from lth_jax.population import Plan, compile_serving, evaluate, streaming, train_population
from lth_jax.population.augment import chain, noisy_labels
from lth_jax.population.segment import batch_rows
from lth_jax.population.streaming import OnHost, compile_streamed_evaluation
from tests.population.tiny import SIZE, STEPS, TRAIN, TRAINER, VALIDATION, members_of

HOST = OnHost(*jax.tree.map(np.asarray, TRAIN))
THREE = Plan(3)
NOISY = TRAINER._replace(
    transform_batch=chain(noisy_labels(3)), constants={"noise": jax.random.key(4)}
)


class Reads:
    """A leaf that records which of its rows were read."""

    def __init__(self, array):
        self.array, self.rows = array, []
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, rows):
        self.rows.append(np.array(rows))
        return self.array[rows]

    def __len__(self):
        return len(self.array)


def trained(data, *, trainer=TRAINER, plan=THREE, n=3, stop=2 * STEPS + 2, **more):
    members = members_of(n, trainer)
    members = members._replace(hyper={**members.hyper, "label_noise": jnp.full(n, 0.5)})
    result = train_population(trainer, members, data, VALIDATION, plan=plan, stop=stop, **more)
    return jax.tree.map(np.asarray, result[0].params), result[2]


@pytest.mark.parametrize(
    "plan",
    [
        Plan(3),
        pytest.param(Plan(2, "host"), marks=pytest.mark.slow),
        pytest.param(Plan(4, devices=4), marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_the_numbers_are_those_of_resident_data(plan):
    chex.assert_trees_all_equal(trained(HOST, plan=plan), trained(TRAIN, plan=plan))


@pytest.mark.slow
def test_what_is_drawn_by_example_is_drawn_for_the_same_examples():
    # Vmapped, the two programs round differently without XLA's fusion emitters (see conftest.py).
    plan = Plan(3, vmapped=1)
    streamed, resident = (trained(data, trainer=NOISY, plan=plan) for data in (HOST, TRAIN))
    chex.assert_trees_all_equal(streamed, resident)
    clean, _ = trained(TRAIN, plan=plan)
    assert not np.array_equal(clean["Dense_0"]["kernel"], resident[0]["Dense_0"]["kernel"])


def test_training_that_goes_on_in_the_middle_reads_what_it_would_have_read():
    serve, members = compile_serving(TRAINER), members_of(3)
    whole = list(serve(members, HOST, [0, STEPS, 2 * STEPS]))
    resumed = list(serve(members, HOST, [2 * STEPS]))
    chex.assert_trees_all_equal(resumed[0], whole[2])


@pytest.mark.slow
def test_members_of_one_order_read_their_examples_once():
    members = members_of(1)
    five = trees.index(members, np.zeros(5, int))
    x = Reads(HOST.x)
    blocks = list(compile_serving(TRAINER)(five, OnHost(x, HOST.y), [0, STEPS]))
    second = np.unique(batch_rows(TRAINER, trees.index(members, 0), STEPS)).size
    assert 8 * STEPS > second > 8  # it begins a new epoch
    assert [len(rows) for rows in x.rows] == [STEPS * 8, second]
    assert all(np.unique(rows).size == rows.size for rows in x.rows)
    assert {block.rows.shape for block in blocks} == {(STEPS * 8,)}
    shifted = five._replace(hyper={**five.hyper, "data_offset": jnp.arange(5) % 2})
    [block] = compile_serving(TRAINER)(shifted, HOST, [0])
    assert block.rows.shape == (SIZE,)  # two orders of 40 of the 48 examples


def test_the_next_block_is_read_while_the_caller_is_busy():
    began = threading.Event()

    def second():
        began.set()
        return 2

    results = streaming._ahead(iter([lambda: 1, second, lambda: 3]))
    assert next(results) == 1
    assert began.wait(timeout=10)  # although nobody asked for it yet
    assert list(results) == [2, 3]
    assert list(streaming._ahead(iter([]))) == []


def test_an_error_while_reading_reaches_the_caller_and_ends_the_thread():
    def broken():
        raise OSError("no such record")

    results = streaming._ahead(iter([lambda: 1, broken, lambda: time.sleep(0)]))
    assert next(results) == 1
    with pytest.raises(OSError, match="no such record"):
        next(results)
    assert not [t for t in threading.enumerate() if "ThreadPool" in t.name and not t.daemon]


@pytest.mark.parametrize("size", [48, *(pytest.param(n, marks=pytest.mark.slow) for n in (40, 7))])
@pytest.mark.slow
def test_evaluation_of_streamed_data_is_that_of_resident_data(size):
    data, members = trees.index(HOST, slice(size)), members_of(4)
    resident = jax.jit(
        jax.vmap(lambda m: evaluate(TRAINER, m.params, m.state, trees.index(TRAIN, slice(size))))
    )(members)
    for plan in (Plan(4), Plan(4, devices=2)):
        found = compile_streamed_evaluation(TRAINER, plan)(members, data)
        chex.assert_trees_all_close(found, resident, rtol=1e-6)


@pytest.mark.parametrize("sample", [7, 20, 33, 1000])
def test_a_sample_of_streamed_data_is_the_first_examples(sample):
    trainer, members = TRAINER._replace(train_eval_examples=sample), members_of(2)
    few = trees.index(HOST, slice(sample))
    found = compile_streamed_evaluation(trainer, Plan(2))(members, HOST)
    expected = compile_streamed_evaluation(TRAINER, Plan(2))(members, few)
    chex.assert_trees_all_equal(found, expected)


def test_what_cannot_be_streamed_is_refused(monkeypatch):
    members = members_of(2)
    with pytest.raises(
        ValueError,
        match="`examples_per_replicate` and `eval_member` need training data on the device",
    ):
        compile_serving(TRAINER._replace(examples_per_replicate=8))(members, HOST, [0])
    monkeypatch.setattr(streaming, "free_bytes", lambda: 2000)
    with pytest.raises(ValueError, match=r"of 48 examples each.*reduce `eval_every`") as caught:
        compile_serving(TRAINER)(members, HOST, [0])
    assert "\n" not in str(caught.value)
