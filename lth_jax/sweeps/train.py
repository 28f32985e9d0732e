"""Trains jobs, alone or concurrently with other workers on the same folder."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lth_jax import store as stores
from lth_jax.lottery import Hooks, LevelEntry, Programs, Progress, run_ladder
from lth_jax.lottery.controls import described
from lth_jax.lottery.progress import Display
from lth_jax.lottery.running import device_notes, read_plans, run_identity
from lth_jax.population import Plan
from lth_jax.report.run_summary import summarize_run
from lth_jax.store.sweeps import SWEEP
from lth_jax.sweeps.jobs import COLUMNS, Group, Job, groups, shown
from lth_jax.sweeps.plans import PlanOptions, narrow, plan_errors, planned


def train(
    root: str | Path,
    name: str,
    jobs: Sequence[Job],
    *,
    options: PlanOptions = PlanOptions(),  # noqa: B008  immutable
    programs: Mapping[str, Programs] | None = None,
    origin: Mapping[str, Any] = MappingProxyType({}),
    on_start: Callable[[list[Job], list[Group]], None] = lambda left, todo: None,
    pilot: bool = False,
    progress: bool = True,
    save_seconds: float = stores.SAVE_SECONDS,
) -> stores.Sweep:
    """Trains the unfinished jobs as populations; each becomes a run of the store.

    The same call continues an interrupted one. Calls in several processes share the work. Jobs with
    damaged files or nodes count as unfinished.

    Args:
      root: the folder of the store.
      name: first part of the name of the sweep's folder.
      jobs: the jobs, with different settings. No name of a setting is in `COLUMNS`.
      options: the configured options of the plans.
      programs: compiled programs by the key of the training program, if shared.
      origin: facts that are recorded with the environment: `command`, the command line that the
        report shows, and `task`, by which `lth export` makes the task again.
      on_start: `(unfinished jobs, their groups) -> None`, called in process 0 before training.
      pilot: whether the runs are pilots of others, which `lth ls` omits.
      progress: whether to show a progress bar.
      save_seconds: seconds of training that a kill may repeat.

    Returns:
      The finished sweep; `report.sweeps.read_sweep` reads its cells.

    Raises:
      ValueError: a name is malformed, or a setting has the name of another column of the sweep's
        table.
      PlanError: no plan fits the devices or the memory.
      store.Interrupted: a signal arrived; progress is saved.
    """
    for named in (name, *(job.name for job in jobs)):
        stores.check_folder_name(named)
    if taken := sorted({name for job in jobs for name in job.setting} & set(COLUMNS)):
        raise ValueError(
            f"`setting` of a job has the name '{taken[0]}', which is another column of the sweep's "
            f"table; the columns are {', '.join(COLUMNS)}."
        )
    team = stores.everyone()
    record = {"cells": [{"setting": job.setting, "run": job.run} for job in jobs]}
    identities = [job.experiment.identity for job in jobs]
    team.check_same(cells=record, identities=identities, plan=options.configured)
    sweep = stores.open_sweep(root, name=name, config=record, team=team)
    done = team.on_leader(lambda: finished(root, jobs))
    left = [job for job, is_done in zip(jobs, done, strict=True) if not is_done]
    todo = groups(left)
    team.on_leader(lambda: on_start(left, todo))
    _Worker(
        sweep=sweep,
        store=stores.Store(root, team),
        options=options,
        programs=dict(programs or {}),
        environment=stores.environment() | dict(origin),
        pilot=pilot,
        progress=progress and team.first,
        save_seconds=save_seconds,
    ).run(todo)
    return sweep


def finished(root: str | Path, jobs: Sequence[Job]) -> list[bool]:
    """Whether each job is finished, with all its nodes; shared nodes are checked once.

    Args:
      root: the folder of the store, which need not exist.
      jobs: the jobs.

    Returns:
      One bool per job, in order: `store.is_complete` of its run.

    Raises:
      StoreError, OSError: as `store.is_complete`.
      ValueError, TypeError: the configuration of a job is malformed.

    >>> import flax.linen as nn, jax, numpy as np, optax
    >>> from lth_jax.lottery import Seeds, Task, imp, make_experiment, make_ladder
    >>> data = np.zeros((40, 4)), np.arange(40) % 2
    >>> task = Task(nn.Dense(2), data, optimizer=optax.sgd(0.1), batch_size=4, steps=20)
    >>> ladder = make_ladder(task, imp(levels=0))
    >>> experiment = make_experiment(task, Seeds(jax.random.key(0), 2), ladder)
    >>> finished("nowhere", [Job({}, "demo", {}, experiment)])
    [False]
    """
    store, folder = stores.Store(root), Path(root)
    problem = functools.cache(store.problem)
    return [stores.is_complete(store, folder / job.run, problem=problem) for job in jobs]


@dataclasses.dataclass(frozen=True)
class _Worker:
    """A process, or a team of processes, that trains groups."""

    sweep: stores.Sweep
    store: stores.Store
    options: PlanOptions
    programs: dict[str, Programs]
    environment: dict[str, Any]
    pilot: bool
    progress: bool
    save_seconds: float

    def run(self, groups: Sequence[Group]) -> None:
        """Trains all groups: first those that no other worker trains, then the rest."""
        left = []
        for group in groups:
            self.sweep.append("groups", _planned_work(group))
        for group in groups:
            with self.sweep.claim(group.name) as free:
                if free:
                    self._train(group)
                else:
                    left.append(group)
        for group in left:
            self._train(group)

    def _train(self, group: Group) -> None:
        own = group.jobs[0].experiment.task.trainer
        programs = self.programs.setdefault(group.program, Programs(own))
        measure = functools.partial(planned, group, self.options, programs)
        plan = self.sweep.once(f"plan-{group.program[:8]}", measure)
        replans = self.sweep.records(f"replans-{group.name}")
        plan = narrow(plan, group)
        plans = read_plans(plan, replans)
        title = f"{self.sweep.path.name} {group.name}"
        shown = Display(title, group.member_steps, self.progress)
        with shown as display, stores.on_signals() as stop:
            with plan_errors():
                notes = device_notes(plans)
            for note in notes:
                display.say(note)
            run_ladder(
                [job.experiment for job in group.jobs],
                store=self.store,
                plans=plans,
                hooks=self._hooks(group, plan, replans, display, stop),
                programs=programs,
                save_seconds=self.save_seconds,
            )

    def _hooks(
        self,
        group: Group,
        plan: dict[str, Any],
        replans: list[dict[str, Any]],
        display: Display,
        stop: stores.Stop,
    ) -> Hooks:
        entries: list[list[LevelEntry]] = [[] for _ in group.jobs]

        def check() -> None:
            stop.check(self.store.team)

        def on_progress(progress: Progress) -> None:
            record = _record(progress) | display.advance(progress)
            self.sweep.append(f"metrics-{group.name}", record)
            if progress.step < progress.stop:
                check()

        def on_node(i: int, entry: LevelEntry) -> None:
            entries[i].append(entry)
            display.done(entry.member_steps)
            check()

        def on_replan(level: int, plan: Plan) -> None:
            replans.append({"level": level, **plan._asdict()})
            self.sweep.append(f"replans-{group.name}", replans[-1])
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
        """Records a job as a finished run."""
        env = self.environment | {SWEEP: self.sweep.path.name}
        with stores.open_run(
            self.store.root,
            name=job.name,
            config=job.config,
            env=env | described(job.experiment.ladder.controls),
            identity=run_identity(job.experiment),
            wait=True,
            team=self.store.team,
            pilot=self.pilot,
        ) as run:
            if run.is_complete(self.store):  # finished by another worker or sweep
                return
            if run.plan is None:
                run.record_plan(plan)
                for change in replans:
                    run.add_replan(change)
            run.restart()
            for entry in entries:
                run.add(**entry._asdict())
            run.finish(self.store.team.on_leader(lambda: summarize_run(self.store, run.path)))


def _planned_work(group: Group) -> dict[str, Any]:
    """A line of the list of groups: what `lth watch` adds up."""
    runs = [job.run for job in group.jobs]
    return {"group": group.name, "runs": runs, "work": sum(group.member_steps)}


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
