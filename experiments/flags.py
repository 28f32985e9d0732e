"""Configs from the command line, by absl flags and ml_collections, with readable errors."""

import difflib
import functools
import importlib.util
import operator
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments.configs import base
from lth_jax.cli import parts, words
from lth_jax.cli.programs import UserError, one_line
from lth_jax.legal import nearest
from lth_jax.store import read_config

Explain = Callable[[str, str], str | None]
ARGUMENTS = ("--config", "--config.FIELD", "--help")
"""The arguments of every command with a config."""
MOST = 6
"""Missing fields that a message names."""
FREE = ("options", "layer_rates", "method_options")
"""Parts of a config with arbitrary field names."""
PARTS = {
    "experiment.data.options": "experiment.data.name",
    "experiment.model.options": "experiment.model.name",
    "experiment.prune.method_options": "experiment.prune.method",
}
"""Fields with options, and the field that names the part to which they belong."""
ALIASES = {
    "arch": "model.name",
    "bs": "train.batch_size",
    "dataset": "data.name",
    "density": "prune.final",
    "epochs": "train.steps",
    "layers": "model.options",
    "lr": "optimizer.learning_rate",
    "seeds": "replicates",
    "sparsity": "prune.final",
    "wd": "optimizer.weight_decay",
}
"""Common names of other projects, without `n_` or `num_`, and the fields to suggest for them."""


def fields(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All leaves of a config as `(dotted name, value)`."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def saved_config(folder: str | Path) -> ConfigDict:
    """The experiment config of a run, with tuples instead of lists.

    Raises:
      CorruptError: see `store.read_config`.
    """

    def tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: tuples(item) for name, item in value.items()}
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return _completed(ConfigDict(tuples(read_config(folder))), base.ladder().experiment)


def recorded(experiment: ConfigDict) -> dict[str, Any]:
    """An experiment config as runs save and hash it: without `base.NEWER` at their defaults.

    A new field therefore changes no saved run; `saved_config` adds it again.

    >>> experiment = base.ladder().experiment
    >>> "crop_area" in experiment.train, "crop_area" in recorded(experiment)["train"]
    (True, False)
    """
    found: dict[str, Any] = experiment.to_dict()
    defaults = base.ladder().experiment.to_dict()
    for field in base.NEWER:
        *path, name = field.split(".")
        part, default = (
            functools.reduce(operator.getitem, path, whole) for whole in (found, defaults)
        )
        if name in part and part[name] == default[name]:
            del part[name]
    return found


def _completed(saved: ConfigDict, defaults: ConfigDict) -> ConfigDict:
    """Adds the defaults of fields that are newer than the saved config."""
    for name, value in defaults.items():
        if name not in saved:
            saved[name] = value
        elif isinstance(value, ConfigDict) and name not in FREE:
            _completed(saved[name], value)
    return saved


def _no_words(name: str, text: str) -> None:
    """No message: that of the parser is used."""


def parse(
    argv: Sequence[str], default: str, explain: Explain = _no_words, further: Sequence[str] = ()
) -> ConfigDict:
    """The config of a command line: `--config=FILE[:ARGUMENT]` and `--config.FIELD=VALUE`.

    Args:
      argv: the program's name and its arguments.
      default: the default config file.
      explain: `(field, text) -> message` for an invalid text, or None for the parser's message.
      further: further arguments of the command, for suggestions.

    Raises:
      UserError: a file cannot be loaded, a field or argument is unknown, or a value has the wrong
        type.
    """
    try:
        known, given = dict(fields(_load(argv, default))), dict(words.overrides(argv))
        renamed = renamed_parts(known, given)
        free = {name for name in given if _is_free(name, known, renamed)}
        tuples = {name for name in given if isinstance(known.get(name), tuple)} - free
        for name in given:
            if name not in known and name not in free:
                raise UserError(nearest("a field of `--config`", name, known, meant(name, known)))
        config = _parsed(words.rewritten(argv, free | tuples), default)
        drop_options(config, renamed)
        for name in free | tuples:
            read = words.tuple_of if name in tuples else words.value_of
            set_option(config, name, read(given[name]))
        return config
    except flags.UnrecognizedFlagError as error:
        taken = [*ARGUMENTS, *further]
        raise UserError(nearest("an argument", f"--{error.flagname}", taken)) from error
    except flags.IllegalFlagValueError as error:
        for name, text in words.overrides(argv):
            if f"--config.{name}={text}:" in str(error) and (sentence := explain(name, text)):
                raise UserError(sentence) from error
        raise UserError(one_line(error)) from error
    except (flags.Error, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(one_line(error)) from error


def meant(name: str, known: Iterable[str]) -> list[str]:
    """The fields that an unknown name probably means: by a word, initials, or one of `ALIASES`.

    The last word of the name counts, or the one of most similar spelling.

    >>> known = ["experiment.seed", "experiment.optimizer.learning_rate"]
    >>> meant("train.lr", known), meant("experiment.train.learning_rate", known)
    (['experiment.optimizer.learning_rate'], ['experiment.optimizer.learning_rate'])
    >>> meant("lrr", known), meant("sed", known)
    (['experiment.optimizer.learning_rate'], ['experiment.seed'])
    """
    last = re.sub("^(n|num)_", "", name.rpartition(".")[2])
    ordered = sorted(known, key=lambda one: one.count("."))
    called: dict[str, list[str]] = {}
    for one in ordered:
        for word in {*one.split("."), initials(one)} - {""}:
            called.setdefault(word, []).append(one)
    for alias, field in ALIASES.items():
        called[alias] = [one for one in ordered if f".{field}." in f"{one}."]
    similar = [last] if last in called else difflib.get_close_matches(last, called, n=1)
    return [one for word in similar for one in called[word]][:3]


def initials(field: str) -> str:
    """The initials of a field's last word; empty if it has one part.

    >>> initials("experiment.optimizer.learning_rate"), initials("experiment.seed")
    ('lr', '')
    """
    parts_of_word = field.rpartition(".")[2].split("_")
    return "".join(part[0] for part in parts_of_word) if len(parts_of_word) > 1 else ""


def _is_free(name: str, known: Collection[str], renamed: Collection[str]) -> bool:
    """Whether a field is an option that the config file does not set."""
    return is_option(name) and (name.rpartition(".")[0] in renamed or name not in known)


def is_option(name: str) -> bool:
    """Whether a name is that of an option of a part, which need not be in the config file.

    >>> is_option("experiment.model.options.width"), is_option("experiment.model.name")
    (True, False)
    """
    path, _, option = name.rpartition(".")
    return path in PARTS and bool(option)


def set_option(config: ConfigDict, name: str, value: Any) -> None:
    """Sets an option in place, also one that the config lacks."""
    with _parent(config, name).unlocked():
        _parent(config, name)[name.rpartition(".")[2]] = value


def renamed_parts(known: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """The options in `PARTS` whose part differs from that of the file."""
    return [path for path, name in PARTS.items() if given.get(name, known[name]) != known[name]]


def drop_options(config: ConfigDict, renamed: Iterable[str]) -> None:
    """Clears options in place: those of the file belong to another part."""
    for path in renamed:
        _parent(config, path)[path.rpartition(".")[2]] = ConfigDict()


def _parent(config: ConfigDict, path: str) -> Any:
    return operator.attrgetter(path.rpartition(".")[0])(config)


def _parsed(argv: list[str], default: str) -> ConfigDict:
    values = flags.FlagValues()
    held = config_flags.DEFINE_config_file("config", default, flag_values=values, sys_argv=argv)
    left = values(argv)
    if left[1:]:
        raise UserError(f"'{left[1]}' is not an argument; set fields by --config.FIELD=VALUE.")
    return held.value


def _load(argv: Sequence[str], default: str) -> ConfigDict:
    """The complete config before overrides, returned by `get_config()` of the file."""
    given = given_config(argv, default)
    make = getattr(config_module(argv, default), "get_config", None)
    whole, argument = base.ladder(), given.partition(":")[2]
    complete = "`experiments.configs.base.ladder()` makes a complete config"
    if make is None:
        raise UserError(f"`--config` is '{given}', which lacks `get_config()`; {complete}.")
    with parts.failing("--config", given, "config"):
        config = make(*([argument] if argument else []))
    if lacking := list(_lacking(config, whole)):
        most = ", ".join(f"`{name}`" for name in lacking[:MOST])
        more = f" and {len(lacking) - MOST} more" if len(lacking) > MOST else ""
        raise UserError(
            f"`--config` is '{given}', whose `get_config()` lacks {most}{more}; {complete}."
        )
    return config


def _lacking(config: Any, whole: ConfigDict, prefix: str = "") -> Iterator[str]:
    """The fields that a config lacks; a group that is absent counts as one."""
    for name, value in whole.items():
        if not isinstance(config, ConfigDict) or name not in config:
            yield f"{prefix}{name}"
        elif isinstance(value, ConfigDict) and name not in FREE:
            yield from _lacking(config[name], value, f"{prefix}{name}.")


def given_config(argv: Sequence[str], default: str) -> str:
    """The value of `--config`."""
    return [default, *(one.text for one in words.arguments(argv) if one.name == "config")][-1]


def config_module(argv: Sequence[str], default: str) -> ModuleType:
    """The config file of a command line, as a module.

    Raises:
      UserError: the file does not exist or is not a Python file.
    """
    given = given_config(argv, default)
    path = given.partition(":")[0]
    if not Path(path).is_file():
        raise UserError(f"`--config` is '{given}'; there is no file '{path}'.")
    spec = importlib.util.spec_from_file_location("config", path)
    if spec is None or spec.loader is None:
        raise UserError(f"`--config` is '{given}'; it must be a Python file.")
    module = importlib.util.module_from_spec(spec)
    with parts.failing("--config", given, "config"):
        spec.loader.exec_module(module)
    return module
