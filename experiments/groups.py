"""Cells become groups: those that differ only in arrays train as one population.

What a field changes is not declared but looked at: each cell's network, optimizer, loss and data
order are lowered, and cells whose programs are equal, constants included, on the same data and over
the same steps, form a group. So learning rate, seed, weight decay, density, criterion and controls
need no second compile, whichever of them a sweep names.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from experiments import build, checks, trainers
from experiments.estimate import Estimate
from experiments.grid import Setting
from experiments.memoize_by_fields import Reading, Remembered
from experiments.messages import user_errors
from lth_jax.data import Dataset
from lth_jax.keys import from_seed
from lth_jax.lottery import (
    Experiment,
    Ladder,
    MemberTable,
    Programs,
    Splits,
    Task,
    arms_programs,
    check_ladder,
    make_experiment,
    methods_programs,
    timeline,
    training_program,
)
from lth_jax.population import Plan, as_splits
from lth_jax.store import content_key


class Job(NamedTuple):
    """One cell of a sweep.

    Attributes:
      setting: what is set in it.
      config: its whole config.
      experiment: with all that decides its numbers.
      estimate: what it takes at the least.
    """

    setting: Setting
    config: ConfigDict
    experiment: Experiment
    estimate: Estimate

    @property
    def run(self) -> str:
        """The folder of its run."""
        return build.run_name(self.config.experiment, self.experiment)


class Group(NamedTuple):
    """Jobs that train as one population.

    Attributes:
      key: of all that its members have in common.
      program: the key of the program of their training; groups may share it.
      jobs: the jobs.
      members: who their members are, under any plan.
    """

    key: str
    program: str
    jobs: list[Job]
    members: MemberTable


class Sharing:
    """Builds cells, sharing between them all that is made of fields in which they agree.

    Attributes:
      programs: what is compiled, by the key of the program of training.
      readings: by the same keys, the fields that a program was built of.
    """

    def __init__(self) -> None:
        self.programs: dict[str, Programs] = {}
        self.readings: dict[str, Reading] = {}
        self._loaded = Remembered(build.dataset)
        self._sets: dict[str, Dataset] = {}
        self._data: dict[str, Splits] = {}
        self._estimate = functools.cache(
            lambda data: Remembered(partial(_check_network, self._sets[data]))
        )
        self._program = functools.cache(lambda data: Remembered(partial(self._make_program, data)))
        self._ladder = functools.cache(lambda task: Remembered(partial(_ladder, self._tasks[task])))
        self._tasks: dict[tuple[str, str], Task] = {}

    def job(self, setting: Setting, config: ConfigDict) -> Job:
        """A cell.

        Raises:
          UserError, ValueError, TypeError: for a field that cannot be right.
        """
        loaded, _ = self._loaded(config)
        data = loaded.fingerprint
        if data not in self._data:
            self._sets[data], self._data[data] = loaded, as_splits(loaded)
        # Before a program is made of it: that may allocate.
        least, _ = self._estimate(data)(config)
        program, reading = self._program(data)(config)
        self.readings.setdefault(program, reading)
        trainer, experiment = self.programs[program].trainer, config.experiment
        numbers, steps = trainers.hyper(experiment), experiment.train.steps
        task = Task.from_parts(trainer, self._data[data], numbers, steps)
        seeds = build.seeds(experiment)
        self._tasks.setdefault((program, data), task)
        (ladder, known), _ = self._ladder((program, data))(config)
        check_ladder(seeds, ladder)
        planned = make_experiment(task, seeds, ladder, data=data, training=program, **known)
        return Job(setting, config, planned, least)

    def _make_program(self, data: str, config: Any) -> str:
        splits = self._data[data]
        trainer = trainers.task(config.experiment, self._sets[data], splits).trainer
        program = training_program(trainer, splits, trainers.HYPER, from_seed(0))
        self.programs.setdefault(program, Programs(trainer))
        return program


def _check_network(loaded: Dataset, config: Any) -> Estimate:
    return checks.check_network(config, loaded)


def _ladder(task: Task, config: Any) -> tuple[Ladder, dict[str, Any]]:
    ladder = build.ladder(config.experiment, task)
    root = from_seed(0)
    arms, methods = arms_programs(task, ladder, root), methods_programs(task, ladder, root)
    return ladder, {"arms": arms, "methods": methods}


def jobs(cells: Iterable[tuple[Setting, ConfigDict]], sharing: Sharing) -> list[Job]:
    """The cells of a sweep.

    Raises:
      UserError: for the first cell that cannot be right; the message says which.
    """
    found = []
    for setting, config in cells:
        with user_errors(prefix=shown_cell(setting)):
            found.append(sharing.job(setting, config))
    return found


def groups(jobs: Iterable[Job]) -> list[Group]:
    """The cells of a sweep, grouped into populations."""
    found: dict[str, tuple[str, list[Job]]] = {}
    for job in jobs:
        identity, ladder = job.experiment.identity, job.experiment.ladder
        prunable = jax.tree.leaves(ladder.prunable)
        programs = [identity.training, identity.methods_training]
        key = content_key([*programs, identity.data, timeline(ladder), prunable])
        found.setdefault(key, (identity.training, []))[1].append(job)
    # Who the members are is the same under any plan; only their keys are not.
    any_plan = [(0, Plan(1))]
    return [
        Group(key, program, jobs, MemberTable([job.experiment for job in jobs], any_plan))
        for key, (program, jobs) in found.items()
    ]


def together(groups: Sequence[Group]) -> Estimate:
    """What all cells of a sweep take at the least, one after the other.

    Memory is that of the largest cell, disk that of all members; a member that cells share counts
    once.
    """
    members, stored = 0, 0.0
    for group in groups:
        for level, specs in enumerate(group.members.levels):
            members += len(specs)
            owners = (group.jobs[spec.experiments[0]] for spec in specs.values())
            stored += sum(job.estimate.stored[level] for job in owners)
    largest = max((job.estimate for group in groups for job in group.jobs), key=lambda e: e.device)
    return largest._replace(members=members, store=math.floor(stored))


def static_fields(sharing: Sharing, swept: Sequence[str]) -> list[str]:
    """The swept fields in which the programs of a sweep differ."""
    readings = [reading.fields for reading in sharing.readings.values()]
    values = {name: {repr(f[name]) for f in readings if name in f} for name in swept}
    return [name for name in swept if len(values[name]) > 1]


def shown_cell(setting: Setting) -> str:
    """The beginning of a message about one cell of a sweep; empty outside of one."""
    return f"cell {shown(setting)}: " if setting else ""


def shown(setting: Setting) -> str:
    """A setting for people: the last word of each field, and its value.

    >>> shown({"experiment.optimizer.learning_rate": 0.1, "experiment.seed": 2})
    'learning_rate=0.1, seed=2'
    """
    return ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in setting.items())
