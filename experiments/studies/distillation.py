"""Students of dense networks: what the teachers say, and networks that train with it."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies.starts import Start
from experiments.studies.study_runner import StudyRunner, vary
from lth_jax.lottery import Task
from lth_jax.measures import distillation
from lth_jax.population import augment, losses
from lth_jax.population.segment import Member
from lth_jax.types import DENSE, TICKET

RATE = "optimizer__learning_rate"
STUDENTS = (DENSE, TICKET)
ANSWERS, AMISS = 0, 1  # what is said of the examples: as the teacher says, or wrong classes mixed
LESSON = ("distillation", "temperature", "learning_rate")
Arms = Mapping[str, tuple[Sequence[Start], Sequence[Mapping[str, float]]]]
"""By arm: where its networks start, and what each one's numbers are."""


def lessons(runner: StudyRunner, name: str, teachers: ConfigDict, seed: int) -> NDArray[np.float32]:
    """What the dense networks of a cell say of their own examples, and the same shuffled.

    Args:
      runner: where they were trained.
      name: of the study.
      teachers: the cell.
      seed: of the shuffling.

    Returns:
      `(2, replicates · n, classes)`, for the n examples that each replicate sees.
    """
    dense = sorted(runner.networks(name, teachers, (DENSE,)), key=lambda one: one.replicate)
    said = runner.own_logits(teachers, [one for one in dense if one.level == 0])
    said = said.reshape(-1, said.shape[-1])
    labels = np.resize(runner.dataset(teachers).train.y, len(said))  # again and again if shared
    amiss = distillation.shuffled_answers(np.random.default_rng(seed), said, labels)
    return np.stack([said, amiss]).astype(np.float32)


def school(task: Task, answers: NDArray[np.float32]) -> Task:
    """Trains with what teachers say, each network by the numbers in its `hyper`."""

    def choose(said: jax.Array, member: Member) -> jax.Array:
        return said[member.hyper["lesson"].astype(jnp.int32)][None]

    teach = augment.taught(choose)
    apart = (
        0 if task.trainer.examples_per_replicate else len(task.data.train.y)
    )  # teachers of the same examples

    def by_own_teacher(key: Any, batch: Any, rows: Any, member: Member, constants: Any) -> Any:
        return teach(key, batch, rows + member.hyper["replicate"] * apart, member, constants)

    steps = (augment.soft_targets(answers.shape[-1]), augment.smooth, by_own_teacher)
    trainer = task.trainer._replace(
        transform_batch=augment.shows(*steps),
        objective=losses.distillation,
        constants={"answers": jnp.asarray(answers)},
    )
    return task.replace(trainer=trainer)


def taught(
    runner: StudyRunner, name: str, config: ConfigDict, answers: NDArray[np.float32], arms: Arms
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Trains the starts of all arms together; results by arm and metric, one per start."""
    task = school(runner.task(config), answers)
    starts = [
        start._replace(hyper={"distillation": 0.0, "lesson": ANSWERS, **numbers})
        for group, each in arms.values()
        for start, numbers in zip(group, each, strict=True)
    ]
    results = runner.retrain(name, config, starts, task=task)["results"]
    ends = np.cumsum([len(group) for group, _ in arms.values()])[:-1]
    split = {metric: np.split(values, ends) for metric, values in results.items()}
    return {
        arm: {metric: parts[i] for metric, parts in split.items()} for i, arm in enumerate(arms)
    }


def chosen_lessons(
    runner: StudyRunner, name: str, pilot: ConfigDict, study: ConfigDict, rates: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """The teacher's weight, its temperature and the rate that suit pilot students, by their arm.

    Args:
      runner: where the pilot's ladders were trained.
      name: under which they were.
      pilot: the experiment on pilot seeds.
      study: the candidates.
      rates: learning rates of dense networks and tickets that learn from labels.
    """
    ladder, teachers = (vary(pilot, **{RATE: rates[arm]}) for arm in (TICKET, DENSE))
    answers = lessons(runner, name, teachers, seed=pilot.experiment.seed)
    starts = runner.starts(name, ladder, STUDENTS)
    candidates = itertools.product(study.weights, study.temperatures, study.rates)
    grid = [dict(zip(LESSON, numbers, strict=True)) for numbers in candidates]
    arms = {
        f"{arm} {i}": (starts[arm], [numbers] * len(starts[arm]))
        for arm in STUDENTS
        for i, numbers in enumerate(grid)
    }
    found = taught(runner, name, ladder, answers, arms)

    def loss(arm: str, i: int) -> float:
        mean = float(np.mean(found[f"{arm} {i}"]["validation_loss_best"]))
        return mean if np.isfinite(mean) else np.inf

    return {arm: grid[min(range(len(grid)), key=lambda i: loss(arm, i))] for arm in STUDENTS}


def matched(
    runner: StudyRunner, config: ConfigDict, answers: NDArray[np.float32], one: Start, weight: float
) -> float:
    """How much smoothing makes labels as soft as a start's lesson is."""
    labels = runner.dataset(config).train.y[runner.own_rows(config, one.replicate)]
    said = answers[one.replicate * len(labels) :][: len(labels)]
    entropy = distillation.mixed_entropy(said, labels, weight)
    return distillation.matching_smoothing(entropy, answers.shape[-1])
