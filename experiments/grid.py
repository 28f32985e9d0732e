"""Grids of settings: what a config file's `get_sweep(h)` is written with.

    def get_sweep(h):
        rates = h.sweep("experiment.optimizer.learning_rate", [1e-3, 1e-2])
        return h.product([rates, h.sweep("experiment.seed", range(8))])

A grid has its size before it is made, so that a product that is too large is refused at once.
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
      size: how many there are.
      settings: makes them, one after the other.
    """

    size: int
    settings: Callable[[], Iterator[Setting]]


def sweep(field: str, values: Iterable[Any]) -> Grid:
    """One setting per value of a field.

    Args:
      field: its dotted name, or an unambiguous end of it.
      values: what it takes, in order.

    >>> list(sweep("seed", range(2)).settings())
    [{'seed': 0}, {'seed': 1}]
    """
    kept = list(values)
    return Grid(len(kept), lambda: ({field: value} for value in kept))


def fixed(field: str, value: Any) -> Grid:
    """A field that has one value in all cells.

    >>> list(fixed("seed", 3).settings())
    [{'seed': 3}]
    """
    return sweep(field, [value])


def product(grids: Sequence[Grid]) -> Grid:
    """Every combination, the last grid running fastest.

    Raises:
      ValueError: when the settings are made, if two grids set one field.

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
    """The grids side by side: the first settings of all, the second of all, and so on.

    Raises:
      ValueError: if they differ in size; when the settings are made, if two set one field.

    >>> list(zipit([sweep("a", [1, 2]), sweep("b", "xy")]).settings())
    [{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'y'}]
    """
    kept = list(grids)
    sizes = [grid.size for grid in kept]
    if len(set(sizes)) > 1:
        raise ValueError(f"`grids` of `zipit` have {sizes} settings; all must have as many.")

    def settings() -> Iterator[Setting]:
        return map(joined, zip(*(grid.settings() for grid in kept), strict=True))

    return Grid(sizes[0] if sizes else 0, settings)


def chainit(grids: Sequence[Grid]) -> Grid:
    """The grids one after the other.

    >>> list(chainit([sweep("a", [1]), sweep("b", [2])]).settings())
    [{'a': 1}, {'b': 2}]
    """
    kept = list(grids)
    return Grid(
        sum(grid.size for grid in kept),
        lambda: itertools.chain.from_iterable(grid.settings() for grid in kept),
    )


def joined(settings: Iterable[Setting]) -> Setting:
    """One setting of several, which must set different fields.

    Raises:
      ValueError: if two set one field.
    """
    whole: Setting = {}
    for setting in settings:
        if twice := sorted(whole.keys() & setting.keys()):
            raise ValueError(f"the field '{twice[0]}' is set twice.")
        whole |= setting
    return whole
