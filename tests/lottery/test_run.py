"""`lottery.run` as a notebook calls it: own arrays, own network, ten lines."""

import gc
import re
import shutil
import signal
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

import lth_jax as lth
from lth_jax import coding, lottery, store
from lth_jax.lottery import Table, programs, progress, running
from lth_jax.lottery.node_training import Progress
from lth_jax.population import Plan, planning
from lth_jax.store import garbage
from tests.thinning import thinned

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.relu(nn.Dense(5)(x)))


def task(**changes):
    options = {"optimizer": optax.sgd(0.1), "batch_size": 8, "steps": 12, **changes}
    return lottery.Task(options.pop("model", Net()), options.pop("data", (X, Y)), **options)


def run(folder=None, own=None, levels=2, **changes):
    options = {"replicates": 2, "controls": ("reinit", "shuffle"), "plan": Plan(2), **changes}
    return lottery.run(
        own or task(), lottery.imp(levels=levels), store=folder, progress=False, **options
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def result(folder):
    return run(folder)


def test_results_on_training_data_may_be_those_of_the_first_examples(result):
    def values(found):
        return {tuple(row[k] for k in ("arm", "level", "replicate", "metric")): row["value"]
                for row in found.seeds()}  # fmt: skip

    own = task(train_eval_examples=8)
    few, whole = run(own=own, levels=1), values(result)
    one, x, y = few.ticket(1), *(leaf[:8] for leaf in own.data.train)
    right = np.argmax(Net().apply({"params": one.trained}, x), axis=-1) == y
    found = values(few)
    assert found["ticket", 1, 0, "train_accuracy_final"] == right.mean()
    for at, value in found.items():
        assert value == whole[at] or at[-1].startswith("train_"), at


def test_a_table_has_means_and_intervals(result):
    rows = result.table("test_accuracy")
    arms = [(row["arm"], row["level"]) for row in rows]
    assert arms == [
        ("dense", 0), ("ticket", 1), ("ticket", 2),
        ("reinit", 1), ("reinit", 2), ("shuffle", 1), ("shuffle", 2),
    ]  # fmt: skip
    assert all(row["low"] <= row["mean"] <= row["high"] for row in rows)
    assert len(result.seeds()) == 2 * 7 * len(result.metrics)
    assert {"control", "mean"} <= set(result.differences()[0])
    assert "ticket minus" in str(result.differences()).splitlines()[0]
    assert "test_accuracy_final" in repr(rows) and "<td>dense</td>" in rows._repr_html_()
    assert rows.to_arrow().num_rows == 7
    with pytest.raises(ValueError, match=r"`metric` is 'accurate'; .* one of: .*test_accuracy, "):
        result.table("accurate")


def test_a_table_is_text_in_a_notebook_too(monkeypatch):
    """There rich displays what it prints, and writes nothing to its file."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert "dense" in repr(Table([{"arm": "dense"}]))


@pytest.mark.slow
def test_a_result_is_shown_with_a_picture(result):
    assert "ticket" in repr(result)
    html = result._repr_html_()
    assert "<table>" in html and "<svg" in html
    assert result.figure("test_accuracy").axes
    assert result.report().read_text().startswith("<!DOCTYPE html>")


def test_a_ticket_is_saved_and_read(result, tmp_path):
    ticket = result.ticket(level=2, replicate=1)
    assert ticket.density == pytest.approx(0.64, abs=0.02)
    ticket.save(tmp_path / "one.ticket")
    read = coding.load(tmp_path / "one.ticket", like=ticket.mask)
    for saved, initial in zip(
        jax.tree.leaves(read.params), jax.tree.leaves(ticket.initial), strict=True
    ):
        np.testing.assert_array_equal(saved, initial)
    kept = jax.tree.map(lambda m, p: bool(np.all(p[~m] == 0)), ticket.mask, ticket.trained)
    assert all(jax.tree.leaves(kept))
    assert [one.replicate for one in result.tickets(1)] == [0, 1]
    origin = coding.inspect(tmp_path / "one.ticket").manifest.provenance
    assert (origin["criterion"], origin["scope"]) == ("magnitude", "globally()")


def test_a_misspelled_kind_of_values_writes_no_file(result, tmp_path):
    with pytest.raises(ValueError, match="`values` is 'Trained'; did you mean 'trained'"):
        result.ticket(level=1).save(tmp_path / "one.ticket", values="Trained")
    assert not list(tmp_path.iterdir())
    with pytest.raises(store.StoreError, match=r"'reinit' is a control.*`values='trained'`"):
        result.ticket(1, arm="reinit").save(tmp_path / "one.ticket")


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(2)(nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x)))


@pytest.mark.slow
def test_trained_tickets_have_the_state_that_files_lack(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    task = lottery.Task(
        Normed(), (x, (x[:, 0] > 0).astype(int)), optimizer=optax.sgd(0.1), batch_size=8, steps=20
    )
    found = lottery.run(task, lottery.imp(levels=1), replicates=1, plan=Plan(1), progress=False)
    ticket = found.ticket(1)
    model = task.trainer.model
    logits, _ = model.apply(ticket.trained, ticket.state, task.data.test.x, train=False)
    accuracy = float((np.argmax(logits, -1) == task.data.test.y).mean())
    [row] = [one for one in found.table("test_accuracy_final") if one["arm"] == "ticket"]
    assert accuracy == pytest.approx(row["mean"])
    with pytest.warns(UserWarning, match=r"the model's state \(2 arrays\).*is left out"):
        ticket.save(tmp_path / "one.ticket", values="trained")
    ticket.save(tmp_path / "two.ticket")  # the rewound values need none


def test_the_same_call_reads_the_finished_run(result, folder, monkeypatch):
    monkeypatch.setattr(sys.modules["lth_jax.lottery.run"], "train_run", None)
    again = run(folder)
    assert again.path == result.path and repr(again) == repr(result)


def test_a_loaded_run_has_the_tables_of_the_call(result, folder):
    for name in (result.path, result.path.name, result.info):
        loaded = lth.load_run(name, root=folder)
        assert loaded.path == result.path
    for rows in ("table", "seeds", "history", "differences"):
        assert list(getattr(loaded, rows)()) == list(getattr(result, rows)())
    assert repr(loaded) == repr(result)
    assert loaded.to_pandas().equals(result.to_pandas())
    assert loaded.to_arrow().equals(result.seeds().to_arrow())
    ours, theirs = loaded.ticket(2), result.ticket(2)
    assert jax.tree.structure(ours.mask) == jax.tree.structure(theirs.mask)
    for one, other in zip(
        jax.tree.leaves(ours.initial), jax.tree.leaves(theirs.initial), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="was loaded without its task"):
        _ = loaded.task


def test_a_finished_run_has_a_summary(result):
    found = result.info.summary
    dense, *tickets = result.table("test_accuracy")[:3]
    assert found["metric"] == "test_accuracy_final" and found["replicates"] == 2
    assert [one["mean"] for one in found["levels"]] == pytest.approx(
        [row["mean"] for row in (dense, *tickets)]
    )
    assert [one["density"] for one in found["levels"]] == [
        row["density"] for row in (dense, *tickets)
    ]
    nodes = sum(garbage.size_of(path) for path in (result.path.parent / "nodes").iterdir())
    assert found["bytes"] == pytest.approx(nodes, rel=0.1)


@pytest.mark.slow
def test_a_changed_function_is_another_run(result, folder):
    class Net(nn.Module):  # of the same name
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(nn.tanh(nn.Dense(5)(x)))

    other = run(folder, task(model=Net()))
    assert other.path != result.path and result.path.is_dir()


@pytest.mark.slow
def test_regression_has_a_loss_and_no_accuracy():
    from lth_jax.population import squared_error

    own = task(data=(X, X[:, :2] @ np.ones((2, 2), np.float32)), loss=squared_error)
    found = run(own=own, controls=())
    assert not any("accuracy" in name for name in found.metrics)
    assert repr(found.table("test_loss"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "`batch_size` must lie in 1 … 2147483647, got 0"),
        ({"steps": 2.5}, TypeError, "`steps` must be an integer, got 2.5"),
        ({"batch_size": 100}, ValueError, "`batch_size` is 100; there are 58 training examples"),
        ({"model": Net}, TypeError, "`model` is .*; it must be a Linen module"),
        ({"data": X}, TypeError, r"`data` must be a pair `\(x, y\)` of arrays"),
        ({"data": (X, Y[:3])}, ValueError, "all must have the same number of examples"),
        ({"data": {"train": (X, Y)}}, ValueError, "it must have 'train' and 'test'"),
        ({"optimizer": 0.1}, TypeError, "`optimizer` is 0.1; it must be an optax transformation"),
        ({"loss": lambda out, y: out.mean()}, ValueError, "`loss` must return one value per"),
        (
            {"data": (X, Y + 1)},
            ValueError,
            "labels from 1 to 2 in 'train'.* below 2",
        ),
        ({"data": (X, Y > 0)}, TypeError, "`labels` have dtype bool; they must be integers"),
        ({"data": (X, np.eye(2)[Y])}, TypeError, "`labels` have dtype float32"),
        ({"data": (X, Y.astype(str))}, TypeError, "`data` holds an array of dtype <U"),
        ({"data": (X.tolist(), Y)}, TypeError, "`data` holds .* Convert lists with"),
    ],
)
def test_bad_tasks_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        task(**change).check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replicates": 0}, "`replicates` is 0"),
        ({"plan": "fast"}, "`plan` is 'fast'"),
        ({"controls": ("rand",)}, "rand"),
        ({"seed": -1}, "`seed` is -1"),
    ],
)
def test_bad_runs_are_refused_before_training(change, message):
    with pytest.raises(ValueError, match=message):
        run(**change)


def test_bad_specs_are_refused():
    with pytest.raises(ValueError, match="`levels` must lie in 0"):
        lottery.imp(levels=-1)
    with pytest.raises(ValueError, match=r"`density` must lie in \(0, 1\]"):
        lottery.one_shot(0)
    with pytest.raises(ValueError, match=r"`rewind\.step` is 12"):
        lottery.run(task(), lottery.imp(levels=1, rewind=12), progress=False)
    with pytest.raises(store.StoreError, match="unknown level 9"):
        run(controls=()).ticket(9)


def test_the_namespace_has_the_lottery():
    assert lth.lottery is lottery


def test_a_finished_run_is_opened_again(result):
    again = lottery.Result.open(result.path, task())
    assert repr(again) == repr(result) and again.ticket(1).density == result.ticket(1).density
    with pytest.raises(ValueError, match="`task` has parameters of shapes"):
        lottery.Result.open(result.path, task(model=nn.Dense(2)))
    with pytest.raises(store.StoreError, match="unknown run"):
        lottery.Result.open(result.path.with_name("absent"), task())


def test_ctrl_c_is_a_keyboard_interrupt_and_the_same_call_continues(tmp_path, monkeypatch, result):
    from lth_jax.lottery import progress

    advance = progress.Display.advance

    def pressed(self, segment):
        if segment.level == 1 and segment.step < segment.stop:
            signal.raise_signal(signal.SIGINT)
        return advance(self, segment)

    with monkeypatch.context() as patch:
        patch.setattr(progress.Display, "advance", pressed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    [folder] = tmp_path.glob("run-*")
    with pytest.raises(store.StoreError, match="is interrupted; only a finished run"):
        lottery.Result.open(folder, task())
    assert list(run(tmp_path).seeds()) == list(result.seeds())


@pytest.mark.slow
def test_a_run_whose_members_all_diverge_is_shown(recwarn):
    found = run(own=task(optimizer=optax.sgd(1e30)), controls=(), replicates=1)
    assert all(row["replicates"] == 0 for row in found.table("test_accuracy"))
    assert "<svg" in found._repr_html_() and not recwarn.list
    with pytest.raises(store.StoreError, match="diverged at step"):
        found.ticket(1)


@pytest.mark.slow
def test_a_run_in_a_thread_takes_dictionaries_and_wide_dtypes():
    class Sum(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(x["a"].astype(float)) + nn.Dense(2)(x["b"] / 255)

    inputs = {"a": (10 * X).astype(np.int64), "b": np.abs(30 * X).astype(np.uint8)}
    own = task(model=Sum(), data=(inputs, Y.astype(np.int64)))
    done = []
    thread = threading.Thread(target=lambda: done.append(run(own=own, controls=())))
    thread.start()
    thread.join()
    assert np.isfinite([row["mean"] for row in done[0].table("test_loss")]).all()


@pytest.mark.parametrize(("widgets", "live"), [(True, True), (False, False)])
def test_a_notebook_has_a_bar_where_it_can_be_drawn(monkeypatch, widgets, live):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: widgets or None)
    display = progress.Display("run", [1], True)
    assert display._bar.disable is not live


def test_the_speed_is_that_of_all_nodes_over_their_own_time():
    """As on the run's page; a node that continues counts with its earlier attempts."""
    display = progress.Display("run", [200, 300], False)
    done = [("a", 0, 50, 2.0), ("a", 0, 100, 4.0), ("b", 40, 100, 2.0)]
    for key, start, step, seconds in done:
        spec = SimpleNamespace(key=key)
        level, half = int(key == "b"), [0.5]
        found = display.advance(
            Progress(level, half, [spec, spec], start, start, step, 100, seconds, {})
        )
    assert found["speed"] == pytest.approx((200 + 120) / (4 + 2)) and found["done"] == 120


def test_a_ticket_keeps_the_temporary_store_of_its_result(result):
    copy = tempfile.TemporaryDirectory()
    shutil.copytree(result.path.parent, copy.name, dirs_exist_ok=True)
    path = Path(copy.name) / result.path.name
    ticket = lottery.Result(store.Store(copy.name), path, result.task, copy).ticket(1)
    del copy
    gc.collect()
    np.testing.assert_array_equal(
        *(jax.tree.leaves(one.initial)[1] for one in (ticket, result.ticket(1)))
    )


def test_a_ticket_that_was_read_is_shown_in_a_line(result, tmp_path):
    ticket = result.ticket(level=1)
    ticket.save(tmp_path / "one.ticket")
    read = lth.load_ticket(tmp_path / "one.ticket", like=ticket.mask)
    assert repr(read) == "Ticket(4 leaves, keeps 32 of 40 prunable weights)"


@pytest.mark.parametrize(
    "chosen", thinned([(Plan(6, "host", vmapped=None),), (Plan(8, devices=2, vmapped=1),)], 2)
)
@pytest.mark.slow
def test_smaller_levels_have_narrower_chunks(tmp_path, monkeypatch, chosen, result):
    """The recorded widths are those of the levels, and the numbers are the same in either."""
    monkeypatch.setattr(running, "choose_plan", lambda *args, **options: (chosen, []))
    found = run(tmp_path, plan="auto")
    [folder] = tmp_path.glob("run-*")
    recorded = store.read_env(folder)["plan"]
    assert recorded["widths"] == [[0, 2], [1, 6]] and recorded["chunk"] == chosen.chunk
    for one, other in zip(found.seeds(), result.seeds(), strict=True):
        assert one["value"] == pytest.approx(other["value"], rel=1e-4, nan_ok=True)
    run(tmp_path, plan=Plan(6))
    assert len(list(tmp_path.glob("run-*"))) == 1  # the plan is no part of a run's identity
    by_hand = run(tmp_path / "by_hand", plan=Plan(6)).path
    assert store.read_env(by_hand)["plan"]["widths"] == [[0, 6]]


@pytest.mark.slow
def test_without_a_terminal_each_level_has_one_line(tmp_path, capsys):
    own = {"replicates": 2, "plan": Plan(1), "store": tmp_path}
    lottery.run(task(), lottery.imp(levels=2), controls=["reinit"], **own)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("level ")]
    shown = [re.sub(r": .*", "", line) for line in lines]
    arms = "(reinit, ticket)"
    assert [line.replace("(ticket, reinit)", arms) for line in shown] == [
        "level 0/2 (dense)",
        f"level 1/2 {arms}",
        f"level 2/2 {arms}",
    ]


@pytest.mark.slow
def test_a_line_says_that_plans_are_measured(tmp_path, capsys):
    """Once: a run that continues has its plan, and a second one finds the cached choice."""

    def said(**changes):
        lottery.run(task(), lottery.imp(levels=1), replicates=1, store=tmp_path, **changes)
        return [line for line in capsys.readouterr().err.splitlines() if "measuring" in line]

    [line] = said(plan="auto")
    assert re.fullmatch(r"measuring which of \d+ plans is fastest …", line)
    assert not said(plan="auto") and not said(plan=Plan(1), seed=1)
    assert not said(plan="auto", progress=False, seed=2)


def test_a_ticket_outlives_the_result_of_a_temporary_run(result):
    folder = tempfile.TemporaryDirectory()
    shutil.copytree(result.path.parent, folder.name, dirs_exist_ok=True)
    path = Path(folder.name, result.path.name)
    ticket = lottery.Result(store.Store(folder.name), path, result.task, folder).ticket(1)
    del folder
    gc.collect()
    jax.tree.map(np.testing.assert_array_equal, ticket.initial, result.ticket(1).initial)


@pytest.mark.slow
def test_the_program_of_the_chosen_plan_is_compiled_once(tmp_path, monkeypatch):
    """What the planner measured is what trains."""
    monkeypatch.setattr(planning, "SHARE", 1e9)  # else a short run measures one plan
    compiled = []
    compile_segment = programs.compile_segment
    monkeypatch.setattr(
        programs, "compile_segment", lambda *args: compiled.append(args) or compile_segment(*args)
    )
    run(tmp_path, plan="auto", controls=())
    [folder] = tmp_path.glob("run-*")
    chosen = store.read_env(folder)["plan"]
    assert chosen["widths"] == [[0, chosen["chunk"]]] and len(chosen["evidence"]) > 1
    plans = [plan for _, plan in compiled]
    assert len(set(plans)) == len(plans) == len(chosen["evidence"])


def test_parts_of_a_spec_that_do_not_exist_are_named():
    with pytest.raises(TypeError, match=r"`lottery.Spec` is 'level'.* must be one of: "):
        lottery.imp(levels=2, level=3)


@pytest.mark.parametrize(
    "make",
    [lottery.imp, partial(lottery.one_shot, 0.5), partial(lottery.sparse_training, None, 0.5)],
)
@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"scope": "globally"}, "`scope` is 'globally'; it must be a Scope, such as `lth.globally"),
        ({"criterion": "magnitude"}, "`criterion` is 'magnitude'; it must be a criterion, such as"),
        ({"granularity": "weights"}, "`granularity` is 'weights'; it must be a Granularity, such"),
    ],
)
def test_names_as_parts_of_a_spec_are_refused(make, parts, words):
    with pytest.raises(TypeError, match=words):
        make(**parts)
