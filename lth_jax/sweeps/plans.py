"""Plans of populations: configured or measured, and what they will cost."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from lth_jax.lottery import MemberIndex, MemberTable, Programs
from lth_jax.lottery.member_table import plan_at
from lth_jax.lottery.running import data_placement, measure_plans, read_plans, with_widths
from lth_jax.population import DRIVERS, Plan, candidate_plans, read_plan
from lth_jax.population.placement import check_plan
from lth_jax.sweeps.jobs import Group
from lth_jax.text import clock, counted

WIDTHS = (16, 64)
"""Candidate chunk sizes for large populations: a level has several chunks, which workers share."""


class PlanError(ValueError):
    """No plan fits the devices or the memory."""


@contextlib.contextmanager
def plan_errors() -> Iterator[None]:
    """Context in which a `ValueError` about plans becomes a `PlanError`."""
    try:
        yield
    except ValueError as error:
        raise PlanError(str(error)) from error


class PlanOptions(NamedTuple):
    """The configured options of a plan; the others are measured.

    Attributes:
      chunk: members that train at a time; 0: measured.
      driver: a name in `population.DRIVERS`; empty: measured.
      devices: number of devices; 0: at most one per member.
      cache: a folder that caches choices of plans.
    """

    chunk: int = 0
    driver: str = ""
    devices: int = 0
    cache: Path | None = None

    @property
    def configured(self) -> dict[str, Any]:
        """The options that determine the plan."""
        return {"chunk": self.chunk, "driver": self.driver, "devices": self.devices}

    def candidates(self, widths: Sequence[int]) -> list[Plan]:
        """The candidate plans for chunks of these widths, or the plan that is set.

        >>> PlanOptions(4, "scan", 1).candidates([16])
        [Plan(chunk=4, driver='scan', devices=1, vmapped=None)]
        """
        processes = jax.process_count()
        if self.chunk and self.driver:
            return [Plan(self.chunk, self.driver, self.devices or processes)]
        drivers = [self.driver] if self.driver else DRIVERS
        widths = [self.chunk] if self.chunk else widths
        of_each = min(jax.local_device_count(), -(-max(widths) // processes))
        return candidate_plans(widths, self.devices or processes * of_each, drivers, processes)


def planned(
    group: Group,
    options: PlanOptions,
    programs: Programs | None = None,
    *,
    always: bool = False,
    on_start: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """The plan of a group and its evidence, as a record: configured, or measured.

    Args:
      group: the group.
      options: the configured options.
      programs: the programs that will train.
      always: whether to measure a configured plan too.
      on_start: called before a measurement; not if the choice is cached.

    Returns:
      The fields of the `population.Plan`; `evidence`, one record per measured plan, as from
      `population.choose_plan`; `data`, `"host"` or `"device"`; and `is_chunk_set`, whether the
      chunk is configured.

    Raises:
      PlanError: no plan fits the devices or the memory.

    >>> import flax.linen as nn, numpy as np, optax
    >>> from lth_jax.lottery import Seeds, Task, imp, make_experiment, make_ladder
    >>> data = np.zeros((40, 4)), np.arange(40) % 2
    >>> task = Task(nn.Dense(2), data, optimizer=optax.sgd(0.1), batch_size=4, steps=20)
    >>> ladder = make_ladder(task, imp(levels=0))
    >>> experiment = make_experiment(task, Seeds(jax.random.key(0), 2), ladder)
    >>> from lth_jax.sweeps import Job, groups
    >>> [group] = groups([Job({}, "demo", {}, experiment)])
    >>> found = planned(group, PlanOptions(chunk=2, driver="scan", devices=1))
    >>> found["chunk"], found["evidence"], found["data"], found["is_chunk_set"]
    (2, [], 'device', True)
    """
    experiment, most = group.jobs[0].experiment, max(group.sizes)
    plans = options.candidates([w for w in WIDTHS if w <= most] or [most])
    plan, evidence = plans[0], list[dict[str, Any]]()
    with plan_errors():
        check_plan(plan)
        if always or not (options.chunk and options.driver):
            measured = (experiment, group.sizes, plans, options.cache, programs)
            plan, evidence = measure_plans(*measured, on_start=on_start)
    found = {**plan._asdict(), "evidence": evidence, "data": data_placement(experiment.task)}
    return found | {"is_chunk_set": bool(options.chunk)}


def narrow(plan: dict[str, Any], group: Group) -> dict[str, Any]:
    """The record of a plan with the chunks of a group's levels; a configured chunk is kept.

    A sweep keeps its first plan, whatever the options of later calls are.
    """
    return with_widths(plan, [] if plan["is_chunk_set"] else group.sizes)


class Outlook(NamedTuple):
    """The expected cost of a group.

    Attributes:
      jobs: number of jobs.
      members: number of networks, without duplicates.
      missing: number of networks that are not in the store.
      plan: its plan.
      seconds: expected seconds for training the missing ones, padding included.
      bytes: the memory of its compiled program; None for the host driver.
    """

    jobs: int
    members: int
    missing: int
    plan: Plan
    seconds: float
    bytes: int | None

    def __str__(self) -> str:
        memory = "" if self.bytes is None else f"{self.bytes / 2**20:.3g} MiB, "
        return (
            f"{counted(self.jobs, 'cell')}, {counted(self.members, 'member')} "
            f"({self.missing:,} to train), {self.plan.chunk} at a time by {self.plan.driver}, "
            f"{memory}about {clock(self.seconds)}"
        )


def outlook(group: Group, plan: dict[str, Any], index: MemberIndex) -> Outlook:
    """The expected cost of a group, from its plan's evidence.

    Args:
      group: the group.
      plan: a measured plan from `planned`.
      index: index of the store.

    Returns:
      The numbers of jobs and members, the plan, seconds, and bytes.

    Raises:
      ValueError: `plan` was not measured, so that its evidence lacks it.

    >>> import tempfile
    >>> import flax.linen as nn, numpy as np, optax
    >>> from lth_jax.lottery import Seeds, Task, imp, make_experiment, make_ladder
    >>> data = np.zeros((40, 4)), np.arange(40) % 2
    >>> task = Task(nn.Dense(2), data, optimizer=optax.sgd(0.1), batch_size=4, steps=20)
    >>> ladder = make_ladder(task, imp(levels=0))
    >>> experiment = make_experiment(task, Seeds(jax.random.key(0), 2), ladder)
    >>> from lth_jax.store import Store
    >>> from lth_jax.sweeps import Job, groups
    >>> [group] = groups([Job({}, "demo", {}, experiment)])
    >>> plan = planned(group, PlanOptions(chunk=2, driver="scan", devices=1))
    >>> plan["evidence"] = [{**plan, "ms_per_member_step": 500.0, "bytes": 2**20}]
    >>> print(outlook(group, plan, MemberIndex(Store(tempfile.mkdtemp()))))
    1 cell, 2 members (2 to train), 2 at a time by scan, 1 MiB, about 0:20
    """
    chosen, plans = read_plan(plan), read_plans(narrow(plan, group), [])
    table = MemberTable([job.experiment for job in group.jobs], plans)
    missing = [[key for key in keys if not index.find(key)] for keys in table.levels]
    [measured] = [found for found in plan["evidence"] if read_plan(found) == chosen]
    chunks = [plan_at(plans, level).chunk for level in range(len(missing))]
    padded = [chunk * -(-len(keys) // chunk) for chunk, keys in zip(chunks, missing, strict=True)]
    steps = sum(n * length for n, length in zip(padded, group.lengths, strict=True))
    return Outlook(
        jobs=len(group.jobs),
        members=sum(map(len, table.levels)),
        missing=sum(map(len, missing)),
        plan=chosen,
        seconds=1e-3 * measured["ms_per_member_step"] * steps,
        bytes=measured["bytes"],
    )
