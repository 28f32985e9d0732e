import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lth_jax import exchange, structure
from lth_jax.exchange.pools import without_pools
from lth_jax.exchange.programs import _check_dtypes
from lth_jax.extras import MissingExtraError
from tests.exchange.networks import X, apply, masked, network


@pytest.fixture(scope="module")
def whole():
    """The function, the masked parameters, and the state as a part of them."""
    params, state, mask = network()
    return (lambda p, x: apply(p["params"], x, p["state"])), {
        "params": masked(params, mask),
        "state": state,
    }


@pytest.fixture(scope="module")
def small(whole):
    """The network without two hidden units."""
    f, params = whole
    found = structure.find_groups(f, params, X)
    [group] = [g for g in found.groups if g.units == 6]
    units = {group.name: np.arange(6) != 3}
    params, run = structure.compact(found, params, units)
    return run, params


@pytest.mark.slow
def test_an_artifact_runs_without_this_library(whole, small, tmp_path):
    pytest.importorskip("flatbuffers")
    (f, params), (run, less) = whole, small
    written = exchange.save_stablehlo(tmp_path / "whole", f, params, X)
    smaller = exchange.save_stablehlo(tmp_path / "small", run, less, X, dense=params)
    assert written.error <= 1e-5 and smaller.dense_bytes == written.dense_bytes
    np.save(tmp_path / "x.npy", X)
    code = """
import sys, jax, numpy as np
x = np.load(sys.argv[1] + "/x.npy")
for name in ("whole", "small"):
    call = jax.export.deserialize(bytearray(open(f"{sys.argv[1]}/{name}", "rb").read())).call
    np.save(f"{sys.argv[1]}/{name}.npy", call(x))
assert not [name for name in sys.modules if name.startswith(("lth_jax", "flax"))]
"""
    code = code.replace("import sys, jax,", "import sys, jax, jax.export,")
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=tmp_path)
    for name, (g, p) in {"whole": whole, "small": small}.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), g(p, X), rtol=1e-4, atol=1e-5)


def test_an_artifact_takes_any_batch(small, tmp_path):
    pytest.importorskip("flatbuffers")
    run, params = small
    exchange.save_stablehlo(tmp_path / "f", run, params, X, any_batch=True, platforms=["cpu"])
    call = exchange.load_stablehlo(tmp_path / "f")
    for rows in (1, 3):
        np.testing.assert_allclose(call(X[:rows]), run(params, X[:rows]), rtol=1e-4, atol=1e-5)
    mean = lambda p, x: x - x.mean(0)  # noqa: E731
    with pytest.raises(exchange.ExchangeError, match="StableHLO file differs from the network at"):
        exchange.save_stablehlo(tmp_path / "g", mean, {}, X, any_batch=True, platforms=["cpu"])
    assert not (tmp_path / "g").exists()


def test_onnxruntime_computes_the_same(whole, small, tmp_path):
    pytest.importorskip("jax2onnx")
    ort = pytest.importorskip("onnxruntime")
    for name, (f, params) in {"whole": whole, "small": small}.items():
        path = tmp_path / f"{name}.onnx"
        written = exchange.save_onnx(path, f, params, X)
        assert 0 < written.error <= 1e-4 and written.bytes == path.stat().st_size
        session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        (out,) = session.run(None, {session.get_inputs()[0].name: X})
        np.testing.assert_allclose(out, f(params, X), rtol=1e-3, atol=1e-4)


POOLS = {
    "max": lambda x: nn.max_pool(x, (3, 2), (2, 1), "SAME"),
    "mean": lambda x: nn.avg_pool(x, (2, 2), (2, 2)),
    "min": lambda x: -nn.max_pool(-x, (2, 3), (1, 2), [(1, 1), (0, 2)]),
    "overlapping": lambda x: jax.vmap(lambda y: nn.max_pool(y, (2, 2)))(x[None])[0],
}


@pytest.mark.parametrize("name", POOLS)
def test_pools_of_slices_are_the_pools(name):
    f = without_pools(POOLS[name], X)
    np.testing.assert_allclose(f(X), POOLS[name](X), rtol=1e-6)
    assert "reduce_window" not in str(jax.make_jaxpr(f)(X))


def test_bad_input_is_one_sentence(whole, tmp_path, monkeypatch):
    f, params = whole
    path = tmp_path / "net"
    path.write_bytes(b"0123")
    for save in (exchange.save_stablehlo, exchange.save_onnx):
        with pytest.raises(exchange.ExchangeError, match=r"net', which exists; `overwrite` repl"):
            save(path, f, params, X)
    with pytest.raises(exchange.ExchangeError, match=r"is not an artifact of `jax.export`"):
        exchange.load_stablehlo(path)
    with pytest.raises(exchange.ExchangeError, match=r"at \['w'\] has dtype bfloat16, which onnx"):
        _check_dtypes({"w": jnp.ones(2, jnp.bfloat16)})
    for module, save in {
        "flatbuffers": exchange.save_stablehlo,
        "jax2onnx": exchange.save_onnx,
    }.items():
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=f"needs `{module}`; install it with"):
            save(tmp_path / "new", f, params, X)
