"""Legal values of arguments and options, as checks with descriptions."""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

PRINTED = r"[^\x00-\x1f\x7f]*"
SHOWN = 60  # characters of a value in a message
MANY = 12  # above this number of names, suggest up to three
ALL = 40  # above this number of names, list only the nearest
MOST = 2**31 - 1  # steps, rows and counts are int32
LARGEST, TINIEST = (float(x) for x in (np.finfo(np.float32).max, np.finfo(np.float32).tiny))


class Legal(NamedTuple):
    """The legal values of a field.

    Attributes:
      words: description, used after "it must be".
      holds: `value -> bool`.
      names: the legal names, if values are names.
    """

    words: str
    holds: Callable[[Any], bool]
    names: Collection[str] = ()


def whole(low: int, high: int = MOST) -> Legal:
    """Integers in `low … high`."""

    def holds(value: Any) -> bool:
        integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
        return integer and low <= value <= high

    return Legal(f"an integer in {low} … {high}", holds)


def real(low: float, high: float = LARGEST, *, above: bool = False, below: bool = False) -> Legal:
    """Real numbers that float32 can hold.

    Args:
      low: the least.
      high: the greatest.
      above: whether `low` itself is excluded.
      below: whether `high` itself is excluded.
    """

    def holds(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            return False
        number: Any = abs(value)
        held = number == 0 or TINIEST <= number <= LARGEST  # neither NaN nor infinite
        inside = low <= value <= high
        return bool(held and inside and not ((above and value == low) or (below and value == high)))

    ends = f"{'(' if above else '['}{low:g}, {high:.3g}{')' if below else ']'}"
    return Legal(f"a number in {ends}", holds)


def several(each: Legal, words: str) -> Legal:
    """Tuples whose entries are legal and differ."""

    def holds(value: Any) -> bool:
        return (
            isinstance(value, tuple | list)
            and all(isinstance(one, str | int | float) for one in value)
            and all(map(each.holds, value))
            and len(set(value)) == len(value)
        )

    return Legal(words, holds, each.names)


def one_of(names: Collection[str]) -> Legal:
    """One of some names; a registry as `names` may grow later."""

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
    """Mappings from names to values of one kind."""

    def holds(value: Any) -> bool:
        return hasattr(value, "items") and all(
            isinstance(name, str) and each(entry) for name, entry in value.items()
        )

    return Legal(words, holds)


FLAG = Legal("True or False", lambda value: isinstance(value, bool))


def shown(value: Any, *, quoted: bool = True) -> str:
    r"""The `repr` of a value, shortened for messages.

    >>> shown("a\nb"), shown(10), shown("x" * 100)[-4:]
    ("'a\\nb'", '10', 'xxx…')
    """
    plain = value.to_dict() if hasattr(value, "to_dict") else value
    written = repr(plain) if quoted else repr(plain)[1:-1]
    return written if len(written) <= SHOWN else f"{written[:SHOWN]}…"


def nearest(kind: str, name: str, known: Collection[str], meant: Sequence[str] = ()) -> str:
    """An error message for an unknown name, with the known names in their order.

    Sets are listed alphabetically. Of more than 40 names, the nearest twelve are listed.

    Args:
      kind: description of the named thing.
      name: the unknown name.
      known: the known names.
      meant: the names to suggest; by default those of similar spelling.

    >>> nearest("`model.name`", "mpl", ["convnet", "mlp"])
    "`model.name` is 'mpl'; did you mean 'mlp'? It must be one of: convnet, mlp."
    """
    names = sorted(known) if isinstance(known, set | frozenset) else list(known)
    most = 3 if len(names) > MANY else 1
    close = list(meant) or difflib.get_close_matches(name, names, n=most)
    hint = f" did you mean {' or '.join(map(repr, close))}?" if close else " there is no such name."
    few = names if len(names) <= ALL else most_like(name, names, MANY)
    further = f", and {len(names) - len(few)} more" if len(few) < len(names) else ""
    return f"{kind} is '{name}';{hint} It must be one of: {listed(few)}{further}."


def most_like(name: str, names: Sequence[str], most: int) -> list[str]:
    """The names of most similar spelling, in their order.

    >>> most_like("lennet", ["resnet", "conv", "lenet"], 2)
    ['resnet', 'lenet']
    """
    likeness = {one: difflib.SequenceMatcher(None, one, name).ratio() for one in names}
    chosen = sorted(names, key=lambda one: -likeness[one])[:most]
    return [one for one in names if one in chosen]


def check_name(argument: str, value: Any, names: Collection[str]) -> None:
    """Raises `ValueError` unless the value of an argument is one of some names.

    >>> check_name("unit", "byte", ["bytes", "words"])
    Traceback (most recent call last):
    ValueError: `unit` is 'byte'; did you mean 'bytes'? It must be one of: bytes, words.
    """
    if value not in names:
        raise ValueError(nearest(f"`{argument}`", str(value), names))


def listed(names: Iterable[str]) -> str:
    """Names separated by commas; the empty one as "empty".

    >>> listed(["", "host"])
    'empty, host'
    """
    return ", ".join(name or "empty" for name in names)
