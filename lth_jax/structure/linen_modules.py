"""Linen modules of compact size: other integers in their fields."""

import dataclasses
import heapq
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import linen as nn

from lth_jax import trees

_MOST = 1000
"""The maximum number of modules whose shapes are compared."""

Sizes = tuple[int, ...]
Shapes = dict[str, tuple[int, ...]]


def resized(
    module: nn.Module, params: Any, args: tuple[Any, ...], call: Callable[..., Any]
) -> Iterator[nn.Module]:
    """Modules whose variables have the shapes of `params`, found one by one; at least one.

    An integer n among the fields may become n · new / old, for an axis of length old that has the
    length new in `params`. The search continues from the modules with the fewest wrong lengths.

    Raises:
      ValueError: no module has these shapes.
    """
    wanted = _shapes(params)

    def shapes(sizes: Sizes) -> Shapes:
        init = nn.init(call, with_sizes(module, iter(sizes)))
        return _shapes(jax.eval_shape(lambda key: init(key, *args), jax.random.key(0)))

    def wrong(sizes: Sizes) -> int | None:
        try:
            found = shapes(sizes)
        except Exception:  # the module may reject these sizes by any error
            return None
        if not _alike(found, wanted):
            return None
        return sum(
            a != b for name in wanted for a, b in zip(found[name], wanted[name], strict=True)
        )

    start = tuple(sizes_of(module))
    before = shapes(start)
    if not _alike(before, wanted):
        raise ValueError("`params` must have the structure of the variables of `module`.")
    options = _options(start, before, wanted)
    heap, seen = [(wrong(start) or 0, start)], {start}
    closest = heap[0]
    while heap and len(seen) < _MOST:
        gap, sizes = heapq.heappop(heap)
        closest = min(closest, (gap, sizes))
        if gap == 0:
            yield with_sizes(module, iter(sizes))
        for other in _neighbours(sizes, options):
            if other in seen:
                continue
            seen.add(other)
            left = wrong(other)
            if left is not None and left <= gap:
                heapq.heappush(heap, (left, other))
                if left < gap:  # `other` is searched next; the remaining neighbours later
                    heapq.heappush(heap, (gap, sizes))
                    break
    if closest[0]:
        found = shapes(closest[1])
        name = next(name for name in wanted if found[name] != wanted[name])
        raise ValueError(
            "no values were found for the integer fields of `module` that give leaf "
            f"'{name}' the shape {wanted[name]} (closest: {found[name]}); use the compact function."
        )


def _shapes(tree: Any) -> Shapes:
    return {name: tuple(leaf.shape) for name, leaf in trees.to_named(tree).items()}


def _alike(a: Shapes, b: Shapes) -> bool:
    return {name: len(shape) for name, shape in a.items()} == {n: len(s) for n, s in b.items()}


def _options(sizes: Sizes, before: Shapes, wanted: Shapes) -> list[list[int]]:
    """For each integer, itself and its values after the changes of lengths."""
    changed = {
        (old, new)
        for name, shape in before.items()
        for old, new in zip(shape, wanted[name], strict=True)
        if old != new
    }
    return [
        sorted({n} | {n * new // old for old, new in changed if n and n * new % old == 0})
        for n in sizes
    ]


def _neighbours(sizes: Sizes, options: list[list[int]]) -> Iterator[Sizes]:
    for i, choices in enumerate(options):
        for n in choices:
            yield (*sizes[:i], n, *sizes[i + 1 :])


def sizes_of(value: Any) -> Iterator[int]:
    """The integers among a module's fields, also in tuples, lists and modules that are fields.

    >>> list(sizes_of(nn.Sequential([nn.Dense(3), nn.relu, nn.Dense(2)])))
    [3, 2]
    """
    if isinstance(value, nn.Module):
        for name in _fields(value):
            yield from sizes_of(getattr(value, name))
    elif isinstance(value, tuple | list):
        for one in value:
            yield from sizes_of(one)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value


def with_sizes(value: Any, sizes: Iterator[int]) -> Any:
    """A copy with other integers, in the order of `sizes_of`.

    >>> with_sizes((nn.Dense(3), True, [4, "a"]), iter([1, 2]))[1:]
    (True, [2, 'a'])
    """
    if isinstance(value, nn.Module):
        return value.clone(**{n: with_sizes(getattr(value, n), sizes) for n in _fields(value)})
    if isinstance(value, tuple | list):
        new = [with_sizes(one, sizes) for one in value]
        return value._make(new) if hasattr(value, "_make") else type(value)(new)
    return next(sizes) if isinstance(value, int) and not isinstance(value, bool) else value


def _fields(module: nn.Module) -> list[str]:
    return [
        f.name for f in dataclasses.fields(module) if f.init and f.name not in ("parent", "name")
    ]
