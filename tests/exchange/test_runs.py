"""`lth export`: programs of runs and tickets."""

import sys

import numpy as np
import pytest

from experiments import build, runner
from experiments.finished import open_finished
from lth_jax import exchange, store
from lth_jax.cli import main
from tests.experiments import tiny

TASKS = """
from experiments.finished import recorded_task

ROOT, RUN = {root!r}, {run!r}


def task():
    return recorded_task(ROOT + "/" + RUN)


number = 3
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = tiny.get_config()
    config.machine.workdir = str(tmp_path_factory.mktemp("runs"))
    config.experiment.prune.update(rate=0.9, levels=1)  # leaves dead units
    return config, runner.run(config, ["some", "command"])


@pytest.fixture
def export(run, capsys):
    """`(source, file, *words) -> (exit code, stdout, stderr)`."""
    _, path = run

    def call(source, file, *words):
        code = main(["export", source, str(file), "--root", str(path.parent), *words])
        return code, *capsys.readouterr()

    return call


PLACE = ("--level", "1", "--replicate", "0")


def outputs(run, values="trained"):
    """Four examples, and the outputs of the ticket of level 1."""
    config, path = run
    found = open_finished(config.machine, path.name)
    x = np.asarray(found.loaded.test.x[:4])
    one = found.result.ticket(1)
    model = build.task(found.experiment, found.loaded).trainer.model
    params = one.trained if values == "trained" else one.initial
    return x, model.apply(params, {}, x, train=False)[0]


@pytest.mark.slow
def test_programs_of_a_run(run, export, tmp_path):
    pytest.importorskip("flatbuffers")
    _, path = run
    whole, small, start = (tmp_path / f"{name}.stablehlo" for name in "abc")
    words = (*PLACE, "--batch", "4")
    said = [
        export(path.name, whole, *words),
        export(path.name, small, *words, "--compact"),
        export(path.name, start, *words, "--values", "rewound"),
    ]
    assert [code for code, _, _ in said] == [0, 0, 0]
    sizes = [out.partition(" bytes, dense ")[2].partition(";")[0] for _, out, _ in said]
    assert sizes == [sizes[0]] * 3  # of the dense parameters
    assert small.stat().st_size < whole.stat().st_size
    for file, values in ((whole, "trained"), (small, "trained"), (start, "rewound")):
        x, wanted = outputs(run, values)
        np.testing.assert_allclose(exchange.load_stablehlo(file)(x), wanted, rtol=1e-4, atol=1e-5)
    assert export(path.name, whole, *words)[0] == 2


@pytest.mark.slow
def test_a_ticket_with_the_task_that_an_option_names(run, export, tmp_path, monkeypatch):
    pytest.importorskip("flatbuffers")
    _, path = run
    (tmp_path / "their_tasks.py").write_text(TASKS.format(root=str(path.parent), run=path.name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    assert export(path.name, "one.ticket", *PLACE)[0] == 0
    code, out, _ = export("one.ticket", "one.stablehlo", "--task", "their_tasks:task")
    assert code == 0 and "bytes, dense" in out
    x, wanted = outputs(run, "rewound")
    found = exchange.load_stablehlo("one.stablehlo")(x[:1])
    np.testing.assert_allclose(found, wanted[:1], rtol=1e-4, atol=1e-5)
    for words, message in {
        (): "by `--task package.module:name`",
        ("--task", "their_tasks"): "`--task` is 'their_tasks'; it must be package.module:name.",
        ("--task", "their_tasks:other"): "which cannot be imported",
        ("--task", "their_tasks:number"): "which fails",
        ("--task", "fractions:Fraction"): "which makes Fraction; a Task is needed.",
        ("--task", "their_tasks:task", "--batch", "0"): "`--batch` is 0; it must be an integer",
    }.items():
        code, _, err = export("one.ticket", "two.stablehlo", *words)
        assert code == 2 and message in err and err.count("\n") == 1, err


@pytest.mark.slow
def test_leaves_that_the_task_does_not_have(run, export, tmp_path, monkeypatch):
    import lth_jax as lth

    _, path = run
    (tmp_path / "other_tasks.py").write_text(TASKS.format(root=str(path.parent), run=path.name))
    monkeypatch.chdir(tmp_path)
    params = {"Dense_0": {"kernel": np.ones((2, 2), np.float32)}}
    mask = lth.ones_like(params)
    lth.save_ticket("other.ticket", mask, params, prunable=lth.prunable_leaves(params))
    code, _, err = export("other.ticket", "x.stablehlo", "--task", "other_tasks:task")
    assert code == 2 and "must be the task of this network" in err


def test_a_run_records_how_its_task_is_made(run):
    _, path = run
    recorded = store.read_env(path)["environments"][-1]
    assert recorded["command"] == ["some", "command"]
    assert recorded["task"]["function"] == "experiments.finished:recorded_task"


def test_a_run_without_such_a_record_needs_the_option(run, export, tmp_path, monkeypatch):
    _, path = run
    kept = store.read_env(path)
    for one in kept["environments"]:
        del one["task"]
    monkeypatch.setattr(store, "read_env", lambda folder: kept)
    code, _, err = export(path.name, tmp_path / "x.onnx", *PLACE)
    assert code == 2 and "by `--task package.module:name`" in err
