"""Legal values of fields and options: what a value may be, as a check and in words."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from experiments.flags import listed
from lth_jax.legal import Legal

PRINTED = r"[^\x00-\x1f\x7f]*"
SHOWN = 60  # characters of a value that a sentence repeats


def one_of(names: Collection[str]) -> Legal:
    """One of some names; a table may get more of them later."""

    def holds(value: Any) -> bool:
        return isinstance(value, str) and value in names

    return Legal(f"one of: {listed(names)}", holds, names)


def text(words: str, pattern: str = PRINTED, longest: int = 4096) -> Legal:
    """Strings that match a pattern."""

    def holds(value: Any) -> bool:
        fits = isinstance(value, str) and len(value) <= longest
        return fits and bool(re.fullmatch(pattern, value, re.ASCII | re.DOTALL))

    return Legal(words, holds)


def mapping(words: str, each: Callable[[Any], bool]) -> Legal:
    """Names with values of one kind."""

    def holds(value: Any) -> bool:
        return isinstance(value, Mapping | ConfigDict) and all(
            isinstance(name, str) and each(entry) for name, entry in value.items()
        )

    return Legal(words, holds)


FLAG = Legal("True or False", lambda value: isinstance(value, bool))


def shown(value: Any, *, quoted: bool = True) -> str:
    r"""A value in a sentence: on one line, and not too long.

    >>> shown("a\nb"), shown(10), shown("x" * 100)[-4:]
    ("'a\\nb'", '10', 'xxx…')
    """
    plain = value.to_dict() if isinstance(value, ConfigDict) else value
    written = repr(plain) if quoted else repr(plain)[1:-1]
    return written if len(written) <= SHOWN else f"{written[:SHOWN]}…"
