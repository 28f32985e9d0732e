import json
import sys

import numpy as np
import pytest
from pyarrow import parquet

from experiments import frontier, runner
from lth_jax import cli, coding, store
from lth_jax.analysis import AnalysisError
from lth_jax.coding.stored import Stored, find_stored
from tests.experiments import tiny

module = sys.modules["lth_jax.analysis.frontier"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = tiny.get_config()
    config.machine.workdir = str(tmp_path_factory.mktemp("runs"))
    config.experiment.update_from_flattened_dict({"prune.levels": 1, "controls": ()})
    return runner.run(config, ["python", "-m", "experiments.run"])


@pytest.fixture(scope="module")
def report(run):
    assert frontier.main([run.name, "--root", str(run.parent)]) == 0
    return run / "report"


@pytest.fixture(scope="module")
def rows(report):
    return json.loads((report / "data" / "frontier.json").read_text())["rows"]


def network(**changes):
    rng = np.random.default_rng(0)
    mask = {"bn/scale": np.ones(4, bool), "conv/kernel": rng.random((3, 4)) < 0.5}
    params = {k: rng.normal(size=m.shape).astype(np.float32) * m for k, m in mask.items()}
    state = {"batch_stats/bn/mean": rng.normal(size=4).astype(np.float32)}
    prunable = {"bn/scale": False, "conv/kernel": True}
    return Stored(
        "ticket", 1, 0, 0.5, None, "0" * 64, "1" * 64, mask, params, state, prunable
    )._replace(**changes)


def seed_row(**changes):
    return {
        "arm": "ticket",
        "level": 1,
        "density": 0.5,
        "replicate": 0,
        "precision": "int4",
        "scales": "tensor",
        "mask_bytes": 10.0,
        "values_bytes": 30.0,
        "file_bytes": 100.0,
        "accuracy": 0.5,
        **changes,
    }


@pytest.mark.slow
def test_dense_parents_and_tickets_stand_at_every_precision(rows):
    assert [(r["arm"], r["level"], r["precision"], r["scales"]) for r in rows] == [
        (arm, level, *precision)
        for arm, level in (("dense", 0), ("ticket", 1))
        for precision in module.PRECISIONS
    ]
    assert all(row["replicates"] == 2 and row["low"] <= row["mean"] <= row["high"] for row in rows)


@pytest.mark.slow
def test_at_float32_the_accuracies_are_the_runs_own(rows, run, capsys):
    capsys.readouterr()
    assert cli.main(["show", run.name, "--root", str(run.parent), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["rows"]
    for arm in ("dense", "ticket"):
        [own] = [r for r in shown if (r["arm"], r["metric"]) == (arm, "test_accuracy_final")]
        [here] = [r for r in rows if (r["arm"], r["precision"]) == (arm, "float32")]
        np.testing.assert_allclose(here["values"], own["values"], atol=1e-6)


@pytest.mark.slow
def test_bytes_are_those_of_real_files(rows, run):
    info = store.find_run(run.parent, run.name)
    shelf = store.Store(run.parent)
    tickets = [find_stored(shelf, info, arm="ticket", level=1, replicate=i) for i in range(2)]
    for names, precision in module.PRECISIONS.items():
        [row] = [r for r in rows if (r["arm"], r["precision"], r["scales"]) == ("ticket", *names)]
        files = [
            coding.encode(t.mask, t.params, prunable=t.prunable, precision=precision)
            for t in tickets
        ]
        assert row["file_bytes"] == np.mean([len(file) for file in files])


@pytest.mark.slow
def test_no_row_beats_one_of_the_frontier(rows):
    best = [row for row in rows if row["frontier"]]
    assert best and len(best) < len(rows)
    for row in best:
        assert not [
            r for r in rows if r["file_bytes"] < row["file_bytes"] and r["mean"] >= row["mean"]
        ]


@pytest.mark.slow
def test_the_page_shows_the_picture_and_links_the_numbers(report, rows):
    page = (report / "index.html").read_text()
    assert 'aria-label="frontier"' in page
    for name in ("figures/frontier.png", "figures/frontier.svg", "data/frontier.csv"):
        assert f'href="{name}"' in page and (report / name).stat().st_size > 0
    assert parquet.read_table(report / "data" / "frontier.parquet").num_rows == len(rows)


@pytest.mark.slow
def test_what_is_measured_is_not_measured_again(report, rows, run, monkeypatch, capsys):
    monkeypatch.setattr(module, "measure", lambda *_: pytest.fail("measured twice"))
    capsys.readouterr()
    assert frontier.main([str(run)]) == 0
    first, head, *_, last = capsys.readouterr().out.splitlines()
    assert first == f"{run.name}: 4 networks at 2 levels (dense, ticket)"
    assert head.split()[:4] == ["arm", "level", "density", "precision"] and "accuracy" in head
    assert last == f"page: {report / 'index.html'}"
    assert json.loads((report / "data" / "frontier.json").read_text())["rows"] == rows


@pytest.mark.slow
def test_other_data_than_the_runs_own_are_noticed(report, run, monkeypatch, capsys):
    one = {("float32", "tensor"): coding.exact()}  # as if nothing were measured yet
    monkeypatch.setattr(module, "PRECISIONS", one)
    monkeypatch.setattr(module, "tester", lambda task: lambda params, state: 1.0)
    assert frontier.main([run.name, "--root", str(run.parent)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: the run recorded a test accuracy of") and err.count("\n") == 1


@pytest.mark.parametrize(("name", "message"), [("begun", "is interrupted"), ("xyz", "unknown run")])
def test_without_a_finished_run_there_is_no_frontier(tmp_path, capsys, name, message):
    with store.open_run(tmp_path, name="begun", config={"a": 1}, env={}):
        pass
    assert frontier.main([name, "--root", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_the_state_is_counted_and_comes_back_exactly():
    one = network()

    def accuracy(params, state):
        np.testing.assert_array_equal(
            state["batch_stats/bn/mean"], one.state["batch_stats/bn/mean"]
        )
        assert set(params) == set(one.params) and set(state) == set(one.state)
        return float((params["conv/kernel"] == one.params["conv/kernel"]).mean())

    found = module.measure(one, accuracy)
    alone = module.measure(one._replace(state={}), lambda params, state: 0.0)
    assert found[0][-1] == 1.0 and found[5][-1] < 1.0  # float32 and int2
    assert all(a[1] > b[1] for a, b in zip(found, alone, strict=True))


def test_one_network_has_no_interval():
    [row] = module.summaries([seed_row()])
    assert (row["replicates"], row["mean"], row["file_bytes"]) == (1, 0.5, 100.0)
    assert row["low"] is row["high"] is row["file_bytes_low"] is None


def test_a_run_without_converged_networks_is_refused():
    with pytest.raises(AnalysisError, match="all of its networks diverged"):
        module.summaries([])
