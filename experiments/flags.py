"""The command line as a config: absl flags over ml_collections, with errors people can read."""

import difflib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags


class UserError(Exception):
    """What the user can mend: printed as one sentence, exit code 2."""


def nearest(kind: str, name: str, known: Any) -> str:
    """A sentence that names a wrong name, the nearest right one, and all of them.

    >>> nearest("`model.name`", "mpl", ["mlp", "convnet"])
    "`model.name` is 'mpl'; did you mean 'mlp'? It must be one of: convnet, mlp."
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f" did you mean '{close[0]}'?" if close else ""
    return f"{kind} is '{name}';{hint} It must be one of: {', '.join(sorted(known))}."


def fields(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All leaves of a config as `(dotted name, value)`."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def define(default: str) -> flags.FlagHolder:
    """Defines `--config`, a file with `get_config()`, and `--config.FIELD` for every field."""
    return config_flags.DEFINE_config_file(
        "config", default, "A file with get_config(); FILE:ARGUMENT passes an argument to it."
    )


def parse(argv: list[str], default: str) -> list[str]:
    """Parses the command line; the flags' values are then to be had.

    Returns:
      What is left after the flags.

    Raises:
      UserError: for a file that cannot be loaded, an unknown field (with the nearest one) or a
        value of the wrong type.
    """
    try:
        config = _load(argv, default)
        for name in _overrides(argv):
            if name not in dict(fields(config)):
                raise UserError(nearest("a field of `--config`", name, dict(fields(config))))
        return flags.FLAGS(argv)
    except (flags.Error, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(" ".join(str(error).split())) from error


def _overrides(argv: list[str]) -> list[str]:
    marked = [arg.lstrip("-") for arg in argv[1:] if arg.startswith(("-config.", "--config."))]
    return [arg.partition("=")[0].removeprefix("config.") for arg in marked]


def _load(argv: list[str], default: str) -> ConfigDict:
    """The config before its overrides, loaded through a flag set of its own."""
    probe = flags.FlagValues()
    config_flags.DEFINE_config_file("config", default, flag_values=probe)
    own = [
        (a, argv[i + 1 : i + 2] if a in ("--config", "-config") else [])
        for i, a in enumerate(argv)
        if a in ("--config", "-config") or a.startswith(("--config=", "-config="))
    ]
    probe([argv[0], *(part for a, rest in own for part in (a, *rest))])
    return probe.config


def run_main(main: Callable[[list[str]], int], default: str) -> None:
    """Runs a program: parses its flags, turns what the user can mend into one sentence.

    Exit codes: what `main` returns; 2 for a `UserError`.
    """
    try:
        code = main(parse(sys.argv, default))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    sys.exit(code)
