"""Runs one experiment: opens its run folder, climbs its ladder, and draws its report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import rich
from ml_collections import ConfigDict

from experiments import build, checks
from experiments import machine as machines
from experiments.flags import UserError
from experiments.live_units import describe
from experiments.messages import user_errors
from experiments.progress import Display
from lth_jax import store as stores
from lth_jax.lottery import (
    Entry,
    Experiment,
    Hooks,
    Programs,
    Progress,
    Task,
    check_ladder,
    level_sizes,
    run_ladder,
)
from lth_jax.lottery.initial_states import InitialStates
from lth_jax.population import (
    DRIVERS,
    OnHost,
    Plan,
    candidate_plans,
    choose_plan,
    fitted,
    read_plan,
    widths_for,
)
from lth_jax.report import level_table, read_run, write_report


def run(config: ConfigDict, command: Sequence[str]) -> Path:
    """Runs, continues, or only shows the experiment of a config.

    Args:
      config: `experiment` decides the numbers, `machine` where and how they are made.
      command: how to run it again, for the report.

    Returns:
      The run's folder.

    Raises:
      UserError: for everything the user can mend, in one sentence, before any training.
      store.Interrupted: when a signal asked to stop; what was trained is saved.
    """
    experiment, machine = config.experiment, config.machine
    checks.check(experiment)
    machines.prepare(machine)
    team, env = stores.everyone(), stores.environment()
    if team.first:
        machines.note_precision(experiment.train.compute_dtype)
    try:
        planned = team.each(lambda: _experiment(config))
        plan = configured_plan(machine) | {"data": data_on(planned.task)}
        team.check_same(config=experiment.to_dict(), identity=planned.identity, plan=plan)
        with stores.open_run(
            machine.workdir,
            name=experiment.name,
            config=experiment.to_dict(),
            env=env | {"command": list(command)},
            identity=build.run_identity(planned),
            wait=machine.wait,
            team=team,
        ) as run:
            store = stores.Store(machine.workdir, team)
            done = run.is_complete(store)
            if not done:
                _run_ladder(machine, planned, run, store)
                run.finish()
            team.on_leader(lambda: _show(machine, run.path, planned.task, done))
            return run.path
    except (stores.StoreError, OSError) as error:
        raise UserError(str(error)) from error


def _experiment(config: ConfigDict) -> Experiment:
    """The checked experiment of a config."""
    loaded = build.dataset(config)
    checks.check_network(config, loaded)
    with user_errors():
        planned = build.experiment_of(config.experiment, loaded)
        check_ladder(planned.seeds, planned.ladder)
    return planned


def _show(machine: ConfigDict, path: Path, task: Task, was_done: bool) -> None:
    """Writes the page of a finished run, and prints its table."""
    if was_done:
        print(f"{path.name} is finished already; here is its result.")
    store = stores.Store(machine.workdir)
    describe(store, path, task)
    page = write_report(store, stores.find_run(machine.workdir, str(path)))
    rich.print(level_table(read_run(store, path)))
    print(f"page: {page}")


def _run_ladder(
    machine: ConfigDict, planned: Experiment, run: stores.Run, store: stores.Store
) -> None:
    ladder = planned.ladder
    sizes = level_sizes(planned.seeds, ladder)
    lengths = [ladder.stop] + [ladder.stop - ladder.rewind.step] * len(ladder.counts)
    work = [n * steps for n, steps in zip(sizes, lengths, strict=True)]
    with Display(run.path.name, work, machine.progress and store.team.first) as display:
        plans = recorded_plans(machine, run, planned)
        for note in device_notes(plans):
            display.say(note)
        run.restart()
        with stores.on_signals() as stop:
            hooks = _hooks(run, display, stop, store.team)
            seconds = machine.save_seconds
            run_ladder([planned], store=store, plans=plans, hooks=hooks, save_seconds=seconds)
        display.say(f"{sum(sizes)} members in {display.spent()}; {machines.compilations()}")


def _hooks(run: stores.Run, display: Display, stop: stores.Stop, team: stores.Team) -> Hooks:
    def on_progress(progress: Progress) -> None:
        run.log(_record(progress))
        display.advance(progress)
        if progress.step < progress.stop:
            stop.check(team)

    def on_node(i: int, entry: Entry) -> None:
        run.add(**entry._asdict())
        display.node(entry)
        stop.check(team)

    def on_replan(level: int, plan: Plan) -> None:
        run.add_replan({"level": level, **plan._asdict()})
        display.done(-sum(entry["member_steps"] for entry in run.drop(level)))
        display.say(f"Out of memory: level {level} starts again with {plan.chunk} at a time.")

    return Hooks(on_progress, lambda: stop.check(team), on_node, on_replan)


def _record(progress: Progress) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    n = len(progress.specs)
    return {
        "level": progress.level,
        "density": progress.densities[0],
        "step": progress.step,
        "seconds": progress.seconds,
        "members": [list(spec.label) for spec in progress.specs],
        **{name: value[:n].tolist() for name, value in progress.info.items()},
    }


def recorded_plans(
    machine: ConfigDict, run: stores.Run, planned: Experiment
) -> Sequence[tuple[int, Plan]]:
    """The plan this run began with, chosen and written down at its first start, and its changes."""
    if run.plan is None:
        plan, evidence = _choose(machine, planned)
        run.record_plan({**plan._asdict(), "evidence": evidence, "data": data_on(planned.task)})
    return [(0, read_plan(run.plan)), *((r["level"], read_plan(r)) for r in run.replans)]


def device_notes(plans: Sequence[tuple[int, Plan]]) -> list[str]:
    """A sentence for each plan that was made for devices which are not there.

    Raises:
      UserError: a plan cannot run on those that are.
    """
    notes = []
    for level, plan in plans:
        with user_errors():
            here = fitted(plan, jax.device_count(), jax.process_count())
        if here != plan:
            notes.append(
                f"From level {level} on the plan has {plan.devices} devices; here its members "
                f"train on {here.devices}, {here.vmapped} at once on each."
            )
    return notes


def configured_plan(machine: ConfigDict) -> dict[str, Any]:
    """What a config says of the plan."""
    return {name: machine[name] for name in ("chunk", "driver", "devices")}


def data_on(task: Task) -> str:
    """Where training reads its data."""
    return "host" if isinstance(task.data.train, OnHost) else "device"


def _choose(machine: ConfigDict, planned: Experiment) -> tuple[Plan, list[dict[str, Any]]]:
    sizes = level_sizes(planned.seeds, planned.ladder)
    plans = candidates(machine, widths_for(sizes))
    if machine.chunk and machine.driver:
        return plans[0], []
    return measure_plans(machine, planned, sizes, plans)


def candidates(machine: ConfigDict, widths: Sequence[int]) -> list[Plan]:
    """The plans to measure for chunks of these widths; the first is what a config tells."""
    if machine.chunk and machine.driver:
        return [Plan(machine.chunk, machine.driver, machine.devices or jax.process_count())]
    drivers = [machine.driver] if machine.driver else DRIVERS
    widths = [machine.chunk] if machine.chunk else widths
    devices = machines.devices(machine, max(widths))
    return candidate_plans(widths, devices, drivers, jax.process_count())


def measure_plans(
    machine: ConfigDict, planned: Experiment, sizes: Sequence[int], candidates: Sequence[Plan]
) -> tuple[Plan, list[dict[str, Any]]]:
    """The cheapest plan for levels of these sizes, measured on an experiment's dense networks."""
    task = planned.task
    members = InitialStates([planned], Programs(task.trainer)).dense()
    with user_errors():
        return choose_plan(
            task.trainer,
            members,
            task.data.train,
            task.data.validation,
            sizes,
            candidates=candidates,
            steps=planned.ladder.stop,
            plan_cache=machines.plan_cache(machine),
            team=stores.everyone(),
        )
