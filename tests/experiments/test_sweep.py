"""Sweeps in this process: cells, shared programs, and the files of a sweep."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments import estimate, flags, machine, runner, sweep
from experiments.groups import Sharing, jobs, static_fields
from experiments.memoize import Memoized
from lth_jax import cli, schema, store
from lth_jax import grid as h
from lth_jax.cli.programs import UserError
from lth_jax.lottery import MemberIndex, initial_states, training_program
from lth_jax.report.sweeps import cell_rows, read_sweep, sweep_cells
from lth_jax.store.files import read_json, write_json
from lth_jax.sweeps import groups, outlook, planned, shown, together
from tests.experiments import swept, tiny

RATE, SEED = "experiment.optimizer.learning_rate", "experiment.seed"
CONFIG = "tests/experiments/swept.py"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def config_in(workdir, **experiment):
    config = swept.get_config()
    config.machine.update(workdir=str(workdir), progress=False)
    config.experiment.update_from_flattened_dict(experiment)
    return config


def cells_of(config, **fields):
    names = {name.replace("__", "."): values for name, values in fields.items()}
    grid = h.product([h.sweep(name, values) for name, values in names.items()])
    return list(sweep.cells(config, grid))


def run(config, **fields):
    cells = cells_of(config, **fields)
    return sweep.run_sweep(config, cells, ["python"]).parents[1], cells


def segments(workdir):
    return sum(path.read_text().count("\n") for path in Path(workdir).glob("**/metrics*.jsonl"))


def cell_folder(workdir, config):
    wanted = store.content_key(flags.recorded(config.experiment))
    saved = {path.parent: read_json(path) for path in Path(workdir).glob("*/config.json")}
    [folder] = [run for run, found in saved.items() if store.content_key(found) == wanted]
    return folder


@pytest.fixture(scope="module")
def finished(workdir):
    """Two rates by two seeds, their dense parents and one level, four members at a time."""
    config = config_in(workdir)
    config.machine.chunk = 4
    return run(config, learning_rate=[1e-3, 1e-2], experiment__seed=[0, 1])


def grouped(config, **fields):
    sharing = Sharing()
    return groups(jobs(cells_of(config, **fields), sharing)), sharing


@pytest.mark.slow
def test_cells_that_differ_in_numbers_are_one_population(workdir):
    found, sharing = grouped(
        config_in(workdir),
        learning_rate=[1e-3, 1e-2],
        experiment__seed=[0, 1],
        weight_decay=[0.0, 0.1],
        prune__rate=[0.5, 0.3],
        prune__levels=[1, 3],
        controls=[(), ("reinit",)],
        replicates=[1, 2],
    )
    [group] = found
    assert len(group.jobs) == 2**7 and len(sharing.programs) == 1
    trainers = {id(job.experiment.task.trainer) for job in group.jobs}
    assert len(trainers) == 1
    # 2 rates, decays and seeds: 8 trunks of 2 replicates, shared by all the rest.
    assert len(group.members.levels[0]) == 16
    assert group.member_steps[0] == 16 * 30


@pytest.mark.slow
def test_a_static_field_is_named_and_has_groups_of_its_own(workdir):
    found, sharing = grouped(
        config_in(workdir), experiment__seed=[0, 1], batch_size=[10, 20], train__steps=[30, 60]
    )
    assert [len(group.jobs) for group in found] == [2] * 4
    assert len({group.program for group in found}) == 2  # the steps are no part of the program
    swept_fields = list(found[0].jobs[0].setting)
    assert static_fields(sharing, swept_fields) == ["experiment.train.batch_size"]


@pytest.mark.slow
def test_strengths_of_noise_and_mixing_are_numbers_and_their_absence_is_a_program(workdir):
    config = config_in(workdir)
    config.experiment.train.update(label_noise=0.1, mixup=0.2, label_smoothing=0.1)
    found, sharing = grouped(
        config, label_noise=[0.1, 0.4], mixup=[0.2, 1.0], label_smoothing=[0.1, 0.2]
    )
    assert [len(group.jobs) for group in found] == [8] and len(sharing.programs) == 1
    found, sharing = grouped(config_in(workdir), label_noise=[0.0, 0.1, 0.4])
    assert sorted(len(group.jobs) for group in found) == [1, 2] and len(sharing.programs) == 2
    config = config_in(workdir)
    config.experiment.model.options.dropout = 0.0
    found, sharing = grouped(config, dropout=[0.0, 0.1, 0.4])
    assert sorted(len(group.jobs) for group in found) == [1, 2] and len(sharing.programs) == 2


def test_a_shared_order_of_the_data_is_one_of_the_numbers(workdir):
    found, _ = grouped(config_in(workdir), shared_order=[False, True])
    [group] = found
    keys = [initial_states.replicate_keys(job.experiment.seeds, "data") for job in group.jobs]
    assert [len({*map(str, of)}) for of in keys] == [2, 1]


def test_cells_on_other_data_are_groups_of_one_program(workdir):
    found, _ = grouped(config_in(workdir), data__seed=[0, 1])
    assert len(found) == 2 and len({group.program for group in found}) == 1


def test_a_network_that_cannot_be_made_names_its_cell(workdir):
    config = config_in(workdir)
    config.experiment.model.options.kernel_init = "zeros"
    with pytest.raises(UserError, match=r"cell seed=0: a field of `model\.options`"):
        grouped(config, experiment__seed=[0])


def test_a_cell_of_another_network_has_none_of_the_options_of_the_first(workdir):
    config = config_in(workdir)
    found = sweep.cells(config, h.sweep("experiment.model.name", ["mlp", "residual_mlp"]))
    first, second = (cell.experiment.model.options.to_dict() for _, cell in found)
    assert first == config.experiment.model.options.to_dict() != second == {}


def test_a_sweep_sets_options_that_the_config_lacks():
    config = tiny.get_config()
    assert "dropout" not in config.experiment.model.options
    grid = sweep.parse_grid(["--sweep.model.options.dropout=0.0,0.1"], config)
    rates = [cell.experiment.model.options.dropout for _, cell in sweep.cells(config, grid)]
    assert rates == [0.0, 0.1] and "dropout" not in config.experiment.model.options
    unknown = sweep.parse_grid(["--sweep.model.options.droput=0.1"], config)
    with pytest.raises(UserError, match=r"cell droput=0\.1: .* did you mean 'dropout'"):
        list(sweep.cells(config, unknown))


def test_a_memoized_value_is_made_again_only_where_it_would_differ():
    calls = []

    def build(config, given):
        calls.append(given)
        return config.train.steps, config.train.rate, config.model.to_dict()

    memoized = Memoized(build, ["train.steps", "train.rate", "model"], ["train.rate"])
    config = tiny.ConfigDict(
        {"train": {"steps": 3, "rate": 0.5, "loss": "mse"}, "model": {"width": 1}, "seed": 0}
    )
    assert memoized(config, "a") == (3, 1.0, {"width": 1})
    for same in ({"seed": 1}, {"train.loss": "l1"}, {"train.rate": 0.1}):
        config.update_from_flattened_dict(same)
        assert memoized(config, "a") is memoized(config, "a")
    assert calls == ["a"] and config.train.rate == 0.1
    config.model.depth = 5
    assert memoized(config, "a") == (3, 1.0, {"width": 1, "depth": 5})
    config.train.rate = 0.0
    assert memoized(config, "b") == (3, 0.0, {"width": 1, "depth": 5})
    assert calls == ["a", "a", "b"]


def test_a_memoized_function_cannot_read_other_fields():
    config = tiny.ConfigDict({"train": {"steps": 3, "loss": "mse"}, "seed": 0})
    for read in (lambda part: part.seed, lambda part: part.train.loss):
        with pytest.raises(AttributeError):
            Memoized(read, ["train.steps"])(config)


BRANCHES = [
    {"train.label_noise": 0.1, "train.crop": 1, "train.flip": True, "optimizer.clip_norm": 1.0},
    {"train.average.start": 10, "train.cutmix": 0.2, "optimizer.warmup": 3},
    {"train.average.start": 10, "train.average.window": 5, "train.crop_area": 0.5},
    {"train.share": 50, "train.compute_dtype": "bfloat16", "control_levels": (1,)},
    {"prune.granularity": "units", "prune.scope": "layerwise", "controls": ("random_units",)},
    {"controls": ("refill",), "prune.biases": True, "rewind.step": 3},
    {"prune.criterion": "wanda", "prune.examples": 20, "model.options.dropout": 0.1},
    {"prune.criterion": "snip", "prune.examples": 20, "prune.granularity": "rows"},
    {"prune.method": "rigl", "prune.retrain": True, "controls": ()},
]


@pytest.mark.slow
@pytest.mark.parametrize("fields", BRANCHES, ids=lambda fields: next(iter(fields)))
def test_builders_get_all_fields_that_they_read(workdir, fields):
    assert Sharing().job({}, config_in(workdir, **fields)).experiment.ladder.counts


def test_traced_numbers_are_lowered_once(workdir, monkeypatch):
    lowered = []
    monkeypatch.setattr(
        "experiments.groups.training_program",
        lambda *args: lowered.append(args) or training_program(*args),
    )
    rates = [0.001 * (i + 1) for i in range(50)]
    [group], _ = grouped(config_in(workdir), learning_rate=rates, weight_decay=[0.1, 0.2])
    assert len(group.jobs) == 100 and len(lowered) == 1


def test_a_sweep_leaves_a_run_for_each_cell(finished, workdir, capsys):
    _, cells = finished
    for setting, config in cells:
        folder = cell_folder(workdir, config)
        assert cli.main(["show", folder.name, "--root", str(workdir), "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        assert {(row["arm"], row["level"]) for row in rows} == {
            ("dense", 0),
            ("ticket", 1),
            ("reinit", 1),
        }
        assert all(row["replicates"] == 2 for row in rows), setting
    assert {info.status for info in store.list_runs(workdir)} == {"finished"}
    assert len(store.list_runs(workdir)) == 4
    # 8 dense members and 16 above them, 4 at a time, 3 segments each
    assert segments(workdir) == 3 * (2 + 4)


@pytest.mark.slow  # the fast tier has the same of ladders: tests/lottery/test_cells.py
def test_a_cell_has_the_numbers_it_has_alone(finished, workdir, tmp_path):
    _, cells = finished
    _, config = cells[3]
    alone = runner.run(_elsewhere(config, tmp_path), ["python"])
    tables = [_by_arm(cell_folder(workdir, config)), _by_arm(alone)]
    assert tables[0].keys() == tables[1].keys()
    for arm, mine in tables[0].items():
        theirs = tables[1][arm]
        np.testing.assert_allclose(mine["mask"], theirs["mask"])
        for name in ("train_loss", "validation_loss"):
            np.testing.assert_allclose(mine[name], theirs[name], atol=1e-5)
        assert mine["step"] == theirs["step"]


def _elsewhere(config, folder):
    config = config.copy_and_resolve_references()
    config.machine.update(workdir=str(folder), data_dir=f"{config.machine.workdir}/data", chunk=1)
    return config


def _by_arm(folder):
    """The curves and the first mask of each member of a run."""
    shelf, found = store.Store(folder.parent), {}
    for entry in schema.read_entries(folder):
        node = schema.read_entry(shelf, entry)
        for i, member in enumerate(node.facts.members):
            found[node.facts.level, member.arm, member.replicate] = {
                "step": node.eval_steps.tolist(),
                "mask": node.mask["Dense_0/kernel"][i],
                **{name: node.curves[name][:, i] for name in ("train_loss", "validation_loss")},
            }
    return found


@pytest.mark.slow
def test_a_bigger_sweep_trains_what_is_new(finished, workdir, capsys):
    before = segments(workdir)
    config = config_in(workdir)
    config.machine.chunk = 4
    path, _ = run(config, learning_rate=[1e-3, 1e-2, 3e-2], experiment__seed=[0, 1])
    assert "6 cells, 4 finished" in capsys.readouterr().out
    assert segments(workdir) == before + 3 * (1 + 2)
    assert len({row["run"] for row in read_sweep(store.Store(workdir), path).rows}) == 6
    again, _ = run(config, learning_rate=[1e-3, 1e-2, 3e-2], experiment__seed=[0, 1])
    assert again == path and segments(workdir) == before + 9


@pytest.mark.slow
def test_cells_share_dense_parents_and_levels(finished, workdir):
    before = segments(workdir)
    config = config_in(workdir, **{"optimizer.learning_rate": 1e-2})
    config.machine.chunk = 4
    run(config, prune__levels=[1, 2], controls=[("reinit",), ("shuffle",)])
    # Known: the dense parents, the tickets and reinit of level 1. New at level 1: shuffle (2
    # members); at level 2: the tickets, reinit and shuffle (6).
    assert segments(workdir) == before + 3 * (1 + 2)


def test_the_sweeps_tables_hold_every_network(finished, workdir):
    path, cells = finished
    found = read_sweep(store.Store(workdir), path)
    accuracy = [row for row in found.rows if row["metric"] == "test_accuracy_final"]
    assert len(accuracy) == 4 * (2 + 4)
    assert {(row[RATE], row[SEED]) for row in accuracy} == {tuple(s.values()) for s, _ in cells}
    means = [row for row in cell_rows(found) if row["metric"] == "test_accuracy_final"]
    for row in means:
        values = [one["value"] for one in accuracy if _same(one, row)]
        assert row["values"] == values and row["mean"] == pytest.approx(np.mean(values))
    header, *lines = sweep_cells(found)
    assert header == ["learning_rate", "seed", "kept %", "dense", "ticket", "reinit", "run"]
    assert [line[:3] for line in lines] == [
        [str(r), str(s), "50"] for r in (1e-3, 1e-2) for s in (0, 1)
    ]
    report = path / "report"
    page = (report / "index.html").read_text()
    assert page.count("<svg") == 1 and "experiment_optimizer_learning_rate" in page
    for name in ("seeds.parquet", "cells.csv"):
        assert (report / "data" / name).stat().st_size > 0


def _same(one, other):
    return all(one[name] == other[name] for name in ("run", "arm", "level"))


def test_a_dry_run_prints_the_cost_and_writes_nothing(finished, workdir, capsys):
    before = {path for path in workdir.rglob("*") if path.is_file()}
    config = config_in(workdir)
    config.machine.chunk = 4
    sweep.dry_run(config, cells_of(config, learning_rate=[1e-2, 0.5], experiment__seed=[0, 1]))
    out = capsys.readouterr().out
    assert "4 cells, 2 finished; 1 group, 1 program to compile" in out
    assert "group 1/1: measuring plans: compiles each and times a few steps; no network" in out
    assert "group 1/1: 2 cells, 12 members (12 to train), 4 at a time by scan," in out
    assert "MiB, about 0:0" in out and "  learning_rate=0.5, seed=1" in out
    assert {path for path in workdir.rglob("*") if path.is_file()} - before == set()


def test_cells_that_do_not_fit_together_are_refused(workdir, monkeypatch):
    config = config_in(workdir)
    three, sharing = cells_of(config, experiment__seed=[5, 6, 7]), Sharing()
    found = groups(jobs(three, sharing))
    total, each = together(found), found[0].jobs[0].estimate
    assert (total.members, total.device) == (3 * each.members, each.device)
    assert total.store == pytest.approx(3 * each.store, abs=3)
    # Cells that share their dense networks: a member counts once.
    alike = groups(jobs(cells_of(config, prune__scope=["globally", "layerwise"]), sharing))
    dense = config.experiment.replicates * each.stored[0]
    assert together(alike).store == pytest.approx(2 * each.store - dense, abs=2)
    monkeypatch.setattr(estimate, "free_disk", lambda _: 2 * each.store)
    monkeypatch.setattr(estimate, "size_of", lambda _: 0)
    for act in (sweep.dry_run, lambda *args: sweep.run_sweep(*args, ["python"])):
        with pytest.raises(UserError, match=r"`--sweep\.FIELD` is a grid of 3 cells; .* members"):
            act(config, three)


def test_an_outlook_adds_up(workdir):
    config = config_in(workdir)
    config.machine.chunk = 4
    [group], _ = grouped(config, experiment__seed=[5, 6, 7])
    options = machine.plan_options(config.machine)
    plan = planned(group, options, always=True)
    [evidence] = plan["evidence"]
    index = MemberIndex(store.Store(workdir))
    found = outlook(group, plan, index)
    # 6 dense and 12 above: 8 and 12 with padding, 30 steps each
    assert found.members == found.missing == 18
    assert found.seconds == pytest.approx(20 * 30 * evidence["ms_per_member_step"] / 1e3)
    weights = 4 * (64 * 16 + 16 + 16 * 10 + 10)
    assert found.bytes > 4 * 4 * weights  # of 4 members: parameters, best ones, Adam's two


def test_a_damaged_sweep_is_made_again(finished, workdir, capsys, caplog):
    path, cells = finished
    shelf = store.Store(workdir)
    before = read_sweep(shelf, path).rows
    whole = read_json(path / "config.json")
    write_json(path / "config.json", {**whole, "cells": whole["cells"][1:]})
    with pytest.raises(store.CorruptError, match=r"config\.json is damaged"):
        read_sweep(shelf, path)
    (first, _), (second, _) = (
        (workdir / cell["run"], cell["setting"]) for cell in whole["cells"][:2]
    )
    (first / "manifest.json").unlink()
    node = shelf.path(store.read_manifest(second)["nodes"][-1]["key"])
    (node / "meta.json").write_text("{}")
    config = config_in(workdir)
    config.machine.chunk = 4
    sweep.run_sweep(config, cells, ["python"])
    assert " finished; 1 group," in capsys.readouterr().out and f"{node} is damaged" in caplog.text
    assert read_json(path / "config.json") == whole
    place = ("run", "arm", "level", "replicate", "metric")

    def ordered(rows):
        return sorted(rows, key=lambda row: [str(row[name]) for name in place])

    assert ordered(read_sweep(shelf, path).rows) == ordered(before)
    assert all(store.is_complete(shelf, workdir / cell["run"]) for cell in whole["cells"])


def test_the_command_line_is_a_product_on_top_of_the_config_files_sweep(workdir):
    argv = ["sweep.py", f"--config={CONFIG}", "--sweep.experiment.seed=3,4"]
    config = flags.parse(argv[:2], CONFIG)
    made = list(sweep.cells(config, sweep.make_grid(argv, config)))
    assert [shown(setting) for setting, _ in made] == [
        f"learning_rate={rate}, seed={seed}" for rate in (1e-3, 1e-2) for seed in (3, 4)
    ]
    for setting, cell in made:
        assert {name: dict(flags.fields(cell))[name] for name in setting} == setting
    assert config.experiment.seed == 0


def test_fields_may_be_named_by_their_ends():
    known = sweep.swept_fields(tiny.get_config())
    assert sweep.full_name("lr", known) == RATE
    assert sweep.full_name("prune.rate", known) == "experiment.prune.rate"
    with pytest.raises(
        UserError, match=r"'seed' is ambiguous: experiment.data.seed or experiment.seed"
    ):
        sweep.full_name("seed", known)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweep.experiment.sead=1"], "did you mean 'experiment.seed'"),
        (["--sweep.machine.chunk=1,2"], "is 'machine.chunk'; there is no such name"),
        (["--sweep.experiment.seed="], "has no values"),
        (["--sweep.experiment.seed=a"], "must be of type int"),
        (["--sweep.shuffle=maybe"], "must be of type bool"),
        (["--sweep.lr=0.1", "--sweep.learning_rate=1"], "learning_rate' is set twice"),
        (["--sweep.lr=0.1,nan"], "cell learning_rate=nan: .* must be a number in"),
        (["--sweep.lr=0.1,-0.5"], "cell learning_rate=-0.5: .* must be a number in"),
        (["--sweep.experiment.seed=1,2,1"], "cell seed=1 is given twice"),
        (["--sweep.lr=0.1,0.10"], "cell learning_rate=0.1 is given twice"),
        (
            [f"--sweep.{name}=" + ",".join(map(str, range(1, 101))) for name in ("steps", "wd")]
            + ["--sweep.levels=" + ",".join(map(str, range(1, 101)))],
            "1,000,000 cells; at most 10,000 are allowed, unless --max_cells raises",
        ),
    ],
)
def test_a_bad_sweep_is_one_sentence(arguments, message):
    config = tiny.get_config()
    with pytest.raises(UserError, match=message) as caught:
        list(sweep.cells(config, sweep.parse_grid(arguments, config)))
    assert "\n" not in str(caught.value)


def test_an_empty_sweep_is_refused():
    config = tiny.get_config()
    argv = ["sweep.py", "--config=tests/experiments/tiny.py"]
    with pytest.raises(UserError, match="nothing to sweep"):
        list(sweep.cells(config, sweep.make_grid(argv, config)))


@pytest.mark.parametrize(
    ("values", "message"),
    [(["a"], "cell seed=a"), ([1.5], "cell seed=1.5"), ([-1], "it must be an integer in")],
)
def test_a_config_files_sweep_is_checked_as_well(values, message):
    with pytest.raises(UserError, match=message):
        list(sweep.cells(tiny.get_config(), h.sweep(SEED, values)))
