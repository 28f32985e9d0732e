"""The jobs of a sweep's cells (`lth_jax.sweeps`), which share data, programs and ladders.

The training program of a cell is lowered once for each value of the fields in `TRAINING`. A sweep
over learning rate, seed, weight decay, density, criterion or controls therefore compiles once.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from ml_collections import ConfigDict

from experiments import build, checks, trainers
from experiments.fields import leaves
from experiments.flags import recorded
from experiments.memoize import Memoized
from experiments.messages import user_errors
from lth_jax.cli import parts
from lth_jax.data import Dataset
from lth_jax.grid import Setting
from lth_jax.keys import from_seed
from lth_jax.lottery import (
    Ladder,
    Programs,
    Splits,
    Task,
    arms_programs,
    check_ladder,
    make_experiment,
    methods_programs,
    training_program,
)
from lth_jax.population import as_splits
from lth_jax.store import content_key, fingerprint
from lth_jax.sweeps import Estimate, Job, shown

DATA = (
    *(f"experiment.{name}" for name in ("data", "replicates", "prune.examples")),
    *(f"experiment.train.{name}" for name in ("batch_size", "share", "average.start", "distill")),
    "machine",
)
"""The fields on which a data set depends."""
TRAINING = tuple(f"experiment.{name}" for name in ("data", "model", "optimizer", "train"))
"""The fields on which a trainer depends."""
NETWORK = (
    *(f"experiment.{name}" for name in ("data.name", "model", "optimizer", "train", "prune")),
    *(f"experiment.{name}" for name in ("replicates", "controls", "control_levels")),
    "machine",
)
"""The fields that determine whether a population fits the machine."""
LADDER = (
    *(f"experiment.{name}" for name in ("model", "prune", "rewind", "controls", "control_levels")),
    *(f"experiment.train.{name}" for name in ("steps", "compute_dtype", "matmul_precision")),
)
"""The fields on which a ladder depends, in addition to its task."""


class Sharing:
    """Builds jobs; shares data, programs and ladders between cells with equal fields.

    Attributes:
      programs: the compiled programs by the key of the training program.
      parts: by the same keys, the fields of a program.
    """

    def __init__(self) -> None:
        self.programs: dict[str, Programs] = {}
        self.parts: dict[str, dict[str, Any]] = {}
        self._sets: dict[str, tuple[Dataset, Splits]] = {}
        self._tasks: dict[tuple[str, ...], Task] = {}
        self._dataset = Memoized(build.dataset, DATA)
        self._estimate = Memoized(self._check_network, NETWORK, trainers.TRACED)
        self._training = Memoized(self._make_training, TRAINING, trainers.TRACED)
        self._ladder = Memoized(self._make_ladder, LADDER)

    def job(self, setting: Setting, config: ConfigDict) -> Job:
        """The job of a cell.

        Raises:
          UserError, ValueError, TypeError: a field is invalid.
        """
        loaded, experiment = self._dataset(config), config.experiment
        # Equal data may lie in memory or on disk, and have the teachers' answers or not.
        form = [type(loaded.train.x).__name__, sorted(loaded.answers)]
        place = content_key([loaded.fingerprint, *form])
        if place not in self._sets:
            self._sets[place] = loaded, as_splits(loaded)
        # Before the program is lowered, which may allocate memory.
        least = self._estimate(config, place)
        program, constants = self._training(config, place)
        same = (program, constants, place)
        ladder, known = self._ladder(config, *same)
        numbers, seeds = trainers.hyper(experiment), build.seeds(experiment)
        task = self._tasks[same].replace(hyper=numbers, steps=experiment.train.steps)
        check_ladder(seeds, ladder)
        planned = make_experiment(
            task,
            seeds,
            ladder,
            data=loaded.fingerprint,
            constants=constants,
            training=program,
            **known,
        )
        return Job(setting, experiment.name, recorded(experiment), planned, least)

    def _check_network(self, config: ConfigDict, place: str) -> Estimate:
        return checks.check_network(config, self._sets[place][0])

    def _make_training(self, config: ConfigDict, place: str) -> tuple[str, str]:
        """The keys of the training program and of its constants."""
        loaded, splits = self._sets[place]
        task = trainers.task(config.experiment, loaded, splits)
        program = training_program(task.trainer, splits, trainers.HYPER, from_seed(0))
        if program not in self.programs:
            self.programs[program] = Programs(task.trainer)
            self.parts[program] = self._training.values(config)
        own = task.trainer.constants
        constants = fingerprint(own)
        trainer = self.programs[program].trainer._replace(constants=own)
        self._tasks.setdefault((program, constants, place), task.replace(trainer=trainer))
        return program, constants

    def _make_ladder(self, config: ConfigDict, *same: str) -> tuple[Ladder, dict[str, Any]]:
        task, root = self._tasks[same], from_seed(0)
        ladder = build.ladder(config.experiment, task)
        arms, methods = arms_programs(task, ladder, root), methods_programs(task, ladder, root)
        batches = fingerprint(ladder.batches)
        return ladder, {"arms": arms, "methods": methods, "batches": batches}


def jobs(cells: Iterable[tuple[Setting, ConfigDict]], sharing: Sharing) -> list[Job]:
    """The jobs of a sweep.

    Raises:
      UserError: a cell is invalid; the message names it.
    """
    found = []
    for setting, config in cells:
        named = f"cell {shown(setting)}: " if setting else ""
        with user_errors(prefix=named), parts.failing_parts(dict(leaves(config.experiment))):
            found.append(sharing.job(setting, config))
    return found


def static_fields(sharing: Sharing, swept: Sequence[str]) -> list[str]:
    """The swept fields in which the programs of a sweep differ."""
    parts = sharing.parts.values()
    values = {name: {repr(part[name]) for part in parts if name in part} for name in swept}
    return [name for name in swept if len(values[name]) > 1]
