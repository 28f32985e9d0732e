"""The commands that measure curvature and learning rates, on runs of a second or two."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import finished, learning_rates, runner, spectrum
from experiments.configs import base, gradient_descent
from lth_jax import cli, landscape, lottery, store, trees
from lth_jax.coding.stored import read_stored
from lth_jax.store.analyses import analyses
from tests.experiments import tiny


@pytest.fixture(scope="module")
def undrawn():
    """Reports are drawn, and looked at, in tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "write_report", lambda store, run: run.path)
        patch.setattr(lottery.Result, "report", lambda result: result.path)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, undrawn):
    config = tiny.get_config()
    config.machine.workdir = str(tmp_path_factory.mktemp("runs"))
    config.experiment.model.options.features = (6, 10)
    changes = {"prune.levels": 1, "controls": ("random", "reinit"), "data.train_examples": 50}
    config.experiment.update_from_flattened_dict(changes)
    return runner.run(config, ["python", "-m", "experiments.run"])


OPTIONS = ("--probes=2", "--steps=12", "--k=2", "--surface=3")


@pytest.fixture(scope="module")
def measured(run):
    assert spectrum.main([run.name, "--root", str(run.parent), *OPTIONS]) == 0
    return store.Store(run.parent), analyses(run, "spectrum")


def module_of(name):
    """The module, which the package's function of the same name hides."""
    return sys.modules[f"lth_jax.analysis.{name}"]


def test_every_network_is_measured_at_the_points_that_it_has(measured):
    found: dict[str, set[str]] = {}
    for entry in measured[1]:
        found.setdefault(entry["labels"]["arm"], set()).add(entry["labels"]["point"])
    assert found == {
        "dense": {"start", "dense"},
        "ticket": {"start", "dense_on_mask", "masked", "retrained"},
        "random": {"dense_on_mask", "masked", "retrained"},
        "reinit": {"retrained"},
    }
    assert len(measured[1]) == 2 * 10  # replicates


@pytest.mark.parametrize(
    ("arm", "points"),
    [
        ("reinit", {"retrained"}),
        ("refill_reinit", {"retrained"}),
        ("regroup_reinit", {"dense_on_mask", "masked", "retrained"}),  # no `regroup` has them
        ("refill", {"dense_on_mask", "masked", "retrained"}),
    ],
)
def test_points_are_measured_on_one_of_the_arms_that_share_a_mask(measured, run, arm, points):
    [dense, one] = [next(read_stored(measured[0], run, (name,))) for name in ("dense", "ticket")]
    found = module_of("spectrum").places(
        one._replace(arm=arm), dense, None, ("dense", "ticket", "refill")
    )
    assert set(found) == points


def test_the_numbers_are_those_of_the_curvature_itself(measured, run):
    shelf, listed = measured
    machine = base.ladder().machine
    machine.update(workdir=str(run.parent), data_placement="device")
    opened = finished.open_finished(machine, run.name).result
    trainer, train = opened.task.trainer, opened.task.data.train
    [one] = [s for s in read_stored(shelf, run, ("ticket",)) if s.replicate == 1]
    like, _ = jax.eval_shape(trainer.model.init, opened.replicate_seeds.root, train.x[:1])
    params, mask = (trees.from_named(tree, like) for tree in (one.params, one.mask))

    def loss(p, batch):
        return trainer.loss(trainer.model.apply(p, {}, batch.x, train=False)[0], batch.y).mean()

    exact = landscape.eigenvalues(landscape.hessian(loss, params, [train], mask=mask))
    place = {"arm": "ticket", "replicate": 1, "point": "retrained"}
    [entry] = [e for e in listed if place.items() <= e["labels"].items()]
    node = shelf.read(entry["key"])
    assert node.meta["size"] == len(exact)
    largest, bounds = node.arrays["largest"], node.arrays["largest_bounds"]
    assert (np.abs(largest - exact[::-1][:2]) <= bounds + 1e-4 * exact[-1]).all()


def test_what_is_measured_is_not_measured_again(measured, run, monkeypatch):
    monkeypatch.setattr(
        module_of("spectrum").Instrument, "spectrum", lambda *_: pytest.fail("again")
    )
    assert spectrum.main([str(run), "--root", str(run.parent), *OPTIONS]) == 0
    assert analyses(run, "spectrum") == measured[1]


def test_lth_reads_what_was_measured(measured, run, capsys):
    capsys.readouterr()
    assert cli.main(["spectrum", run.name, "--root", str(run.parent), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    whole = {r["arm"]: r for r in rows if (r["point"], r["metric"]) == ("dense", "support")}
    part = {r["arm"]: r for r in rows if (r["point"], r["metric"]) == ("retrained", "support")}
    assert whole["dense"]["mean"] == 64 * 6 + 6 + 6 * 10 + 10
    assert part["ticket"]["mean"] == part["random"]["mean"] == (64 * 6 + 6 * 10) / 2 + 16


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--levels=first", "`--levels` is 'first'; it must be different levels"),
        ("--levels=7", "`--levels` is 7; the run has 0, 1"),
        ("--arms=shuffle", "`--arms` is shuffle; the run has dense"),
        ("--points=there", "`--points` is there; the run has dense, start"),
        ("--mode=middling", "`--mode` is 'middling'"),
        ("--probes=0", "`--probes` is 0; it must be an integer in 1"),
        ("--surface=-1", "`--surface` is -1"),
    ],
)
def test_what_the_run_lacks_is_named(run, capsys, option, words):
    capsys.readouterr()
    assert spectrum.main([run.name, "--root", str(run.parent), option]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


def test_a_curvature_that_cannot_be_had_names_its_network(run, monkeypatch, capsys):
    def refuse(*_, **__):
        raise ValueError("`steps` 64 need too much.")

    monkeypatch.setattr(landscape, "density", refuse)
    options = [*OPTIONS, "--probes=3", "--levels=1", "--arms=ticket", "--points=masked"]
    capsys.readouterr()
    assert spectrum.main([run.name, "--root", str(run.parent), *options]) == 2
    words = "error: No kind spectrum, arm ticket, level 1, replicate 0, point masked: `--steps` 64"
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_a_curvature_that_is_not_finite_is_left_out_and_the_rest_measured(run, monkeypatch, caplog):
    measured = landscape.density
    failures = iter([landscape.NotFiniteError("a product was NaN.")])

    def fail_once(*args, **kwargs):
        for failure in failures:
            raise failure
        return measured(*args, **kwargs)

    monkeypatch.setattr(landscape, "density", fail_once)
    options = ["--probes=2", "--steps=11", "--k=2", "--surface=0", "--levels=1", "--arms=ticket"]
    before = {entry["key"] for entry in analyses(run, "spectrum")}
    command = [run.name, "--root", str(run.parent), *options, "--points=masked"]
    assert spectrum.main(command) == 0
    words = "omitted: kind spectrum, arm ticket, level 1, replicate 0, point masked: a product"
    assert words in caplog.text
    fresh = [e for e in analyses(run, "spectrum") if e["key"] not in before]
    assert [entry["labels"]["replicate"] for entry in fresh] == [1]


def test_a_sweep_is_for_gradient_descent(run, capsys):
    assert learning_rates.main([run.name, "--root", str(run.parent)]) == 2
    assert "was trained by 'adam'" in capsys.readouterr().err
    assert learning_rates.main([run.name, "--root", str(run.parent), "--rates=0,1"]) == 2
    assert (
        "`--rates` is '0,1'; it must be different rates, each a number in (0, "
        in capsys.readouterr().err
    )
    assert learning_rates.main([run.name, "--root", str(run.parent), "--chunk=-1"]) == 2
    assert "`--chunk` is -1; it must be an integer in 0" in capsys.readouterr().err


@pytest.mark.slow
def test_learning_rates_are_swept_beside_their_prediction(tmp_path):
    config = gradient_descent.get_config("smoke")
    config.machine.workdir = str(tmp_path)
    path = runner.run(config, ["python", "-m", "experiments.run"])
    rates = "--rates=0.125,1,64"
    assert learning_rates.main([path.name, "--root", str(tmp_path), rates]) == 0
    nodes = swept(path)
    assert set(nodes) == {"dense", "ticket", "random"}
    for found in nodes.values():
        assert found["train_loss"].shape == (2, 3)
        assert found["relative_sharpness"].shape == (2, 2, 3)
        assert (0 < found["start_edge"]).all() and (found["start_edge"] < 64).all()
    # Beyond the edge gradient descent does not get down, well below it, it does.
    dense = nodes["dense"]["train_loss"]
    assert (np.nan_to_num(dense[:, 2], nan=np.inf) > dense[:, 0]).all()
    # Four of six members at a time, the last two padded, are the same members.
    assert learning_rates.main([path.name, "--root", str(tmp_path), rates, "--chunk=4"]) == 0
    whole, chunked = (found["dense"]["relative_sharpness"] for found in (nodes, swept(path)))
    np.testing.assert_allclose(chunked[:, :, :2], whole[:, :, :2], rtol=1e-2)
    assert len({*whole[0, :, :2].flat}) == 4  # all differ, so that none is another's


@pytest.mark.slow
def test_a_curvature_that_is_not_finite_leaves_nan_and_its_reason(tmp_path, monkeypatch):
    config = gradient_descent.get_config("smoke")
    config.machine.workdir = str(tmp_path)
    path = runner.run(config, ["python", "-m", "experiments.run"])
    measure = module_of("learning_rates").relative_sharpness_at

    def fail_at_one(loss, member, batches, key):
        scale = jnp.where(member.hyper["learning_rate"] == 1, jnp.inf, 1.0)
        params = jax.tree.map(lambda leaf: scale * leaf, member.params)
        return measure(loss, member._replace(params=params), batches, key)

    monkeypatch.setattr(module_of("learning_rates"), "relative_sharpness_at", fail_at_one)
    assert learning_rates.main([path.name, "--root", str(tmp_path), "--rates=0.125,1"]) == 0
    shelf = store.Store(tmp_path)
    for entry in analyses(path, "learning_rates"):
        node = shelf.read(entry["key"])
        tracked = node.arrays["relative_sharpness"]
        assert np.isnan(tracked[..., 1]).all() and np.isfinite(tracked[..., 0]).all()
        assert np.isfinite(node.arrays["train_loss"]).all()  # trained all the same
        unmeasured = node.meta["unmeasured"]
        where = {(one["step"], one["replicate"], one["rate"]) for one in unmeasured}
        assert where == {(step, replicate, 1.0) for step in (20, 40) for replicate in (0, 1)}
        assert all(one["reason"].startswith("`loss` must be finite") for one in unmeasured)


def swept(path):
    """The arrays of every arm's latest sweep."""
    shelf = store.Store(path.parent)
    listed = analyses(path, "learning_rates")
    return {entry["labels"]["arm"]: shelf.read(entry["key"]).arrays for entry in listed}
