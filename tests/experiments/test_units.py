"""Structured ladders as whole runs: what they prune, what they leave, how fast it is."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments import build, checks, latency, runner
from experiments.configs import units as config_file
from lth_jax import cli, layouts, lottery, schema, trees
from lth_jax import structure as st
from lth_jax.cli.programs import UserError
from lth_jax.coding.stored import read_stored
from lth_jax.models import NETWORKS, from_linen
from lth_jax.store import Store
from tests.experiments import tiny
from tests.thinning import sampled

COMMAND = ["python", "-m", "experiments.run"]


def config_in(workdir, **experiment):
    config = tiny.get_config()
    config.machine.workdir = str(workdir)
    config.experiment.update_from_flattened_dict(experiment)
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def structured(workdir):
    changes = {"prune.granularity": "units", "prune.scope": "layerwise", "prune.unit_multiple": 2}
    return runner.run(config_in(workdir, **changes, controls=("reinit", "random_units")), COMMAND)


@pytest.fixture(scope="module")
def controlled(workdir):
    controls = ("refill", "refill_random", "regroup", "regroup_random")
    return runner.run(config_in(workdir, controls=controls), COMMAND)


def networks(folder, *arms):
    return list(read_stored(Store(folder.parent), folder, arms))


def rows(folder, capsys):
    capsys.readouterr()
    assert cli.main(["show", folder.name, "--root", str(folder.parent), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["rows"]


def test_structured_tickets_and_controls_keep_whole_units_of_one_number(structured):
    for level, count in ((1, 8), (2, 4)):
        kept = {}
        for one in networks(structured, "ticket", "reinit", "random_units"):
            if one.level == level:
                mask = one.mask["Dense_0/bias"]
                assert mask.sum() == count
                for name, across in (("Dense_0/kernel", mask), ("Dense_1/kernel", mask[:, None])):
                    assert (one.mask[name] == across).all()
                assert one.mask["Dense_1/bias"].all()
                kept[one.arm, one.replicate] = tuple(np.flatnonzero(mask))
        assert all(kept["ticket", r] == kept["reinit", r] for r in range(2))
        assert any(kept["ticket", r] != kept["random_units", r] for r in range(2))


def test_random_units_start_from_the_original_initialisation(structured):
    store = Store(structured.parent)
    nodes = json.loads((structured / "manifest.json").read_text())["nodes"]
    assert {arm for node in nodes for arm in node["arms"]} == {
        "dense", "ticket", "reinit", "random_units"
    }  # fmt: skip
    assert schema.read_facts(store, nodes[0]["key"]).level == 0


@pytest.mark.slow
def test_a_ladder_within_a_budget_of_operations(workdir):
    """Each level keeps at most half of the operations of the one before, by a config."""
    changes = {"prune.granularity": "units", "prune.budget": "flops", "controls": ()}
    changes["model.options"] = ConfigDict({"features": (16, 12, 10)})
    folder = runner.run(config_in(workdir, **changes), COMMAND)
    for one in networks(folder, "ticket"):
        first, second = (int(one.mask[f"Dense_{i}/bias"].sum()) for i in range(2))
        inputs = one.mask["Dense_0/kernel"].shape[0]
        share = (inputs * first + first * second + second * 10) / (inputs * 16 + 16 * 12 + 12 * 10)
        assert 0.5**one.level - 0.1 < share <= 0.5**one.level


@pytest.mark.slow
def test_refilled_controls_are_whole_units_of_at_most_the_same_size(controlled):
    tickets = {(o.level, o.replicate): o for o in networks(controlled, "ticket")}
    for one in networks(controlled, "refill", "refill_random"):
        kernel = one.mask["Dense_0/kernel"]
        assert (kernel == kernel.any(0)).all() and not kernel.all()
        weights = [sum(o.mask[f"Dense_{i}/kernel"].sum() for i in range(2))
                   for o in (one, tickets[one.level, one.replicate])]  # fmt: skip
        assert weights[0] <= weights[1]


@pytest.mark.slow
def test_regrouped_controls_are_one_block_per_group_of_at_most_the_same_size(controlled):
    tickets = {(o.level, o.replicate): o for o in networks(controlled, "ticket")}
    for one in networks(controlled, "regroup", "regroup_random"):
        for i in range(2):  # 16 and 10 outputs: one group each, so whole inputs stay or go
            kernel = one.mask[f"Dense_{i}/kernel"]
            assert (kernel == kernel[:, :1]).all() and 0 < kernel.mean() < 1
            assert kernel.sum() <= tickets[one.level, one.replicate].mask[f"Dense_{i}/kernel"].sum()


@pytest.mark.slow
def test_heads_climb_down_to_one(workdir):
    config = config_file.get_config("heads")
    config.machine.update(workdir=str(workdir), chunk=1, driver="scan", compilation_cache=False)
    config.experiment.update(replicates=1)
    config.experiment.model.options.update(width=8, heads=4, hidden=8, layers=1)
    config.experiment.train.update(steps=4, eval_every=2, batch_size=8)
    config.experiment.prune.levels = 2
    folder = runner.run(config, COMMAND)
    found = networks(folder, "ticket", "reinit", "scratch", "random_units")
    assert len(found) == 2 * 4
    for one in found:
        kept = {}
        for name, mask in one.mask.items():
            layer = name.split("Attention_0/")[-1]
            if layer in ("query/kernel", "key/kernel", "value/kernel"):
                kept[layer] = mask.reshape(8, 4, 2)
            elif layer == "out/kernel":
                kept[layer] = mask.reshape(4, 2, 8).transpose(2, 0, 1)
            elif "Attention" not in name:
                assert mask.all()
        heads = kept["out/kernel"].any(axis=(0, 2))
        assert heads.sum() == {1: 2, 2: 1}[one.level] and len(kept) == 4
        assert all((mask == heads[:, None]).all() for mask in kept.values())


TOKENS = {"classes": 64, "vocabulary": 64, "hidden": 64, "layers": 1}


@pytest.mark.parametrize(
    ("name", "options", "x"),
    [
        ("transformer_decoder", TOKENS, jnp.zeros((1, 64), jnp.int32)),
        ("gru", {}, jnp.zeros((1, 4, 64))),
        ("resnet", {"blocks": (1,)}, jnp.zeros((1, 8, 8, 3))),
    ],
)
@pytest.mark.slow
def test_the_initial_distributions_are_known_at_every_width(name, options, x):
    """A wide network, rescaled as if half of it were kept, and the network of half the width."""
    modules = [NETWORKS[name](**options | {"width": width}) for width in (64, 32)]
    wide, small = (jax.jit(from_linen(m).init)(jax.random.key(0), x)[0] for m in modules)
    mask = jax.tree.map(lambda p, q: jnp.zeros(p.shape, bool).at[corner(q)].set(True), wide, small)
    everything = jax.tree.map(lambda _: True, mask)
    known = layouts.of_linen(modules[0], x, train=False)
    scaled = st.rescale(wide, mask, everything, st.fan_of(modules[0]), layouts=known)
    kept = jax.tree.map(lambda p, q: p[corner(q)], scaled, small)
    for name, p, q in zip(trees.names(kept), *map(jax.tree.leaves, (kept, small)), strict=True):
        if p.ndim > 1:
            np.testing.assert_allclose(p.std(), q.std(), rtol=0.1, err_msg=name)


def corner(leaf):
    """The first indices of every axis, as many as `leaf` has."""
    return tuple(map(slice, leaf.shape))


def test_every_named_network_can_be_newly_initialised():
    for make in NETWORKS.values():
        assert st.fan_of(make())("Dense_0/kernel", layouts.DENSE, (4, 8)) in (4, 6)


def test_every_run_is_described(structured, capsys):
    found = {(r["arm"], r["level"], r["metric"]): r for r in rows(structured, capsys)}
    for arm in ("ticket", "reinit", "random_units"):
        row = found[arm, 2, "effective_density"]
        assert row["mean"] == pytest.approx(row["density"])  # whole units leave nothing dead
        assert found[arm, 2, "units_alive/Dense_0/bias:0"]["mean"] == 4
    page = (structured / "report" / "index.html").read_text()
    assert 'aria-label="units_kept"' in page and 'aria-label="unit_groups"' not in page  # one group


@pytest.fixture(scope="module")
def timed(structured):
    arguments = [structured.name, "--root", str(structured.parent), "--batch", "8"]
    assert latency.main([*arguments, "--repeats", "3"]) == 0
    return structured


def test_latency_is_measured_for_each_shape_and_the_accuracies_are_the_runs_own(timed, capsys):
    found = rows(timed, capsys)
    for level in (1, 2):
        mine = [r for r in found if r["level"] == level and r["metric"] == "latency_relative"]
        assert {r["arm"] for r in mine} == {"ticket", "reinit", "random_units"}
        assert len({r["mean"] for r in mine}) == 1 and mine[0]["mean"] > 0
    pairs = [[r for r in found if (r["arm"], r["level"], r["metric"]) == ("ticket", 1, metric)]
             for metric in ("accuracy", "test_accuracy_final")]  # fmt: skip
    np.testing.assert_allclose(pairs[0][0]["values"], pairs[1][0]["values"], atol=1e-6)
    assert [r for r in found if r["metric"] == "accuracy_minus_random_units"]
    assert 'aria-label="latency"' in (timed / "report" / "index.html").read_text()


def test_what_is_timed_is_not_timed_again(timed, monkeypatch):
    module = sys.modules["lth_jax.analysis.latency"]
    monkeypatch.setattr(module, "alternated", lambda *_: pytest.fail("timed twice"))
    monkeypatch.setattr(lottery.Result, "report", lambda result: "page")
    arguments = [timed.name, "--root", str(timed.parent), "--batch", "8", "--repeats", "3"]
    assert latency.main(arguments) == 0


@pytest.mark.parametrize("option", ["--batch", "--repeats"])
def test_settings_that_measure_nothing_are_refused(structured, option, capsys):
    arguments = [structured.name, "--root", str(structured.parent), option, "0"]
    assert latency.main(arguments) == 2
    assert f"`{option}` is 0; it must be an integer in 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prune.granularity": "unit"}, "`prune.granularity`"),
        ({"prune.reduction": "median"}, "`prune.reduction`"),
        ({"prune.unit_multiple": 0}, "`prune.unit_multiple` is 0"),
        ({"prune.granularity": "units", "prune.scope": "erk"}, "`prune.scope` is 'erk'"),
        ({"prune.granularity": "units", "prune.biases": True}, "`prune.biases` apply to weights"),
        ({"prune.criterion": "norm_scales"}, "needs `prune.granularity=units`"),
        ({"prune.budget": "flops"}, "`prune.budget=flops` needs `prune.granularity=units`"),
        ({"prune.budget": "time"}, "`prune.budget` is 'time'"),
        (
            {"prune.granularity": "units", "prune.budget": "bytes", "prune.scope": "layerwise"},
            "needs `prune.scope=globally` and `prune.rounds=1`",
        ),
        ({"controls": ("random_units",)}, "`controls`"),
        ({"prune.granularity": "units", "controls": ("refill",)}, "`controls`"),
        ({"prune.granularity": "units", "controls": ("regroup",)}, "`controls`"),
        ({"controls": ("scratch",)}, "`controls`"),
        ({"prune.criterion": "wanda"}, "which needs data"),
    ],
)
def test_what_does_not_go_together_is_refused_before_work(changes, message):
    with pytest.raises(UserError, match=message):
        checks.check(config_in("nowhere", **changes).experiment)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prune.groups": ("Conv_*",)}, "matches no group"),
        ({"prune.criterion": "norm_scales"}, "without a leaf that fits"),
        ({"model.options": ConfigDict({"features": (10,)}), "prune.groups": ()}, "no unit"),
        (
            {"prune.scope": "globally", "prune.budget": "flops", "prune.rate": 0.99},
            "includes level 1, which is impossible: density .* share of flops below the least",
        ),
    ],
)
def test_a_network_without_such_units_is_refused(workdir, changes, message):
    units = {"prune.granularity": "units", "prune.scope": "layerwise", "controls": ()}
    config = config_in(workdir)
    config.experiment.update_from_flattened_dict(units)
    for name, value in changes.items():
        config.experiment.update_from_flattened_dict({name: value})
    with pytest.raises(UserError, match=message):
        runner.run(config, COMMAND)


@pytest.mark.parametrize("what", config_file.SIZES)
def test_the_small_configs_become_ladders(what, workdir):
    config = config_file.get_config(what)
    config.machine.workdir = str(workdir)
    checks.check(config.experiment)
    task = build.task(config.experiment, build.dataset(config))
    ladder = build.ladder(config.experiment, task)
    assert list(ladder.controls) == list(config.experiment.controls)
    assert len(ladder.counts) == config.experiment.prune.levels
    params, _ = task.shapes
    assert jax.tree.structure(ladder.prunable) == jax.tree.structure(params)


def test_a_config_of_another_name_is_refused():
    with pytest.raises(ValueError, match=r"`what` is 'tails';.* must be one of: .*hidden"):
        config_file.get_config("tails")


@pytest.mark.parametrize("criterion", sampled(["activation_norms", "norm_scales"], 2))
def test_channels_of_a_residual_network_climb_with_every_kind_of_criterion(workdir, criterion):
    config = config_file.get_config("resnet")
    config.machine.update(workdir=str(workdir), chunk=1, driver="scan", compilation_cache=False)
    config.experiment.update(replicates=1, controls=("random_units",))
    config.experiment.train.update(steps=4, eval_every=2, batch_size=8)
    config.experiment.prune.update(criterion=criterion, examples=16, levels=2)
    folder = runner.run(config, COMMAND)
    ticket = next(one for one in networks(folder, "ticket") if one.level == 2)
    for name, mask in ticket.mask.items():
        if name.endswith("scale"):
            assert 0 < mask.sum() < mask.size and mask.sum() % 2 == 0
