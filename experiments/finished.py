"""Commands that analyse a finished run."""

import argparse
import contextlib
from collections.abc import Callable, Iterator, Sequence
from inspect import getdoc
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments import build, checks
from experiments.configs import base
from experiments.fields import FIELDS, leaves
from experiments.flags import saved_config
from experiments.messages import by_fields
from lth_jax import store as stores
from lth_jax.analysis import AnalysisError, Measurement, progress
from lth_jax.cli import parts
from lth_jax.cli.options import Options
from lth_jax.cli.programs import UserError, exit_code
from lth_jax.data import Dataset
from lth_jax.lottery import Result, Task
from lth_jax.report.display import place_table
from lth_jax.text import counted, print_tables


class Finished(NamedTuple):
    """A finished run.

    Attributes:
      result: the result, with the task of its config.
      experiment: its config.
      loaded: its data set, as host arrays.
    """

    result: Result
    experiment: ConfigDict
    loaded: Dataset


def open_finished(machine: ConfigDict, name: str) -> Finished:
    """Opens a finished run.

    Raises:
      UserError: the run is not finished, or its data cannot be loaded.
      StoreError: the run does not exist or is damaged.
    """
    info = stores.find_run(machine.workdir, name)
    if info.status != "finished":
        raise UserError(f"{info.run} is {info.status}; only a finished run can be measured.")
    experiment = saved_config(info.path)
    checks.check(experiment)
    with parts.failing_parts(dict(leaves(experiment))):
        loaded = build.dataset(ConfigDict({"machine": machine, "experiment": experiment}))
        task = build.task(experiment, loaded)
    return Finished(Result.open(info.path, task, data=loaded.fingerprint), experiment, loaded)


def recorded_task(run: Path, data_dir: str = "", manual_dir: str = "") -> Task:
    """The task of a run's config; `lth export` calls it with what `machine.origin` records."""
    machine = base.ladder().machine
    machine.workdir, machine.data_placement = str(Path(run).parent), "device"
    machine.data_dir, machine.manual_dir = data_dir, manual_dir
    return open_finished(machine, str(run)).result.task


def run_analysis(
    module: str,
    description: str,
    measure: Callable[..., Measurement],
    argv: Sequence[str] | None = None,
    *,
    further: Callable[[Finished], dict[str, Any]] = lambda run: {},
) -> int:
    """The command of an analysis: analyses a run, writes its report, and prints numbers and path.

    Args:
      module: the module for `python -m`.
      description: text for `--help`, before that of the analysis.
      measure: an analysis of `lth_jax.analysis`; its settings are the options.
      argv: the arguments of the command line.
      further: checks a run, and returns arguments that depend on its config.

    Returns:
      The exit code: 2 for errors of the user.
    """
    about, _, _ = (getdoc(measure) or "").partition("\nArgs:")
    parser = Options(module, f"{description}\n{about}")
    parser.add_argument("run", metavar="RUN", help="a run's folder, name, or beginning of it")
    add_folders(parser)
    names = parser.settings(measure)

    def work() -> str:
        arguments = parser.parse_args(argv)
        run = open_finished(machine_of(arguments), arguments.run)
        print(work_of(run.result), flush=True)
        with naming_options(names), progress.shown():
            found = measure(run.result, **{n: getattr(arguments, n) for n in names}, **further(run))
        print_tables(place_table(found.table()), drop=True)
        return f"page: {run.result.report()}"

    return exit_code(work)


def work_of(run: Result) -> str:
    """The networks of a run, in one line."""
    levels, arms = run.record.levels, ", ".join(run.record.arms)
    number = counted(sum(len(level.members) for level in levels), "network")
    return f"{run.path.name}: {number} at {counted(len(levels), 'level')} ({arms})"


def add_folders(parser: Options) -> None:
    """Adds the options `--root`, `--data_dir` and `--manual_dir`."""
    for name, field in (
        ("root", "workdir"),
        ("data_dir", "data_dir"),
        ("manual_dir", "manual_dir"),
    ):
        one, default = FIELDS[f"machine.{field}"], base.ladder().machine[field]
        parser.option(name, one.legal, default, one.help)


def machine_of(arguments: argparse.Namespace) -> ConfigDict:
    """The `machine` part of a config, with the options of the command line."""
    machine = base.ladder().machine
    machine.workdir, machine.data_dir = arguments.root, arguments.data_dir
    machine.manual_dir, machine.data_placement = arguments.manual_dir, "device"
    return machine


@contextlib.contextmanager
def naming_options(names: Sequence[str]) -> Iterator[None]:
    """Context in which an `AnalysisError` becomes a `UserError` that names options."""
    try:
        yield
    except AnalysisError as error:
        message = by_fields(str(error), names={name: f"--{name}" for name in names})
        raise UserError(message) from error
