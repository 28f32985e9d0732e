"""Runs one experiment: opens its run folder, climbs its ladder, and draws its report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich
from ml_collections import ConfigDict

from experiments import build
from experiments import machine as machines
from experiments.flags import UserError
from experiments.live import describe
from experiments.progress import Display
from lth_jax import store as stores
from lth_jax.lottery import (
    Cell,
    Entry,
    Hooks,
    Lab,
    Ladder,
    Programs,
    Progress,
    check_ladder,
    climb,
    level_sizes,
)
from lth_jax.lottery.starts import Starts
from lth_jax.report import level_table, read_run, write_report
from lth_jax.training import DRIVERS, Plan, candidate_plans, choose_plan, widths_for

# The rooms whose code decides the numbers of a node.
SOURCES = tuple(
    f"lth_jax.{room}"
    for room in ("training", "lottery", "pruning", "structure", "models", "data", "trees")
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
    build.check(experiment)
    machines.prepare(machine)
    machines.note_precision(experiment.train.compute_dtype)
    env = stores.environment()
    try:
        loaded = build.dataset(config)
        lab, ladder = _setting(experiment, loaded)
        with (
            stores.on_signals() as stop,
            stores.open_run(
                machine.workdir,
                name=experiment.name,
                config=experiment.to_dict(),
                env=env | {"command": list(command)},
                wait=machine.wait,
            ) as run,
        ):
            store = stores.Store(machine.workdir)
            if run.status == "finished":
                print(f"{run.path.name} is finished already; here is its result.")
            else:
                source = stores.source_fingerprint(*SOURCES)
                identity = build.identity(experiment, loaded.fingerprint, env, source)
                _climb(machine, Cell(lab, ladder, identity), run, store, stop)
                run.finish()
            describe(store, run.path, lab)
            page = write_report(store, run)
            rich.print(level_table(read_run(store, run.path)))
            print(f"page: {page}")
            return run.path
    except (stores.StoreError, OSError) as error:
        raise UserError(str(error)) from error


def _setting(experiment: ConfigDict, loaded: Any) -> tuple[Lab, Ladder]:
    try:
        lab = build.lab(experiment, loaded)
        ladder = build.ladder(experiment, lab)
        check_ladder(lab, ladder)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error
    return lab, ladder


def _climb(
    machine: ConfigDict, cell: Cell, run: stores.Run, store: stores.Store, stop: stores.Stop
) -> None:
    lab, ladder, _ = cell
    sizes = level_sizes(lab, ladder)
    lengths = [ladder.stop] + [ladder.stop - ladder.rewind.step] * len(ladder.counts)
    work = [n * steps for n, steps in zip(sizes, lengths, strict=True)]
    with Display(run.path.name, work, machine.progress) as display:
        plans = recorded_plans(machine, run, cell)
        run.clear()
        climb([cell], store=store, plans=plans, hooks=_hooks(run, display, stop))
        display.say(f"{sum(sizes)} members in {display.spent()}; {machines.compilations()}")


def _hooks(run: stores.Run, display: Display, stop: stores.Stop) -> Hooks:
    def on_progress(progress: Progress) -> None:
        run.log(_record(progress))
        display.advance(progress)
        if progress.step < progress.stop:
            stop.check()

    def on_node(cell: int, entry: Entry) -> None:
        run.add(**entry._asdict())
        display.node(entry)
        stop.check()

    def on_replan(level: int, plan: Plan) -> None:
        run.add_replan({"level": level, **plan._asdict()})
        display.say(f"Out of memory: level {level} starts again with {plan.chunk} at a time.")

    return Hooks(on_progress, on_node, on_replan)


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
        run.record_plan({**plan._asdict(), "evidence": evidence})
    return [(0, plan_of(run.plan)), *((r["level"], plan_of(r)) for r in run.replans)]


def plan_of(recorded: dict[str, Any]) -> Plan:
    """The plan in a record that may hold more."""
    return Plan(**{name: recorded[name] for name in Plan._fields})


def _choose(machine: ConfigDict, cell: Cell) -> tuple[Plan, list[dict[str, Any]]]:
    sizes = level_sizes(cell.lab, cell.ladder)
    plans = candidates(machine, widths_for(sizes))
    if machine.chunk and machine.driver:
        return plans[0], []
    return measure_plans(machine, cell, sizes, plans)


def candidates(machine: ConfigDict, widths: Sequence[int]) -> list[Plan]:
    """The plans to measure for chunks of these widths; the first is what a config tells."""
    if machine.chunk and machine.driver:
        return [Plan(machine.chunk, machine.driver, machine.devices or 1)]
    drivers = [machine.driver] if machine.driver else DRIVERS
    widths = [machine.chunk] if machine.chunk else widths
    return candidate_plans(widths, machines.devices(machine, max(widths)), drivers)


def measure_plans(
    machine: ConfigDict, cell: Cell, sizes: Sequence[int], candidates: Sequence[Plan]
) -> tuple[Plan, list[dict[str, Any]]]:
    """The cheapest plan for levels of these sizes, measured on a cell's dense networks."""
    lab = cell.lab
    members = Starts([cell], Programs(lab.trainer)).dense()
    try:
        return choose_plan(
            lab.trainer,
            members,
            lab.data.train,
            lab.data.validation,
            sizes,
            candidates=candidates,
            learnt=machines.learnt(machine),
        )
    except ValueError as error:
        raise UserError(str(error)) from error
