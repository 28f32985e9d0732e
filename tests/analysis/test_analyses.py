"""Analyses of a run as a notebook calls them: settings, tasks, and what they return."""

import re

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from lth_jax import analysis, lottery
from lth_jax.analysis import AnalysisError, progress
from lth_jax.data.planted import teacher
from lth_jax.lottery import Result
from lth_jax.population import Plan, squared_error
from lth_jax.report.display import place_table
from lth_jax.report.page import MEASURED
from lth_jax.store import Store
from lth_jax.store.analyses import analyses

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
ANALYSES = [getattr(analysis, name) for name in analysis.__all__ if name[0].islower()]
SMALL = {
    "spectrum": {"k": 2, "steps": 8, "probes": 1, "surface": 3, "arms": ("ticket",)},
    "learning_rates": {"rates": np.array([0.1, 0.2])},
    "stability": {"levels": range(1), "points": 3},
    "latency": {"batch": 4, "repeats": 2},
}
COLUMNS = {
    "spectrum": {"point", "metric"},
    "learning_rates": {"rate", "metric"},
    "stability": {"rewind", "metric"},
    "frontier": {"precision", "file_bytes"},
}


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(5)(x)
        return nn.Dense(2)(nn.relu(x))


def task(**changes):
    options = {"optimizer": lambda hyper: optax.sgd(hyper["learning_rate"]), **changes}
    options = {"hyper": {"learning_rate": 0.1}, "batch_size": 8, "steps": 12, **options}
    return lottery.Task(options.pop("model", Net()), options.pop("data", (X, Y)), **options)


def run(spec, store=None):
    options = {"replicates": 2, "controls": ("random",), "plan": Plan(2), "progress": False}
    return lottery.run(task(), spec, store=store, **options)


@pytest.fixture(scope="module")
def result():
    """A run without a store of the caller's."""
    return run(lottery.imp(levels=1, rate=0.9))  # so few weights that units die


def trained(result, **changes):
    """The run as if it had trained another task."""
    return Result(result.store, result.path, task(**changes))


def small(analyse, result):
    return analyse(result, **SMALL.get(analyse.__name__, {}))


def check(analyse, result):
    measured = small(analyse, result)
    table = measured.table()
    assert COLUMNS.get(analyse.__name__, {"metric"}) <= set(table[0]), analyse.__name__
    assert {"mean", "low", "high", "replicates"} <= set(table[0])
    assert measured.figures() and "<table>" in measured._repr_html_()
    return table


@pytest.mark.parametrize("analyse", [analysis.behaviour, analysis.units])
def test_a_run_in_memory_is_analysed(analyse, result):
    assert {row["arm"] for row in check(analyse, result)} == {"dense", "ticket", "random"}


@pytest.mark.slow
@pytest.mark.parametrize("analyse", ANALYSES)
def test_a_run_is_analysed_once(analyse, result, monkeypatch):
    table = check(analyse, result)
    monkeypatch.setattr(type(result.store), "ensure", has)
    assert list(small(analyse, result).table()) == list(table)


def has(store, key, compute, **options):
    assert store.has(key), "computed twice"
    return True


@pytest.mark.slow
def test_what_was_analysed_is_on_the_page(result):
    for analyse in ANALYSES:
        small(analyse, result)
    page = result.report().read_text()
    data = {path.stem for path in (result.path / "report" / "data").glob("*.csv")}
    assert set(MEASURED) <= data
    assert "figures/frontier.svg" in page
    # Not drawn, with the reason: one pruned level is one point of a line.
    assert all(f"<em>{title}</em>" in page for title in ("Calibration", "Accuracy against latency"))


@pytest.mark.parametrize("analyse", ANALYSES)
def test_a_setting_that_is_not_legal_is_named_before_any_work(analyse):
    for name, legal in analyse.options.items():
        for value in (object(), -1, (float("nan"),), ("x", "x")):
            assert not legal.holds(value)
            with pytest.raises(AnalysisError, match=rf"`{name}` is .*; it must be "):
                analyse(None, **{name: value})


@pytest.mark.parametrize(
    ("analyse", "settings", "message"),
    [
        (analysis.spectrum, {"levels": [2]}, "`levels` is 2; the run has 0, 1"),
        (analysis.spectrum, {"arms": ["reinit"]}, "`arms` is reinit; the run has dense, ticket"),
        (analysis.spectrum, {"points": ["end"]}, "`points` is end; the run has dense, start"),
        (analysis.stability, {"levels": [2]}, "`levels` is 2; the run has 0, 1"),
        (analysis.learning_rates, {"level": 2}, "`level` is 2; the run has 1"),
        (analysis.behaviour, {"groups": [0, 1]}, r"`groups` has shape \(2,\); it must be \(16,\)"),
        (analysis.behaviour, {"planted": {"w": X}}, "`planted` needs the leaves Dense_0/kernel"),
        (analysis.behaviour, {"planted": teacher().mask}, "`planted` does not fit the network"),
    ],
)
def test_what_the_run_lacks_is_named(result, analyse, settings, message):
    with pytest.raises(AnalysisError, match=message):
        analyse(result, **settings)


def test_another_task_than_the_runs_is_refused(result):
    class Net(nn.Module):  # of the same shapes
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(5)(x)
            return nn.Dense(2)(nn.tanh(x))

    assert Result.open(result.path, task()).program == result.program
    for own, message in (
        (task(model=Net()), "trained with another network, optimizer or loss"),
        (task(data=(X + 1, Y)), "trained on data that differ"),
    ):
        with pytest.raises(AnalysisError, match=message):
            analysis.units(Result.open(result.path, own))


def test_runs_in_two_stores_are_refused(result, tmp_path):
    elsewhere = Result(Store(tmp_path), result.path, result.task)
    with pytest.raises(AnalysisError, match="`run` holds runs of 2 stores"):
        analysis.stability([result, elsewhere])


def test_an_optimizer_with_a_rate_of_its_own_has_no_sweep(result):
    with pytest.raises(AnalysisError, match="`optimizer` does not read the learning rate"):
        analysis.learning_rates(trained(result, optimizer=optax.sgd(0.1)))


@pytest.mark.parametrize("analyse", [analysis.latency, analysis.frontier, analysis.stability])
def test_a_regression_has_no_accuracy(analyse, result):
    regression = trained(result, data=(X, X[:, :2]), loss=squared_error)
    with pytest.raises(AnalysisError, match="has the metrics loss; it needs 'accuracy'"):
        analyse(regression)


def test_groups_and_a_planted_ticket_are_scored(result):
    mask = jax.tree.map(np.ones_like, result.ticket(1).mask)
    groups = np.arange(len(result.task.data.test.y)) % 2
    found = analysis.behaviour(result, groups=groups, planted=mask).records
    assert found.confusions.shape == (6, 2, 2, 2) and found.groups == ["0", "1"]
    dense = [one["arm"] == "dense" for one in found.networks]
    assert (found.scores["recovered"][dense] == 1).all()
    assert (found.scores["recovered"][np.invert(dense)] < 1).all()


@pytest.mark.slow
def test_barriers_of_several_rewind_steps_are_listed_with_each_run(tmp_path):
    ladders = [run(lottery.imp(levels=1, rewind=step), tmp_path) for step in (0, 4)]
    analysis.stability(ladders, **SMALL["stability"])
    for one in ladders:
        assert {entry["labels"]["rewind"] for entry in analyses(one.path, "stability")} == {0, 4}


def test_measurements_are_shown_with_their_number_and_printed_in_one_table(
    result, capsys, monkeypatch
):
    monkeypatch.setattr(progress, "LEAST", 0.0)
    with progress.shown():
        found = analysis.units(result)
        shown = capsys.readouterr().err
    assert re.fullmatch(r"\d:\d\d, 1 measured: kind units\n", shown)
    analysis.units(result)
    assert capsys.readouterr().err == ""
    table = place_table(found.table())
    assert table.header == ["arm", "level", "density", "effective_density"]
    assert [line[:2] for line in table.rows] == [["dense", "0"], ["ticket", "1"], ["random", "1"]]
    assert table.rows[0][3].startswith("1±")
