"""Options of commands without a config: each with legal values, and mistakes in one sentence."""

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from experiments.flags import UserError, nearest
from experiments.legal import Legal, shown


class Options(argparse.ArgumentParser):
    """A parser whose mistakes are one sentence, and whose help names the legal values.

    Args:
      module: what `python -m` runs.
      description: for `--help`.
    """

    def __init__(self, module: str, description: str):
        super().__init__(
            prog=f"python -m {module}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def option(self, name: str, legal: Legal, default: Any, help: str) -> None:
        """Adds `--name`, whose values have the type of the default."""
        words = f"{help}: {legal.words}; default {default!r}".replace("%", "%%")
        self.add_argument(
            f"--{name}", type=reader(legal, type(default)), default=default, help=words
        )

    def error(self, message: str) -> NoReturn:
        """Raises `UserError` with one sentence."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            known = [name for action in self._actions for name in action.option_strings]
            message = nearest("an argument", unknown.partition("=")[0], known)
        option, found, reason = message.removeprefix("argument ").partition(": ")
        named = f"`{option}` {reason}" if found and option.startswith("-") else message
        raise UserError(" ".join(named.split()))


def reader(legal: Legal, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """What reads the text of an option.

    Args:
      legal: its values.
      kind: makes a value of text.

    >>> from experiments.legal import whole
    >>> reader(whole(1), int)("3")
    3
    """

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = text
        if not legal.holds(value):
            raise argparse.ArgumentTypeError(f"is {shown(value)}; it must be {legal.words}.")
        return value

    return read
