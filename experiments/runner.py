"""Runs one experiment: opens its run folder, climbs its ladder, and draws its report."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import rich
from ml_collections import ConfigDict

from experiments import build
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
from lth_jax.training.population import DRIVERS, Plan, choose_plan

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
    check_machine(machine)
    if machine.compilation_cache:
        keep_compiled_programs()
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


def keep_compiled_programs() -> None:
    """Lets JAX keep compiled programs in a folder of the user's, apart for each kind of CPU."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kind = stores.content_key([jax.__version__, jax.devices()[0].device_kind, _cpu_flags()])[:8]
    jax.config.update("jax_compilation_cache_dir", str(home / "lth_jax" / f"compiled-{kind}"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _cpu_flags() -> str:
    """What the CPU can do, where the system tells: a program compiled for more would crash."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def check_machine(machine: ConfigDict) -> None:
    """Raises `UserError` for a field of the machine that cannot be right."""
    if machine.driver and machine.driver not in DRIVERS:
        raise UserError(f"`machine.driver` is '{machine.driver}'; it must be one of {DRIVERS}.")
    if machine.chunk < 0:
        raise UserError(f"`machine.chunk` is {machine.chunk}; it must be 0 (measured) or more.")


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
        display.say(f"{sum(sizes)} members in {display.spent()}")


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
    first = (0, Plan(run.plan["chunk"], run.plan["driver"]))
    return [first, *((r["level"], Plan(r["chunk"], r["driver"])) for r in run.replans)]


def _choose(machine: ConfigDict, cell: Cell) -> tuple[Plan, list[dict[str, Any]]]:
    if machine.chunk and machine.driver:
        return Plan(machine.chunk, machine.driver), []
    sizes = level_sizes(cell.lab, cell.ladder)
    return measure_plans(cell, sizes, candidates(machine, {1, min(sizes), max(sizes)}))


def candidates(machine: ConfigDict, widths: Iterable[int]) -> list[Plan]:
    """The plans to measure: these widths by both drivers, unless the config says which."""
    drivers = [machine.driver] if machine.driver else DRIVERS
    widths = {machine.chunk} if machine.chunk else set(widths)
    return [Plan(width, driver) for width in sorted(widths) for driver in drivers]


def measure_plans(
    cell: Cell, sizes: Sequence[int], candidates: Sequence[Plan]
) -> tuple[Plan, list[dict[str, Any]]]:
    """The cheapest plan for levels of these sizes, measured on a cell's dense networks."""
    lab = cell.lab
    members = Starts([cell], Programs(lab.trainer)).dense()
    return choose_plan(
        lab.trainer, members, lab.data.train, lab.data.validation, sizes, candidates=candidates
    )
