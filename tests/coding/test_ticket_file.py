import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from lth_jax import coding, trees
from lth_jax.coding import container, values
from lth_jax.coding.manifest import is_name
from lth_jax.store import StoreError

FIRST_VERSION = Path(__file__).parent / "golden" / "version_1.ticket"


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(x))
        return nn.Dense(5)(x.reshape(x.shape[0], -1))


def random_mask(params, seed=0, density=0.3):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: (rng.random(p.shape) < density) | (p.ndim < 2), params)


def prunable_of(params):
    return jax.tree.map(lambda p: p.ndim >= 2, params)


@pytest.fixture(scope="module")
def linen():
    params = Net().init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)))["params"]
    return params, random_mask(params), prunable_of(params)


def masked(params, mask):
    return jax.tree.map(lambda p, m: np.where(m, p, np.zeros((), p.dtype)), params, mask)


def assert_same(found, expected):
    assert trees.names(found) == trees.names(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (np.shape(a), np.asarray(a).dtype) == (np.shape(b), np.asarray(b).dtype)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_a_linen_dict_comes_back_without_a_template(linen, tmp_path):
    params, mask, prunable = linen
    about = {"config_hash": "00ff", "level": 3, "replicate": 0, "criterion": "magnitude"}
    path = tmp_path / "a.ticket"
    coding.save(path, mask, params, prunable=prunable, provenance=about)
    found = coding.load(path)
    chex.assert_trees_all_equal_structs(found.params, params)
    assert_same(found.mask, mask)
    assert_same(found.params, masked(params, mask))
    assert found.prunable == prunable
    assert found.manifest.provenance == about
    assert [p.name for p in tmp_path.iterdir()] == ["a.ticket"]


def test_a_loaded_ticket_computes_what_the_masked_network_does(linen):
    params, mask, prunable = linen
    found = coding.decode(coding.encode(mask, params, prunable=prunable))
    x = jax.random.normal(jax.random.key(1), (3, 4, 4, 2))
    stats = Net().init(jax.random.key(0), x)["batch_stats"]
    out = [
        Net().apply({"params": p, "batch_stats": stats}, x)
        for p in (found.params, masked(params, mask))
    ]
    np.testing.assert_array_equal(out[0], out[1])


@pytest.mark.parametrize("pure", [False, True])
def test_an_nnx_state_comes_back(pure):
    model = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 2, rngs=nnx.Rngs(1)))
    raw = jax.tree.map(np.asarray, nnx.state(model, nnx.Param))
    state: Any = nnx.to_pure_dict(raw) if pure else raw
    mask = random_mask(state)
    pure_mask = mask if pure else nnx.to_pure_dict(mask)
    data = coding.encode(mask, state, prunable=prunable_of(state))
    found = coding.decode(data, like=state)
    chex.assert_trees_all_equal_structs(found.params, state)
    assert_same(found.params, masked(state, mask))
    nnx.update(model, found.params)
    assert_same(nnx.to_pure_dict(nnx.state(model)), masked(nnx.to_pure_dict(raw), pure_mask))


def test_one_ticket_fits_raw_and_pure_nnx_states():
    state = nnx.state(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.Param)
    mask = random_mask(state)
    data = coding.encode(mask, state, prunable=prunable_of(state))
    pure = nnx.to_pure_dict(state)
    assert_same(coding.decode(data, like=pure).params, coding.decode(data).params)


DTYPES = st.sampled_from(["float32", "bfloat16", "float16", "int32", "uint8", "float8_e4m3fn"])
LEAVES = st.tuples(st.lists(st.integers(0, 5), max_size=3), DTYPES, st.integers(0, 2**32 - 1))
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=5,
)


def make_leaf(spec):
    shape, dtype, seed = spec
    rng = np.random.default_rng(seed)
    return rng.normal(0, 20, shape).astype(np.int8).astype(values.DTYPES[dtype])


def is_spec(node):
    return isinstance(node, tuple) and len(node) == 3 and isinstance(node[1], str)


@settings(max_examples=50, deadline=None)
@given(TREES)
def test_every_structure_and_dtype_comes_back(spec):
    params = jax.tree.map(make_leaf, spec, is_leaf=is_spec)
    mask = random_mask(params)
    found = coding.decode(coding.encode(mask, params, prunable=prunable_of(params)), like=params)
    chex.assert_trees_all_equal_structs(found.params, params)
    assert_same(found.mask, jax.tree.map(np.asarray, mask))
    assert_same(found.params, masked(params, mask))


def test_a_mask_alone(linen):
    _, mask, prunable = linen
    found = coding.decode(coding.encode(mask, prunable=prunable))
    assert found.params is None
    assert_same(found.mask, mask)


@pytest.mark.parametrize("precision", [coding.bfloat16(), coding.integers(4, -1)], ids=str)
def test_lower_precision_is_for_prunable_leaves(linen, precision):
    params, mask, prunable = linen
    found = coding.decode(coding.encode(mask, params, prunable=prunable, precision=precision))
    for p, q, m, may in zip(
        *map(jax.tree.leaves, (params, found.params, mask, prunable)), strict=True
    ):
        error = np.abs(q - np.where(m, p, 0)).max()
        assert (0 < error < 0.3) if may else error == 0
        assert not q[~m].any()


def init(key):
    return {"w": jax.random.normal(key, (8, 8)), "b": jnp.zeros(8)}


def initial_ticket():
    mask = random_mask(init(jax.random.key(0)))
    start = coding.Initializer("normal", init, jax.random.key(7))
    return mask, coding.encode(mask, prunable={"w": True, "b": False}, initializer=start)


def test_a_ticket_at_initialisation_is_a_key_and_a_mask():
    mask, data = initial_ticket()
    found = coding.decode(data, init=init)
    assert_same(found.params, masked(init(jax.random.key(7)), mask))
    assert found.manifest.initializer == ("normal", "threefry2x32", (0, 7))
    assert coding.table(data).total.values == 0


def test_an_initialiser_that_changed_is_noticed():
    _, data = initial_ticket()
    with pytest.raises(coding.TicketError, match="'w': the initialiser gives other values"):
        coding.decode(data, init=lambda key: {**init(key), "w": init(key)["w"] * 1.0001})
    with pytest.raises(ValueError, match="`init` gives no float32"):
        coding.decode(data, init=lambda key: {"w": init(key)["w"][:4], "b": init(key)["b"]})
    with pytest.raises(ValueError, match=r"`init` is needed: .* 'normal'"):
        coding.decode(data)


def test_one_leaf_is_read_alone(linen, tmp_path, monkeypatch):
    params, mask, prunable = linen
    path = tmp_path / "a.ticket"
    coding.save(path, mask, params, prunable=prunable)
    whole = masked(params, mask)
    read = []
    monkeypatch.setattr(Path, "read_bytes", lambda self: read.append(self))
    found = coding.load_leaf(path, "Dense_0/kernel")
    assert not read
    assert found.values is not None
    assert found.values.tobytes() == whole["Dense_0"]["kernel"].tobytes()
    assert (found.mask == mask["Dense_0"]["kernel"]).all()
    with pytest.raises(ValueError, match="`name` is 'Dense_9'"):
        coding.load_leaf(path, "Dense_9")


def test_one_mask_of_a_ticket_at_initialisation(tmp_path):
    mask, data = initial_ticket()
    (tmp_path / "i.ticket").write_bytes(data)
    found = coding.load_leaf(tmp_path / "i.ticket", "w")
    assert found.values is None and (found.mask == mask["w"]).all()


def test_inspect_reads_the_header_only(linen, tmp_path):
    params, mask, prunable = linen
    data = coding.encode(mask, params, prunable=prunable, provenance={"level": 2})
    path = tmp_path / "a.ticket"
    coding.save(path, mask, params, prunable=prunable, provenance={"level": 2})
    found = coding.inspect(path)
    assert found.manifest.provenance == {"level": 2}
    assert [leaf.name for leaf in found.manifest.leaves] == trees.names(params)
    blobs = sum(found.mask_bytes(n) + found.value_bytes(n) for n in trees.names(params))
    assert found.header_bytes + blobs == found.file_bytes == len(data)


def test_a_file_is_replaced_whole_or_not_at_all(linen, tmp_path, monkeypatch):
    params, mask, prunable = linen
    path = tmp_path / "a.ticket"
    data = coding.encode(mask, prunable=prunable)
    coding.save(path, mask, prunable=prunable)

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(StoreError, match=r"a\.ticket cannot be written: the disk is full"):
        coding.save(path, mask, params, prunable=prunable)
    assert path.read_bytes() == data
    assert [p.name for p in tmp_path.iterdir()] == ["a.ticket"]


def test_any_safetensors_reader_opens_it(linen):
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    params, mask, prunable = linen
    blobs = safetensors.load(coding.encode(mask, params, prunable=prunable))
    assert {*blobs} == {f"{kind}:{n}" for kind in ("mask", "values") for n in trees.names(params)}
    assert all(blob.dtype == np.uint8 and blob.ndim == 1 for blob in blobs.values())


def test_the_header_is_read_with_nothing_but_json(linen):
    _, mask, prunable = linen
    data = coding.encode(mask, prunable=prunable)
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    about = json.loads(header["__metadata__"][container.METADATA])
    assert (length % 8, about["version"], len(about["leaves"])) == (0, 1, len(trees.names(mask)))


def test_the_same_trees_give_the_same_bytes(linen):
    params, mask, prunable = linen
    one, other = (coding.encode(mask, params, prunable=prunable) for _ in range(2))
    assert one == other


def test_a_file_of_the_first_version_stays_readable():
    found = coding.load(FIRST_VERSION)
    i = np.arange(600)
    mask = (i * i % 101 % 7 == 3).reshape(20, 30)
    kernel = (i.reshape(20, 30) % 13 - 6).astype(np.float32) / 4
    assert_same(found.mask, {"dense": {"bias": np.ones(30, bool), "kernel": mask}})
    assert_same(found.params["dense"]["kernel"], np.where(mask, kernel, np.float32(0)))
    assert found.manifest.provenance == {"level": 5}


WRITE = """
import sys, numpy as np
from lth_jax import coding
i = np.arange(600)
mask = {"w": (i * i % 101 % 7 == 3).reshape(20, 30)}
params = {"w": np.sin(i).reshape(20, 30).astype(np.float32)}
data = coding.encode(mask, params, prunable={"w": True}, precision=coding.integers(4))
sys.stdout.buffer.write(data)
"""


def test_another_process_writes_the_same_bytes():
    first = subprocess.run([sys.executable, "-c", WRITE], capture_output=True, check=True).stdout
    scope: dict = {}
    exec(WRITE.replace("sys.stdout.buffer.write(data)", ""), scope)
    assert scope["data"] == first


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mask": {"w": np.ones(3)}}, TypeError, "`mask` at 'w' has dtype float64; bool"),
        ({"mask": {"v": np.ones(3, bool)}}, ValueError, "`prunable` must have the structure"),
        ({"params": {"w": np.ones(4)}}, ValueError, "`params` at 'w' has shape"),
        ({"params": {"w": np.array(["a", "b", "c"])}}, TypeError, "`params` at 'w' has dtype <U1"),
        ({"params": {"w": jax.random.split(jax.random.key(0), 3)}}, TypeError, "key<fry>"),
        ({"prunable": {"w": np.True_}}, TypeError, "`prunable` at 'w'"),
        ({"mask": {"w": np.arange(3) > 0}, "prunable": {"w": False}}, ValueError, "not `prunable`"),
        ({"precision": coding.integers(4, 3)}, ValueError, "channel axis 3; 'w' has 1 axes"),
        (
            {"params": {"w": np.full(3, np.inf)}, "precision": coding.bfloat16()},
            ValueError,
            "`params` at 'w' is not finite",
        ),
        ({"params": None, "precision": coding.bfloat16()}, ValueError, "`precision` is"),
        ({"provenance": {"loss": np.nan}}, ValueError, "JSON"),
        (
            {"initializer": coding.Initializer("n", init, jax.random.key(0))},
            ValueError,
            "`params` and `initializer`",
        ),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    good = {"mask": {"w": np.ones(3, bool)}, "params": {"w": np.ones(3)}, "prunable": {"w": True}}
    arguments = {**good, **change}
    with pytest.raises(error, match=message):
        coding.encode(arguments.pop("mask"), arguments.pop("params"), **arguments)


@pytest.mark.parametrize("name", ["..", "a/../b", "/etc", "a//b", "a\nb", "\0", "x" * 1025])
def test_names_that_could_mislead_are_refused(name):
    assert not is_name(name)
    with pytest.raises(ValueError, match="which a ticket cannot hold"):
        coding.encode({name: np.ones(2, bool)}, prunable={name: True})


def test_two_leaves_of_one_name_are_refused():
    mask = {"a/b": np.ones(2, bool), "a": {"b": np.ones(2, bool)}}
    with pytest.raises(ValueError, match="two leaves of one name"):
        coding.encode(mask, prunable=jax.tree.map(lambda _: True, mask))


def test_a_template_that_does_not_fit_is_named(linen):
    _, mask, prunable = linen
    data = coding.encode(mask, prunable=prunable)
    with pytest.raises(ValueError, match=r"`like` does not have the leaves .*'BatchNorm_0/bias'"):
        coding.decode(data, like={"w": np.zeros(3)})
    wide = jax.tree.map(lambda m: np.zeros((*m.shape, 1)), mask)
    with pytest.raises(ValueError, match=r"`like` has shape .* at 'BatchNorm_0/bias'"):
        coding.decode(data, like=wide)


def test_the_table_adds_up(linen):
    params, mask, prunable = linen
    data = coding.encode(mask, params, prunable=prunable, precision=coding.integers(8))
    rows, total = coding.table(data)
    assert [row.name for row in rows] == trees.names(params)
    assert total.header + total.mask + total.values == total.file == len(data)
    kernels = [row for row in rows if row.prunable]
    assert total.size == sum(np.prod(row.shape) for row in kernels)
    assert total.kept == sum(row.kept for row in kernels)
    assert total.enumerative <= total.entropy_layers <= total.entropy_global
    assert total.entropy_layers <= total.adaptive
    assert total.dense[32] == 4 * trees.size(params)
    for row in rows:
        assert row.mask <= row.enumerative + 1 or row.codec != "enumerative"
    assert total.break_even_density is not None
    assert 0 < total.break_even_density < 1


def test_rates_of_several_precisions(linen):
    params, mask, prunable = linen
    precisions = [coding.exact(), coding.bfloat16(), coding.integers(4)]
    points = coding.rate_points(mask, params, prunable=prunable, precisions=precisions)
    assert [point.precision for point in points] == precisions
    assert points[0].values > points[1].values > points[2].values
    assert_same(points[0].params, masked(params, mask))
    assert len({point.mask for point in points}) == 1


def test_the_frontier_drops_what_is_larger_and_no_better():
    rates = np.array([1.0, 2.0, 2.0, 3.0, 4.0])
    accuracies = np.array([0.5, 0.6, 0.7, 0.7, 0.9])
    assert coding.frontier(rates, accuracies).tolist() == [True, False, True, False, True]


def test_the_size_table_reads_files_and_bytes(tmp_path):
    mask = {"w": np.arange(64).reshape(8, 8) % 4 == 0}
    coding.save(tmp_path / "one.ticket", mask, prunable={"w": True})
    data = (tmp_path / "one.ticket").read_bytes()
    path = tmp_path / "one.ticket"
    assert coding.table(path).total == coding.table(str(path)).total == coding.table(data).total


def test_arguments_of_another_kind_are_named(tmp_path):
    mask, params = {"w": np.ones((2, 2), bool)}, {"w": np.ones((2, 2), np.float32)}
    with pytest.raises(TypeError, match=r"`precision` is 'bfloat16'; it must be a `Precision`"):
        coding.encode(mask, params, prunable={"w": True}, precision="bfloat16")
    with pytest.raises(TypeError, match="`path` is bytes; `inspect` reads a file"):
        coding.inspect(coding.encode(mask, prunable={"w": True}))
