"""Runs the groups of a sweep, alone or concurrently with other workers on the same folder."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments import build
from experiments import machine as machines
from experiments.groups import Group, Job, Sharing, shown
from experiments.messages import user_errors
from experiments.runner import candidates
from lth_jax import store as stores
from lth_jax.lottery import (
    Hooks,
    LevelEntry,
    MemberIndex,
    MemberTable,
    Programs,
    Progress,
    run_ladder,
    timeline,
)
from lth_jax.lottery.controls import described
from lth_jax.lottery.member_table import plan_at
from lth_jax.lottery.progress import Display
from lth_jax.lottery.running import (
    data_placement,
    device_notes,
    measure_plans,
    read_plans,
    with_widths,
)
from lth_jax.population import Plan, read_plan
from lth_jax.report.run_summary import summarize_run
from lth_jax.text import clock

WIDTHS = (16, 64)
"""Candidate chunk sizes for large populations: a level has several chunks, which workers share."""


class Worker:
    """A process, or a team of processes, that runs a sweep.

    Args:
      machine: the `machine` part of a config.
      sharing: built the groups.
      sweep: the folder of the sweep.
      environment: from `store.environment`, with the command.
      team: the processes.
      pilot: whether the runs are pilots of others.
    """

    def __init__(
        self,
        machine: ConfigDict,
        sharing: Sharing,
        sweep: stores.Sweep,
        environment: dict[str, Any],
        team: stores.Team = stores.ALONE,
        *,
        pilot: bool = False,
    ):
        self._machine, self._sharing, self._sweep = machine, sharing, sweep
        self._environment, self._team = environment, team
        self._store, self._pilot = stores.Store(machine.workdir, team), pilot

    def run(self, groups: Sequence[Group]) -> None:
        """Trains all groups: first those that no other worker trains, then the rest."""
        left = []
        for group in groups:
            self._sweep.append("groups", _planned_work(group))
        for group in groups:
            with self._sweep.claim(_name(group)) as free:
                if free:
                    self._climb(group)
                else:
                    left.append(group)
        for group in left:
            self._climb(group)

    def _climb(self, group: Group) -> None:
        programs = self._sharing.programs[group.program]
        measure = partial(planned, self._machine, group, programs)
        plan = self._sweep.once(f"plan-{group.program[:8]}", measure)
        name = _name(group)
        replans = self._sweep.records(f"replans-{name}")
        title = f"{self._sweep.path.name} {name}"
        plan = _with_widths(self._machine, plan, group)
        plans = read_plans(plan, replans)
        progress = self._machine.progress and self._team.first
        shown = Display(title, member_steps(group), progress)
        with shown as display, stores.on_signals() as stop:
            with user_errors():
                notes = device_notes(plans)
            for note in notes:
                display.say(note)
            run_ladder(
                [job.experiment for job in group.jobs],
                store=self._store,
                plans=plans,
                hooks=self._hooks(group, plan, replans, name, display, stop),
                programs=programs,
                save_seconds=self._machine.save_seconds,
            )

    def _hooks(
        self,
        group: Group,
        plan: dict[str, Any],
        replans: list[dict[str, Any]],
        name: str,
        display: Display,
        stop: stores.Stop,
    ) -> Hooks:
        entries: list[list[LevelEntry]] = [[] for _ in group.jobs]

        def check() -> None:
            stop.check(self._team)

        def on_progress(progress: Progress) -> None:
            self._sweep.append(f"metrics-{name}", _record(progress) | display.advance(progress))
            if progress.step < progress.stop:
                check()

        def on_node(i: int, entry: LevelEntry) -> None:
            entries[i].append(entry)
            display.done(entry.member_steps)
            check()

        def on_replan(level: int, plan: Plan) -> None:
            replans.append({"level": level, **plan._asdict()})
            self._sweep.append(f"replans-{name}", replans[-1])
            for listed in entries:
                void = [entry for entry in listed if entry.level == level]
                display.done(-sum(entry.member_steps for entry in void))
                listed[:] = [entry for entry in listed if entry.level != level]
            display.say(f"Out of memory: level {level} starts again with {plan.chunk} at a time.")

        def on_level(level: int) -> None:
            # Only now: after running out of memory, members of every cell are trained again.
            for job, keys, listed in zip(group.jobs, group.members.keys, entries, strict=True):
                if len(keys) == level + 1:
                    self._finish(job, listed, plan, replans)
                    display.say(f"finished after {display.spent()}: {shown(job.setting)}")

        return Hooks(on_progress, check, on_node, on_replan, on_level)

    def _finish(
        self,
        job: Job,
        entries: Sequence[LevelEntry],
        plan: dict[str, Any],
        replans: Sequence[dict[str, Any]],
    ) -> None:
        """Records a cell as a finished run."""
        experiment = job.config.experiment
        with stores.open_run(
            self._machine.workdir,
            name=experiment.name,
            config=experiment.to_dict(),
            env=self._environment | described(job.experiment.ladder.controls),
            identity=build.run_identity(job.experiment),
            wait=True,
            team=self._team,
            pilot=self._pilot,
        ) as run:
            if run.is_complete(self._store):  # finished by another worker or sweep
                return
            if run.plan is None:
                run.record_plan(plan)
                for change in replans:
                    run.add_replan(change)
            run.restart()
            for entry in entries:
                run.add(**entry._asdict())
            run.finish(self._team.on_leader(lambda: summarize_run(self._store, run.path)))


def _with_widths(machine: ConfigDict, plan: dict[str, Any], group: Group) -> dict[str, Any]:
    """The record of a plan with the chunks of a group's levels; a configured chunk is kept."""
    return with_widths(plan, [] if machine.chunk else sizes(group))


def planned(
    machine: ConfigDict, group: Group, programs: Programs | None = None, *, always: bool = False
) -> dict[str, Any]:
    """The plan of a group and its evidence: configured, or measured.

    Args:
      machine: the `machine` part of a config.
      group: the group.
      programs: the programs that will train.
      always: whether to measure a configured plan too.
    """
    planned, most = group.jobs[0].experiment, max(sizes(group))
    plans = candidates(machine, [w for w in WIDTHS if w <= most] or [most])
    measured = always or not (machine.chunk and machine.driver)
    plan, evidence = plans[0], list[dict[str, Any]]()
    if measured:
        with user_errors():
            plan, evidence = measure_plans(
                planned, sizes(group), plans, machines.plan_cache(machine), programs
            )
    return {**plan._asdict(), "evidence": evidence, "data": data_placement(planned.task)}


class Outlook(NamedTuple):
    """The expected cost of a group.

    Attributes:
      members: number of networks, without duplicates.
      missing: number of networks that are not in the store.
      plan: its plan.
      seconds: expected seconds for training the missing ones, padding included.
      bytes: the memory of its compiled program; None for the host driver.
    """

    members: int
    missing: int
    plan: Plan
    seconds: float
    bytes: int | None


def outlook(machine: ConfigDict, group: Group, plan: dict[str, Any], index: MemberIndex) -> Outlook:
    """The expected cost of a group, from its plan's evidence.

    Args:
      machine: the `machine` part of a config.
      group: the group.
      plan: a measured plan from `planned`.
      index: index of the store.
    """
    chosen = read_plan(plan)
    plans = read_plans(_with_widths(machine, plan, group), [])
    table = MemberTable([job.experiment for job in group.jobs], plans)
    missing = [[key for key in keys if not index.find(key)] for keys in table.levels]
    [measured] = [found for found in plan["evidence"] if read_plan(found) == chosen]
    chunks = [plan_at(plans, level).chunk for level in range(len(missing))]
    padded = [chunk * -(-len(keys) // chunk) for chunk, keys in zip(chunks, missing, strict=True)]
    steps = sum(n * length for n, length in zip(padded, _lengths(group), strict=True))
    return Outlook(
        members=sum(map(len, table.levels)),
        missing=sum(map(len, missing)),
        plan=chosen,
        seconds=1e-3 * measured["ms_per_member_step"] * steps,
        bytes=measured["bytes"],
    )


def describe(found: Outlook, group: Group) -> str:
    """An outlook in one line."""
    memory = "" if found.bytes is None else f"{found.bytes / 2**20:.3g} MiB, "
    return (
        f"{len(group.jobs)} cells, {found.members} members ({found.missing} to train), "
        f"{found.plan.chunk} at a time by {found.plan.driver}, "
        f"{memory}about {clock(found.seconds)}"
    )


def sizes(group: Group) -> list[int]:
    """The number of members of each level of a group."""
    return [len(level) for level in group.members.levels]


def member_steps(group: Group) -> list[int]:
    """The steps of all members of a group, by level."""
    return [size * length for size, length in zip(sizes(group), _lengths(group), strict=True)]


def _lengths(group: Group) -> list[int]:
    """The steps of each level."""
    trunk, above = timeline(group.jobs[0].experiment.ladder)
    levels = len(group.members.levels)
    return [trunk.stop - trunk.start] + [above.stop - above.start] * (levels - 1)


def _name(group: Group) -> str:
    return f"group-{group.key[:8]}"


def _planned_work(group: Group) -> dict[str, Any]:
    """A line of the list of groups: what `lth watch` adds up."""
    runs = [job.run for job in group.jobs]
    return {"group": _name(group), "runs": runs, "work": sum(member_steps(group))}


def _record(progress: Progress) -> dict[str, Any]:
    """One line of the metrics of a group."""
    n = len(progress.specs)
    return {
        "level": progress.level,
        "step": progress.step,
        "seconds": progress.seconds,
        "densities": list(progress.densities),
        "members": [[spec.key[:8], *spec.label] for spec in progress.specs],
        **{name: value[:n].tolist() for name, value in progress.info.items()},
    }
