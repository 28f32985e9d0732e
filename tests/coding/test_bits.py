import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_jax.coding import bits
from lth_jax.coding.errors import TicketError

VALUES = st.lists(
    st.integers(0, 32).flatmap(
        lambda width: st.tuples(st.integers(0, 2**width - 1), st.just(width))
    )
)


@given(VALUES)
def test_unpack_inverts_pack(pairs):
    values = np.array([value for value, _ in pairs], np.int64)
    widths = np.array([width for _, width in pairs], np.int64)
    packed = bits.pack(values, widths)
    assert packed.size == widths.sum()
    assert bits.unpack(packed, widths).tolist() == values.tolist()


def test_the_low_bit_comes_first_across_words():
    values, widths = np.array([2**31 - 1, 2**31 + 5]), np.array([31, 32])
    number = sum(int(bit) << i for i, bit in enumerate(bits.pack(values, widths)))
    assert number == values[0] | int(values[1]) << 31


@given(st.lists(st.integers(0, 127)), st.integers(7, 20))
def test_unpack_fixed_inverts_pack_fixed(values, width):
    values = np.array(values, np.int64)
    assert bits.unpack_fixed(bits.pack_fixed(values, width), width).tolist() == values.tolist()


@given(st.integers(0, 2**31 - 1), st.binary(max_size=3))
def test_a_varint_is_read_back_and_no_further(value, rest):
    reader = bits.Reader(bits.varint(value) + rest)
    assert (reader.varint(), reader.rest()) == (value, rest)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: bits.Reader(b"ab").take(3), "ends after 2 bytes where 3"),
        (lambda: bits.Reader(b"\x80").varint(), "ends after 1 bytes"),
        (lambda: bits.Reader(b"\x7f").varint(limit=126), "a count of 127; at most 126"),
        (lambda: bits.Reader(b"\xff" * 10).varint(), "at most"),
        (lambda: bits.Reader(b"\x08").bits(3), "ones where zeros pad"),
        (lambda: bits.Reader(b"\x00").end(), "1 bytes after its end"),
    ],
)
def test_a_reader_refuses(read, message):
    with pytest.raises(TicketError, match=message):
        read()
