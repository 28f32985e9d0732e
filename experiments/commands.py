"""Command lines with a config, and their `--help`."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments import flags, scoring
from experiments.configs import base
from experiments.fields import FIELDS, OPEN, Field, check_values, leaves
from lth_jax.cli import parts
from lth_jax.cli.options import options_of
from lth_jax.cli.words import text_of
from lth_jax.data import sources
from lth_jax.legal import shown
from lth_jax.models import options as networks
from lth_jax.pruning.methods import METHODS
from lth_jax.pruning.methods.method import COMMON, OBJECTS

DEFAULT = "experiments/configs/mnist1d_ladder.py"
DRY_RUN = "--dry_run"
HELP = ("-h", "--help", "-help")
WIDTH = 100
NOT_DATA = ("data_dir", "manual_dir", "_")
"""Arguments of data sets that are not options."""
NOT_MODEL = ("key", "name", "parent", "rngs")
"""Arguments of networks that are not options."""


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
        f"--config=FILE[:ARGUMENT], here {file}. Its fields, with the values they have here;",
        "tuples are written with commas:",
        "",
    ]
    values = dict(leaves(config.experiment)) | dict(leaves(config.machine, "machine."))
    plain = base.ladder()
    defaults = dict(leaves(plain.experiment)) | dict(leaves(plain.machine, "machine."))
    for name, field in FIELDS.items():
        lines += _entry(field, values[name], defaults[name])
    return "\n".join([*lines, "", *_parts_help(config.experiment)])


def _entry(field: Field, value: Any, default: Any) -> list[str]:
    """The lines of a field, including nested fields with free names."""
    given, usual = {field.path: value}, "" if value == default else f" Default: {default!r}."
    if field.name in OPEN:
        given = {f"{field.path}.{name}": one for name, one in flags.fields(value)}
        given, usual = given or {f"{field.path}.NAME": "VALUE"}, ""
    lines = [f"--config.{name}={text_of(one)}" for name, one in given.items()]
    return [*lines, *_indented(f"{field.help}. Values: {field.legal.words}.{usual}")]


def _parts_help(experiment: ConfigDict) -> Iterator[str]:
    """The options of the parts that a config names."""
    check_values(experiment)
    source, prune = experiment.data.name, experiment.prune
    make = parts.choose("data.name", source, sources.NAMES)
    method = parts.choose("prune.method", prune.method, METHODS)
    for path, name, options in (
        ("data.options", source, options_of(make, NOT_DATA)),
        ("model.options", experiment.model.name, _attributes(experiment.model.name)),
        ("prune.method_options", prune.method, options_of(method, (*COMMON, *OBJECTS))),
    ):
        yield f"`{path}` of '{name}', --config.experiment.{path}.NAME=VALUE:"
        for option, words in (options or {"none": ""}).items():
            yield from _indented(f"{option}: {words}" if words else option)
        yield ""
    needs = "needs" if scoring.needs_examples(prune.criterion) else "does not need"
    yield f"`prune.criterion` '{prune.criterion}' {needs} `prune.examples`."


def _attributes(network: str) -> dict[str, str]:
    """The options of a network, with legal values or meaning."""
    if parts.is_own(network):
        return options_of(parts.load("model.name", network), NOT_MODEL)
    return {name: one.words for name, one in networks.options_of(network).items()}


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="    ")
