"""All groups of a network as a table, and as rows of a figure."""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from lth_jax import text
from lth_jax.report.unit_map import UnitRow
from lth_jax.structure.group import Group, Slot

HEADER = ("group", "units", "leaves", "weights/unit", "kind", "slices of a unit")
_ROWS = 24
"""The maximum number of rows of a figure; rows with fewer weights are joined."""

Shapes = Mapping[str, tuple[int, ...]]


def lines(groups: Sequence[Group], shapes: Shapes) -> list[tuple[str, ...]]:
    """A row for each group, as in `HEADER`; `w:1×8` are 8 indices of axis 1 of `w`.

    The kind is `exact` where the compacted network equals the masked one, else `inexact`, and
    `ordered` where units cannot be permuted.
    """
    return [
        (
            group.name,
            f"{group.units:,}",
            str(len({slot.leaf for slot in group.slots})),
            f"{touched(shapes, [group], 1):,}",
            ("exact" if group.exact else "inexact") + ", ordered" * bool(group.ordered),
            ", ".join(map(_slice, group.slots)),
        )
        for group in groups
    ]


def _slice(slot: Slot) -> str:
    each = slot.indices.shape[1]
    return f"{slot.leaf}:{slot.axis}" + (f"×{each}" if each > 1 else "")


def touched(shapes: Shapes, groups: Sequence[Group], units: int | None = None) -> int:
    """The number of weights in some units of each group; None = in all of them."""
    left: dict[str, list[int]] = {}
    for group in groups:
        for slot in group.slots:
            count, each = slot.indices.shape
            sizes = left.setdefault(slot.leaf, list(shapes[slot.leaf]))
            sizes[slot.axis] -= each * (count if units is None else units)
    return sum(math.prod(shapes[leaf]) - math.prod(sizes) for leaf, sizes in left.items())


def rows(groups: Sequence[Group], shapes: Shapes, kept: Mapping[str, np.ndarray]) -> list[UnitRow]:
    """Groups whose names differ by numbers only share a row; the heaviest row comes first.

    Where there would be too many rows, only the first parts of the leaves' paths count.

    Args:
      groups: all groups.
      shapes: the shape of each leaf.
      kept: group name → bool `[units]`; absent groups are whole.
    """
    depth = max((group.name.count("/") for group in groups), default=0)
    alike = _alike(groups, depth)
    while len(alike) > _ROWS and depth:
        depth -= 1
        alike = _alike(groups, depth)
    order = sorted(alike.items(), key=lambda row: -touched(shapes, row[1]))
    if len(order) > _ROWS:
        rest = [group for _, row in order[_ROWS - 1 :] for group in row]
        order = [*order[: _ROWS - 1], ("others", rest)]
    found = [_row(shapes, name, row, kept) for name, row in order]
    whole = sum(map(math.prod, shapes.values()))
    return [*found, UnitRow("in no unit", (), whole - touched(shapes, groups), ())]


def _alike(groups: Sequence[Group], depth: int) -> dict[str, list[Group]]:
    """The groups by the first parts of their names, with `*` for numbers; in numerical order."""
    found: dict[str, list[Group]] = {}
    for group in sorted(groups, key=lambda group: [int(n) for n in re.findall(r"\d+", group.name)]):
        leaf, axis = group.name.split("#")[0].rsplit(":", 1)
        parts = re.sub(r"\d+", "*", leaf).split("/")
        whole = len(parts) <= depth + 1
        found.setdefault("/".join(parts[: depth + 1]) + (f":{axis}" if whole else ""), []).append(
            group
        )
    return found


def _row(
    shapes: Shapes, name: str, groups: Sequence[Group], kept: Mapping[str, np.ndarray]
) -> UnitRow:
    units = sorted({group.units for group in groups})
    sizes = "–".join(f"{n:,}" for n in dict.fromkeys([units[0], units[-1]]))
    label = f"{name}  ({text.counted(len(groups), 'group')} of {sizes})"
    shares = tuple(float(np.mean(kept.get(group.name, True))) for group in groups)
    exact = tuple(group.exact for group in groups)
    return UnitRow(label, shares, touched(shapes, groups), exact)
