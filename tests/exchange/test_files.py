"""Safetensors files, names and axes of PyTorch, and dtypes."""

import contextlib
import json

import jax
import ml_dtypes
import numpy as np
import pytest

from lth_jax import exchange, layouts, trees
from lth_jax.exchange import tensor_file
from lth_jax.exchange.mapping import as_targets, from_torch, to_torch, torch_shape
from tests.exchange.networks import LAYOUTS, MAPPING, STATE_MAPPING, X, apply, masked, network

safetensors = pytest.importorskip("safetensors.numpy")

DTYPES = [np.dtype(name) for name in tensor_file._CODES]


def made(dtype):
    return np.arange(24).reshape(2, 3, 4).astype(dtype)


def test_their_reader_reads_our_files_and_ours_theirs(tmp_path):
    arrays = {f"a/{dtype.name}": made(dtype) for dtype in DTYPES}
    arrays |= {"scalar": np.array(3, np.float32), "none": np.zeros((0, 4), np.int8)}
    path = tmp_path / "ours.safetensors"
    path.write_bytes(tensor_file.to_bytes(arrays, {"by": "ours"}))
    found, metadata = exchange.load_safetensors(path)
    assert metadata == {"by": "ours"} and set(found) == set(arrays)
    plain = {name: a for name, a in arrays.items() if "float8" not in name}  # NumPy has none
    path.write_bytes(tensor_file.to_bytes(plain))
    theirs = safetensors.load_file(path)
    path = tmp_path / "theirs.safetensors"
    safetensors.save_file(plain, path)
    again = exchange.load_safetensors(path)[0]
    for name, array in arrays.items():
        for other in (found, *([theirs, again] if name in plain else [])):
            assert (other[name].dtype, other[name].shape) == (array.dtype, array.shape), name
            assert other[name].tobytes() == array.tobytes()


def broken(change):
    data = tensor_file.to_bytes({"w": np.ones(4, np.float32)})
    header = json.loads(data[8 : 8 + data[0]])
    change(header["w"])
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + data[0] :]


DAMAGED = {
    "3 bytes are too short for a safetensors file": b"123",
    "it is not a safetensors file, or truncated: its header states": b"PK\x03\x04" * 9,
    "its header is not a JSON object": b"\x02" + bytes(7) + b"[]",
    "entry 'w' is not that of an array": broken(lambda w: w.pop("shape")),
    "'w' has the dtype 'F4', which": broken(lambda w: w.update(dtype="F4")),
    "'w' has 16 bytes, which do not match its shape and dtype": broken(
        lambda w: w.update(shape=[5])
    ),
    "it is truncated: 'w' ends at byte": broken(lambda w: None)[:-1],
}


@pytest.mark.parametrize("message", DAMAGED)
def test_a_damaged_file_is_named(message, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(DAMAGED[message])
    with pytest.raises(exchange.ExchangeError, match=r"x.safetensors' cannot be read: ") as caught:
        exchange.load_safetensors(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("names", ["own", "torch", "torch and masks"])
def test_a_network_comes_back(names, tmp_path):
    params, state, mask = network()
    path = tmp_path / "net.safetensors"
    own = names == "own"
    options = {} if own else {"mapping": MAPPING | STATE_MAPPING, "layouts": LAYOUTS}
    masks = names != "torch"
    written = exchange.save_safetensors(path, params, mask, state=state, masks=masks, **options)
    assert written.dense_bytes == 4 * (trees.size(params) + trees.size(state))
    assert "bytes, dense" in repr(written) and path.stat().st_size == written.bytes
    skip = ("*running_*", "*/mean", "*/var")
    options = {} if own else {"mapping": MAPPING, "layouts": LAYOUTS}
    found = exchange.load_torch_state(path, skip=skip, like=params, zeros=not masks, **options)
    assert_same(found.params, masked(params, mask))
    assert_same(found.mask, mask)
    assert found.prunable == jax.tree.map(lambda p: p.ndim > 1, params)


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_torch_computes_what_flax_does_with_the_mapped_weights():
    """By hand, without PyTorch: channels first, `(outputs, inputs, *window)`, C·H·W flattened."""
    params, state, mask = network()
    t = exchange.to_state_dict(
        params, mask, state=state, mapping=MAPPING | STATE_MAPPING, layouts=LAYOUTS
    )
    x = np.moveaxis(X, -1, 1)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    y = np.einsum("bchwij,ocij->bohw", patches, t["conv.weight"]) + channels(t["conv.bias"])
    scale = t["bn.weight"] / np.sqrt(t["bn.running_var"] + 1e-5)
    y = (y - channels(t["bn.running_mean"])) * channels(scale) + channels(t["bn.bias"])
    y = np.maximum(y, 0).reshape(5, 4, 2, 2, 2, 2).max((3, 5))
    y = np.pad(y, ((0, 0), (0, 0), (0, 1), (0, 1)))
    y = sum(y[:, :, i : i + 2, j : j + 2] for i in (0, 1) for j in (0, 1)) / 4
    y = np.maximum(y.reshape(5, -1) @ t["fc1.weight"].T + t["fc1.bias"], 0)
    y = y @ t["fc2.weight"].T + t["fc2.bias"]
    logits = apply(masked(params, mask), X, state)
    np.testing.assert_allclose(
        y - np.log(np.exp(y).sum(-1, keepdims=True)), logits, rtol=1e-4, atol=1e-4
    )


def test_pytorch_loads_the_file(tmp_path):
    torch = pytest.importorskip("torch")
    from torch.nn.utils import prune

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.BatchNorm2d(4)
            self.fc1, self.fc2 = torch.nn.Linear(16, 6), torch.nn.Linear(6, 3)

        def forward(self, x):
            x = torch.nn.functional.max_pool2d(self.bn(self.conv(x)).relu(), 2)
            x = torch.nn.functional.pad(x, (0, 1, 0, 1))
            x = torch.nn.functional.avg_pool2d(x, 2, 1).flatten(1)
            return self.fc2(self.fc1(x).relu()).log_softmax(-1)

    params, state, mask = network()
    arrays = exchange.to_state_dict(
        params,
        mask,
        state=state,
        mapping=MAPPING | STATE_MAPPING,
        layouts=LAYOUTS,
        masks=True,
    )
    net = Net().eval()
    for layer in (net.conv, net.fc1, net.fc2):
        prune.identity(layer, "weight")
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}
    odd = net.load_state_dict(tensors, strict=False)
    assert not odd.unexpected_keys and set(odd.missing_keys) <= {"bn.num_batches_tracked"}
    out = net(torch.tensor(np.moveaxis(X, -1, 1))).detach().numpy()
    np.testing.assert_allclose(out, apply(masked(params, mask), X, state), rtol=1e-4, atol=1e-4)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    options = {"mapping": MAPPING, "layouts": LAYOUTS, "skip": ("*running_*",)}
    found = exchange.load_torch_state(tmp_path / "net.pth", like=params, **options)
    assert_same(found.params, masked(params, mask))
    assert_same(found.mask, mask)


@pytest.mark.parametrize("typed", [True, False])
def test_batch_norm_comes_back_into_the_state(tmp_path, typed):
    params, state, mask = network()
    mapping, path = MAPPING | STATE_MAPPING, tmp_path / "net.safetensors"
    options = {"mapping": mapping, "layouts": LAYOUTS}
    exchange.save_safetensors(path, params, mask, state=state, masks=True, **options)
    trees_of = {"like": params, "state": state} if typed else {}
    found = exchange.load_torch_state(path, **options, **trees_of)
    assert_same(found.state, state)
    assert_same(found.params, masked(params, mask))
    np.testing.assert_array_equal(
        apply(found.params, X, found.state), apply(masked(params, mask), X, state)
    )
    arrays, _ = exchange.load_safetensors(path)
    named = exchange.load_torch_state(arrays)  # without a mapping
    assert set(named.state["bn"]) == {"running_mean", "running_var"}
    with pytest.raises(exchange.ExchangeError, match=r"names the leaves \['BatchNorm_0/mean', "):
        exchange.load_torch_state(path, like=params, state={}, **options)


FLAT = {"name": "fc1.weight"}


@pytest.mark.parametrize(
    ("changes", "warns"),
    [
        ({}, False),
        ({"Dense_0/kernel": FLAT}, True),
        ({"Dense_0/kernel": FLAT | {"flattened": [16]}}, False),
    ],
)
def test_a_flattened_convolution_without_its_shape_is_warned_of(changes, warns):
    params, _, _ = network()
    options = {"mapping": MAPPING | changes, "layouts": LAYOUTS}
    words = "'Dense_0/kernel' has 16 inputs, 4 times the 4 channels of 'Conv_0/kernel'"
    with pytest.warns(UserWarning, match=words) if warns else contextlib.nullcontext():
        arrays = exchange.to_state_dict(params, **options)
    with pytest.warns(UserWarning, match=words) if warns else contextlib.nullcontext():
        found = exchange.load_torch_state(arrays, like=params, **options)
    assert_same(found.params, params)


def channels(row):
    return row[:, None, None]


@pytest.mark.parametrize(
    ("layout", "shape", "torch"),
    [
        (layouts.DENSE, (3, 5), (5, 3)),
        (layouts.conv(1), (3, 2, 5), (5, 2, 3)),
        (layouts.conv(3), (3, 4, 6, 2, 5), (5, 2, 3, 4, 6)),
        (layouts.Layout((0,), (1, 2), heads=(1,)), (6, 2, 4), (8, 6)),
        (layouts.Layout((0, 1), (2,), heads=(0,)), (2, 4, 6), (6, 8)),
        (layouts.Layout((), (0, 1)), (2, 4), (8,)),
    ],
)
def test_axes_move_there_and_back(layout, shape, torch):
    leaf = np.arange(np.prod(shape)).reshape(shape)
    moved = to_torch(leaf, layout)
    assert moved.shape == torch_shape(shape, layout) == torch
    np.testing.assert_array_equal(from_torch(moved, layout, shape), leaf)


def test_attention_needs_like_and_embeddings_stay():
    params = {
        "query": {"kernel": np.ones((6, 2, 4), np.float32), "bias": np.ones((2, 4), np.float32)},
        "embed": {"embedding": np.ones((7, 6), np.float32)},
    }
    query = {"inputs": [0], "outputs": [1, 2]}
    mapping = {
        "query/kernel": {"name": "q.weight", "layout": query},
        "query/bias": {"name": "q.bias", "layout": {"inputs": [], "outputs": [0, 1]}},
        "embed/embedding": "embed.weight",
    }
    found = exchange.to_state_dict(params, mapping=mapping)
    shapes = {name: array.shape for name, array in found.items()}
    assert shapes == {"q.weight": (8, 6), "q.bias": (8,), "embed.weight": (7, 6)}
    assert_same(exchange.load_torch_state(found, mapping=mapping, like=params).params, params)
    with pytest.raises(exchange.ExchangeError, match=r"has 3 axes, but its shape is .8, 6.; where"):
        exchange.load_torch_state(found, mapping=mapping)


def test_mapping_files(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps(MAPPING))
    lines = [f'"{leaf}" = "{name}"' for leaf, name in MAPPING.items() if isinstance(name, str)]
    lines += ['["Dense_0/kernel"]', 'name = "fc1.weight"', "flattened = [2, 2, 4]"]
    (tmp_path / "m.toml").write_text("\n".join(lines))
    for name in ("m.json", "m.toml"):
        assert exchange.read_mapping(tmp_path / name) == as_targets(MAPPING)


def dense(**entry):
    return {"w": np.ones((4, 3), np.float32)}, {"w": {"name": "t", **entry}}


def export_case(params, mapping, **options):
    return lambda: exchange.to_state_dict(params, mapping=mapping, **options)


def import_case(arrays, **options):
    return lambda: exchange.load_torch_state(arrays, **options)


W = np.ones((2, 4), np.float32)
BAD = {
    r"`mapping` has no PyTorch name for \['b'\]": export_case({"b": W, "w": W}, {"w": "t"}),
    r"`mapping` names the leaves \['x'\], but": export_case({"w": W}, {"w": "t", "x": "u"}),
    "gives 'a' and 'b' the same name 't'": export_case({"a": W}, {"a": "t", "b": "t"}),
    "`mapping` at 'w' is 3; a name is needed": export_case({"w": W}, {"w": 3}),
    r"`mapping` at 'w' has \['axes'\]": export_case(*dense(axes=1)),
    "has the layout 'HWIO'; use 'dense', ": export_case(*dense(layout="HWIO")),
    "has no valid layout: ": export_case(*dense(layout={"inputs": [3], "outputs": [4]})),
    "The layout of 'k', of shape .1, 2, 4., is needed": export_case({"k": W[None]}, {"k": "t"}),
    "`flattened` of 'w' is .2, 3., but the leaf has 4": export_case(*dense(flattened=[2, 3])),
    "'w' stacks layers along its axes .0,.": export_case(
        {"w": W[None]},
        {"w": {"name": "t", "layout": {"inputs": [1], "outputs": [2], "stacked": [0]}}},
    ),
    "`params` and `state` both have the leaves": export_case({"w": W}, None, state={"w": W}),
    "`dtype` is bfloat16, in which values of 'w' .float32. change": export_case(
        {"w": W / 3}, None, dtype="bfloat16"
    ),
    r"`mapping` has no leaf for \['u'\] of `source`": import_case(
        {"t": W, "u": W}, mapping={"w": "t"}
    ),
    r"`mapping` names \['t'\], but the arrays": import_case({"u": W}, mapping={"w": "t"}),
    "'t' has shape .2, 4.; 'w' of shape .2, 4. needs .4, 2.": import_case(
        {"t": W}, mapping={"w": {"name": "t", "layout": "dense"}}, like={"w": W}
    ),
    "The mask of 't' has shape .2,., its weights": import_case({"t": W}, mask={"t": W[:, 0]}),
    "The mask of 't' has other values than 0 and 1": import_case({"t": W}, mask={"t": W / 2}),
    "There is a mask of 'u', but the weights are": import_case({"t": W}, mask={"u": W}),
    "'t' has dtype int64; weights are floating-point": import_case({"t": W.astype(np.int64)}),
    "`dtype` is float32, in which values of 't' .float64. change": import_case(
        {"t": W.astype(np.float64) / 3}, dtype="float32"
    ),
    "Two arrays of the file have the name 'w_mask'": export_case(
        {"w": W, "w_mask": W}, None, mask={"w": W > 1, "w_mask": W > 0}, masks=True
    ),
    "`dtype` is 'float33'; ": import_case({"t": W}, dtype="float33"),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_sentence(message):
    with pytest.raises(exchange.ExchangeError, match=message) as caught:
        BAD[message]()
    assert "\n" not in str(caught.value)


def test_files_are_not_replaced_and_dtypes_are_checked(tmp_path):
    path = tmp_path / "w.safetensors"
    exchange.save_safetensors(path, {"w": W}, separator=".")
    with pytest.raises(exchange.ExchangeError, match="which exists; `overwrite` replaces it"):
        exchange.save_safetensors(path, {"w": W})
    with pytest.raises(exchange.ExchangeError, match="'_', which gives two leaves one name"):
        exchange.save_safetensors(path, {"a": {"b": W}, "a_b": W}, separator="_", overwrite=True)
    exchange.save_safetensors(path, {"w": W.astype(ml_dtypes.bfloat16)}, overwrite=True)
    with pytest.raises(exchange.ExchangeError, match="'w' has dtype int4, which safetensors does"):
        exchange.save_safetensors(path, {"w": W.astype(ml_dtypes.int4)}, overwrite=True)
    (tmp_path / "m.json").write_text("[1")
    with pytest.raises(exchange.ExchangeError, match=r"`mapping` '.*m.json' cannot be read"):
        exchange.read_mapping(tmp_path / "m.json")
