"""Lower bounds of the members, memory and disk space of an experiment."""

from pathlib import Path
from typing import NamedTuple

from lth_jax.machine import free_disk, in_units
from lth_jax.population import free_bytes


class Estimate(NamedTuple):
    """Lower bounds for an experiment.

    Attributes:
      members: number of networks.
      widest: members of its largest level, which are initialised together.
      chunk: members that train at a time on each device; 1 if it is to be measured.
      member: bytes of a member.
      training: bytes of a member with record, gradient and batch order.
      store: bytes of all members in the store.
      stored: bytes of one member in the store, by level.
    """

    members: int
    widest: int
    chunk: int
    member: int
    training: int
    store: int
    stored: tuple[float, ...]

    @property
    def device(self) -> int:
        """Bytes on one device: a level at initialisation, or a chunk in training."""
        return max(self.widest * self.member, self.chunk * self.training)

    def described(self, root: str | Path) -> str:
        """The estimate beside the free memory, and the free disk space of a folder, in one line."""
        memory, disk = free_bytes(), free_disk(str(root))
        return (
            f"{self.members:,} members of {in_units(self.member)}, at least "
            f"{in_units(self.device)} on a device{_of(memory)} and {in_units(self.store)} in the "
            f"store{_of(disk)}"
        )


def _of(free: int | None) -> str:
    return "" if free is None else f" (free: {in_units(free)})"
