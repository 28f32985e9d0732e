"""Words of a command line with a config: `--config=FILE` and `--config.FIELD=VALUE`."""

import ast
import contextlib
import itertools
import shlex
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple


class Argument(NamedTuple):
    """`--config`, `--config.FIELD` or, without a name, another argument; with its words."""

    name: str
    text: str
    words: list[str]


def arguments(argv: Sequence[str]) -> Iterator[Argument]:
    """The arguments of a command line; those of configs may have their value as the next word."""
    left = list(argv[1:])
    while left:
        word, *left = left
        name, given, text = word.lstrip("-").partition("=")
        if not word.startswith("-") or not (name == "config" or name.startswith("config.")):
            yield Argument("", "", [word])
        elif given or not left or left[0].startswith(("--", "-config")):
            yield Argument(name, text, [word])
        else:
            yield Argument(name, left[0], [word, left.pop(0)])


def rewritten(argv: Sequence[str], without: Collection[str]) -> list[str]:
    """The arguments without some overrides, `--config` first, as ml_collections requires."""
    kept = [one for one in arguments(argv) if one.name.removeprefix("config.") not in without]
    kept.sort(key=lambda one: one.name != "config")
    return [argv[0], *itertools.chain.from_iterable(one.words for one in kept)]


def overrides(argv: Sequence[str]) -> list[tuple[str, str]]:
    """`(field, text)` of each `--config.FIELD=VALUE` and `--config.FIELD VALUE`."""
    fields = (one for one in arguments(argv) if one.name.startswith("config."))
    return [(one.name.removeprefix("config."), one.text) for one in fields]


def value_of(text: str) -> Any:
    """A Python literal, or the text itself.

    >>> value_of("(3, 4)"), value_of("true"), value_of("wide")
    ((3, 4), True, 'wide')
    """
    with contextlib.suppress(ValueError, SyntaxError):
        return ast.literal_eval(text)
    return {"true": True, "false": False}.get(text, text)


def tuple_of(text: str) -> tuple[Any, ...]:
    """A tuple: values separated by commas, or Python's syntax.

    >>> tuple_of("3,0.1,ticket"), tuple_of("64"), tuple_of("(3, 4)"), tuple_of("")
    ((3, 0.1, 'ticket'), (64,), (3, 4), ())
    """
    value = value_of(text)
    if isinstance(value, tuple | list):
        return tuple(value)
    return tuple(value_of(part.strip()) for part in text.strip("()[]").split(",") if part.strip())


def text_of(value: Any) -> str:
    """The text of a value in a command line of a shell; `value_of` or `tuple_of` reads it.

    >>> text_of(("reinit", "shuffle")), text_of(((64, 64), (128,))), text_of(0.1)
    ('reinit,shuffle', "'((64, 64), (128,))'", '0.1')
    """
    plain = isinstance(value, tuple) and not any(isinstance(one, tuple) for one in value)
    return shlex.quote(",".join(map(str, value)) if plain else str(value))
