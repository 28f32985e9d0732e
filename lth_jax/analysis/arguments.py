"""Arguments of analyses, checked before any work and listed for command lines."""

import functools
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

import numpy as np

from lth_jax.legal import Legal, several, whole

F = TypeVar("F", bound=Callable[..., Any])

EXAMPLES = whole(1)
CHUNK = whole(0)
LEVELS = several(whole(0), "different levels, such as 0,3,7")
NAMES = several(Legal("a name", lambda value: isinstance(value, str)), "different names")


class AnalysisError(ValueError):
    """A run or an argument does not permit the measurement."""


def checked(**options: Legal) -> Callable[[F], F]:
    """Decorates an analysis, so that illegal settings raise before any work.

    The attribute `options` of the decorated function holds them, for its command line.

    Args:
      **options: the legal values of the keyword arguments; a default is always legal.

    >>> @checked(k=whole(1, 9))
    ... def analysis(run, *, k=3):
    ...     return k
    >>> analysis("run", k=10)
    Traceback (most recent call last):
    lth_jax.analysis.arguments.AnalysisError: `k` is 10; it must be an integer in 1 … 9.
    """

    def decorate(measure: Any) -> Any:
        @functools.wraps(measure)
        def analysis(run: Any, **settings: Any) -> Any:
            for name in settings.keys() & options.keys():
                value, legal = _plain(settings[name]), options[name]
                if value is not measure.__kwdefaults__[name] and not legal.holds(value):
                    raise AnalysisError(f"`{name}` is {value!r:.60}; it must be {legal.words}.")
                settings[name] = value
            return measure(run, **settings)

        analysis.options = options  # type: ignore[attr-defined]
        return analysis

    return decorate


def _plain(value: Any) -> Any:
    """Converts other sequences to tuples of Python's numbers."""
    return tuple(np.asarray(value).tolist()) if isinstance(value, np.ndarray | range) else value


def check_known(name: str, given: Iterable[Any], known: Collection[Any]) -> None:
    """Raises `AnalysisError` unless all given values are known.

    >>> check_known("levels", [7], [0, 1])
    Traceback (most recent call last):
    lth_jax.analysis.arguments.AnalysisError: `levels` is 7; the run has 0, 1.
    """
    for one in given:
        if one not in known:
            raise AnalysisError(f"`{name}` is {one}; the run has {', '.join(map(str, known))}.")
