"""The command line as a config: absl flags over ml_collections, with errors people can read."""

import ast
import contextlib
import difflib
import functools
import importlib.util
import itertools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments import STOPPED
from experiments.configs import base
from lth_jax.store import Interrupted, LostProcessError, interruptible, read_config

Explain = Callable[[str, str], str | None]
ARGUMENTS = ("--config", "--config.FIELD", "--help")
"""What every command with a config takes."""
FREE = ("options", "layer_rates", "method_options")
"""Parts of a config whose fields have free names."""
PARTS = {
    "experiment.data.options": "experiment.data.name",
    "experiment.model.options": "experiment.model.name",
    "experiment.prune.method_options": "experiment.prune.method",
}
"""Options, and the field that names the part that they are of."""
MANY = 12  # names above which several may be near


class UserError(Exception):
    """What the user can mend: printed as one sentence, exit code 2."""


def nearest(kind: str, name: str, known: Collection[str]) -> str:
    """A sentence that names a wrong name and lists all right ones, the nearest first.

    >>> nearest("`model.name`", "mpl", ["convnet", "mlp"])
    "`model.name` is 'mpl'; did you mean 'mlp'? It must be one of: mlp, convnet."
    """
    close = difflib.get_close_matches(name, known, n=3 if len(known) > MANY else 1)
    hint = f" did you mean {' or '.join(map(repr, close))}?" if close else " there is no such name."
    ranked = sorted(known, key=lambda one: (-_likeness(name, one), one))
    return f"{kind} is '{name}';{hint} It must be one of: {listed(ranked)}."


def listed(names: Iterable[str]) -> str:
    """Names with commas, the empty one in a word.

    >>> listed(["", "host"])
    'empty, host'
    """
    return ", ".join(name or "empty" for name in names)


def _likeness(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, b, a).ratio()


def fields(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All leaves of a config as `(dotted name, value)`."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def saved_config(folder: str | Path) -> ConfigDict:
    """The experiment of a run, as its config file made it: lists are tuples again.

    Raises:
      CorruptError: see `store.read_config`.
    """

    def tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: tuples(item) for name, item in value.items()}
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return _completed(ConfigDict(tuples(read_config(folder))), base.ladder().experiment)


def _completed(saved: ConfigDict, defaults: ConfigDict) -> ConfigDict:
    """A config with the defaults of the fields that came after it was saved."""
    for name, value in defaults.items():
        if name not in saved:
            saved[name] = value
        elif isinstance(value, ConfigDict) and name not in FREE:
            _completed(saved[name], value)
    return saved


def _no_words(name: str, text: str) -> None:
    """Leaves the sentence to the parser."""


def parse(
    argv: Sequence[str],
    default: str,
    explain: Explain = _no_words,
    further: Sequence[str] = (),
) -> ConfigDict:
    """The config of a command line: `--config=FILE[:ARGUMENT]` and `--config.FIELD=VALUE`.

    Args:
      argv: the program's name and its arguments.
      default: the config file where none is given.
      explain: `(field, text) -> sentence` for a text that is no value of the field; None where the
        parser's own sentence will do.
      further: other arguments that the command takes, for the list of names.

    Raises:
      UserError: for a file that cannot be loaded, an unknown field, a value of the wrong type, or
        an argument that is none of these.
    """
    try:
        known, given = dict(fields(_load(argv, default))), dict(_overrides(argv))
        renamed = renamed_parts(known, given)
        free = {name for name in given if _is_free(name, known, renamed)}
        for name in given:
            if name not in known and name not in free:
                raise UserError(nearest("a field of `--config`", name, known))
        config = _parsed(_config_first(_without(argv, free)), default)
        drop_options(config, renamed)
        for name in free:
            with _parent(config, name).unlocked():
                _parent(config, name)[name.rpartition(".")[2]] = _value(given[name])
        return config
    except flags.UnrecognizedFlagError as error:
        taken = [*ARGUMENTS, *further]
        raise UserError(nearest("an argument", f"--{error.flagname}", taken)) from error
    except flags.IllegalFlagValueError as error:
        for name, text in _overrides(argv):
            if f"--config.{name}={text}:" in str(error) and (sentence := explain(name, text)):
                raise UserError(sentence) from error
        raise UserError(one_line(error)) from error
    except (flags.Error, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(one_line(error)) from error


def _is_free(name: str, known: Collection[str], renamed: Collection[str]) -> bool:
    """Whether a field is an option that the config file does not set for this part."""
    path, _, option = name.rpartition(".")
    return path in PARTS and bool(option) and (path in renamed or name not in known)


def renamed_parts(known: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """The options in `PARTS` that are of another part than the file's.

    Args:
      known: the fields of the file.
      given: fields that are set, and their values.
    """
    return [path for path, name in PARTS.items() if given.get(name, known[name]) != known[name]]


def drop_options(config: ConfigDict, renamed: Iterable[str]) -> None:
    """Empties options in place: those of the file are of the file's part."""
    for path in renamed:
        _parent(config, path)[path.rpartition(".")[2]] = ConfigDict()


def _parent(config: ConfigDict, path: str) -> Any:
    return functools.reduce(getattr, path.split(".")[:-1], config)


def _value(text: str) -> Any:
    """A literal of Python, or the text itself.

    >>> _value("(3, 4)"), _value("true"), _value("wide")
    ((3, 4), True, 'wide')
    """
    with contextlib.suppress(ValueError, SyntaxError):
        return ast.literal_eval(text)
    return {"true": True, "false": False}.get(text, text)


def _without(argv: Sequence[str], names: Collection[str]) -> list[str]:
    """The arguments without the overrides of these fields."""
    left, kept = iter(argv), []
    for argument in left:
        name, given, _ = argument.lstrip("-").removeprefix("config.").partition("=")
        if argument.startswith(("-config.", "--config.")) and name in names:
            if not given:
                next(left, None)  # the value is an argument of its own
            continue
        kept.append(argument)
    return kept


def one_line(error: Exception) -> str:
    """The message of an error on one line."""
    return " ".join(str(error).split())


def _parsed(argv: list[str], default: str) -> ConfigDict:
    values = flags.FlagValues()
    held = config_flags.DEFINE_config_file("config", default, flag_values=values, sys_argv=argv)
    left = values(argv)
    if left[1:]:
        raise UserError(f"there is no argument '{left[1]}'; fields are --config.FIELD=VALUE.")
    return held.value


def _config_first(argv: Sequence[str]) -> list[str]:
    """The arguments with `--config` before its overrides, as ml_collections needs them."""
    first: list[str] = []
    rest: list[str] = []
    left = iter(argv[1:])
    for argument in left:
        if argument in ("-config", "--config"):
            first += [argument, next(left, "")]
        else:
            (first if argument.startswith(("-config=", "--config=")) else rest).append(argument)
    return [argv[0], *first, *rest]


def _overrides(argv: Sequence[str]) -> list[tuple[str, str]]:
    """`(field, text)` of each `--config.FIELD=VALUE` and `--config.FIELD VALUE`."""
    found = []
    for argument, after in itertools.zip_longest(argv[1:], argv[2:], fillvalue=""):
        if argument.startswith(("-config.", "--config.")):
            name, given, text = argument.lstrip("-").removeprefix("config.").partition("=")
            found.append((name, text if given else after))
    return found


def _load(argv: Sequence[str], default: str) -> ConfigDict:
    """The config before its overrides: what `get_config()` of the file returns."""
    argument = given_config(argv, default).partition(":")[2]
    return config_module(argv, default).get_config(*([argument] if argument else []))


def given_config(argv: Sequence[str], default: str) -> str:
    """The value of `--config`."""
    given = default
    for argument, after in itertools.zip_longest(argv[1:], argv[2:], fillvalue=""):
        if argument in ("-config", "--config"):
            given = after
        elif argument.startswith(("-config=", "--config=")):
            given = argument.partition("=")[2]
    return given


def config_module(argv: Sequence[str], default: str) -> ModuleType:
    """The config file of a command line, as a module.

    Raises:
      UserError: if there is no such Python file.
    """
    given = given_config(argv, default)
    path = given.partition(":")[0]
    if not Path(path).is_file():
        raise UserError(f"`--config` is '{given}'; there is no file '{path}'.")
    spec = importlib.util.spec_from_file_location("config", path)
    if spec is None or spec.loader is None:
        raise UserError(f"`--config` is '{given}'; it must be a Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_main(main: Callable[[], None]) -> None:
    """Runs a program, and prints a `UserError` as one sentence.

    Exit codes: 0; 2 for a `UserError`; 128 + the signal's number after a signal.
    """
    try:
        with ending_by_signal():
            main()
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


def _silence_late_reports() -> None:
    """Ignores what Orbax 0.12 and TensorStore report of a save that a signal has cut off.

    A coroutine may not have begun, and an event loop may learn of a write that failed, since the
    unfinished folder is gone, while the interpreter exits.
    """
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    logging.disable()
    sys.unraisablehook = lambda unraisable: None


@contextlib.contextmanager
def ending_by_signal() -> Iterator[None]:
    """Within the block a signal, or the loss of another process, ends the program in one sentence.

    Where other processes of a job are lost or left behind, the program exits at once: an orderly
    exit of JAX waits for them.
    """
    try:
        with interruptible():
            yield
    except LostProcessError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(2)
    except Interrupted as stop:
        _silence_late_reports()
        print(STOPPED.format(stop.signal), file=sys.stderr, flush=True)
        if jax.distributed.is_initialized() and not stop.agreed:
            os._exit(stop.code)
        raise
