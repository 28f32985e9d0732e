"""The options of the built-in networks and their legal values."""

from typing import Any

from lth_jax.legal import FLAG, Legal, real, whole
from lth_jax.models.networks import NETWORKS

MAY_BE_0 = ("layers", "blocks")
MAY_BE_EMPTY = ("hidden", "stages")
_LINEN = ("name", "parent")  # attributes that every Linen module has


def options_of(name: str) -> dict[str, Legal]:
    """The options of a network, which are the attributes of its Linen module, with legal values.

    Legal values have the type of the default: sizes of at least 1 (numbers of layers may be 0),
    tuples of sizes, a probability, a flag, or a function.

    >>> options_of("mlp")["dropout"].words
    'a number in [0, 1)'
    """
    module = NETWORKS[name]()
    options = [one for one in type(module).__dataclass_fields__ if one not in _LINEN]
    return {option: _legal(option, getattr(module, option)) for option in options}


def _legal(option: str, default: Any) -> Legal:
    """The legal values of an option with this default."""
    least = 0 if option in MAY_BE_0 else 1
    if isinstance(default, bool):
        return FLAG
    if isinstance(default, float):
        return real(0, 1, below=True)
    if type(default) in (tuple, list):
        fewest = 0 if option in MAY_BE_EMPTY else 1
        return Legal(
            f"a tuple of {'' if fewest == 0 else 'one or more '}integers of at least {least} (on a "
            "command line 64,10)",
            lambda value: _are_sizes(least, value) and len(value) >= fewest,
        )
    if default is None:
        size = whole(1)
        return Legal(f"None, or {size.words}", lambda value: value is None or size.holds(value))
    if isinstance(default, int):
        return whole(least)
    if callable(default):
        return Legal("a function", callable)
    kind = type(default)
    return Legal(f"of type {kind.__name__}", lambda value: isinstance(value, kind))


def _are_sizes(least: int, value: Any) -> bool:
    """Whether these are sizes of at least `least`, or tuples of them (stages of layers)."""
    one = whole(least)
    return isinstance(value, tuple | list) and all(
        _are_sizes(least, part) if isinstance(part, tuple | list) else one.holds(part)
        for part in value
    )
