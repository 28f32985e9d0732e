"""`lth export` and `lth import`."""

import json
import sys

import jax
import numpy as np
import pytest

from lth_jax import cli, coding, exchange, trees
from tests.exchange.networks import LAYOUTS, MAPPING, STATE_MAPPING, network
from tests.exchange.test_files import assert_same
from tests.report import synthetic

NAMES = {
    f"Dense_{i}/{leaf}": f"fc{i}.{torch}"
    for i in range(3)
    for leaf, torch in {"kernel": "weight", "bias": "bias"}.items()
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return root, synthetic.write(root, nodes=synthetic.ladder(levels=1, replicates=2)).run


@pytest.fixture
def ticket(run, tmp_path, capsys):
    return exported(run, tmp_path / "one.ticket", capsys)


def exported(run, path, capsys, *words):
    root, name = run
    place = ["--level", "1", "--replicate", "1", "--root", str(root)]
    assert cli.main(["export", name, str(path), *place, *words]) == 0
    assert f"{path}: {path.stat().st_size:,} bytes" in capsys.readouterr().out
    return path


def lth(capsys, *words):
    code = cli.main(list(map(str, words)))
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def test_a_run_and_its_ticket_give_the_same_safetensors(run, ticket, tmp_path, capsys):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    exported(run, one, capsys, "--masks", "--values", "rewound")
    assert "read back exactly" in lth(capsys, "export", ticket, two, "--masks")
    arrays, _ = exchange.load_safetensors(one)
    assert_same(exchange.load_safetensors(two)[0], arrays)
    assert {"Dense_0/kernel_orig", "Dense_0/kernel_mask", "Dense_0/bias"} <= set(arrays)


def test_values_zeros_and_unknown_endings_are_stated(run, ticket, tmp_path, capsys):
    root, name = run
    path, place = tmp_path / "trained.safetensors", ["--level", 1, "--replicate", 1]
    assert lth(capsys, "export", name, path, *place, "--root", root).endswith("trained values\n")
    assert cli.main(["import", str(path), str(tmp_path / "all.ticket")]) == 0
    assert "`--zeros` prunes them" in capsys.readouterr().err
    assert cli.main(["export", str(ticket), str(tmp_path / "x.foo")]) == 2
    assert "is unknown; choose `--format`: " in capsys.readouterr().err


@pytest.mark.parametrize("form", ["--masks", "--zeros"])
def test_pytorch_names_there_and_back(ticket, tmp_path, form, capsys):
    names = tmp_path / "names.json"
    wanted = coding.load(ticket)
    leaves = trees.to_named(wanted.params)
    names.write_text(json.dumps({leaf: NAMES[leaf] for leaf in leaves}))
    path, again = tmp_path / "torch.safetensors", tmp_path / "again.ticket"
    masks = [form] if form == "--masks" else []
    lth(capsys, "export", ticket, path, "--mapping", names, *masks)
    zeros = [form] if form == "--zeros" else []
    out = lth(capsys, "import", path, again, "--mapping", names, *zeros)
    assert "prunable weights kept" in out
    found = coding.load(again)
    assert_same(found.params, wanted.params)
    assert_same(found.mask, wanted.mask)
    assert found.prunable == wanted.prunable
    assert found.manifest.provenance == {"source": "torch.safetensors"}


def test_sparse_files(run, ticket, tmp_path, capsys):
    path = tmp_path / "x.safetensors"
    out = lth(capsys, "export", ticket, path, "--format", "bcoo")
    assert "bytes, dense" in out
    wanted = coding.load(ticket)
    assert_same(exchange.to_dense(exchange.load_sparse(path)), wanted.params)
    kernel = np.tile(np.array([[1.0], [0.0], [2.0], [0.0]], np.float32), (2, 3))
    coding.save(ticket, {"w": kernel != 0}, {"w": kernel}, prunable={"w": True})
    coding.save(tmp_path / "a.ticket", {"kernel": kernel != 0}, prunable={"kernel": True})
    coding.save(ticket, {"kernel": kernel != 0}, {"kernel": kernel}, prunable={"kernel": True})
    lth(capsys, "export", ticket, path, "--format", "nm", "--overwrite")
    assert_same(exchange.to_dense(exchange.load_sparse(path)), {"kernel": kernel})
    code = cli.main(["export", str(tmp_path / "a.ticket"), str(tmp_path / "b.safetensors")])
    assert code == 2 and "holds a mask without values" in capsys.readouterr().err


def test_the_state_of_a_run_is_written_with_its_parameters(tmp_path, capsys):
    [dense] = synthetic.ladder(levels=0, replicates=1)
    state = {"batch_stats/mean": np.ones((1, 3), np.float32)}
    dense.points["end"] = dense.points["end"]._replace(state=state)
    name = synthetic.write(tmp_path, nodes=[dense]).run
    path = tmp_path / "x.safetensors"
    place = ["--level", "0", "--replicate", "0", "--arm", "dense", "--values", "trained"]
    lth(capsys, "export", name, path, *place, "--root", tmp_path)
    assert exchange.load_safetensors(path)[0]["batch_stats/mean"].tolist() == [1, 1, 1]


def test_a_ticket_is_written_again_at_another_precision(ticket, tmp_path, capsys):
    path = tmp_path / "small.ticket"
    lth(capsys, "export", ticket, path, "--precision", "int8")
    assert path.stat().st_size < ticket.stat().st_size
    wanted = coding.inspect(ticket).manifest.provenance
    assert coding.inspect(path).manifest.provenance == wanted
    assert_same(coding.load(path).mask, coding.load(ticket).mask)


def test_masks_of_open_lth_and_names_to_skip(tmp_path, capsys):
    weights = {"fc.weight": np.ones((2, 3), np.float32), "fc.bias": np.ones(2, np.float32)}
    weights |= {"bn.running_mean": np.ones(2, np.float32), "bn.num_batches_tracked": np.array(3)}
    mask = {"fc.weight": np.array([[0, 1, 1], [1, 0, 0]], np.int32)}
    exchange.save_safetensors(tmp_path / "w.safetensors", weights)
    exchange.save_safetensors(tmp_path / "m.safetensors", mask)
    words = [tmp_path / "w.safetensors", tmp_path / "x.ticket", "--skip", "*running_*"]
    out = lth(capsys, "import", *words, "--mask", tmp_path / "m.safetensors")
    assert "3 of 6 prunable weights kept" in out
    found = coding.load(tmp_path / "x.ticket")
    assert found.mask["fc"]["weight"].tolist() == (mask["fc.weight"] == 1).tolist()
    assert found.prunable == {"fc": {"bias": False, "weight": True}}


def test_statistics_of_batch_norm_there_and_back(tmp_path, capsys):
    params, state, mask = network()
    layout = {"layout": "conv"}
    mapping = MAPPING | STATE_MAPPING | {"Conv_0/kernel": {"name": "conv.weight"} | layout}
    (tmp_path / "names.json").write_text(json.dumps(mapping))
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    exchange.save_safetensors(one, params, mask, state=state, mapping=mapping, masks=True)
    names = ["--mapping", tmp_path / "names.json"]
    lth(capsys, "import", one, tmp_path / "x.ticket", *names)
    lth(capsys, "export", tmp_path / "x.ticket", two, *names, "--masks")
    assert_same(exchange.load_safetensors(two)[0], exchange.load_safetensors(one)[0])
    found = coding.load(tmp_path / "x.ticket")
    assert found.params["BatchNorm_0"]["var"].tolist() == state["BatchNorm_0"]["var"].tolist()
    assert not found.prunable["BatchNorm_0"]["var"]


def test_an_ambiguous_mapping_is_a_line_of_the_command(tmp_path, capsys):
    params, _, _ = network()
    flat = {"Conv_0/kernel": {"name": "conv.weight", "layout": "conv"}}
    flat["Dense_0/kernel"] = "fc1.weight"
    (tmp_path / "names.json").write_text(json.dumps(MAPPING | flat))
    exchange.save_safetensors(tmp_path / "x.safetensors", params, mapping=MAPPING, layouts=LAYOUTS)
    words = ["import", tmp_path / "x.safetensors", tmp_path / "x.ticket", "--mapping"]
    assert cli.main(list(map(str, [*words, tmp_path / "names.json"]))) == 0
    assert capsys.readouterr().err.startswith("lth: 'Dense_0/kernel' has 16 inputs, 4 times")


def test_exported_files_are_verified(run, ticket, tmp_path, capsys):
    paths = {"ticket": ticket}
    for form in ("safetensors", "bcoo"):
        paths[form] = tmp_path / f"{form}.safetensors"
        lth(capsys, "export", ticket, paths[form], "--format", form)
    for form, path in paths.items():
        says = (
            "SHA-256 of every leaf agrees" if form == "ticket" else "so the values were not checked"
        )
        found = lth(capsys, "verify", path)
        assert says in found and ("in the structure of" in found) == (form != "ticket")
        path.write_bytes(path.read_bytes()[:-3])
        assert cli.main(["verify", str(path)]) == 1
        assert str(path) in capsys.readouterr().out
    assert cli.main(["verify", str(tmp_path / "none.ticket")]) == 2
    assert "No such file" in capsys.readouterr().err
    weights = {"w": np.zeros((2, 2), np.float32)}
    start = coding.Initializer("zeros", lambda _: weights, jax.random.key(0))
    options = {"prunable": {"w": True}, "initializer": start}
    coding.save(tmp_path / "made.ticket", {"w": np.eye(2, dtype=bool)}, **options)
    assert "values that an initialiser makes" in lth(capsys, "verify", tmp_path / "made.ticket")


def test_programs_are_verified(tmp_path, capsys):
    path = tmp_path / "f.stablehlo"
    exchange.save_stablehlo(path, lambda p, x: p * x, np.float32(2), np.ones(3, np.float32))
    assert "No damage" in lth(capsys, "verify", path)
    path.write_bytes(b"damage" * 9)
    assert cli.main(["verify", str(path)]) == 1
    assert "is not an artifact of `jax.export`" in capsys.readouterr().out


def test_a_file_of_pytorch(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    prune = pytest.importorskip("torch.nn.utils.prune")
    layer = torch.nn.Linear(4, 3)
    prune.l1_unstructured(layer, "weight", amount=0.5)
    torch.save(layer.state_dict(), tmp_path / "model.pt")
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"kernel": "weight", "bias": "bias"}))
    lth(capsys, "import", tmp_path / "model.pt", tmp_path / "x.ticket", "--mapping", names)
    found = coding.load(tmp_path / "x.ticket")
    x = np.ones((2, 4), np.float32)
    out = layer(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(x @ found.params["kernel"] + found.params["bias"], out, rtol=1e-5)
    assert found.mask["kernel"].sum() == 6 and found.prunable == {"bias": False, "kernel": True}


def test_a_file_that_needs_pytorch_names_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.main(["import", str(tmp_path / "x.pt"), str(tmp_path / "x.ticket")]) == 2
    assert 'A .pt file needs `torch`; install it with `pip install "lth' in capsys.readouterr().err
