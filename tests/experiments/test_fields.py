"""One table of fields: those of the config, which its checks and `--help` share."""

import sys

import pytest

from experiments import estimate, run, stability, sweep
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


def test_members_are_counted():
    experiment = base.ladder().experiment
    by_level = [estimate.arms(experiment, level) for level in range(11)]
    assert estimate.members(experiment) == 5 * sum(by_level) == 205
    experiment.control_levels = (2, 10)
    by_level = [estimate.arms(experiment, level) for level in range(11)]
    assert estimate.members(experiment) == 5 * sum(by_level) == 5 * 17
