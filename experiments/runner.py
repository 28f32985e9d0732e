"""Runs one experiment: opens its run folder, climbs its ladder, and draws its report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import build
from experiments.flags import UserError
from experiments.progress import Display
from lth_jax import store as stores
from lth_jax.lottery import Entry, Hooks, Lab, Ladder, Progress, check_ladder, climb, level_sizes
from lth_jax.lottery.starts import Starts
from lth_jax.report import write_report
from lth_jax.training.population import DRIVERS, Plan, choose_plan

SOURCES = (
    "lth_jax.training",
    "lth_jax.lottery",
    "lth_jax.pruning",
    "lth_jax.models",
    "lth_jax.data",
)


def run(config: ConfigDict) -> tuple[Path, Path]:
    """Runs, continues, or only shows the experiment of a config.

    Args:
      config: `experiment` decides the numbers, `machine` where and how they are made.

    Returns:
      The run's folder and its page.

    Raises:
      UserError: for everything the user can mend, in one sentence, before any training.
    """
    experiment, machine = config.experiment, config.machine
    build.check(experiment)
    env = stores.environment()
    try:
        with (
            stores.on_signals() as stop,
            stores.open_run(
                machine.workdir,
                name=experiment.name,
                config=experiment.to_dict(),
                env=env,
                wait=machine.wait,
            ) as run,
        ):
            store = stores.Store(machine.workdir)
            if run.status == "finished":
                print(f"{run.path.name} is finished already; here is its result.")
            else:
                _climb(config, env, run, store, stop)
                run.finish()
            return run.path, write_report(store, run)
    except (stores.StoreError, OSError) as error:
        raise UserError(str(error)) from error


def _climb(config: ConfigDict, env: Any, run: stores.Run, store: stores.Store, stop: Any) -> None:
    experiment = config.experiment
    loaded = build.dataset(config)
    try:
        lab = build.lab(experiment, loaded)
        ladder = build.ladder(experiment, lab)
        check_ladder(lab, ladder)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error
    plans = recorded_plans(config, run, lab, ladder)
    source = stores.source_fingerprint(*SOURCES)
    identity = build.identity(experiment, loaded.fingerprint, env, source)
    members = sum(level_sizes(lab, ladder))
    with Display(run.path.name, _work(lab, ladder), config.machine.progress) as display:
        hooks = _hooks(run, display, stop)
        climb(lab, ladder, store=store, plans=plans, identity=identity, hooks=hooks)
        display.say(f"{members} members trained in {display.spent()}.")


def _hooks(run: stores.Run, display: Display, stop: Any) -> Hooks:
    def on_progress(progress: Progress) -> None:
        run.log(_record(progress))
        display.advance(progress)
        stop.check()

    def on_node(entry: Entry) -> None:
        run.add(**entry._asdict())
        display.node(entry)

    def on_replan(level: int, plan: Plan) -> None:
        run.add_replan({"level": level, **plan._asdict()})
        display.say(f"Out of memory: level {level} starts again with {plan.chunk} at a time.")

    return Hooks(on_progress, on_node, on_replan)


def _record(progress: Progress) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    return {
        "level": progress.level,
        "density": progress.density,
        "step": progress.step,
        "seconds": progress.seconds,
        "members": [list(label) for label in progress.labels],
        **{name: value[: len(progress.labels)].tolist() for name, value in progress.info.items()},
    }


def _work(lab: Lab, ladder: Ladder) -> list[int]:
    """Member-steps per level."""
    steps = [ladder.stop] + [ladder.stop - ladder.rewind.step] * len(ladder.counts)
    return [n * length for n, length in zip(level_sizes(lab, ladder), steps, strict=True)]


def recorded_plans(
    config: ConfigDict, run: stores.Run, lab: Lab, ladder: Ladder
) -> Sequence[tuple[int, Plan]]:
    """The plan this run began with, chosen and written down at its first start, and its changes."""
    if run.plan is None:
        plan, evidence = _choose(config.machine, lab, ladder)
        run.record_plan({**plan._asdict(), "evidence": evidence})
    first = (0, Plan(run.plan["chunk"], run.plan["driver"]))
    return [first, *((r["level"], Plan(r["chunk"], r["driver"])) for r in run.replans)]


def _choose(machine: ConfigDict, lab: Lab, ladder: Ladder) -> tuple[Plan, list[dict[str, Any]]]:
    sizes = level_sizes(lab, ladder)
    if machine.driver and machine.driver not in DRIVERS:
        raise UserError(f"`machine.driver` is '{machine.driver}'; it must be one of {DRIVERS}.")
    if machine.chunk < 0:
        raise UserError(f"`machine.chunk` is {machine.chunk}; it must be 0 (measured) or more.")
    if machine.chunk and machine.driver:
        return Plan(machine.chunk, machine.driver), []
    widths = {machine.chunk} if machine.chunk else {1, min(sizes), max(sizes)}
    drivers = [machine.driver] if machine.driver else DRIVERS
    candidates = [Plan(width, driver) for width in sorted(widths) for driver in drivers]
    data = lab.data
    members = Starts(lab, ladder).dense()
    return choose_plan(
        lab.trainer, members, data.train, data.validation, sizes, candidates=candidates
    )
