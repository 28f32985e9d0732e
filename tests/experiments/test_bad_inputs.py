"""Bad input at the command line: one sentence that names the field, code 2, and nothing done.

The cases are made of the table of fields: every field with texts that are no value of it. A sample
is in the fast tier, all of them in the slow one.
"""

import contextlib
import io
import sys
import traceback

import pytest

from experiments import (
    atlas,
    build,
    estimate,
    frontier,
    latency,
    learning_rates,
    measure,
    run,
    spectrum,
    stability,
    sweep,
)
from experiments.fields import FIELDS, OPEN
from lth_jax.cli import programs
from lth_jax.cli.words import tuple_of
from tests.experiments import tiny

CONFIG = "tests/experiments/tiny.py"
TEXTS = (
    "many",
    "",
    "nan",
    "inf",
    "-1",
    "1e400",
    "1000000000000",
    "1.5",
    "('x','x')",
    "a\nb",
)
"""No value of some kind: words, nothing, not finite, out of range, huge, of another type."""


def is_bad(field, text):
    """Whether a text is no value of a field, by what its default is."""
    config = tiny.get_config()
    default = build_value(config, field)
    if isinstance(default, bool):
        return True
    if isinstance(default, str):
        return not field.legal.holds(text)
    if isinstance(default, int | float):
        try:
            return not field.legal.holds(type(default)(text))
        except ValueError:
            return True
    if isinstance(default, tuple):
        return not field.legal.holds(tuple_of(text))
    return True  # fields of their own


def build_value(config, field):
    found = config
    for part in field.path.split("."):
        found = found[part]
    return found


CASES = [
    (field.name, [f"--config.{field.path}={text}"])
    for field in FIELDS.values()
    for text in TEXTS
    if field.name not in ("prune.groups", *OPEN) and is_bad(field, text)
]
TOGETHER = [
    ("replicates", ["experiment.replicates=10000000"]),
    ("replicates", ["experiment.replicates=100000000", "experiment.prune.levels=0"]),
    ("prune.levels", ["experiment.prune.levels=1000000"]),
    ("prune.levels", ["experiment.prune.levels=100000000", "experiment.prune.schedule=linear"]),
    ("prune.levels", ["experiment.prune.levels=40", "experiment.prune.schedule=geometric"]),
    ("machine.chunk", ["machine.chunk=1000000000"]),
    ("prune.examples", ["experiment.prune.examples=201"]),
    ("prune.unit_multiple", ["experiment.prune.unit_multiple=1000000", "units"]),
    ("prune.groups", ["experiment.prune.groups=('nothing*',)"]),
    ("prune.groups", ["experiment.prune.groups=('nothing*',)", "units"]),
    ("prune.layer_rates", ["experiment.prune.layer_rates=(1,)"]),
    ("model.options", ["experiment.model.options.features=(16,9)"]),
    ("model.options.features", ["experiment.model.options.features=(0,10)"]),
    ("model.options.features", ["experiment.model.options.features=(-16,10)"]),
    ("model.options.features", ["experiment.model.options.features=(1.5,10)"]),
    ("model.options.features", ["experiment.model.options.features=wide"]),
    ("model.options", ["experiment.model.options.features=()"]),
    ("model.options", ["experiment.model.options.features=(1000000000,10)"]),
    ("model.options", ["experiment.model.options.features=(2000000000,2000000000,10)"]),
    ("model.options", ["experiment.model.name=convnet", "experiment.model.options.features=(9,)"]),
    ("model.options.width", ["experiment.model.name=gru", "experiment.model.options.width=0"]),
    ("control_levels", ["experiment.control_levels=(3,)"]),
    ("control_levels", ["experiment.control_levels=(1,1)"]),
    ("control_levels", ["experiment.control_levels=(1,)", "experiment.prune.levels=0"]),
    ("controls", ["experiment.controls=('reinit','reinit')"]),
    ("controls", ["experiment.controls=('scratch',)"]),
    ("optimizer.warmup", ["experiment.optimizer.warmup=30"]),
    ("rewind.step", ["experiment.rewind.step=30"]),
    ("prune.score_step", ["experiment.prune.score_step=31"]),
    ("prune.score_step", ["experiment.prune.score_step=5", "experiment.rewind.step=6"]),
    ("train.average.start", ["experiment.train.average.start=31"]),
    ("train.average.window", ["experiment.train.average.window=9"]),
    ("train.share", ["experiment.train.share=101"]),
    ("train.batch_size", ["experiment.train.batch_size=201"]),
    ("train.batch_size", ["experiment.train.share=10"]),
    ("train.crop", ["experiment.train.crop=8"]),
    ("train.crop", ["experiment.train.crop=1000000"]),
    ("train.steps", ["experiment.train.steps=2147483647", "experiment.train.eval_every=1"]),
    (
        "train.eval_every",
        ["experiment.train.steps=2147483647", "experiment.train.eval_every=2147483647"],
    ),
    ("train.distill.unlabelled", ["experiment.train.distill.unlabelled=5"]),
    ("train.distill.teacher", ["experiment.train.distill.teacher=nobody"]),
    ("data.validation", ["experiment.data.validation=100000"]),
    ("data.train_examples", ["experiment.data.train_examples=100000"]),
    ("data.unlabelled", ["experiment.data.unlabelled=100000"]),
    ("machine.manual_dir", ["experiment.data.name=mnist"]),
    ("prune.levels", ["experiment.prune.minimum=1000000"]),
    ("prune.levels", ["experiment.prune.scope=erk", "experiment.prune.levels=20"]),
    ("prune.criterion", ["experiment.prune.criterion=snip"]),
    ("prune.criterion", ["experiment.prune.criterion=norm_scales"]),
    ("machine.devices", ["machine.devices=99"]),
    ("machine.chunk", ["machine.devices=4", "machine.chunk=6"]),
    ("machine.coordinator", ["machine.processes=2"]),
    ("machine.process", ["machine.coordinator=here:1"]),
    ("experiment.train.steps", ["experiment.trian.steps=3"]),
    ("experiment.optimizer", ["experiment.optimizer=3"]),
    ("machine.chunk", ["machine.chnk=3"]),
]
UNITS = ("prune.granularity=units", "prune.scope=layerwise", "controls=()")


def with_units(setting):
    return [f"experiment.{one}" for one in UNITS] if setting == "units" else [setting]


TOGETHER = [
    (name, [f"--config.{one}" for setting in settings for one in with_units(setting)])
    for name, settings in TOGETHER
]
SWEPT = [
    ("seed", ["--sweep.experiment.seed=1.5"]),
    ("seed", ["--sweep.experiment.seed="]),
    ("seed", ["--sweep.seed=1"]),
    ("learning_rate", ["--sweep.lr=nan"]),
    ("learning_rate", ["--sweep.lr=0.1,0.1"]),
    ("experiment.train.steps", ["--sweep.stepps=3"]),
    ("--max_cells", ["--sweep.lr=0.1", "--max_cells=some"]),
    ("--max_cells", ["--sweep.lr=0.1,0.2", "--max_cells=1"]),
    ("replicates", ["--sweep.replicates=10000000"]),
    ("--sweep.FIELD", ["--swept.lr=0.1"]),
    ("--sweep.FIELD", []),
]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def nothing_is_accepted(monkeypatch):
    """An experiment that is accepted is an error, not a training; 4 GiB of memory are free."""
    for name in ("free_bytes", "host_free_bytes"):
        monkeypatch.setattr(estimate, name, lambda: 4 << 30)  # the same on every machine
    make = build.experiment_of

    def refused(experiment, loaded):
        make(experiment, loaded)
        raise AssertionError("the experiment is accepted")

    monkeypatch.setattr(build, "experiment_of", refused)


def ended(command, workdir, arguments, monkeypatch):
    """The exit code and what went to standard error."""
    given = [argument.partition("=")[0] for argument in arguments]
    folders = {"--config.machine.workdir": workdir, "--config.machine.data_dir": workdir / "data"}
    kept = [f"{name}={path}" for name, path in folders.items() if name not in given]
    argv = ["command", f"--config={CONFIG}", *kept, *arguments]
    monkeypatch.setattr(sys, "argv", argv)
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        try:
            programs.run_main(command.main)
        except SystemExit as stop:
            return stop.code, error.getvalue()
        except BaseException:
            return "traceback", traceback.format_exc()
    return 0, error.getvalue()


def faults(command, workdir, cases, monkeypatch):
    """The cases that do not end with code 2 and one sentence that names the field."""
    found = []
    for name, arguments in cases:
        code, said = ended(command, workdir, arguments, monkeypatch)
        one = said.startswith("error: ") and said.count("\n") == 1 and said.endswith(".\n")
        if not (code == 2 and one and name in said):
            found.append((name, arguments, code, said[-300:]))
    return found


def runs_in(workdir):
    return [path for path in workdir.glob("*") if path.name != "data"]


def test_some_bad_fields_are_refused_in_one_sentence(workdir, monkeypatch):
    assert faults(run, workdir, CASES[::12], monkeypatch) == [] == runs_in(workdir)


def test_what_does_not_go_together_is_refused_in_one_sentence(workdir, monkeypatch):
    assert faults(run, workdir, TOGETHER, monkeypatch) == [] == runs_in(workdir)


@pytest.mark.slow
def test_all_bad_fields_are_refused_in_one_sentence(workdir, monkeypatch):
    assert len(CASES) > 250
    assert faults(run, workdir, CASES, monkeypatch) == [] == runs_in(workdir)


def test_bad_sweeps_are_refused_in_one_sentence(workdir, monkeypatch):
    assert faults(sweep, workdir, SWEPT, monkeypatch) == [] == runs_in(workdir)


OPTIONS = [
    (spectrum, "--k", ["--k=0"]),
    (spectrum, "--k", ["--k=1000000000000"]),
    (spectrum, "--steps", ["--steps=1.5"]),
    (spectrum, "--probes", ["--probes="]),
    (spectrum, "--surface", ["--surface=-1"]),
    (spectrum, "--surface", ["--surface=100000"]),
    (spectrum, "--mode", ["--mode=testing"]),
    (spectrum, "--examples", ["--exmples=3"]),
    (measure, "--examples", ["--examples=0"]),
    (measure, "--examples", ["--examples=nan"]),
    (measure, "--root", ["--root="]),
    (latency, "--batch", ["--batch=1000000000000"]),
    (latency, "--repeats", ["--repeats=many"]),
    (learning_rates, "--rates", ["--rates=0.1,nan"]),
    (learning_rates, "--rates", ["--rates=0.1,0.1"]),
    (learning_rates, "--rates", ["--rates=-1"]),
    (learning_rates, "--chunk", ["--chunk=-1"]),
    (learning_rates, "--level", ["--level=-1"]),
    (frontier, "nothing", []),
    (measure, "nothing", []),
]
ATLAS = [
    ("--size", ["--size=big"]),
    ("C99", ["--only=C99"]),
    ("--manual_dir", ["--manual_di\nr=x"]),
    ("--only", ["--onyl=C1"]),
]
STABLE = [
    ("--children", ["--children=1"]),
    ("--points", ["--points=2"]),
    ("--chunk", ["--chunk=x"]),
    ("--levels", ["--levels=7"]),
    ("--levels", ["--levels=a"]),
    ("--rewind", ["--rewind=a"]),
    ("rewind.step", ["--rewind=0,30"]),
    ("seed", ["--config.experiment.seed=-1"]),
    ("--rewind", ["--rewnid=0"]),
]


def test_bad_options_are_refused_in_one_sentence(workdir, capsys):
    cases = [(main.main, name, ["nothing", f"--root={workdir}", *a]) for main, name, a in OPTIONS]
    cases += [(atlas.main, name, [f"--root={workdir}", *given]) for name, given in ATLAS]
    for main, name, arguments in cases:
        code = main(arguments)
        said = capsys.readouterr().err
        assert code == 2 and said.startswith("error: ") and said.count("\n") == 1, (arguments, said)
        assert name in said, (arguments, said)
    assert runs_in(workdir) == []


def test_bad_options_of_stability_are_refused_in_one_sentence(workdir, monkeypatch):
    assert faults(stability, workdir, STABLE, monkeypatch) == [] == runs_in(workdir)
