r"""Runs a grid of experiments; cells that differ only in numbers train as one population.

    python -m experiments.sweep --config=experiments/configs/mnist1d_ladder.py:smoke \
        --sweep.learning_rate=0.001,0.01 --sweep.experiment.seed=0,1

`--sweep.FIELD=VALUE,VALUE` is a product on top of what `get_sweep(h)` of the config file returns,
if it has one (see `lth_jax.grid`); a field may be named by the end of its name. `--dry_run`
prints the plan with memory and time; `--max_cells` raises the limit on cells; `--help` lists all
fields. The same command continues the sweep; run concurrently, it shares the work. Each cell
becomes a run; the sweep's page and tables are in `sweeps/` of the workdir.

`--launch=slurm --workers=8 --gpus=1 --time=120 --partition=gpu` submits eight jobs that share the
work, by submitit (`pip install "lth-jax[cluster]"`), and returns; `--time` is in minutes. A
preempted job saves its work and continues when it is scheduled again. `--launch=local` starts the
jobs as processes of this machine, waits for them and prints the table. `lth ls` shows their states
and logs.
"""

import copy
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import checks, estimate, flags
from experiments import machine as machines
from experiments.commands import DEFAULT, DRY_RUN, config_of
from experiments.groups import Sharing, jobs, static_fields
from experiments.messages import by_fields, user_errors
from lth_jax import grid as h
from lth_jax import store as stores
from lth_jax import sweeps
from lth_jax.cli.launch import OPTIONS, launched
from lth_jax.cli.programs import UserError, run_main
from lth_jax.cli.words import value_of
from lth_jax.legal import nearest
from lth_jax.lottery import MemberIndex
from lth_jax.report.sweep_page import write_sweep_report
from lth_jax.report.sweeps import read_sweep, sweep_table
from lth_jax.sweeps import Group, Job, shown
from lth_jax.text import counted, print_tables

MODULE = "experiments.sweep"
MOST_CELLS = 10_000
PREFIX = "--sweep."
LIMIT = "--max_cells"
MEASURING = "measuring plans: compiles each and times a few steps; no network is kept"
SHOWN = 20  # cells of a group listed by a dry run

Cell = tuple[h.Setting, ConfigDict]


def parse_grid(arguments: Sequence[str], config: ConfigDict) -> h.Grid:
    """Reads `--sweep.FIELD=VALUE,VALUE` arguments, each value as the type of its field.

    Raises:
      UserError: a field is unknown or ambiguous, has no values, or a value has the wrong type.
    """
    known = swept_fields(config)
    grids = []
    for argument in arguments:
        name, _, text = argument.removeprefix(PREFIX).partition("=")
        field = full_name(name, known)
        values = [_read(field, value, known) for value in text.split(",") if value]
        if not values:
            raise UserError(f"`{PREFIX}{name}` has no values; give some, such as 1,2.")
        grids.append(h.sweep(field, values))
    return h.product(grids)


def swept_fields(config: ConfigDict) -> dict[str, Any]:
    """The fields that a sweep may set."""
    return {n: value for n, value in flags.fields(config) if n.startswith("experiment.")}


def full_name(name: str, known: dict[str, Any]) -> str:
    """The field whose dotted name ends with `name`, or whose last word has these initials.

    An option such as `model.options.dropout` need not be in the config.

    Raises:
      UserError: no field matches, or several do.

    >>> known = {"experiment.seed": 0, "experiment.optimizer.learning_rate": 0.1}
    >>> full_name("seed", known), full_name("lr", known)
    ('experiment.seed', 'experiment.optimizer.learning_rate')
    """
    if name in known or flags.is_option(name):
        return name
    if flags.is_option(f"experiment.{name}"):
        return f"experiment.{name}"
    found = [field for field in known if field.endswith(f".{name}")]
    found = found or [field for field in known if flags.initials(field) == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"the field '{name}' is ambiguous: {' or '.join(found)}.")
    meant = flags.meant(name, known)
    raise UserError(nearest("a field of the sweep", name, known, meant))


def _read(name: str, text: str, known: dict[str, Any]) -> Any:
    """A value as the type of its field; that of an option which the config lacks as a literal."""
    if name not in known:
        return value_of(text)
    like = known[name]
    if isinstance(like, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
    elif isinstance(like, int | float | str):
        try:
            return type(like)(text)
        except ValueError:
            pass
    how = "; sweep tuples by `get_sweep` of the config file" if isinstance(like, tuple) else ""
    kind = type(like).__name__
    raise UserError(
        f"`{PREFIX}{name}` has the value '{text}'; each value must be of type {kind}{how}."
    )


def cells(config: ConfigDict, grid: h.Grid, most: int = MOST_CELLS) -> Iterator[Cell]:
    """The cells of a grid: the setting by full names, and the config.

    Raises:
      UserError: the grid has no cells or more than `most`, a cell occurs twice, a field is unknown,
        or a value is invalid.
    """
    if not grid.size:
        raise UserError(f"nothing to sweep; give {PREFIX}FIELD=VALUE,VALUE.")
    if grid.size > most:
        raise UserError(
            f"the sweep has {grid.size:,} cells; at most {most:,} are allowed, "
            f"unless {LIMIT} raises the limit."
        )
    known, seen = swept_fields(config), set()
    for setting in _settings(grid, known):
        cell = _cell(config, setting)
        key = stores.content_key(cell.experiment.to_dict())
        if key in seen:
            raise UserError(f"cell {shown(setting)} is given twice.")
        seen.add(key)
        yield setting, cell


def _settings(grid: h.Grid, known: dict[str, Any]) -> Iterator[h.Setting]:
    """The settings of a grid, by the full names of their fields."""
    try:
        for given in grid.settings():
            yield h.joined({full_name(name, known): value} for name, value in given.items())
    except (TypeError, ValueError) as error:
        raise UserError(f"the sweep cannot be made: {error}") from error


def _cell(config: ConfigDict, setting: h.Setting) -> ConfigDict:
    cell = copy.deepcopy(config)
    try:
        renamed = flags.renamed_parts(dict(flags.fields(config)), setting)
        flags.drop_options(cell, renamed)
        options = {name: value for name, value in setting.items() if flags.is_option(name)}
        cell.update_from_flattened_dict({n: v for n, v in setting.items() if n not in options})
        for name, value in options.items():
            flags.set_option(cell, name, value)
        checks.check(cell.experiment)
    except (UserError, TypeError, ValueError) as error:
        raise UserError(f"cell {shown(setting)}: {error}") from error
    return cell


def run_sweep(config: ConfigDict, planned_cells: Sequence[Cell], command: Sequence[str]) -> Path:
    """Runs, continues, or joins a sweep.

    Returns:
      The path of the sweep's page.
    """
    machine, team = config.machine, stores.everyone()
    with stores.lost_process_errors(team):
        sweep = train_cells(machine, config.experiment.name, planned_cells, command)
        return Path(team.on_leader(lambda: _show(machine, sweep.path)))


def _show(machine: ConfigDict, path: Path) -> str:
    """Writes the report of a finished sweep, and prints its table."""
    store = stores.Store(machine.workdir)
    page = write_sweep_report(store, path)
    found = read_sweep(store, path)
    print_tables(sweep_table(found))
    print(f"page: {page}")
    return str(page)


def train_cells(
    machine: ConfigDict,
    name: str,
    planned_cells: Sequence[Cell],
    command: Sequence[str],
    *,
    pilot: bool = False,
) -> stores.Sweep:
    """`lth_jax.sweeps.train` for cells, each with its setting and its whole config."""
    sharing, team = Sharing(), stores.everyone()
    all_jobs = team.each(lambda: jobs(planned_cells, sharing))

    def on_start(left: list[Job], todo: list[Group]) -> None:
        _check_fits(todo, machine.workdir)
        print(_overview(all_jobs, left, todo, sharing), flush=True)

    try:
        return sweeps.train(
            machine.workdir,
            name,
            all_jobs,
            options=machines.plan_options(machine),
            programs=sharing.programs,
            origin=machines.origin(machine, command),
            on_start=on_start,
            pilot=pilot,
            progress=machine.progress,
            save_seconds=machine.save_seconds,
        )
    except sweeps.PlanError as error:
        raise UserError(by_fields(str(error))) from error


def dry_run(config: ConfigDict, planned_cells: Sequence[Cell]) -> None:
    """Prints the plan of a sweep with memory and time; trains and records nothing."""
    sharing, machine = Sharing(), config.machine
    all_jobs = jobs(planned_cells, sharing)
    finished = sweeps.finished(machine.workdir, all_jobs)
    left = [job for job, done in zip(all_jobs, finished, strict=True) if not done]
    found = sweeps.groups(left)
    print(_overview(all_jobs, left, found, sharing))
    _check_fits(found, machine.workdir)
    index = MemberIndex(stores.Store(machine.workdir))
    index.refresh()
    options = machines.plan_options(machine)
    for i, group in enumerate(found, start=1):
        note = partial(print, f"group {i}/{len(found)}: {MEASURING}", flush=True)
        with user_errors():
            plan = sweeps.planned(group, options, always=True, on_start=note)
        ahead = sweeps.outlook(group, plan, index)
        print(f"group {i}/{len(found)}: {ahead}", flush=True)
        print(f"  {sweeps.together([group]).described(machine.workdir)}", flush=True)
        for job in group.jobs[:SHOWN]:
            if job.setting:
                print(f"  {shown(job.setting)}")
        if len(group.jobs) > SHOWN:
            print(f"  and {len(group.jobs) - SHOWN} more")


def _check_fits(found: Sequence[Group], workdir: str) -> None:
    """Raises `UserError` if all cells together need more memory or disk space than is free."""
    if found:
        cells = sum(len(group.jobs) for group in found)
        estimate.check_fits_together(sweeps.together(found), workdir, cells)


def _overview(
    all_jobs: Sequence[Job], left: Sequence[Job], found: Sequence[Group], sharing: Sharing
) -> str:
    """A summary of cells, groups and programs, in one or two lines."""
    swept = list(dict.fromkeys(name for job in all_jobs for name in job.setting))
    static = static_fields(sharing, swept)
    programs = len({group.program for group in found})
    text = (
        f"{counted(len(all_jobs), 'cell')}, {len(all_jobs) - len(left)} finished; "
        f"{counted(len(found), 'group')}, {counted(programs, 'program')} to compile"
    )
    return text + (f"\nstatic, a program for each value: {', '.join(static)}" if static else "")


def make_grid(argv: Sequence[str], config: ConfigDict) -> h.Grid:
    """The product of the config file's sweep and that of the command line."""
    swept = [argument for argument in argv if argument.startswith(PREFIX)]
    make = flags.config_module(argv, DEFAULT).__dict__.get("get_sweep")
    if not swept and make is None:
        return h.Grid(0, lambda: iter(()))
    try:
        return h.product([*([make(h)] if make else []), parse_grid(swept, config)])
    except (TypeError, ValueError) as error:
        raise UserError(f"the sweep cannot be made: {error}") from error


def _most(arguments: Sequence[str]) -> int:
    """The value of `--max_cells`."""
    given = [a.partition("=")[2] for a in arguments if a.startswith(LIMIT)] or [str(MOST_CELLS)]
    if not given[-1].isdecimal():
        raise UserError(f"`{LIMIT}` is '{given[-1]}'; it must be a whole number.")
    return int(given[-1])


def check_and_plan(config: ConfigDict) -> None:
    """The dry run of a single experiment."""
    checks.check(config.experiment)
    machines.prepare(config.machine)
    try:
        dry_run(config, [({}, config)])
    except (stores.StoreError, OSError) as error:
        raise UserError(str(error)) from error


def main() -> None:
    argv, launch = launched(sys.argv, MODULE)
    own = [a for a in argv if a == DRY_RUN or a.startswith((PREFIX, f"{LIMIT}="))]
    rest = [argument for argument in argv if argument not in own]
    further = [DRY_RUN, LIMIT, f"{PREFIX}FIELD", *OPTIONS]
    config = config_of(rest, DEFAULT, str(__doc__), further)
    planned_cells = list(cells(config, make_grid(argv, config), _most(own)))
    if launch and DRY_RUN not in own:
        if not launch(argv[1:], config.machine.workdir, config.experiment.name):
            return
    machines.prepare(config.machine)
    try:
        if DRY_RUN in own:
            dry_run(config, planned_cells)
        else:
            command = ["python", "-m", MODULE, *argv[1:]]
            run_sweep(config, planned_cells, command)
    except (stores.StoreError, OSError) as error:
        raise UserError(str(error)) from error


if __name__ == "__main__":
    run_main(main)
