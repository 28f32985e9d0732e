import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_jax.coding import entropy

COUNTS = st.lists(
    st.integers(0, 500).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=1
)


@given(st.floats(0, 1))
def test_binary_entropy_is_symmetric_and_at_most_one_bit(p):
    assert 0 <= entropy.binary_entropy(p) <= 1
    assert entropy.binary_entropy(p) == pytest.approx(entropy.binary_entropy(1 - p), abs=1e-9)


def test_binary_entropy_of_a_quarter():
    assert entropy.binary_entropy(0.25) == pytest.approx(2 - 0.75 * math.log2(3))


@given(COUNTS)
def test_knowing_more_takes_less(counts):
    layers = entropy.layer_bits(counts)
    assert entropy.enumerative_bits(counts) <= layers + 1e-6
    assert layers <= entropy.global_bits(counts) + 1e-6
    assert layers <= entropy.kt_bits(counts) + 1e-6


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_enumerative_bits_count_the_masks(pair):
    assert entropy.enumerative_bits([pair]) == pytest.approx(math.log2(math.comb(*pair)), abs=1e-9)


def test_kt_bits_are_the_adaptive_product():
    """The length is that of coding the bits one by one with (ones + 1/2) / (seen + 1)."""
    sequence = [1, 0, 0, 1, 0, 0, 0, 1, 1, 0]
    length, counts = 0.0, [0, 0]
    for bit in sequence:
        length -= math.log2((counts[bit] + 0.5) / (sum(counts) + 1))
        counts[bit] += 1
    assert entropy.kt_bits([(10, 4)]) == pytest.approx(length)


def test_a_plug_in_entropy_is_no_bound_for_one_mask():
    assert entropy.enumerative_bits([(1000, 100)]) < entropy.layer_bits([(1000, 100)])


def test_large_layers_do_not_overflow():
    n = 25_000_000
    bits = entropy.enumerative_bits([(n, n // 50)])
    assert bits == pytest.approx(n * float(entropy.binary_entropy(0.02)), rel=1e-5)


def test_rows_and_columns_with_side_information():
    mask = np.zeros((4, 2, 5), bool)
    mask[0] = True
    mask[1, 0, :2] = True
    bits, side = entropy.conditional_bits(mask, axis=0)
    assert bits == pytest.approx(5 * float(entropy.binary_entropy(0.4)))
    assert side == pytest.approx(8 * math.log2(6))
    bits, side = entropy.conditional_bits(mask, axis=1)
    columns = mask.reshape(8, 5).sum(0)
    assert bits == pytest.approx(sum(8 * float(entropy.binary_entropy(k / 8)) for k in columns))
    assert side == pytest.approx(5 * math.log2(9))


def test_an_empty_mask_takes_nothing():
    assert entropy.conditional_bits(np.zeros((0, 3), bool), 0) == (0.0, 0.0)
    assert entropy.layer_bits([(0, 0)]) == 0.0
    assert entropy.kt_bits([(0, 0)]) == pytest.approx(0.0, abs=1e-12)
    assert entropy.empirical_bits(np.zeros(0)) == 0.0


def test_empirical_bits_of_a_uniform_and_a_constant():
    assert entropy.empirical_bits(np.arange(16)) == pytest.approx(64)
    assert entropy.empirical_bits(np.ones(16)) == 0


@pytest.mark.parametrize("bits", [0.1, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
def test_at_break_even_mask_and_survivors_weigh_as_much_as_dense(bits):
    density = entropy.break_even_density(bits)
    assert 0 < density < 1
    assert entropy.binary_entropy(density) == pytest.approx(bits * (1 - density), rel=1e-6)
    assert entropy.binary_entropy(density / 2) < bits * (1 - density / 2)


def test_break_even_at_two_bits_is_one_half():
    assert entropy.break_even_density(2.0) == pytest.approx(0.5)


@pytest.mark.parametrize("bits", [0.0, -1.0, math.inf, math.nan])
def test_break_even_needs_a_positive_number(bits):
    with pytest.raises(ValueError, match="`bits`"):
        entropy.break_even_density(bits)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"`counts` holds \(n, k\) = \(3, 4\)"):
        entropy.layer_bits([(3, 4)])
    with pytest.raises(ValueError, match="`axis` is 2"):
        entropy.conditional_bits(np.ones((2, 2), bool), 2)
