import itertools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.experimental import sparse

import lth_jax as lth
from lth_jax import exchange, layouts
from lth_jax.exchange import tensor_file
from tests.exchange.networks import LAYOUTS, masked, network
from tests.exchange.test_files import assert_same


def n_of_m(shape, n, m, layout, dtype="float32"):
    """Random weights whose groups of `m` inputs keep `n` of them."""
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=shape).astype(np.float32)}
    pruner = lth.prune(lth.magnitude(), lth.globally(), lth.granularity.n_m(n, m))
    prunable = {"w": True}
    count = np.int32(params["w"].size * n // m)
    options = {"prunable": prunable, "layouts": {"w": layout}}
    mask = pruner(params, lth.ones_like(params), count, **options)
    return params["w"].astype(dtype), np.asarray(mask["w"])


LEAVES = [
    ((8, 6), 2, 4, layouts.DENSE),
    ((16, 3), 4, 8, layouts.DENSE),
    ((3, 3, 4, 5), 2, 4, layouts.conv(2)),
    ((2, 8, 3), 1, 2, layouts.Layout((1,), (2,), stacked=(0,))),
    ((2, 4, 3), 2, 8, layouts.Layout((0, 1), (2,))),
    ((6, 2), 3, 3, layouts.DENSE),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize(("shape", "n", "m", "layout"), LEAVES)
def test_packed_values_come_back_bit_for_bit(shape, n, m, layout, dtype):
    leaf, mask = n_of_m(shape, n, m, layout, dtype)
    packed = exchange.pack_nm(leaf, mask, n, m, layout)
    assert packed.values.size * m == leaf.size * n
    assert (np.diff(packed.indices.astype(int), axis=3) > 0).all()
    found = exchange.unpack_nm(packed)
    assert found.dtype == leaf.dtype
    np.testing.assert_array_equal(found, np.where(mask, leaf, np.zeros((), leaf.dtype)))


def test_every_mask_of_two_of_four_is_packed():
    for pair in itertools.product([False, True], repeat=4):
        mask = np.array(pair)[:, None]
        leaf = np.arange(1.0, 5.0)[:, None]
        if mask.sum() > 2:
            with pytest.raises(exchange.ExchangeError, match="where 2:4 allows 2"):
                exchange.pack_nm(leaf, mask, 2, 4)
        else:
            found = exchange.unpack_nm(exchange.pack_nm(leaf, mask, 2, 4))
            np.testing.assert_array_equal(found, leaf * mask)


@pytest.mark.parametrize(("shape", "n", "m", "layout"), LEAVES)
def test_nm_files(shape, n, m, layout, tmp_path):
    leaf, mask = n_of_m(shape, n, m, layout)
    params, path = {"a": {"w": leaf, "b": np.ones(3, np.int64)}}, tmp_path / "x.safetensors"
    masks = {"a": {"w": mask, "b": np.ones(3, bool)}}
    if mask.all():
        exchange.save_nm(path, params, masks, (n, m))
        return
    written = exchange.save_nm(path, params, masks, (n, m), layouts={"a/w": layout})
    stored, _ = exchange.load_safetensors(path)
    bits = leaf.size * n // m * (m - 1).bit_length()
    assert stored["a/w.indices"].size == -(-bits // 8) and written.error is None
    found = exchange.load_sparse(path)
    assert isinstance(found["a"]["w"], exchange.Packed)
    assert_same(exchange.to_dense(found), {"a": {"w": leaf * mask, "b": params["a"]["b"]}})


def test_bcoo_leaves_and_files(tmp_path):
    params, _, mask = network()
    params["Dense_0"]["kernel"][np.nonzero(mask["Dense_0"]["kernel"])] *= np.float32(0)
    found = exchange.to_bcoo(params, mask)
    leaf = found["Conv_0"]["kernel"]
    assert isinstance(leaf, sparse.BCOO) and leaf.nse == mask["Conv_0"]["kernel"].sum()
    assert found["Dense_0"]["kernel"].nse == mask["Dense_0"]["kernel"].sum()  # zeros are kept
    assert_same(exchange.to_dense(found), masked(params, mask))
    exchange.save_bcoo(tmp_path / "x", params, mask)
    again = exchange.load_sparse(tmp_path / "x")
    assert_same(exchange.to_dense(again), masked(params, mask))
    x = jnp.ones((2, 6))
    kernel = again["Dense_1"]["kernel"]
    out = jax.jit(lambda w, x: x @ w)(kernel, x)
    np.testing.assert_allclose(out, x @ masked(params, mask)["Dense_1"]["kernel"], rtol=1e-5)


def test_bad_input_is_one_sentence(tmp_path):
    params, _, mask = network()
    path = tmp_path / "x"
    with pytest.raises(exchange.ExchangeError, match=r"The layout of 'Conv_0/kernel', of shape"):
        exchange.save_nm(path, params, mask)
    words = r"`mask` at 'Conv_0/kernel' is not 2:4: a leaf with 2 inputs has no groups of 4"
    with pytest.raises(exchange.ExchangeError, match=words):
        exchange.save_nm(path, params, mask, layouts=LAYOUTS)
    words = r"`mask` at 'w' is not 2:4: of the inputs 0 to 3 of output 1 it keeps 3, where 2:4 all"
    w, keep = np.ones((4, 2), np.float32), np.array([[0, 1], [0, 1], [1, 1], [0, 0]], bool)
    layout = {"w": layouts.DENSE}
    with pytest.raises(exchange.ExchangeError, match=words):
        exchange.save_nm(path, {"w": w}, {"w": keep}, layouts=layout)
    with pytest.raises(exchange.ExchangeError, match="1 <= n <= m <= 256 is needed"):
        exchange.save_nm(path, {"w": w}, {"w": keep}, (4, 2), layouts=layout)
    with pytest.raises(exchange.ExchangeError, match="'w' has dtype float64, which JAX converts"):
        exchange.to_bcoo({"w": w.astype(np.float64)}, {"w": keep})
    with pytest.raises(ValueError, match="`mask` must have the structure of `params`"):
        exchange.save_bcoo(path, {"w": w}, {"v": keep})
    with pytest.raises(exchange.ExchangeError, match=r"have the name 'w.data'"):
        exchange.save_bcoo(path, {"w": w, "w.data": w}, {"w": keep, "w.data": w > 0})
    assert not path.exists()
    exchange.save_bcoo(path, {"w": w.astype(ml_dtypes.bfloat16)}, {"w": keep})
    with pytest.raises(exchange.ExchangeError, match="which exists; `overwrite` replaces it"):
        exchange.save_bcoo(path, {"w": w}, {"w": keep})
    path.write_bytes(tensor_file.to_bytes({"w": w}))
    with pytest.raises(exchange.ExchangeError, match="holds no sparse network"):
        exchange.load_sparse(path)
