"""Option parser of commands without a config."""

import argparse
import re
from collections.abc import Callable, Collection
from inspect import getdoc, signature
from typing import Any, NoReturn

from lth_jax.cli.programs import UserError
from lth_jax.cli.words import text_of, tuple_of
from lth_jax.legal import Legal, nearest, shown


class Options(argparse.ArgumentParser):
    """An argument parser with one-line errors and help that lists legal values.

    Args:
      module: the module for `python -m`.
      description: text for `--help`.
    """

    def __init__(self, module: str, description: str):
        super().__init__(
            prog=f"python -m {module}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def option(self, name: str, legal: Legal, default: Any, help: str) -> None:
        """Adds `--name`, with values of the type of the default; tuples are separated by commas."""
        many = default is None or isinstance(default, tuple)
        usual = "" if default is None else f"; default {default!r}"
        kind = tuple_of if many else type(default)
        words = f"{help}: {legal.words}{usual}".replace("%", "%%")
        self.add_argument(f"--{name}", type=reader(legal, kind), default=default, help=words)

    def settings(self, analysis: Any) -> tuple[str, ...]:
        """Adds an option for each setting of an analysis, with help from its docstring."""
        about = arguments_of(analysis)
        for name, legal in analysis.options.items():
            self.option(name, legal, analysis.__wrapped__.__kwdefaults__[name], about[name])
        return tuple(analysis.options)

    def error(self, message: str) -> NoReturn:
        """Raises `UserError` with one line."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            known = [name for action in self._actions for name in action.option_strings]
            message = nearest("an argument", unknown.partition("=")[0], known)
        option, found, reason = message.removeprefix("argument ").partition(": ")
        named = f"`{option}` {reason}" if found and option.startswith("-") else message
        raise UserError(" ".join(named.split()))


def arguments_of(function: Any) -> dict[str, str]:
    """The meaning of each argument that the docstring of a function describes.

    >>> arguments_of(reader)["kind"]
    'converts text to a value'
    """
    found = re.findall(r"^  (\w+): (.*(?:\n    .*)*)", getdoc(function) or "", re.M)
    return {name: " ".join(text.split()).rstrip(".") for name, text in found}


def options_of(function: Any, without: Collection[str] = ()) -> dict[str, str]:
    """The meaning and the default of each named argument of a function, except for some.

    >>> from lth_jax.analysis import latency
    >>> options_of(latency, without=["run", "batch"])
    {'repeats': 'number of alternated rounds; default 50'}
    """
    about, found = arguments_of(function), {}
    for name, one in signature(function).parameters.items():
        if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) and name not in without:
            usual = "" if one.default in (None, one.empty) else f"default {text_of(one.default)}"
            found[name] = "; ".join(filter(None, [about.get(name), usual]))
    return found


def reader(legal: Legal, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """The function that parses the text of an option.

    Args:
      legal: its legal values.
      kind: converts text to a value.

    >>> from lth_jax.legal import whole
    >>> reader(whole(1), int)("3")
    3
    """

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = text
        if not legal.holds(value):
            if legal.names and isinstance(value, str):
                raise argparse.ArgumentTypeError(nearest("", value, legal.names).strip())
            found = shown(text if isinstance(value, tuple) else value)
            raise argparse.ArgumentTypeError(f"is {found}; it must be {legal.words}.")
        return value

    return read
