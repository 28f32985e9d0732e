"""Placement of a population's members: vectorised, one after the other, and over devices.

Devices are split along the member axis only, so the programs contain no collectives. The devices
may belong to several processes (`jax.distributed`), the same number to each. On a CPU, one virtual
device per core (`jax_num_cpu_devices`) with one member each is faster than all cores sharing the
small matrix products of one member.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lth_jax import trees
from lth_jax.legal import check_name
from lth_jax.store import is_distributed

AXIS = "members"
DRIVERS = ("scan", "host")
"""The loops over steps that a plan may name; see `Plan`."""

PADDING = 0.1  # allowed fraction of padding in a chunk


class Plan(NamedTuple):
    """How a population runs.

    Attributes:
      chunk: number of members that train at a time.
      driver: `scan`, a loop over the steps of a segment inside the program, or `host`, a Python
        loop over a compiled step.
      devices: number of devices over which a chunk is split; must divide it.
      vmapped: number of members of a device that are vectorised together; such groups run one after
        the other inside the program. None for all.
    """

    chunk: int
    driver: str = "scan"
    devices: int = 1
    vmapped: int | None = None

    @property
    def share(self) -> int:
        """The members of one device.

        >>> Plan(12, devices=4).share
        3
        """
        return self.chunk // self.devices

    @property
    def width(self) -> int:
        """The members that are vectorised together.

        >>> Plan(12, devices=4).width, Plan(12, vmapped=1).width
        (3, 1)
        """
        return self.vmapped or self.share


def read_plan(record: Mapping[str, Any]) -> Plan:
    """The plan in a record, which may have further fields.

    >>> read_plan({**Plan(8, "host")._asdict(), "evidence": []})
    Plan(chunk=8, driver='host', devices=1, vmapped=None)
    """
    return Plan(**{name: record[name] for name in Plan._fields})


def check_plan(plan: Plan) -> None:
    """Raises `ValueError` unless the plan can run."""
    if plan.chunk < 1:
        raise ValueError(f"`chunk` is {plan.chunk}; at least 1 member must run at a time.")
    check_name("driver", plan.driver, DRIVERS)
    check_devices(plan.devices)
    if plan.chunk % plan.devices:
        raise ValueError(
            f"`chunk` is {plan.chunk}; it must be a multiple of `devices`, which is {plan.devices}."
        )
    if plan.vmapped is None:
        return
    if plan.vmapped < 1 or plan.share % plan.vmapped:
        raise ValueError(
            f"`vmapped` is {plan.vmapped}; it must divide the {plan.share} members of a device."
        )


def fitted(plan: Plan, devices: int, processes: int = 1) -> Plan:
    """The plan, adapted to the available devices if it was made for others.

    The number of members vectorised together, which affects their last bits, is unchanged. With
    fewer devices, more such groups run one after the other.

    Args:
      plan: the recorded plan.
      devices: the number of available devices.
      processes: the number of processes to which they belong, the same number to each.

    Raises:
      ValueError: the groups cannot be divided evenly over the processes.

    >>> fitted(Plan(8, devices=4), 2)
    Plan(chunk=8, driver='scan', devices=2, vmapped=2)
    """
    if plan.devices <= devices and plan.devices % processes == 0:
        return plan
    width = plan.vmapped or plan.share
    groups = plan.chunk // width
    fits = [n for n in range(processes, devices + 1, processes) if groups % n == 0]
    if not fits:
        raise ValueError(
            f"the plan's {groups} groups of {width} members cannot be divided over {processes} "
            "processes; start as many as divide them, or one."
        )
    return plan._replace(devices=fits[-1], vmapped=width)


def narrowed(plan: Plan, members: int) -> Plan:
    """The plan with a chunk no larger than a level of `members` needs.

    Unchanged if padding costs less than a tenth, and for levels of several chunks, so that
    populations of different sizes share chunks and members.

    Args:
      plan: the plan of the whole population.
      members: number of members of the level.

    Returns:
      `plan` with the chunk `c = s ⌈members / s⌉` where 1.1 c is below its chunk, otherwise `plan`;
      `s` is `devices · vmapped`, or `devices` where `vmapped` is None.

    >>> narrowed(Plan(20, devices=2, vmapped=1), 5).chunk, narrowed(Plan(20), 45).chunk
    (6, 20)
    """
    step = plan.devices * (plan.vmapped or 1)
    width = step * -(-members // step)
    return plan._replace(chunk=width) if width * (1 + PADDING) < plan.chunk else plan


def level_plans(plan: Plan, sizes: Sequence[int]) -> list[tuple[int, Plan]]:
    """The plans for levels of these sizes, as `(level, plan from that level on)`.

    Args:
      plan: the plan of the whole population.
      sizes: number of members of each level, that of level 0 first; see `lottery.level_sizes`.

    Returns:
      `narrowed` plans in the order of levels, the first for level 0; a level with the plan of the
      level before it has no entry. Empty without sizes.

    >>> [(level, one.chunk) for level, one in level_plans(Plan(20), [5, 20, 20])]
    [(0, 5), (1, 20)]
    """
    each = [narrowed(plan, size) for size in sizes]
    return [(i, one) for i, one in enumerate(each) if i == 0 or one != each[i - 1]]


def check_devices(devices: int) -> None:
    """Raises `ValueError` unless that many devices exist, the same number in each process.

    >>> check_devices(4096)
    Traceback (most recent call last):
    ValueError: `devices` is 4096; this process has ...
    """
    there, processes = jax.devices(), jax.process_count()
    if 1 <= devices <= len(there) and devices % processes == 0:
        return
    most, kind = len(there), there[0].device_kind
    if processes == 1:
        raise ValueError(f"`devices` is {devices}; this process has {most} of kind {kind}.")
    raise ValueError(
        f"`devices` is {devices}; it must be a multiple of the {processes} processes and at most "
        f"{most}, the number of devices of kind {kind}."
    )


def halved(plan: Plan) -> Plan | None:
    """The plan with half as many members per device; None if there is only one.

    >>> halved(Plan(12, devices=2)), halved(Plan(2, devices=2))
    (Plan(chunk=6, driver='scan', devices=2, vmapped=None), None)
    """
    if plan.share == 1:
        return None
    share = plan.share // 2
    vmapped = plan.vmapped and min(plan.vmapped, share)
    if vmapped and share % vmapped:
        vmapped = 1
    return plan._replace(chunk=share * plan.devices, vmapped=vmapped)


def map_members(f: Callable[..., Any], plan: Plan, batched: Sequence[bool]) -> Callable[..., Any]:
    """Maps a function of one member over a whole chunk, by the plan.

    Args:
      f: pure; takes and returns pytrees.
      plan: the plan.
      batched: for each argument of `f`, whether it has a member axis (first in every leaf) or is
        shared by all members.

    >>> double = map_members(lambda x: 2 * x, Plan(4, vmapped=2), [True])
    >>> double(jax.numpy.arange(4)).tolist()
    [0, 2, 4, 6]
    """
    return map_groups(over_members(f, plan.width, batched), plan, batched)


def map_groups(f: Callable[..., Any], plan: Plan, batched: Sequence[bool]) -> Callable[..., Any]:
    """Maps a function of `plan.width` members over a whole chunk; arguments as of `map_members`.

    >>> total = map_groups(lambda x: x + x.sum(), Plan(4, vmapped=2), [True])
    >>> total(jax.numpy.arange(4)).tolist()
    [1, 2, 7, 8]
    """
    one_device = _in_turn(f, plan.share // plan.width, batched)
    return _over_devices(one_device, plan.devices, batched)


def over_members(f: Callable[..., Any], chunk: int, batched: Sequence[bool]) -> Callable[..., Any]:
    """Vectorises `f` over the member axis of the arguments marked in `batched`.

    A chunk of 1 is not vmapped but squeezed: a vmapped convolution of one member would still be a
    slow grouped one.
    """
    if chunk > 1:
        return jax.vmap(f, in_axes=tuple(0 if b else None for b in batched))

    def one(*args: Any) -> Any:
        inner = [trees.index(a, 0) if b else a for a, b in zip(args, batched, strict=True)]
        return jax.tree.map(lambda leaf: leaf[None], f(*inner))

    return one


def _in_turn(f: Callable[..., Any], groups: int, batched: Sequence[bool]) -> Callable[..., Any]:
    """Maps `f` over groups of the members, in one loop."""
    if groups == 1:
        return f

    def grouped(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.reshape(groups, -1, *leaf.shape[1:]), tree)

    def run(*args: Any) -> Any:
        def one(members: list[Any]) -> Any:
            parts = iter(members)
            return f(*(next(parts) if b else a for a, b in zip(args, batched, strict=True)))

        out = lax.map(one, [grouped(a) for a, b in zip(args, batched, strict=True) if b])
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), out)

    return run


def _over_devices(
    f: Callable[..., Any], devices: int, batched: Sequence[bool]
) -> Callable[..., Any]:
    """Maps `f` over devices, each with its share of the members."""
    if devices == 1:
        return f
    specs = tuple(P(AXIS) if b else P() for b in batched)
    # No check for replication: no result is replicated, and constants in loops (such as losses that
    # start at 0) would need casts.
    return jax.shard_map(
        f, mesh=population_mesh(devices), in_specs=specs, out_specs=P(AXIS), check_vma=False
    )


def population_mesh(devices: int) -> Mesh:
    """A mesh of one axis, `"members"`, of the first devices of each process, ordered by process."""
    processes = range(jax.process_count())
    of_each = [[d for d in jax.devices() if d.process_index == process] for process in processes]
    share = devices // len(processes)
    chosen = [device for own in of_each for device in own[:share]]
    return Mesh(np.array(chosen), (AXIS,), axis_types=(AxisType.Auto,))


def spread(tree: Any, sharding: NamedSharding) -> Any:
    """Places arrays by `sharding`, in one process or several.

    With several processes, each must hold the whole array, or the array must be placed already.
    """
    if sharding.is_fully_addressable and jax.default_backend() != "cpu":
        return jax.device_put(tree, sharding)
    # Between devices, `device_put` compiles a program for each shape (jax 0.10.2).
    return jax.tree.map(lambda leaf: _spread_leaf(leaf, sharding), tree)


def _spread_leaf(leaf: Any, sharding: NamedSharding) -> jax.Array:
    array: jax.Array = leaf
    placed = isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    if placed or is_distributed(leaf):
        return array
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _spread_leaf(jax.random.key_data(leaf), sharding)
        array = jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return array
    host = np.asarray(leaf)
    # Copies: the array may be donated.
    return jax.make_array_from_callback(host.shape, sharding, lambda at: np.array(host[at]))


def free_bytes() -> int | None:
    """The free memory of one device in bytes; None if unknown.

    On accelerators, the allocator's limit minus the bytes in use. Virtual devices of a CPU share
    the available memory of the system.
    """
    if stats := jax.local_devices()[0].memory_stats():
        return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
    return host_free_bytes()


def host_free_bytes() -> int | None:
    """`MemAvailable` of the host in bytes; None on systems other than Linux."""
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kilobytes[0] * 1024 if kilobytes else None


class Placed:
    """A segment that places its arguments on the plan's devices.

    Members are split over the devices; outputs of one call need no transfer in the next. A data set
    is copied to every device once, as long as the same arrays are passed.

    Args:
      segment: takes `(members, records, train, validation, constants, step, n)`.
      devices: the number of devices.
    """

    def __init__(self, segment: Callable[..., Any], devices: int):
        mesh = population_mesh(devices)
        self._segment = segment
        self._split, self._whole = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())
        self._kept: dict[str, tuple[list[Any], Any]] = {}  # arguments and their copies

    def __call__(
        self, members: Any, records: Any, train: Any, validation: Any, constants: Any, *steps: Any
    ) -> Any:
        """Runs the segment."""
        carried = spread((members, records), self._split)
        given = {"train": train, "validation": validation, "constants": constants}
        shared = [self._everywhere(name, data) for name, data in given.items()]
        return self._segment(*carried, *shared, *steps)

    def lower(
        self, members: Any, records: Any, train: Any, validation: Any, constants: Any, *steps: Any
    ) -> jax.stages.Lowered:
        """The program of the `scan` driver for these arguments, arrays or shapes."""
        carried = _put_or_shaped((members, records), self._split)
        shared = _put_or_shaped((train, validation, constants), self._whole)
        found: jax.stages.Lowered = self._segment.lower(*carried, *shared, *steps)  # type: ignore[attr-defined]
        return found

    def _everywhere(self, name: str, data: Any) -> Any:
        given = jax.tree.leaves(data)
        before, copies = self._kept.get(name, ([], None))
        if len(given) != len(before) or any(a is not b for a, b in zip(given, before, strict=True)):
            copies = spread(data, self._whole)
            self._kept[name] = given, copies
        return copies


def _put_or_shaped(tree: Any, sharding: NamedSharding) -> Any:
    """Places arrays by `sharding`; adds it to shapes."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        return spread(leaf, sharding)

    return jax.tree.map(one, tree)
