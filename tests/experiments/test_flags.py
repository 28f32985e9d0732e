"""The command line: overrides that reach the config, and mistakes that are named."""

import re
import shlex
import sys

import pytest
from ml_collections import ConfigDict

from experiments import build, flags, sweep
from experiments.configs import base
from lth_jax.cli import words
from lth_jax.cli.programs import UserError
from lth_jax.store import open_run

CONFIG = "--config=tests/experiments/tiny.py"


def parse(*arguments):
    return flags.parse(["run.py", *arguments], CONFIG.partition("=")[2])


def test_overrides_reach_the_config_in_any_order():
    before = list(sys.argv)
    config = parse("--config.experiment.seed=3", CONFIG, "--config.experiment.controls=('reinit',)")
    assert config.experiment.seed == 3 and tuple(config.experiment.controls) == ("reinit",)
    assert parse().experiment.seed == 0
    assert sys.argv == before


def test_options_are_those_of_the_part_that_is_named():
    own = "--config.experiment.model.name=my_package.nets:MyNet"
    assert parse().experiment.model.options.to_dict() == {"features": (16, 10)}
    assert parse(own).experiment.model.options.to_dict() == {}
    given = ["--config.experiment.model.options.width=3", "--config.experiment.model.options.act"]
    config = parse(own, *given, "gelu")
    assert config.experiment.model.options.to_dict() == {"width": 3, "act": "gelu"}
    rigl = ["--config.experiment.prune.method=rigl"]
    config = parse(*rigl, "--config.experiment.prune.method_options.fraction=0.5")
    assert config.experiment.prune.method_options.to_dict() == {"fraction": 0.5}
    same = parse("--config.experiment.model.name=mlp", "--config.experiment.model.options.width=2")
    assert same.experiment.model.options.to_dict() == {"features": (16, 10), "width": 2}


@pytest.mark.parametrize("text", ["reinit,shuffle", "('reinit', 'shuffle')", "reinit, shuffle,"])
def test_a_tuple_is_written_with_commas_or_in_pythons_syntax(text):
    assert parse(f"--config.experiment.controls={text}").experiment.controls == (
        "reinit",
        "shuffle",
    )
    config = parse("--config.experiment.model.options.features=64,10", "--config.experiment.seed=1")
    assert config.experiment.model.options.features == (64, 10)
    assert parse("--config.experiment.control_levels=2").experiment.control_levels == (2,)
    assert parse("--config.experiment.controls=").experiment.controls == ()
    nested = "--config.experiment.model.options.features=((64, 64), (128,))"
    assert parse(nested).experiment.model.options.features == ((64, 64), (128,))


@pytest.mark.parametrize("value", [(3, 4), ("reinit",), (), ((1, 2), (3,)), ("a*", "b")])
def test_the_text_of_a_tuple_is_read_back(value):
    assert words.tuple_of(*shlex.split(words.text_of(value))) == value


@pytest.mark.parametrize("method", ["rigl", "sparse_evolution", "gradual", "straight_through"])
def test_events_of_a_method_are_three_numbers(method):
    given = [f"--config.experiment.prune.method={method}", "--config.experiment.controls=reinit"]
    events = "--config.experiment.prune.method_options.events="
    config = parse(*given, f"{events}5,5,20")
    assert config.experiment.prune.method_options.events == (5, 5, 20)
    make = build._method(config.experiment.prune)
    assert make(prunable={"w": True}, layouts={}, scope=None, steps=30).name == method
    for text, message in (
        ("5,5", r"`prune.method_options.events` is \(5, 5\); it must be .* every,begin,end: 100,1"),
        ("often", r"`prune.method_options.events` is 'often'; it must be"),
        ("0,5,20", r"`every` must be at least 1, but is 0"),
    ):
        make = build._method(parse(*given, f"{events}{text}").experiment.prune)
        with pytest.raises(UserError, match=message):
            make(prunable={"w": True}, layouts={}, scope=None, steps=30)
    unknown = parse(*given, "--config.experiment.prune.method_options.event=1").experiment.prune
    with pytest.raises(UserError, match=r"`prune.method_options` is 'event'; did you mean 'events"):
        build._method(unknown)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"lacks `get_config\(\)`; `experiments.configs.base.ladder\(\)` makes a complete"),
        ("def get_config(): return ConfigDict()", r"lacks `experiment`, `machine`; `experiments"),
        (
            "def get_config(): return ConfigDict({'experiment': {'seed': 0}, 'machine': {}})",
            r"lacks `experiment.control_levels`, `experiment.controls`, .* and \d+ more; `exper",
        ),
        ("def get_config(): return 3", "lacks `experiment`, `machine`; `experiments"),
        ("def get_config(): return absent", r"fails: NameError: .*'absent'.* \(.*own.py, line 2\)"),
        ("import nowhere_at_all", "fails: ModuleNotFoundError: .*nowhere_at_all'"),
        ("def get_config(:", "fails: SyntaxError: .*own.py, line 2"),
    ],
)
def test_a_config_file_that_is_incomplete_or_fails_is_one_sentence(tmp_path, text, message):
    path = tmp_path / "own.py"
    path.write_text(f"from ml_collections import ConfigDict\n{text}\n")
    with pytest.raises(UserError, match=f"`--config` is '.*own.py', .*{message}") as caught:
        parse(f"--config={path}")
    assert "\n" not in str(caught.value)


def test_the_command_line_of_the_process_is_not_read(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["other.py", "--config.experiment.seed=7"])
    assert [parse().experiment.seed, parse("--config.experiment.seed=3").experiment.seed] == [0, 3]
    assert sys.argv == ["other.py", "--config.experiment.seed=7"]


def test_a_config_takes_its_argument():
    smoke = parse("--config", "experiments/configs/mnist1d_ladder.py:smoke")
    assert smoke.experiment.name == "mnist1d_smoke"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.experiment.trian.steps=3"], "did you mean 'experiment.train.steps'"),
        (["--config.seed=3"], "did you mean 'experiment.seed' or 'experiment.data.seed'"),
        (["--config.experiment.train.steps_=3"], "did you mean 'experiment.train.steps'"),
        (["--config.experiment.seed=abc"], "abc"),
        (["--config.experiment.seed=1.5"], "1.5"),
        (["--config.experiment.train.shuffle=maybe"], "maybe"),
        (["--config.experiment.optimizer=3"], "`--config` is 'experiment.optimizer'"),
        (["--config=nope.py"], "there is no file 'nope.py'"),
        (["--config=experiments/configs/mnist1d_ladder.py:big"], "`size` is 'big'"),
        (["--conifg=x"], "conifg"),
        (["extra"], "'extra' is not an argument"),
    ],
)
def test_mistakes_are_one_sentence(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        parse(*arguments)
    assert "\n" not in str(caught.value)


def test_a_config_saved_before_a_field_came_has_its_default(tmp_path):
    saved = {"model": {"name": "gru", "options": {"width": 3}}, "train": {"steps": 7}}
    with open_run(tmp_path, name="old", config=saved, env={}) as run:
        run.finish()
    config = flags.saved_config(run.path)
    assert config.model.to_dict() == saved["model"]
    assert (config.train.steps, config.train.distill.teacher, config.seed) == (7, "", 0)


@pytest.mark.parametrize("field", base.NEWER)
def test_a_newer_field_changes_the_record_only_if_it_is_set(field, tmp_path):
    config = base.ladder().experiment
    whole, kept = dict(flags.fields(config)), recorded_fields(config)
    newer = {name for name in whole if any(f"{name}.".startswith(f"{f}.") for f in base.NEWER)}
    assert kept == {name: value for name, value in whole.items() if name not in newer}
    with open_run(tmp_path, name="run", config=flags.recorded(config), env={}) as run:
        run.finish()
    assert dict(flags.fields(flags.saved_config(run.path))) == whole
    mine = {name: whole[name] for name in newer if f"{name}.".startswith(f"{field}.")}
    first = next(iter(mine))
    mine[first] = type(mine[first])(1)
    config.update_from_flattened_dict(mine)
    assert recorded_fields(config) == kept | mine


def recorded_fields(config):
    return dict(flags.fields(ConfigDict(flags.recorded(config))))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("lr", ["optimizer.learning_rate"]),
        ("train.wd", ["optimizer.weight_decay"]),
        ("train.bs", ["train.batch_size"]),
        ("num_epochs", ["train.steps"]),
        ("model.n_layers", ["model.options.features"]),
        ("n_seeds", ["replicates"]),
        ("sparsity", ["prune.final"]),
        ("dataset", ["data.name"]),
        ("arch", ["model.name"]),
        ("train.learning_rate", ["optimizer.learning_rate"]),
        ("lrr", ["optimizer.learning_rate"]),
        ("lerning_rate", ["optimizer.learning_rate"]),
    ],
)
def test_common_names_of_other_projects_lead_to_fields(name, fields):
    hint = "did you mean " + " or ".join(f"'experiment.{field}'" for field in fields)
    with pytest.raises(UserError, match=re.escape(hint)):
        parse(f"--config.{name}=1")
    assert len(flags.ALIASES) <= 10


@pytest.mark.parametrize("name", ["lrr", "optimizer.lerning_rate"])
def test_a_swept_field_of_similar_spelling_is_suggested(name):
    with pytest.raises(UserError, match=r"did you mean 'experiment\.optimizer\.learning_rate'"):
        sweep.parse_grid([f"--sweep.{name}=1"], parse())


def test_every_alias_leads_to_a_field():
    known = [name for name, _ in flags.fields(parse())]
    assert all(flags.meant(alias, known) for alias in flags.ALIASES)
