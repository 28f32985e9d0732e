"""Where a population's members run: together, one after the other, and on which devices.

The member axis is only ever split: no device needs anything of another, so the programs hold no
collectives. The devices may belong to several processes (`jax.distributed`), as many to each. On a
CPU a virtual device per core (`jax_num_cpu_devices`) trains one member on each, which beats all
cores together on the small matrix products of one member.
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
from lth_jax.store import is_distributed

AXIS = "members"
DRIVERS = ("scan", "host")
"""The loops over steps that a plan may name; see `Plan`."""

PADDING = 0.1  # the share of a chunk's members that may be padding


class Plan(NamedTuple):
    """How a population runs.

    Attributes:
      chunk: members that one call trains.
      driver: `scan`, the steps of a segment in a loop inside the program, or `host`, a Python loop
        over a compiled step.
      devices: over how many devices a chunk is split; must divide it.
      vmapped: how many of a device's members are vectorised together, the others following one
        after the other inside the program; None for all.
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


def read_plan(record: Mapping[str, Any]) -> Plan:
    """The plan in a record that may hold more.

    >>> read_plan({**Plan(8, "host")._asdict(), "evidence": []})
    Plan(chunk=8, driver='host', devices=1, vmapped=None)
    """
    return Plan(**{name: record[name] for name in Plan._fields})


def check_plan(plan: Plan) -> None:
    """Raises `ValueError` unless the plan can run."""
    if plan.chunk < 1:
        raise ValueError(f"`chunk` is {plan.chunk}; at least 1 member must run at a time.")
    if plan.driver not in DRIVERS:
        raise ValueError(f"`driver` is {plan.driver!r}; it must be one of {DRIVERS}.")
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
    """A plan on the devices that are there, where it was made for others.

    As many members as before are vectorised together, which is what their last bits depend on; such
    groups follow one after the other where there are fewer devices.

    Args:
      plan: as it was recorded.
      devices: how many there are.
      processes: to how many processes they belong, as many to each.

    Raises:
      ValueError: the groups cannot be divided evenly over several processes.

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
    """The plan with a chunk no wider than a level of `members` needs, which fit one chunk.

    Unchanged where padding costs less than a tenth, and for larger levels, so that populations of
    different sizes have chunks, and with them members, in common.

    >>> narrowed(Plan(20, devices=2, vmapped=1), 5).chunk, narrowed(Plan(20), 45).chunk
    (6, 20)
    """
    step = plan.devices * (plan.vmapped or 1)
    width = step * -(-members // step)
    return plan._replace(chunk=width) if width * (1 + PADDING) < plan.chunk else plan


def level_plans(plan: Plan, sizes: Sequence[int]) -> list[tuple[int, Plan]]:
    """The plan of each level of these sizes, as `(level, the plan from that level on)`.

    >>> [(level, one.chunk) for level, one in level_plans(Plan(20), [5, 20, 20])]
    [(0, 5), (1, 20)]
    """
    each = [narrowed(plan, size) for size in sizes]
    return [(i, one) for i, one in enumerate(each) if i == 0 or one != each[i - 1]]


def check_devices(devices: int) -> None:
    """Raises `ValueError` unless there are so many devices, as many of each process.

    >>> check_devices(4096)
    Traceback (most recent call last):
    ValueError: `devices` is 4096; this process has ...
    """
    there, processes = jax.devices(), jax.process_count()
    if 1 <= devices <= len(there) and devices % processes == 0:
        return
    who = "this process has" if processes == 1 else f"{processes} processes, alike, have"
    raise ValueError(f"`devices` is {devices}; {who} {len(there)} of kind {there[0].device_kind}.")


def halved(plan: Plan) -> Plan | None:
    """Half as many members per device, for when memory ran out; None where there is but one.

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
    """A function of one member as a function of a whole chunk, by the plan.

    Args:
      f: pure; takes and returns pytrees.
      plan: how.
      batched: for each argument of `f`, whether it has a member axis (first in every leaf) or is
        shared by all members.

    >>> double = map_members(lambda x: 2 * x, Plan(4, vmapped=2), [True])
    >>> double(jax.numpy.arange(4)).tolist()
    [0, 2, 4, 6]
    """
    vmapped = plan.vmapped or plan.share
    one_device = _in_turn(over_members(f, vmapped, batched), plan.share // vmapped, batched)
    return _over_devices(one_device, plan.devices, batched)


def over_members(f: Callable[..., Any], chunk: int, batched: Sequence[bool]) -> Callable[..., Any]:
    """Vectorises `f` over the member axis of the arguments marked in `batched`.

    A chunk of 1 is not vmapped but squeezed: a vmapped convolution of one member is still the
    slow grouped one.
    """
    if chunk > 1:
        return jax.vmap(f, in_axes=tuple(0 if b else None for b in batched))

    def one(*args: Any) -> Any:
        inner = [trees.index(a, 0) if b else a for a, b in zip(args, batched, strict=True)]
        return jax.tree.map(lambda leaf: leaf[None], f(*inner))

    return one


def _in_turn(f: Callable[..., Any], groups: int, batched: Sequence[bool]) -> Callable[..., Any]:
    """`f` on one group of the members after the other, in one loop."""
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
    """`f` on every device's share of the members."""
    if devices == 1:
        return f
    specs = tuple(P(AXIS) if b else P() for b in batched)
    # Not checked for replication: nothing is replicated in the results, and constants in loops
    # (losses that start at 0) would all have to be cast.
    return jax.shard_map(
        f, mesh=population_mesh(devices), in_specs=specs, out_specs=P(AXIS), check_vma=False
    )


def population_mesh(devices: int) -> Mesh:
    """Devices as a mesh of one axis, `"members"`: of each process the first, process by process."""
    processes = range(jax.process_count())
    of_each = [[d for d in jax.devices() if d.process_index == process] for process in processes]
    share = devices // len(processes)
    chosen = [device for own in of_each for device in own[:share]]
    return Mesh(np.array(chosen), (AXIS,), axis_types=(AxisType.Auto,))


def spread(tree: Any, sharding: NamedSharding) -> Any:
    """Puts arrays where `sharding` has them, in one process or several.

    There each process must hold all of every array, or the array must lie there already.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: _spread_leaf(leaf, sharding), tree)


def _spread_leaf(leaf: Any, sharding: NamedSharding) -> jax.Array:
    array: jax.Array = leaf
    if is_distributed(leaf):
        return array
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _spread_leaf(jax.random.key_data(leaf), sharding)
        array = jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return array
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def free_bytes() -> int | None:
    """The memory that a program may take on one device; None where it is unknown.

    On accelerators the allocator's limit less what is in use. Virtual devices of a CPU share what
    the system calls available.
    """
    if stats := jax.local_devices()[0].memory_stats():
        return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
    return host_free_bytes()


def host_free_bytes() -> int | None:
    """The memory of the host that Linux calls available; None on other systems."""
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kilobytes[0] * 1024 if kilobytes else None


class Placed:
    """A segment whose arguments are put onto the plan's devices before it is called.

    Members are split and stay where they are from the second call on; a data set is copied to every
    device once, for as long as the same arrays are passed.

    Args:
      segment: takes `(members, records, train, validation, constants, step, n)`.
      devices: over how many devices.
    """

    def __init__(self, segment: Callable[..., Any], devices: int):
        mesh = population_mesh(devices)
        self._segment = segment
        self._split, self._whole = NamedSharding(mesh, P(AXIS)), NamedSharding(mesh, P())
        self._kept: dict[str, tuple[list[Any], Any]] = {}  # what was given, and its copies

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
        """The program for arguments like these, arrays or shapes; of the `scan` driver."""
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
    """Arrays placed by `sharding`; shapes with it."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        return spread(leaf, sharding)

    return jax.tree.map(one, tree)
