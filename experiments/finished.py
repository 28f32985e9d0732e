"""A finished run, opened again to measure its networks: its config, its data and its store."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments import build, checks
from experiments.configs import base
from experiments.fields import FIELDS
from experiments.flags import UserError, ending_by_signal, one_line, saved_config
from experiments.legal import whole
from experiments.options import Options
from lth_jax import store as stores
from lth_jax.data import Dataset
from lth_jax.lottery import Seeds, Task, training_program
from lth_jax.population import Plan


class Finished(NamedTuple):
    """A finished run.

    Attributes:
      info: its name, status and folder.
      store: where its nodes lie.
      experiment: its config, as the config file made it.
      task: what it trained, its data on the device.
      seeds: its seeds.
      loaded: its data set, as arrays of the host.
      program: the fingerprint of how its config's networks begin, train and are evaluated today.
    """

    info: stores.RunInfo
    store: stores.Store
    experiment: ConfigDict
    task: Task
    seeds: Seeds
    loaded: Dataset
    program: str

    @property
    def basis(self) -> dict[str, Any]:
        """What decides a measurement besides its settings and its networks; a part of its key."""
        return {
            "data": self.loaded.fingerprint,
            "program": self.program,
            "environment": stores.environment(),
        }


def open_finished(machine: ConfigDict, name: str) -> Finished:
    """Opens a run that is finished.

    Args:
      machine: `workdir`, `data_dir` and `manual_dir`, as in a config.
      name: the run: its folder, its name, or a unique beginning of it.

    Raises:
      UserError: if the run is not finished, its data cannot be loaded, or its config stands for
        another network, optimizer or loss than when it was trained.
      StoreError: if there is no such run, or something in it is damaged.
    """
    info = stores.find_run(machine.workdir, name)
    if info.status != "finished":
        raise UserError(f"{info.run} is {info.status}; only a finished run can be measured.")
    folder = Path(info.path)
    experiment = saved_config(folder)
    checks.check(experiment)
    loaded = build.dataset(ConfigDict({"machine": machine, "experiment": experiment}))
    task, seeds = build.task(experiment, loaded), build.seeds(experiment)
    program = training_program(task.trainer, task.data, task.hyper, seeds.root)
    _check_unchanged(folder, program)
    store = stores.Store(folder.resolve().parent)
    return Finished(info, store, experiment, task, seeds, loaded, program)


def require_accuracy(run: Finished, what: str) -> None:
    """Raises `UserError` if the run has no accuracy, for instance of a regression."""
    metrics = run.task.trainer.metrics
    if "accuracy" not in metrics:
        raise UserError(
            f"{run.info.run} has the metrics {', '.join(metrics)}; {what} needs 'accuracy'."
        )


def _check_unchanged(folder: Path, program: str) -> None:
    """Raises `UserError` if the run was trained by another program under the same conditions.

    Other versions, devices or flags may lower the same functions to other text, so that under those
    nothing can be compared.
    """
    environments = stores.read_env(folder)["environments"]
    if stores.content_key(_conditions(stores.environment())) not in [
        stores.content_key(_conditions(found)) for found in environments
    ]:
        return
    identity = stores.read_identity(folder) or {}
    if identity.get("training") != program:
        raise UserError(
            f"{folder.name} was trained with another network, optimizer or loss than those that "
            "its config names now; restore them, or run the config again."
        )


def _conditions(environment: dict[str, Any]) -> list[Any]:
    device = {name: environment["device"][name] for name in ("platform", "kind")}
    return [environment["versions"], device, environment["numerics"]]


def parser_for(module: str, description: str) -> Options:
    """A command line that names a run and says where its data are."""
    parser = Options(module, description)
    parser.add_argument("run", metavar="RUN", help="a run's folder, name, or beginning of it")
    add_folders(parser)
    return parser


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


def whole_numbers(name: str, text: str) -> tuple[int, ...]:
    """Reads `"0,3,7"`, the text of the option `--name`; anything else is a `UserError`."""
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError as error:
        raise UserError(
            f"`--{name}` is '{text}'; it must be whole numbers such as 0,3,7."
        ) from error


CHUNK = whole(0)
"""Legal values of `--chunk`; 0: all members at once."""
EXAMPLES = whole(1)
"""Legal values of `--examples`."""


def plan_of(members: int, chunk: int) -> Plan:
    """So many members at a time, or all of them at once if `chunk` is 0."""
    return Plan(min(chunk or members, members))


def check_known(name: str, asked: Sequence[Any], known: Sequence[Any]) -> None:
    """Raises `UserError` unless all that is asked for is there."""
    for one in asked:
        if one not in known:
            there = ", ".join(map(str, known))
            raise UserError(f"`--{name}` is {one}; the run has {there}.")


def exit_code(work: Callable[[], Any]) -> int:
    """Prints what `work` returns; 2 and one sentence for what the user can mend."""
    try:
        with ending_by_signal():
            print(work())
    except (UserError, stores.StoreError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0
