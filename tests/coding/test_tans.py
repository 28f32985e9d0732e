import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lth_jax.coding import bits, symbols, tans
from lth_jax.coding.errors import TicketError


def entropy_coded(rng, count, weights):
    weights = np.asarray(weights, np.int64)
    return rng.choice(weights.size, count, p=weights / weights.sum())


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=256).filter(any))
def test_frequencies_fill_the_table_and_forget_no_symbol(weights):
    frequencies = tans.normalize(np.array(weights, np.int64))
    assert frequencies.sum() == tans.TABLE_SIZE
    assert ((frequencies > 0) == (np.array(weights) > 0)).all()


def test_frequencies_are_the_nearest_integers_where_the_weights_allow():
    weights = np.array([1000, 2000, 5192])
    assert tans.normalize(weights).tolist() == weights.tolist()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 3000),
    st.lists(st.integers(1, 1000), min_size=1, max_size=256),
    st.integers(1, 3),
    st.integers(0, 500),
)
def test_decode_inverts_encode(seed, count, weights, contexts, raw):
    rng = np.random.default_rng(seed)
    tables = np.stack([tans.normalize(rng.permutation(np.array(weights))) for _ in range(contexts)])
    context = rng.integers(contexts, size=count)
    message = rng.integers(len(weights), size=count)
    extra = rng.integers(2, size=raw).astype(np.uint8)
    stream = tans.encode(message, tables, context, extra)
    found, left = tans.decode(bits.Reader(stream), count, tables, context, raw)
    assert found.tolist() == message.tolist()
    assert left.tolist() == extra.tolist()


@pytest.mark.parametrize("count", [1000, 100_000])
@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 20, 300, 4000], np.arange(1, 200) ** 2])
def test_a_stream_takes_its_cost_and_a_few_bytes(count, weights):
    rng = np.random.default_rng(0)
    table = tans.normalize(np.asarray(weights, np.int64))
    message = entropy_coded(rng, count, weights)
    cost = tans.cost(np.bincount(message, minlength=len(weights)), table)
    assert cost <= 8 * len(tans.encode(message, table[None])) <= 1.001 * cost + 64


def test_many_lanes_cost_no_more_than_one():
    rng = np.random.default_rng(1)
    table = tans.normalize(np.array([1, 2, 3, 4, 5]))
    message = entropy_coded(rng, 300_000, [1, 2, 3, 4, 5])
    assert max(phase.lanes for phase in tans._phases(message.size, 10)) >= 1024
    cost = tans.cost(np.bincount(message), table)
    assert 8 * len(tans.encode(message, table[None])) - cost < 300  # 1024 states alone: 13,312


def test_raw_bits_take_a_bit_each():
    table = tans.normalize(np.array([3, 5]))[None]
    message = entropy_coded(np.random.default_rng(2), 5000, [3, 5])
    raw = np.random.default_rng(3).integers(2, size=8000).astype(np.uint8)
    assert len(tans.encode(message, table, raw=raw)) - len(tans.encode(message, table)) <= 1001


@pytest.mark.parametrize("alphabet", [1, 2, 15, 255, 256])
@pytest.mark.parametrize("count", [0, 1, 100, 5000])
def test_symbols_come_back_in_either_form(alphabet, count):
    message = np.random.default_rng(count).binomial(alphabet - 1, 0.5, size=count)
    code = symbols.encode(message, alphabet)
    assert symbols.decode(code, count, alphabet).tolist() == message.tolist()
    assert abs(8 * len(code) - symbols.estimate(message, alphabet)) <= 64


TABLE = tans.normalize(np.array([1, 3]))[None]
STREAM = tans.encode(np.array([0, 1] * 40), TABLE)


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        STREAM[:1],
        STREAM[:2],
        STREAM[:-2],
        STREAM + b"\0",
        STREAM[:-1] + b"\xff",
        b"\1" + STREAM,
    ],
)
def test_a_damaged_stream_is_refused(stream):
    with pytest.raises(TicketError):
        tans.decode(bits.Reader(stream), 80, TABLE)


def test_a_stream_of_other_length_is_refused():
    for count in (0, 79, 81, 4000):
        with pytest.raises(TicketError):
            tans.decode(bits.Reader(STREAM), count, TABLE)


def test_a_table_that_does_not_sum_up_is_refused():
    code = bytearray(symbols.encode(np.random.default_rng(0).binomial(3, 0.1, size=999), 4))
    assert code[0] == 1
    code[2] ^= 1
    with pytest.raises(TicketError, match="frequencies sum to"):
        symbols.decode(bytes(code), 999, 4)


def test_symbols_beyond_the_alphabet_are_refused():
    code = symbols.encode(np.array([2, 3]), 4)
    with pytest.raises(TicketError, match="holds 3 where all must lie below 3"):
        symbols.decode(code, 2, 3)
