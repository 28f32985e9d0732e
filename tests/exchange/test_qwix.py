"""Quantised blocks of qwix: exact zeros, the values of our own codes, and its sparsity rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import exchange, layouts
from lth_jax.coding.quantize import quantize
from tests.exchange.test_sparse import LEAVES, n_of_m

qwix = pytest.importorskip("qwix")


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("shape", "n", "m", "layout"), LEAVES[:5])  # the last has no zeros
@pytest.mark.slow
def test_blocks_of_inputs_dequantise_to_the_rounded_weights(shape, n, m, layout, bits):
    leaf, mask = n_of_m(shape, n, m, layout)
    given = {"layouts": {"w": layout}, "bits": bits}
    axis = layout.inputs[-1]
    for block in [d for d in range(1, shape[axis] + 1) if shape[axis] % d == 0]:
        made = exchange.to_qwix({"w": leaf}, {"w": mask}, block=block, **given)
        array = made["w"]
        assert array.qvalue.dtype == np.int8 and array.qvalue.shape == leaf.shape
        assert array.scale_tile_shape == tuple(block if a == axis else 1 for a in range(leaf.ndim))
        back = np.asarray(exchange.from_qwix(made)["w"])
        np.testing.assert_array_equal(back, np.asarray(qwix.dequantize(array)))
        wide = np.repeat(np.asarray(array.scale), block, axis)
        np.testing.assert_array_equal(back, np.asarray(array.qvalue, np.float32) * wide)
        assert (back[~mask] == 0).all()
        assert (np.abs(back - np.where(mask, leaf, 0)) <= wide * 0.5001).all()
        again = exchange.to_qwix({"w": back}, {"w": mask}, block=block, **given)["w"]
        np.testing.assert_array_equal(again.qvalue, array.qvalue)


def test_a_channel_per_output_is_the_precision_of_tickets():
    leaf, mask = n_of_m((8, 6), 2, 4, layouts.DENSE)
    array = exchange.to_qwix({"w": leaf}, {"w": mask})["w"]
    own = quantize(jnp.asarray(np.where(mask, leaf, 0)), 8, channel_axis=-1)
    np.testing.assert_array_equal(array.qvalue, own.codes)
    np.testing.assert_array_equal(array.scale, own.scale)


@pytest.mark.parametrize(("shape", "n", "m", "layout"), LEAVES[:3])
def test_the_sparsity_rule_of_qwix_keeps_our_n_m_weights(shape, n, m, layout):
    from qwix._src.core.sparsity import get_sparsity_mask  # what `SparsityRule` applies

    leaf, mask = n_of_m(shape, n, m, layout)
    kept = jnp.where(mask, leaf, 0)
    theirs = get_sparsity_mask(kept, n, m, order="C")
    np.testing.assert_array_equal(jnp.where(theirs, kept, 0), kept)
    packed = exchange.pack_nm(kept, np.asarray(theirs), n, m, layout)
    np.testing.assert_array_equal(exchange.unpack_nm(packed), kept)


def test_qwix_computes_with_the_blocks():
    leaf, mask = n_of_m((16, 3), 4, 8, layouts.DENSE)
    made = exchange.to_qwix({"w": leaf}, {"w": mask}, block=4)
    x = jax.random.normal(jax.random.key(0), (5, 16))
    found = qwix.dot_general(x, made["w"], (((1,), (0,)), ((), ())))
    np.testing.assert_allclose(found, x @ exchange.from_qwix(made)["w"], rtol=1e-5, atol=1e-5)


def test_dense_leaves_stay_and_bad_arguments_are_named():
    params = {"w": jnp.ones((4, 2)), "b": jnp.ones(2)}
    mask = {"w": jnp.ones((4, 2), bool).at[0].set(False), "b": jnp.ones(2, bool)}
    made = exchange.to_qwix(params, mask)
    assert made["b"] is params["b"]
    with pytest.raises(exchange.ExchangeError, match="`block` is 3; it must divide the 4 inputs"):
        exchange.to_qwix(params, mask, block=3)
    with pytest.raises(ValueError, match="`bits` is 9; 2 to 8"):
        exchange.to_qwix(params, mask, bits=9)
    with pytest.raises(exchange.ExchangeError, match="layout of 'w'"):
        exchange.to_qwix({"w": jnp.ones((2, 2, 2))}, {"w": jnp.zeros((2, 2, 2), bool)})
