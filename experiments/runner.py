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
from experiments.live import describe
from experiments.messages import user_errors
from experiments.progress import Display
from lth_jax import store as stores
from lth_jax.lottery import (
    Cell,
    Entry,
    Hooks,
    Lab,
    Programs,
    Progress,
    check_ladder,
    climb,
    level_sizes,
)
from lth_jax.lottery.starts import Starts
from lth_jax.report import level_table, read_run, write_report
from lth_jax.training import (
    DRIVERS,
    OnHost,
    Plan,
    candidate_plans,
    choose_plan,
    fitted,
    read_plan,
    widths_for,
)


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
        cell = team.each(lambda: _cell(config))
        plan = told(machine) | {"data": data_on(cell.lab)}
        team.check_same(config=experiment.to_dict(), identity=cell.identity, plan=plan)
        with stores.open_run(
            machine.workdir,
            name=experiment.name,
            config=experiment.to_dict(),
            env=env | {"command": list(command)},
            identity=build.run_identity(cell),
            wait=machine.wait,
            team=team,
        ) as run:
            store = stores.Store(machine.workdir, team)
            done = run.is_complete(store)
            if not done:
                _climb(machine, cell, run, store)
                run.finish()
            team.from_first(lambda: _show(machine, run.path, cell.lab, done))
            return run.path
    except (stores.StoreError, OSError) as error:
        raise UserError(str(error)) from error


def _cell(config: ConfigDict) -> Cell:
    """What to train with, what to do, and what decides its numbers."""
    loaded = build.dataset(config)
    checks.check_network(config, loaded)
    with user_errors():
        cell = build.cell(config.experiment, loaded)
        check_ladder(cell.lab, cell.ladder)
    return cell


def _show(machine: ConfigDict, path: Path, lab: Lab, was_done: bool) -> None:
    """Writes the page of a finished run, and prints its table."""
    if was_done:
        print(f"{path.name} is finished already; here is its result.")
    store = stores.Store(machine.workdir)
    describe(store, path, lab)
    page = write_report(store, stores.find_run(machine.workdir, str(path)))
    rich.print(level_table(read_run(store, path)))
    print(f"page: {page}")


def _climb(machine: ConfigDict, cell: Cell, run: stores.Run, store: stores.Store) -> None:
    lab, ladder, _ = cell
    sizes = level_sizes(lab, ladder)
    lengths = [ladder.stop] + [ladder.stop - ladder.rewind.step] * len(ladder.counts)
    work = [n * steps for n, steps in zip(sizes, lengths, strict=True)]
    with Display(run.path.name, work, machine.progress and store.team.first) as display:
        plans = recorded_plans(machine, run, cell)
        for note in elsewhere(plans):
            display.say(note)
        run.restart()
        with stores.on_signals() as stop:
            hooks = _hooks(run, display, stop, store.team)
            seconds = machine.save_seconds
            climb([cell], store=store, plans=plans, hooks=hooks, save_seconds=seconds)
        display.say(f"{sum(sizes)} members in {display.spent()}; {machines.compilations()}")


def _hooks(run: stores.Run, display: Display, stop: stores.Stop, team: stores.Team) -> Hooks:
    def on_progress(progress: Progress) -> None:
        run.log(_record(progress))
        display.advance(progress)
        if progress.step < progress.stop:
            stop.check(team)

    def on_node(cell: int, entry: Entry) -> None:
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
    n = len(progress.entrants)
    return {
        "level": progress.level,
        "density": progress.densities[0],
        "step": progress.step,
        "seconds": progress.seconds,
        "members": [list(entrant.label) for entrant in progress.entrants],
        **{name: value[:n].tolist() for name, value in progress.info.items()},
    }


def recorded_plans(machine: ConfigDict, run: stores.Run, cell: Cell) -> Sequence[tuple[int, Plan]]:
    """The plan this run began with, chosen and written down at its first start, and its changes."""
    if run.plan is None:
        plan, evidence = _choose(machine, cell)
        run.record_plan({**plan._asdict(), "evidence": evidence, "data": data_on(cell.lab)})
    return [(0, read_plan(run.plan)), *((r["level"], read_plan(r)) for r in run.replans)]


def elsewhere(plans: Sequence[tuple[int, Plan]]) -> list[str]:
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


def told(machine: ConfigDict) -> dict[str, Any]:
    """What a config says of the plan."""
    return {name: machine[name] for name in ("chunk", "driver", "devices")}


def data_on(lab: Lab) -> str:
    """Where training reads its data."""
    return "host" if isinstance(lab.data.train, OnHost) else "device"


def _choose(machine: ConfigDict, cell: Cell) -> tuple[Plan, list[dict[str, Any]]]:
    sizes = level_sizes(cell.lab, cell.ladder)
    plans = candidates(machine, widths_for(sizes))
    if machine.chunk and machine.driver:
        return plans[0], []
    return measure_plans(machine, cell, sizes, plans)


def candidates(machine: ConfigDict, widths: Sequence[int]) -> list[Plan]:
    """The plans to measure for chunks of these widths; the first is what a config tells."""
    if machine.chunk and machine.driver:
        return [Plan(machine.chunk, machine.driver, machine.devices or jax.process_count())]
    drivers = [machine.driver] if machine.driver else DRIVERS
    widths = [machine.chunk] if machine.chunk else widths
    devices = machines.devices(machine, max(widths))
    return candidate_plans(widths, devices, drivers, jax.process_count())


def measure_plans(
    machine: ConfigDict, cell: Cell, sizes: Sequence[int], candidates: Sequence[Plan]
) -> tuple[Plan, list[dict[str, Any]]]:
    """The cheapest plan for levels of these sizes, measured on a cell's dense networks."""
    lab = cell.lab
    members = Starts([cell], Programs(lab.trainer)).dense()
    with user_errors():
        return choose_plan(
            lab.trainer,
            members,
            lab.data.train,
            lab.data.validation,
            sizes,
            candidates=candidates,
            steps=cell.ladder.stop,
            learnt=machines.learnt(machine),
            team=stores.everyone(),
        )
