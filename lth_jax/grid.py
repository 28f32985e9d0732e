"""Grids of settings, for `get_sweep(h)` of a config file.

    def get_sweep(h):
        rates = h.sweep("experiment.optimizer.learning_rate", [1e-3, 1e-2])
        return h.product([rates, h.sweep("experiment.seed", range(8))])

The size of a grid is known before its settings are made, so that too large products raise an error
at once.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

Setting = dict[str, Any]
"""The value of each swept field in one cell."""


class Grid(NamedTuple):
    """A sequence of settings.

    Attributes:
      size: the number of settings.
      settings: returns an iterator over them.
    """

    size: int
    settings: Callable[[], Iterator[Setting]]


def sweep(field: str, values: Iterable[Any]) -> Grid:
    """One setting per value of a field.

    Args:
      field: its dotted name, or an unambiguous end of it.
      values: its values, in order.

    >>> list(sweep("seed", range(2)).settings())
    [{'seed': 0}, {'seed': 1}]
    """
    kept = list(values)
    return Grid(len(kept), lambda: ({field: value} for value in kept))


def fixed(field: str, value: Any) -> Grid:
    """A field with the same value in all cells.

    >>> list(fixed("seed", 3).settings())
    [{'seed': 3}]
    """
    return sweep(field, [value])


def product(grids: Sequence[Grid]) -> Grid:
    """Every combination; the last grid varies fastest.

    Raises:
      ValueError: two grids set the same field; raised when the settings are made.

    >>> grid = product([sweep("a", [1, 2]), sweep("b", "xy")])
    >>> grid.size, list(grid.settings())[:3]
    (4, [{'a': 1, 'b': 'x'}, {'a': 1, 'b': 'y'}, {'a': 2, 'b': 'x'}])
    """
    kept = list(grids)

    def settings(left: Sequence[Grid] = kept) -> Iterator[Setting]:
        if not left:
            yield {}
            return
        for head in left[0].settings():
            yield from (joined([head, tail]) for tail in settings(left[1:]))

    return Grid(math.prod(grid.size for grid in kept), settings)


def zipit(grids: Sequence[Grid]) -> Grid:
    """Joins the first settings of all grids, then the second, and so on.

    Raises:
      ValueError: they differ in size; or, when the settings are made, two grids set the same field.

    >>> list(zipit([sweep("a", [1, 2]), sweep("b", "xy")]).settings())
    [{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'y'}]
    """
    kept = list(grids)
    sizes = [grid.size for grid in kept]
    if len(set(sizes)) > 1:
        raise ValueError(f"`grids` of `zipit` have {sizes} settings; their sizes must be equal.")

    def settings() -> Iterator[Setting]:
        return map(joined, zip(*(grid.settings() for grid in kept), strict=True))

    return Grid(sizes[0] if sizes else 0, settings)


def chainit(grids: Sequence[Grid]) -> Grid:
    """Concatenates grids.

    >>> list(chainit([sweep("a", [1]), sweep("b", [2])]).settings())
    [{'a': 1}, {'b': 2}]
    """
    kept = list(grids)
    return Grid(
        sum(grid.size for grid in kept),
        lambda: itertools.chain.from_iterable(grid.settings() for grid in kept),
    )


def joined(settings: Iterable[Setting]) -> Setting:
    """Joins settings of different fields.

    Raises:
      ValueError: two settings have the same field.
    """
    whole: Setting = {}
    for setting in settings:
        if twice := sorted(whole.keys() & setting.keys()):
            raise ValueError(f"the field '{twice[0]}' is set twice.")
        whole |= setting
    return whole
