"""Choice of the fastest plan that fits in memory, by compiling and timing candidates.

The best number of members to vectorise, number of devices, and driver depend on the network, the
data and the machine. On a CPU, a convolution of XLA is 40 times slower inside a scan than outside,
and 5 times slower vmapped than one member after the other. On a GPU, one small network leaves the
chip idle.
"""

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import jax
import jaxlib
import numpy as np
from numpy.typing import NDArray

from lth_jax import trees
from lth_jax.population import clocks
from lth_jax.population.placement import DRIVERS, Plan, check_plan, free_bytes, narrowed, read_plan
from lth_jax.population.segment import Block, Member, Trainer, init_records
from lth_jax.population.streaming import OnHost, compile_serving
from lth_jax.population.train_chunks import Segment, compile_segment
from lth_jax.store import ALONE, StoreError, Team, content_key, records
from lth_jax.types import Batch

PROBE = 0.25  # minimal seconds of the measured steps, without validation
SHARE = 0.1  # fraction of a run's time that measuring plans may take, beyond the first plan
LOST = 1.5  # a plan slower than the best by this factor is not measured again


WALL, CPU = 0, 1
Times = NDArray[np.float64]
"""Seconds `(wall, cpu)`."""


AUTO = "auto"


def plans_for(plan: Plan | str, sizes: Sequence[int]) -> list[Plan]:
    """The candidate plans for levels of these sizes: the given one, or all for `"auto"`.

    Raises:
      ValueError: `plan` is neither a valid `Plan` nor `"auto"`.
    """
    if isinstance(plan, Plan):
        check_plan(plan)
        return [plan]
    if plan != AUTO:
        raise ValueError(f"`plan` is {plan!r}; it must be a `population.Plan` or 'auto'.")
    processes = jax.process_count()
    devices = min(jax.local_device_count(), max(sizes)) * processes
    return candidate_plans([max(sizes)], devices, processes=processes)


def plan_for_level(
    plan: Plan | str,
    size: int,
    trainer: Trainer,
    members: Callable[[], Member],
    train: Batch,
    validation: Batch,
    **options: Any,
) -> Plan:
    """The given plan, or for `"auto"` the fastest for one level of `size` members.

    Args:
      plan: a `Plan`, or `"auto"`.
      size: number of members.
      trainer: the static part.
      members: returns the members; called only if plans are measured.
      train: training data.
      validation: validation data.
      **options: options of `choose_plan`.

    Raises:
      ValueError: `plan` is invalid, or no plan fits in the free memory.
    """
    plans = plans_for(plan, [size])
    if len(plans) == 1:
        return plans[0]
    given = trainer, members(), train, validation, [size]
    return choose_plan(*given, candidates=plans, **options)[0]


class Setting(NamedTuple):
    """The inputs of measurements: trainer, members and data."""

    trainer: Trainer
    members: Member
    train: Batch
    validation: Batch


def candidate_plans(
    widths: Iterable[int], devices: int = 1, drivers: Sequence[str] = DRIVERS, processes: int = 1
) -> list[Plan]:
    """Plans to compare: each width with each driver, members vectorised or one after the other.

    With several devices, each width is rounded up to a multiple of their number. The largest width
    is also tried on one device of each process, where all cores of a CPU share each operation.

    Args:
      widths: members that train at a time.
      devices: the number of devices.
      drivers: names in `DRIVERS`.
      processes: the number of processes to which the devices belong.

    >>> for plan in candidate_plans([8], drivers=["scan"]):
    ...     print(plan)
    Plan(chunk=8, driver='scan', devices=1, vmapped=None)
    Plan(chunk=8, driver='scan', devices=1, vmapped=1)
    """
    widest, *narrower = sorted(widths, reverse=True)

    def over(n: int, width: int) -> tuple[int, int]:
        return -(-width // n) * n, n

    # Widest first: measuring may end before the last.
    first, *others = [over(devices, width) for width in (widest, *narrower)]
    placed = dict.fromkeys([first, over(processes, widest), *others])
    plans = [
        Plan(width, driver, n, vmapped)
        for width, n in placed
        for driver in drivers
        for vmapped in ([None, 1] if driver == "scan" and width > n else [None])
    ]
    single = Plan(devices, "host", devices)
    return [*plans, single] if "host" in drivers and single not in plans else plans


def population_cost(plan: Plan, seconds_per_segment: float, sizes: Sequence[int]) -> float:
    """Seconds for one segment of every level, padding included, with `narrowed` plans.

    >>> population_cost(Plan(4), 2.0, [4, 6, 2])
    7.0
    """
    padded = sum(chunk * -(-n // chunk) for n in sizes if (chunk := narrowed(plan, n).chunk))
    return seconds_per_segment * padded / plan.chunk


def cheapest(evidence: Sequence[Mapping[str, Any]], sizes: Sequence[int]) -> Plan:
    """The fastest of the measured plans, for levels of these sizes.

    Args:
      evidence: from `choose_plan`, at least one row.
      sizes: number of members of each level.

    >>> narrow = {**Plan(8)._asdict(), "ms_per_member_step": 3.0}
    >>> wide = {**Plan(64)._asdict(), "ms_per_member_step": 2.0}
    >>> cheapest([narrow, wide], [64]).chunk, cheapest([narrow, wide], [72]).chunk
    (64, 8)
    """
    crowded = any(row.get("crowded") for row in evidence)
    time = "cpu_ms_per_member_step" if crowded else "ms_per_member_step"
    seconds = {read_plan(row): row[time] * row["chunk"] for row in evidence}
    return min(seconds, key=lambda plan: population_cost(plan, seconds[plan], sizes))


def choose_plan(
    trainer: Trainer,
    members: Member,
    train: Batch,
    validation: Batch,
    sizes: Sequence[int],
    *,
    candidates: Sequence[Plan] | None = None,
    repeats: int = 3,
    budget: float = 20.0,
    steps: int | None = None,
    plan_cache: Path | None = None,
    cache_crowded: bool = False,
    program: str | None = None,
    segments: Callable[[Plan], Segment] | None = None,
    team: Team = ALONE,
    on_start: Callable[[], None] | None = None,
) -> tuple[Plan, list[dict[str, Any]]]:
    """Measures candidate plans on the given network, data and device, and returns the fastest.

    Plans whose compiled program needs more than the free memory are excluded. On CPUs, plans of the
    host driver are measured only if the network has XLA convolutions, which are slow inside loops,
    or if no other plan fits. Without XLA convolutions, narrow chunks and members one after the
    other are measured first on CPUs, since they are usually fastest. The plans run training steps
    on copies of the members in turn, for `repeats` rounds; plans that take more than 1.5 times as
    long as the best are measured once. The number of steps is such that the first plan takes a
    quarter of a second. The result of a plan is its smallest time for a segment with validation.
    The cost includes padding. On CPUs, if other processes use the cores, CPU time is compared
    instead of wall time, and by default the choice is not cached.

    Args:
      trainer: the static part.
      members: at least one member; repeated to fill the wider candidates.
      train: training data.
      validation: validation data.
      sizes: number of members of each level of the run.
      candidates: plans to compare; `candidate_plans([max(sizes)])` by default.
      repeats: rounds of measurement.
      budget: seconds after which no further candidate is measured.
      steps: steps of a level. If given, the budget is at most a tenth of the time that the run
        takes with the best plan so far.
      plan_cache: a folder that caches choices, by program, kind and number of devices, versions of
        JAX, sizes, steps and candidates.
      cache_crowded: whether choices made while other processes used the cores are cached too, so
        that a second call always returns the plan of the first.
      program: the fingerprint of the training program; computed by lowering it by default.
      segments: `plan -> compiled segment`, to share compiled programs with the training;
        `compile_segment` by default.
      team: the processes that measure together; clock, memory and folder are those of process 0.
      on_start: called before plans are measured; not if the choice is cached.

    Returns:
      The plan, and the evidence: one dict per measured candidate: the plan's fields,
      `ms_per_member_step`, `cpu_ms_per_member_step`, `relative_cost`, `bytes` (of the program on
      one device; None for the host driver), `crowded` (other processes used the cores) and
      `source`, `"measured"` or `"cache"`.

    Raises:
      ValueError: no plan fits the free memory.
    """
    setting = Setting(trainer, members, train, validation)
    plans, spare = _ordered(candidates or candidate_plans([max(sizes)]), setting)
    streamed = isinstance(train, OnHost)
    key = plan_cache and _fingerprint([program or _program(setting), streamed], plans, sizes, steps)
    path = plan_cache and plan_cache / f"plan-{str(key)[:32]}.json"
    if found := team.on_leader(lambda: path and _recall(path, cache_crowded)):
        return Plan(**found["plan"]), found["evidence"]
    segments = segments or functools.partial(compile_segment, trainer)
    if on_start:
        on_start()
    plan, evidence = _measure(setting, segments, plans, spare, sizes, repeats, budget, steps, team)
    if path and team.first and (cache_crowded or not any(row["crowded"] for row in evidence)):
        records.write(path, path.stem, {"plan": plan._asdict(), "evidence": evidence})
    return plan, evidence


def _ordered(plans: Sequence[Plan], setting: Setting) -> tuple[list[Plan], list[Plan]]:
    """The plans, likely winners first since measuring may end early, and those to measure last.

    The last ones are measured only if none of the others fits.
    """
    hosts = [plan for plan in plans if plan.driver == "host"]
    if not hosts or jax.default_backend() != "cpu":
        return list(plans), []
    if _has_stock_convolutions(setting):
        likely = min(hosts, key=lambda plan: plan.chunk)
        return sorted(plans, key=lambda plan: plan != likely), []
    order = sorted(plans, key=lambda plan: (plan in hosts, plan.chunk, plan.vmapped is None))
    return order, hosts


def _has_stock_convolutions(setting: Setting) -> bool:
    """Whether the network has convolutions of XLA, which XLA:CPU runs slowly inside loops."""
    trainer, members, _, validation = setting
    params, state = jax.eval_shape(lambda m: trees.index((m.params, m.state), 0), members)
    x = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), validation.x)
    apply = functools.partial(trainer.model.apply, train=False)
    return "conv_general_dilated" in str(jax.make_jaxpr(apply)(params, state, x))


def _program(setting: Setting) -> str:
    """The SHA-256 of the lowered text of a segment; compiles nothing."""
    trainer, members, _, validation = setting
    one = trees.index(members, slice(1))
    given = _given(setting, one)
    one = jax.eval_shape(lambda tree: tree, one)
    records, step = jax.eval_shape(init_records, one), jax.ShapeDtypeStruct((), "int32")
    segment: Any = compile_segment(trainer, Plan(1))
    text = segment.lower(one, records, given, validation, trainer.constants, step, step).as_text()
    return hashlib.sha256(text.encode()).hexdigest()


def _fingerprint(
    program: Any, plans: Sequence[Plan], sizes: Sequence[int], steps: int | None
) -> str:
    """The SHA-256 of everything that a choice depends on."""
    device = jax.devices()[0]
    return content_key(
        {
            "program": program,
            "device": [device.device_kind, jax.local_device_count(), jax.process_count()],
            "versions": [jax.__version__, jaxlib.__version__],
            "sizes": list(sizes),
            "steps": steps,  # short runs measure fewer plans
            "candidates": [plan._asdict() for plan in plans],
        }
    )


class CachedPlan(TypedDict):
    """A cached choice of a plan."""

    plan: dict[str, Any]
    evidence: list[dict[str, Any]]


def _recall(path: Path, crowded: bool) -> dict[str, Any] | None:
    """The cached choice; None if there is none that can be read, or only a crowded one."""
    try:
        found = records.read(path, path.stem, CachedPlan)
        if not crowded and any(row["crowded"] for row in found["evidence"]):
            return None
        evidence = [{**row, "source": "cache"} for row in found["evidence"]]
        return {"plan": Plan(**found["plan"])._asdict(), "evidence": evidence}
    except (StoreError, KeyError, TypeError):
        return None


def program_bytes(compiled: jax.stages.Compiled) -> int | None:
    """The memory of a compiled program on one device: arguments, results and temporaries.

    None if the backend does not report it.
    """
    memory: Any = compiled.memory_analysis()
    if memory is None:
        return None
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    found: int = held + memory.temp_size_in_bytes - memory.alias_size_in_bytes
    return found


def _fits(plan: Plan, needed: int | None, free: int | None) -> bool:
    if needed is None or free is None:
        return True
    shared = plan.devices if jax.default_backend() == "cpu" else 1
    return needed * shared <= free


def _measure(
    setting: Setting,
    segments: Callable[[Plan], Segment],
    plans: Sequence[Plan],
    spare: Sequence[Plan],
    sizes: Sequence[int],
    repeats: int,
    budget: float,
    whole: int | None,
    team: Team,
) -> tuple[Plan, list[dict[str, Any]]]:
    def clock() -> Times:
        return np.asarray(team.on_leader(lambda: clocks.now().tolist()))

    before, began, free = clocks.load(), clock(), team.on_leader(free_bytes)
    probes: dict[Plan, _Probe] = {}
    needed: dict[Plan, int | None] = {}
    fastest: dict[Plan, Times] = {}  # times of a segment
    steps = 1

    def cost(plan: Plan, time: int = WALL) -> float:
        return population_cost(plan, fastest[plan][time], sizes)

    for plan in plans:
        if probes and (clock() - began)[WALL] > budget:
            break
        if probes and plan in spare:
            continue
        probe = _Probe(setting, plan, segments(plan), clock)
        # The host driver consists of several programs; it needs as much as the scan.
        alike = needed.get(plan._replace(driver="scan"))
        needed[plan] = probe.bytes() if plan.driver == "scan" else alike
        if _fits(plan, needed[plan], free):
            probe.seconds(1)  # compiles
            steps = steps if probes else probe.enough()
            probes[plan], fastest[plan] = probe, probe.segment(steps)
            if whole:
                intervals = whole / setting.trainer.eval_every
                budget = min(budget, SHARE * intervals * min(map(cost, probes)))
    if not probes:
        least = min(n for n in needed.values() if n is not None)
        raise ValueError(
            f"`members` do not fit in memory: the smallest of {len(needed)} plans needs "
            f"{least / 2**20:,.0f} MiB on a device, and {(free or 0) / 2**20:,.0f} MiB are free."
        )
    for _ in range(repeats - 1):
        worst = LOST * min(map(cost, probes))
        for plan in [plan for plan in probes if cost(plan) <= worst]:
            fastest[plan] = np.minimum(fastest[plan], probes[plan].segment(steps))
    spent = (clock() - began)[WALL]
    crowded = jax.default_backend() == "cpu" and team.on_leader(
        lambda: clocks.crowded(before, clocks.load(), spent)
    )
    time = CPU if crowded else WALL
    best = min(probes, key=lambda plan: cost(plan, time))

    def row(plan: Plan) -> dict[str, Any]:
        each = 1e3 * fastest[plan] / (plan.chunk * setting.trainer.eval_every)
        return {
            **plan._asdict(),
            "ms_per_member_step": float(each[WALL]),
            "cpu_ms_per_member_step": float(each[CPU]),
            "relative_cost": float(cost(plan, time) / cost(best, time)),
            "bytes": needed[plan],
            "crowded": crowded,
            "source": "measured",
        }

    return best, [row(plan) for plan in fastest]


def _given(setting: Setting, chunk: Member) -> Batch | Block:
    """The training data of the first segment of a chunk."""
    [given] = compile_serving(setting.trainer)(chunk, setting.train, [0])
    return given


_members_at = jax.jit(trees.index)


class _Probe:
    """Measures a plan's segment: bytes on a device, and seconds by a few training steps."""

    def __init__(self, setting: Setting, plan: Plan, segment: Segment, clock: Callable[[], Times]):
        self._setting, self._plan, self._clock = setting, plan, clock
        self._train: Batch | Block | None = None
        self._segment: Any = segment

    def _start(self) -> tuple[Any, ...]:
        trainer, members, _, validation = self._setting
        rows = np.arange(self._plan.chunk) % members.alive.shape[0]
        chunk = _members_at(members, rows)
        records = init_records(chunk)
        if self._train is None:
            self._train = _given(self._setting, chunk)
        given = (chunk, records, self._train, validation, trainer.constants, np.int32(0))
        found: tuple[Any, ...] = jax.block_until_ready(given)
        return found

    def bytes(self) -> int | None:
        """The memory of the program; compiles it without running it."""
        return program_bytes(self._segment.lower(*self._start(), np.int32(1)).compile())

    def seconds(self, *steps: int) -> list[Times]:
        """The times of segments of these numbers of steps, on copies of the members.

        A first segment is not timed: it includes the transfer of the members to the plan's devices.
        """
        chunk, records, *shared = self._start()
        times = []
        for n in (1, *steps):
            start = self._clock()
            done = self._segment(chunk, records, *shared, np.int32(n))
            chunk, records, *_ = jax.block_until_ready(done)
            times.append(self._clock() - start)
        return times[1:]

    def enough(self) -> int:
        """The number of steps that take at least `PROBE` seconds."""
        most, steps = self._setting.trainer.eval_every, 1
        while steps < most:
            steps = min(4 * steps, most)
            one, several = self.seconds(1, steps)
            if (several - one)[WALL] > PROBE:
                break
        return steps

    def segment(self, steps: int) -> Times:
        """The times of a whole segment with validation, extrapolated from 1 and `steps` steps."""
        more = self._setting.trainer.eval_every - 1
        one, several = self.seconds(1, steps)
        whole: Times = one + np.maximum(several - one, 0.0) / max(steps - 1, 1) * more
        return whole
