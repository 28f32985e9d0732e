"""The command line as a config: absl flags over ml_collections, with errors people can read."""

import contextlib
import difflib
import importlib.util
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments import STOPPED
from experiments.configs import base
from lth_jax.store import Interrupted, LostProcessError, interruptible
from lth_jax.store.files import read_json

MANY = 12  # names that a sentence can list


class UserError(Exception):
    """What the user can mend: printed as one sentence, exit code 2."""


def nearest(kind: str, name: str, known: Any) -> str:
    """A sentence that names a wrong name, the nearest right ones, and all if there are few.

    >>> nearest("`model.name`", "mpl", ["mlp", "convnet"])
    "`model.name` is 'mpl'; did you mean 'mlp'? It must be one of: convnet, mlp."
    """
    close = difflib.get_close_matches(name, list(known), n=1 if len(known) <= MANY else 3)
    hint = f" did you mean {' or '.join(map(repr, close))}?" if close else " there is no such name."
    rest = f" It must be one of: {', '.join(sorted(known))}." if len(known) <= MANY else ""
    return f"{kind} is '{name}';{hint}{rest}"


def fields(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All leaves of a config as `(dotted name, value)`."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def saved_config(path: Path) -> ConfigDict:
    """The experiment of a run, as its config file made it: lists are tuples again."""

    def tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: tuples(item) for name, item in value.items()}
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return _completed(ConfigDict(tuples(read_json(path))), base.ladder().experiment)


def _completed(saved: ConfigDict, defaults: ConfigDict) -> ConfigDict:
    """A config with the defaults of the fields that came after it was saved."""
    for name, value in defaults.items():
        if name not in saved:
            saved[name] = value
        elif isinstance(value, ConfigDict) and name not in ("options", "rates"):
            _completed(saved[name], value)
    return saved


def parse(argv: list[str], default: str) -> ConfigDict:
    """The config of a command line: `--config=FILE[:ARGUMENT]` and `--config.FIELD=VALUE`.

    Args:
      argv: the program's name and its arguments.
      default: the config file where none is given.

    Raises:
      UserError: for a file that cannot be loaded, an unknown field (with the nearest one), a
        value of the wrong type, or an argument that is none of these.
    """
    try:
        config = _load(argv, default)
        for name in _overrides(argv):
            if name not in dict(fields(config)):
                raise UserError(nearest("a field of `--config`", name, dict(fields(config))))
        return _parsed(_config_first(argv), default)
    except (flags.Error, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(" ".join(str(error).split())) from error


def _parsed(argv: list[str], default: str) -> ConfigDict:
    values = flags.FlagValues()
    given, sys.argv = sys.argv, argv  # ml_collections looks for the overrides there
    try:
        held = config_flags.DEFINE_config_file("config", default, flag_values=values)
        left = values(argv)
    finally:
        sys.argv = given
    if left[1:]:
        raise UserError(f"there is no argument '{left[1]}'; fields are --config.FIELD=VALUE.")
    return held.value


def _config_first(argv: list[str]) -> list[str]:
    """The arguments with `--config` before its overrides, as ml_collections wants them."""
    first: list[str] = []
    rest: list[str] = []
    left = iter(argv[1:])
    for argument in left:
        if argument in ("-config", "--config"):
            first += [argument, next(left, "")]
        else:
            (first if argument.startswith(("-config=", "--config=")) else rest).append(argument)
    return [argv[0], *first, *rest]


def _overrides(argv: list[str]) -> list[str]:
    marked = [arg.lstrip("-") for arg in argv[1:] if arg.startswith(("-config.", "--config."))]
    return [arg.partition("=")[0].removeprefix("config.") for arg in marked]


def _load(argv: list[str], default: str) -> ConfigDict:
    """The config before its overrides: what `get_config()` of the file returns."""
    argument = _given(argv, default).partition(":")[2]
    return config_module(argv, default).get_config(*([argument] if argument else []))


def _given(argv: list[str], default: str) -> str:
    """The value of `--config`."""
    given = default
    for argument, after in itertools.zip_longest(argv[1:], argv[2:], fillvalue=""):
        if argument in ("-config", "--config"):
            given = after
        elif argument.startswith(("-config=", "--config=")):
            given = argument.partition("=")[2]
    return given


def config_module(argv: list[str], default: str) -> ModuleType:
    """The config file of a command line, as a module.

    Raises:
      UserError: if there is no such Python file.
    """
    given = _given(argv, default)
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
    """Runs a program, and turns what the user can mend into one sentence.

    Exit codes: 0; 2 for a `UserError`; 128 + the signal's number when asked to stop.
    """
    try:
        with ending_by_signal():
            main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


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
        print(STOPPED.format(stop.signal), file=sys.stderr, flush=True)
        if jax.distributed.is_initialized() and not stop.agreed:
            os._exit(stop.code)
        raise
