"""Runs one experiment: opens its run folder, trains its ladder, and writes its report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import build, checks
from experiments import machine as machines
from experiments.fields import leaves
from experiments.flags import recorded
from experiments.messages import user_errors
from lth_jax import analysis
from lth_jax import store as stores
from lth_jax.cli import parts
from lth_jax.cli.programs import UserError
from lth_jax.lottery import Experiment, Programs, Result, check_ladder, level_sizes
from lth_jax.lottery.controls import described
from lth_jax.lottery.running import data_placement, recorded_plans, run_identity, train_run
from lth_jax.machine import compilations
from lth_jax.population import read_plan
from lth_jax.report import level_table, write_report
from lth_jax.text import clock, counted, print_tables


def run(config: ConfigDict, command: Sequence[str]) -> Path:
    """Runs, continues, or shows the experiment of a config.

    Returns:
      The run's folder.

    Raises:
      UserError: a field is invalid or the environment does not allow the run; before any training.
      store.Interrupted: after a signal; progress is saved.
    """
    experiment, machine = config.experiment, config.machine
    checks.check(experiment)
    machines.prepare(machine)
    team, env = stores.everyone(), stores.environment()
    options = machines.plan_options(machine)
    if team.first:
        machines.note_precision(experiment.train.compute_dtype)
    try:
        planned = team.each(lambda: _experiment(config))
        plan = options.configured | {"data": data_placement(planned.task)}
        saved = recorded(experiment)
        team.check_same(config=saved, identity=planned.identity, plan=plan)
        with stores.open_run(
            machine.workdir,
            name=experiment.name,
            config=saved,
            env=env | machines.origin(machine, command) | described(planned.ladder.controls),
            identity=run_identity(planned),
            wait=machine.wait,
            team=team,
        ) as run:
            store = stores.Store(machine.workdir, team)
            done = run.is_complete(store)
            if not done:
                sizes = level_sizes(planned.seeds, planned.ladder)
                programs = Programs(planned.task.trainer)
                with user_errors():
                    choices = options.candidates([max(sizes)])
                    plans = recorded_plans(
                        planned,
                        run,
                        choices,
                        options.cache,
                        narrow=not machine.chunk,
                        programs=programs,
                        progress=machine.progress,
                    )
                plan = run.plan  # all processes read it
                if team.first:
                    print(_work(planned, plan), flush=True)
                train_run(
                    planned,
                    run,
                    store,
                    plans,
                    programs=programs,
                    progress=machine.progress,
                    save_seconds=machine.save_seconds,
                    note=compilations,
                )
            team.on_leader(lambda: _show(machine, run.path, planned, done))
            return run.path
    except (stores.StoreError, OSError) as error:
        raise UserError(str(error)) from error


def _experiment(config: ConfigDict) -> Experiment:
    """The checked experiment of a config."""
    loaded = build.dataset(config)
    checks.check_network(config, loaded)
    with user_errors(), parts.failing_parts(dict(leaves(config.experiment))):
        planned = build.experiment_of(config.experiment, loaded)
        check_ladder(planned.seeds, planned.ladder)
    return planned


def _work(planned: Experiment, plan: Mapping[str, Any]) -> str:
    """The work of an experiment, and the time that it takes at the measured speed of its plan."""
    sizes, ladder = level_sizes(planned.seeds, planned.ladder), planned.ladder
    steps = ladder.stop * sum(sizes) - ladder.rewind.step * sum(sizes[1:])
    chosen = [one for one in plan["evidence"] if read_plan(one) == read_plan(plan)]
    time = "".join(f", about {clock(1e-3 * one['ms_per_member_step'] * steps)}" for one in chosen)
    return f"training {counted(sum(sizes), 'network')}, {steps:,} member-steps{time}"


def _show(machine: ConfigDict, path: Path, planned: Experiment, was_done: bool) -> None:
    """Writes the report of a finished run, and prints its table."""
    if was_done:
        print(f"{path.name} is already finished; its result:")
    store = stores.Store(machine.workdir)
    result = Result.of(store, path, planned)
    analysis.units(result)
    page = write_report(store, result.info)
    print_tables(level_table(result.record))
    print(f"page: {page}")
