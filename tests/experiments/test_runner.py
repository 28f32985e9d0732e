"""Whole experiments in this process: what a run leaves behind, shares, and refuses."""

import json

import pyarrow.parquet
import pytest

from experiments import build, checks, runner
from experiments.configs import mnist1d_authors, mnist1d_ladder
from experiments.run import main
from lth_jax import cli, schema
from lth_jax.cli.programs import UserError
from lth_jax.store import Store, is_complete
from tests.experiments import tiny

COMMAND = ["python", "-m", "experiments.run"]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def config_in(workdir, **experiment):
    config = tiny.get_config()
    config.machine.workdir = str(workdir)
    config.experiment.update_from_flattened_dict(experiment)
    return config


@pytest.fixture(scope="module")
def finished(workdir):
    return runner.run(config_in(workdir), COMMAND)


def shown(folder, capsys):
    capsys.readouterr()
    assert cli.main(["show", folder.name, "--root", str(folder.parent), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_leaves_everything_behind(finished):
    for name in ("config.json", "env.json", "manifest.json", "metrics.jsonl"):
        assert (finished / name).stat().st_size > 0
    assert json.loads((finished / "status.json").read_text())["status"] == "finished"
    plan = json.loads((finished / "env.json").read_text())["plan"]
    assert (plan["chunk"], plan["driver"]) == (2, "scan")
    levels = [
        node["level"] for node in json.loads((finished / "manifest.json").read_text())["nodes"]
    ]
    assert levels == [0] + [1] * 4 + [2] * 4
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3 * len(levels) and {"level", "density", "step", "validation_loss"} <= set(
        lines[0]
    )
    assert "<svg" in (finished / "report" / "index.html").read_text()


def test_the_rows_are_those_of_the_seeds(finished, capsys):
    result = shown(finished, capsys)
    rows = [row for row in result["rows"] if row["metric"] == "test_accuracy_final"]
    assert {(row["arm"], row["level"]) for row in rows} == {("dense", 0)} | {
        (arm, level) for arm in ("ticket", "reinit", "shuffle", "random") for level in (1, 2)
    }
    assert [row["density"] for row in rows if row["arm"] == "ticket"] == [0.5, 0.25]
    for row in rows:
        assert row["replicates"] == 2 and row["low"] <= row["mean"] <= row["high"]
        assert row["mean"] == pytest.approx(sum(row["values"]) / 2)
    [table] = (finished / "report" / "data").glob("seeds.parquet")
    assert pyarrow.parquet.read_table(table).num_rows > len(rows)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "config: experiments/configs/mnist1d_ladder.py (the default; `--config=FILE` chooses"),
        (["--config=tests/experiments/tiny.py"], "config: tests/experiments/tiny.py\n"),
    ],
)
def test_the_first_line_is_the_config(monkeypatch, capsys, arguments, line):
    monkeypatch.setattr("sys.argv", ["run.py", *arguments])
    monkeypatch.setattr("experiments.run.run", lambda config, command: print("ran"))
    main()
    assert capsys.readouterr().out.startswith(line)


def test_the_work_has_its_time_where_the_plan_was_measured(workdir):
    planned = runner._experiment(config_in(workdir))
    plan = {"chunk": 2, "driver": "scan", "devices": 1, "vmapped": None, "evidence": []}
    work = runner._work(planned, plan)
    steps = planned.ladder.stop * 18  # two replicates: dense, and four arms at two levels
    assert work == f"training 18 networks, {steps:,} member-steps"
    plan["evidence"] = [{**plan, "ms_per_member_step": 1000 * 75 / steps}, {**plan, "chunk": 1}]
    assert runner._work(planned, plan) == f"{work}, about 1:15"


@pytest.mark.slow
def test_a_finished_run_is_shown_not_trained(finished, capsys):
    before = (finished / "metrics.jsonl").read_text()
    assert runner.run(config_in(finished.parent), COMMAND) == finished
    assert "is already finished" in capsys.readouterr().out
    assert (finished / "metrics.jsonl").read_text() == before


@pytest.mark.slow
def test_a_run_on_two_devices_has_the_numbers_of_one(finished, tmp_path):
    config = config_in(tmp_path)
    config.machine.devices = 2
    config.machine.data_dir = str(finished.parent / "data")
    folder = runner.run(config, COMMAND)
    assert json.loads((folder / "env.json").read_text())["plan"]["devices"] == 2
    [split], [whole] = (
        [
            pyarrow.parquet.read_table(path)
            for path in (run / "report" / "data").glob("seeds.parquet")
        ]
        for run in (folder, finished)
    )
    assert split.column_names == whole.column_names
    for name in split.column_names:
        assert split[name].to_pylist() == pytest.approx(whole[name].to_pylist(), nan_ok=True)


def test_another_experiment_shares_the_levels_it_has_in_common(finished):
    other = runner.run(config_in(finished.parent, **{"prune.levels": 1}), COMMAND)
    assert other != finished
    assert (other / "metrics.jsonl").exists() is False  # nothing was trained
    nodes = json.loads((other / "manifest.json").read_text())["nodes"]
    assert nodes == json.loads((finished / "manifest.json").read_text())["nodes"][:5]


@pytest.mark.slow
def test_a_criterion_that_looks_at_data_gets_its_examples(workdir):
    changes = {"prune.criterion": "snip", "prune.levels": 1, "prune.examples": 50}
    folder = runner.run(config_in(workdir, **changes, controls=()), COMMAND)
    other = runner.run(config_in(workdir, **{"prune.levels": 1}, controls=()), COMMAND)
    masks = []
    for run in (folder, other):
        key = json.loads((run / "manifest.json").read_text())["nodes"][1]["key"]
        masks.append(schema.read_record(Store(workdir), key).mask["Dense_0/kernel"])
    assert masks[0].sum(axis=(1, 2)).tolist() != masks[1].sum(axis=(1, 2)).tolist()


@pytest.mark.slow
def test_a_damaged_node_is_named_and_made_again(workdir, caplog):
    folder = runner.run(config_in(workdir, seed=1, **{"prune.levels": 1}), COMMAND)
    key = json.loads((folder / "manifest.json").read_text())["nodes"][0]["key"]
    node = Store(workdir).path(key)
    victim = max((p for p in node.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    assert not is_complete(Store(workdir), folder)
    runner.run(config_in(workdir, seed=1, **{"prune.levels": 2}), COMMAND)  # which shares the node
    assert f"{node} is damaged" in caplog.text
    assert is_complete(Store(workdir), folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer.learning_rate": float("nan")}, "`optimizer.learning_rate` is nan"),
        ({"optimizer.learning_rate": -1.0}, "`optimizer.learning_rate` is -1.0"),
        ({"prune.levels": -1}, "`prune.levels` is -1"),
        ({"prune.schedule": "linear", "prune.final": 0.0}, "`prune.final` is 0.0"),
        ({"prune.schedule": "linear", "prune.final": 1.5}, "`prune.final` is 1.5"),
        ({"prune.rate": 1.0}, "`prune.rate` is 1.0"),
        ({"replicates": 0}, "`replicates` is 0"),
        ({"seed": -1}, "`seed` is -1; it must be an integer in"),
        ({"seed": 2**32}, "`seed` is 4294967296; it must be an integer in"),
        ({"data.seed": 2**70}, "`data.seed` is 1180591620717411303424; it must be an integer in"),
        ({"model.name": "mlpp"}, "did you mean 'mlp'"),
        ({"train.compute_dtype": "bfloat61"}, "did you mean 'bfloat16'"),
        ({"train.matmul_precision": "high"}, "did you mean 'highest'"),
        ({"optimizer.name": "adm"}, "did you mean 'adam'"),
        ({"prune.criterion": "magnitud"}, "did you mean 'magnitude'"),
        ({"prune.criterion": "snip"}, "set `prune.examples`"),
        ({"prune.scope": "global"}, "did you mean 'globally'"),
        ({"controls": ("reinit", "twin")}, "`controls` is 'twin'"),
        ({"controls": ("reinit", "reinit")}, r"`controls` is \('reinit', 'reinit'\)"),
        ({"rewind.what": "all"}, "`rewind.what` is 'all'"),
        ({"rewind.step": 30}, "`rewind.step` is 30"),
        ({"prune.score_step": 31}, "`prune.score_step` is 31"),
        ({"data.name": "digitz"}, "did you mean 'digits'"),
        ({"data.validation": 5000}, "`data.validation`"),
        ({"train.batch_size": 201}, "`train.batch_size` is 201, more than the 200"),
        ({"data.name": "mnist"}, "manual_dir"),
        ({"name": "../up"}, "`name`"),
    ],
)
def test_bad_input_is_one_sentence_before_any_training(workdir, changes, message):
    before = sorted(path.name for path in workdir.glob("*/config.json"))
    with pytest.raises(UserError, match=message) as caught:
        runner.run(config_in(workdir, **changes), COMMAND)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in workdir.glob("*/config.json")) == before


def test_bad_model_options_name_the_model(workdir):
    config = config_in(workdir)
    config.experiment.model.options.width = 3
    with pytest.raises(UserError, match=r"`model.options` of 'mlp'.*width"):
        runner.run(config, COMMAND)


def test_bad_machine_fields(workdir):
    for field, value in (("driver", "loop"), ("chunk", -1), ("devices", -1), ("devices", 99)):
        config = config_in(workdir)
        config.machine[field] = value
        with pytest.raises(UserError, match=f"`machine.{field}`"):
            runner.run(config, COMMAND)


@pytest.mark.parametrize(
    "config",
    [
        mnist1d_ladder.get_config(),
        mnist1d_ladder.get_config("smoke"),
        mnist1d_authors.get_config(),
        mnist1d_authors.get_config("linear100"),
    ],
)
def test_every_config_is_sound(config):
    checks.check(config.experiment)
    build.model(config.experiment)
