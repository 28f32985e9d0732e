import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lth_jax.coding import entropy, values
from lth_jax.coding.errors import TicketError
from lth_jax.coding.quantize import (
    Quantized,
    bfloat16,
    dequantize,
    exact,
    integers,
    quantize,
)

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(24, 16)).astype(np.float32)
MASK = RNG.random((24, 16)) < 0.3


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("channel_axis", [None, 0, -1])
def test_codes_are_within_half_a_step(bits, channel_axis):
    with jax.numpy_dtype_promotion("strict"):
        found = quantize(jnp.asarray(KERNEL), bits, channel_axis=channel_axis)
        error = jnp.abs(dequantize(found) - KERNEL)
    assert found.codes.dtype == jnp.int8
    assert int(jnp.abs(found.codes).max()) == 2 ** (bits - 1) - 1
    assert bool((error <= 0.5 * found.scale * (1 + 1e-5)).all())


def test_a_scale_for_each_channel():
    per_channel = quantize(jnp.asarray(KERNEL), 8, channel_axis=-1).scale
    assert per_channel.shape == (1, 16)
    np.testing.assert_allclose(per_channel[0], np.abs(KERNEL).max(0) / 127, rtol=1e-6)


@pytest.mark.parametrize("channel_axis", [None, 1])
def test_pruned_weights_stay_zero_and_do_not_count(channel_axis):
    pruned = jnp.asarray(KERNEL * MASK)
    found = quantize(pruned, 4, channel_axis=channel_axis)
    assert not np.asarray(found.codes)[~MASK].any()
    assert not np.asarray(dequantize(found))[~MASK].any()
    if channel_axis is None:
        assert found.scale.item() == pytest.approx(np.abs(KERNEL[MASK]).max() / 7)


def test_a_channel_of_zeros_has_codes_and_values_zero():
    found = quantize(jnp.zeros((3, 2)).at[0, 0].set(1e-42), 8, channel_axis=1)
    assert not np.asarray(found.codes).any()
    assert np.isfinite(np.asarray(dequantize(found))).all()


def test_quantizing_twice_changes_nothing():
    once = dequantize(quantize(jnp.asarray(KERNEL), 4))
    np.testing.assert_allclose(dequantize(quantize(once, 4)), once, rtol=1e-6)


def test_quantize_is_traceable_and_takes_other_floats():
    x = jnp.asarray(KERNEL, jnp.bfloat16)
    with jax.numpy_dtype_promotion("strict"):
        traced = jax.jit(quantize, static_argnums=1)(x, 8)
    assert (traced.codes == quantize(x, 8).codes).all()


@pytest.mark.parametrize("bits", [1, 9])
def test_widths_out_of_range_are_named(bits):
    with pytest.raises(ValueError, match=f"`bits` is {bits}; 2 to 8"):
        integers(bits)


def test_an_axis_out_of_range_is_named():
    with pytest.raises(ValueError, match="`channel_axis` is 2, but `x` has 2 axes"):
        quantize(jnp.zeros((2, 2)), 8, channel_axis=2)


PRECISIONS = [exact(), bfloat16(), integers(8), integers(4, -1), integers(2, 0)]


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_values_decode_to_those_that_encode_returns(precision):
    code, kept = values.encode(KERNEL, MASK, precision)
    found = values.decode(code, MASK, KERNEL.dtype, precision)
    assert found.dtype == kept.dtype == np.float32
    assert found.tobytes() == kept.tobytes()


def test_integer_values_are_those_of_the_traced_quantizer():
    precision = integers(4, -1)
    _, kept = values.encode(KERNEL, MASK, precision)
    traced = dequantize(quantize(jnp.asarray(KERNEL * MASK), 4, channel_axis=-1))
    assert kept.tolist() == np.asarray(traced)[MASK].tolist()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(values.DTYPES)), st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_exact_values_come_back_bit_for_bit_in_every_dtype(name, size, seed):
    rng = np.random.default_rng(seed)
    dtype = values.DTYPES[name]
    if name == "bool" or name.startswith(("int2", "int4", "uint2", "uint4", "float4")):
        leaf = rng.integers(2, size=size).astype(dtype)
    else:
        leaf = np.frombuffer(rng.bytes(size * dtype.itemsize), dtype)  # NaNs and all
    mask = rng.random(size) < 0.7
    code, _ = values.encode(leaf, mask, exact())
    found = values.decode(code, mask, dtype, exact())
    assert found.dtype == dtype
    assert found.tobytes() == leaf[mask].tobytes()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_integer_values_take_their_entropy(bits):
    leaf = np.random.default_rng(1).normal(size=200_000).astype(np.float32)
    code, kept = values.encode(leaf, np.ones(leaf.shape, bool), integers(bits))
    assert 8 * len(code) <= 1.005 * entropy.empirical_bits(kept) + 40 * 2**bits


def test_exact_floats_shrink_by_their_exponents():
    leaf = np.random.default_rng(2).normal(size=50_000).astype(np.float32)
    code, _ = values.encode(leaf, np.ones(leaf.shape, bool), exact())
    assert len(code) < 0.9 * leaf.nbytes


def test_an_infinite_scale_is_refused():
    code, _ = values.encode(KERNEL, MASK, integers(4))
    broken = np.float32(np.inf).tobytes() + code[4:]
    with pytest.raises(TicketError, match="scale is not finite"):
        values.decode(broken, MASK, KERNEL.dtype, integers(4))


def test_quantized_is_a_pytree():
    assert len(jax.tree.leaves(Quantized(jnp.zeros(2), jnp.ones(1)))) == 2
