"""Commands that measure a finished run: its config becomes a `Result`, options become arguments."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from inspect import getdoc
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments import build, checks
from experiments.configs import base
from experiments.fields import FIELDS
from experiments.flags import UserError, ending_by_signal, one_line, saved_config
from experiments.messages import by_fields
from experiments.options import Options
from lth_jax import store as stores
from lth_jax.analysis import AnalysisError, Measurement
from lth_jax.data import Dataset
from lth_jax.lottery import Result


class Finished(NamedTuple):
    """A finished run.

    Attributes:
      result: the run, with the task of its config.
      experiment: its config, as the config file made it.
      loaded: its data set, as arrays of the host.
    """

    result: Result
    experiment: ConfigDict
    loaded: Dataset


def open_finished(machine: ConfigDict, name: str) -> Finished:
    """Opens a run that is finished.

    Args:
      machine: `workdir`, `data_dir` and `manual_dir`, as in a config.
      name: the run: its folder, its name, or a unique beginning of it.

    Raises:
      UserError: if the run is not finished, or its data cannot be loaded.
      StoreError: if there is no such run, or something in it is damaged.
    """
    info = stores.find_run(machine.workdir, name)
    if info.status != "finished":
        raise UserError(f"{info.run} is {info.status}; only a finished run can be measured.")
    experiment = saved_config(info.path)
    checks.check(experiment)
    loaded = build.dataset(ConfigDict({"machine": machine, "experiment": experiment}))
    task = build.task(experiment, loaded)
    return Finished(Result.open(info.path, task, data=loaded.fingerprint), experiment, loaded)


def run_analysis(
    module: str,
    description: str,
    measure: Callable[..., Measurement],
    argv: Sequence[str] | None = None,
    *,
    further: Callable[[Finished], dict[str, Any]] = lambda run: {},
) -> int:
    """Measures a run as a command, draws its page, and prints the page's path.

    Args:
      module: what `python -m` runs.
      description: for `--help`, before that of the analysis.
      measure: an analysis of `lth_jax.analysis`; its settings are the options.
      argv: the arguments of the command line.
      further: checks a run, and returns arguments that its config decides.

    Returns:
      The exit code: 2 for what the user can mend.
    """
    about, _, _ = (getdoc(measure) or "").partition("\nArgs:")
    parser = Options(module, f"{description}\n{about}")
    parser.add_argument("run", metavar="RUN", help="a run's folder, name, or beginning of it")
    add_folders(parser)
    names = parser.settings(measure)

    def work() -> str:
        arguments = parser.parse_args(argv)
        run = open_finished(machine_of(arguments), arguments.run)
        with naming_options(names):
            measure(run.result, **{n: getattr(arguments, n) for n in names}, **further(run))
        return str(run.result.report())

    return exit_code(work)


def add_folders(parser: Options) -> None:
    """Adds `--root`, `--data_dir` and `--manual_dir`: the fields of a machine."""
    for name, field in (
        ("root", "workdir"),
        ("data_dir", "data_dir"),
        ("manual_dir", "manual_dir"),
    ):
        one, default = FIELDS[f"machine.{field}"], base.ladder().machine[field]
        parser.option(name, one.legal, default, one.help)


def machine_of(arguments: argparse.Namespace) -> ConfigDict:
    """The `machine` part of a config, as the command line sets it."""
    machine = base.ladder().machine
    machine.workdir, machine.data_dir = arguments.root, arguments.data_dir
    machine.manual_dir, machine.data_placement = arguments.manual_dir, "device"
    return machine


@contextlib.contextmanager
def naming_options(names: Sequence[str]) -> Iterator[None]:
    """Within the block an `AnalysisError` is a `UserError` that names options, not arguments."""
    try:
        yield
    except AnalysisError as error:
        message = by_fields(str(error), {name: f"--{name}" for name in names})
        raise UserError(message) from error


def exit_code(work: Callable[[], Any]) -> int:
    """Prints what `work` returns; 2 and one sentence for what the user can mend."""
    try:
        with ending_by_signal():
            print(work())
    except (UserError, stores.StoreError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0
