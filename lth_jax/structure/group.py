"""Groups of equal units."""

from typing import NamedTuple

import numpy as np


class Slot(NamedTuple):
    """The slices of a group's units along one axis of one leaf.

    Attributes:
      leaf: the name of the leaf.
      axis: the axis of the units.
      indices: int `[units, k]`, the k indices of each unit.
    """

    leaf: str
    axis: int
    indices: np.ndarray

    def __repr__(self) -> str:
        units, each = self.indices.shape
        return f"Slot({self.leaf}:{self.axis}, {units} units of {each})"


class Group(NamedTuple):
    """Equal units: the same number of indices of the same axes of the same leaves.

    Attributes:
      name: `leaf:axis` of its first slot.
      slots: the slices of the units.
      inexact: reasons why the compacted network differs from the masked one; empty if it does not.
      ordered: reasons why units cannot be permuted; empty if they can.
    """

    name: str
    slots: tuple[Slot, ...]
    inexact: tuple[str, ...]
    ordered: tuple[str, ...]

    @property
    def units(self) -> int:
        """The number of units."""
        return len(self.slots[0].indices)

    @property
    def exact(self) -> bool:
        """Whether the network without some units equals the masked network."""
        return not self.inexact

    def __repr__(self) -> str:
        slots = ", ".join(f"{slot.leaf}:{slot.axis}" for slot in self.slots)
        exact = "exact" if self.exact else f"inexact: {'; '.join(self.inexact)}"
        return f"Group({self.name}, {self.units} units of {slots}; {exact})"
