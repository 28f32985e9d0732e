"""One table of fields: those of the config, which its checks and `--help` share."""

import sys

import pytest

from experiments import commands, estimate, run, stability, sweep
from experiments.checks import check
from experiments.configs import base
from experiments.fields import FIELDS, check_value, check_values, leaves
from lth_jax.cli import programs
from lth_jax.cli.programs import UserError
from lth_jax.models import NETWORKS
from lth_jax.pruning.criteria import CRITERIA


def values(config):
    return dict(leaves(config.experiment)) | dict(leaves(config.machine, "machine."))


def test_the_table_has_the_fields_of_the_config_and_no_others():
    assert set(values(base.ladder())) == set(FIELDS)
    for field in FIELDS.values():
        assert field.help and field.legal.words


def test_the_defaults_are_legal():
    config = base.ladder()
    check(config.experiment)
    check_values(config.machine, "machine.")


@pytest.mark.parametrize("value", [object(), float("nan"), 2**200, -1, b"x", "\x00", 1 + 1j])
def test_no_field_takes_what_is_no_value(value):
    for field in FIELDS.values():
        with pytest.raises(UserError, match=f"`{field.name}` is") as caught:
            check_value(field, value)
        assert "\n" not in str(caught.value)


def test_a_field_that_there_is_not_is_named_with_those_that_there_are():
    config = base.ladder()
    config.experiment.train.stepps = 3
    message = r"did you mean 'train\.steps'.*one of: train\.steps, .*, and \d+ more\.$"
    with pytest.raises(UserError, match=message):
        check(config.experiment)


@pytest.mark.parametrize(
    ("group", "field", "names"), [("prune", "criterion", CRITERIA), ("model", "name", NETWORKS)]
)
def test_an_unknown_name_lists_the_names_there_are(group, field, names):
    config = base.ladder()
    config.experiment[group][field] = "nothing"
    with pytest.raises(UserError, match="must be one of") as caught:
        check(config.experiment)
    assert all(name in str(caught.value) for name in names)


@pytest.mark.parametrize("command", [run, sweep, stability])
def test_help_lists_every_field(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", "--help"])
    with pytest.raises(SystemExit) as done:
        programs.run_main(command.main)
    assert done.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    for field in FIELDS.values():
        assert f"--config.{field.path}" in printed and field.help in printed
        assert f"Values: {field.legal.words}." in printed
    assert "`model.options` of 'residual_mlp'" in printed and "width: an integer" in printed


def test_help_lists_the_options_of_the_parts_that_are_chosen(capsys):
    given = ["prune.method=rigl", "data.name=copy", "prune.criterion=snip", "controls=reinit,signs"]
    given += ["model.name=tests.experiments.own:Net"]
    argv = ["command", *(f"--config.experiment.{one}" for one in given), "--help"]
    with pytest.raises(SystemExit):
        commands.config_of(argv, "tests/experiments/tiny.py", "")
    printed = " ".join(capsys.readouterr().out.split())
    assert "--config.experiment.controls=reinit,signs " in printed
    assert "`data.options` of 'copy', --config.experiment.data.options.NAME=VALUE: sym" in printed
    assert "fraction: fraction of the kept weights that the first event drops" in printed
    assert "events: when to revise the mask: `Events`, or its numbers every,begin,end;" in printed
    assert "prunable:" not in printed and "`prune.criterion` 'snip' needs `prune.exam" in printed
    assert "`model.options` of 'tests.experiments.own:Net'" in printed
    assert "width: default 6" in printed and "{}" not in printed


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "controls",
            ("reinit", "shufle"),
            "did you mean 'shuffle'.* Several are written as reinit,",
        ),
        ("controls", 5, "a tuple of distinct names .on a command line reinit,shuffle"),
        ("control_levels", ("1;3",), "on a command line 1,3"),
        ("model.options", {"features": "wide"}, "on a command line 64,10"),
    ],
)
def test_the_error_for_a_tuple_shows_legal_text(name, value, words):
    config = base.ladder().experiment
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict({name: value})
    with pytest.raises(UserError, match=words):
        check(config)


def test_members_are_counted():
    experiment = base.ladder().experiment
    by_level = [estimate.arms(experiment, level) for level in range(11)]
    assert estimate.members(experiment) == 5 * sum(by_level) == 205
    experiment.control_levels = (2, 10)
    by_level = [estimate.arms(experiment, level) for level in range(11)]
    assert estimate.members(experiment) == 5 * sum(by_level) == 5 * 17
