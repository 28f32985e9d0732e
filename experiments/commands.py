"""Command lines with a config, and their `--help`."""

import textwrap
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments import flags
from experiments.configs import base
from experiments.fields import FIELDS, OPEN, Field, leaves
from lth_jax.cli import parts
from lth_jax.legal import shown
from lth_jax.models.options import options_of

DEFAULT = "experiments/configs/mnist1d_ladder.py"
DRY_RUN = "--dry_run"
HELP = ("-h", "--help", "-help")
WIDTH = 100


def config_of(
    argv: Sequence[str], default: str, description: str, further: Sequence[str] = ()
) -> ConfigDict:
    """The config of a command line; prints help for `--help`.

    Args:
      argv: the program's name and its arguments.
      default: the default config file.
      description: text for `--help`.
      further: names of further arguments.

    Raises:
      UserError: see `flags.parse`.
      SystemExit: with code 0, after `--help`.
    """
    rest = [argument for argument in argv if argument not in HELP]
    config = flags.parse(rest, default, not_legal, further)
    if len(rest) < len(argv):
        print(f"{description.strip()}\n\n{fields_help(config, flags.given_config(rest, default))}")
        raise SystemExit(0)
    return config


def not_legal(path: str, text: str) -> str | None:
    """The error message for an invalid text of a field; None for fields with free names.

    >>> not_legal("experiment.train.steps", "many")
    "`train.steps` is 'many'; it must be an integer in 1 … 2147483647."
    """
    field = FIELDS.get(path.removeprefix("experiment."))
    return field and f"`{field.name}` is {shown(text)}; it must be {field.legal.words}."


def fields_help(config: ConfigDict, file: str) -> str:
    """Every field with its value in a config file, its help and its legal values."""
    lines = [
        f"--config=FILE[:ARGUMENT], here {file}. Its fields, with the values they have here:",
        "",
    ]
    values = dict(leaves(config.experiment)) | dict(leaves(config.machine, "machine."))
    plain = base.ladder()
    defaults = dict(leaves(plain.experiment)) | dict(leaves(plain.machine, "machine."))
    for name, field in FIELDS.items():
        lines += _entry(field, values[name], defaults[name])
    return "\n".join([*lines, "", *_attributes(config.experiment.model.name)])


def _entry(field: Field, value: Any, default: Any) -> list[str]:
    """The lines of a field, including nested fields with free names."""
    inside = list(flags.fields(value)) if field.name in OPEN else []
    names = [(f"{field.path}.{name}", one) for name, one in inside] or [(field.path, value)]
    lines = [f"--config.{name}={one}" for name, one in names]
    usual = "" if inside or value == default else f" Default: {default!r}."
    return [*lines, *_indented(f"{field.help}. Values: {field.legal.words}.{usual}")]


def _attributes(network: str) -> list[str]:
    """The lines of the options of a network."""
    if parts.is_own(network):
        return [f"`model.options` are the arguments of '{network}'."]
    head = f"`model.options` of '{network}', --config.experiment.model.options.NAME=VALUE:"
    return [head, *(f"    {name}: {one.words}" for name, one in options_of(network).items())]


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="    ")
