"""Distillation from dense networks: teachers' logits, and training of students."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies.study_runner import StudyRunner, vary
from lth_jax.lottery import Start, own_logits
from lth_jax.measures import distillation
from lth_jax.measures.optima import best_setting
from lth_jax.population.teachers import with_own_teachers
from lth_jax.types import DENSE, TICKET

RATE = "optimizer__learning_rate"
STUDENTS = (DENSE, TICKET)
ANSWERS, AMISS = 0, 1  # the teacher's logits, or those with permuted wrong classes
LESSON = ("distillation", "temperature", "learning_rate")
Arms = Mapping[str, tuple[Sequence[Start], Sequence[Mapping[str, float]]]]
"""By arm: the starts and hyperparameters of its networks."""
Results = dict[str, dict[str, NDArray[np.float32]]]
"""By arm and metric, one value per start."""


def lessons(runner: StudyRunner, name: str, teachers: ConfigDict, seed: int) -> NDArray[np.float32]:
    """The logits of a cell's dense networks on their own examples, and the same shuffled.

    Args:
      runner: trained the networks.
      name: of the study.
      teachers: the cell.
      seed: of the shuffling.

    Returns:
      `(2, replicates · n, classes)`, for the n training examples of each replicate.
    """
    logits = own_logits(runner.task(teachers), runner.networks(name, teachers, DENSE))
    logits = logits.reshape(-1, logits.shape[-1])
    labels = np.resize(runner.dataset(teachers).train.y, len(logits))  # repeated if shared
    amiss = distillation.shuffled_answers(np.random.default_rng(seed), logits, labels)
    return np.stack([logits, amiss]).astype(np.float32)


def taught(
    runner: StudyRunner, name: str, config: ConfigDict, answers: NDArray[np.float32], arms: Arms
) -> Results:
    """Trains the starts of all arms together; results by arm and metric."""
    starts = {
        arm: [
            start._replace(hyper={"distillation": 0.0, "lesson": ANSWERS, **numbers})
            for start, numbers in zip(group, each, strict=True)
        ]
        for arm, (group, each) in arms.items()
    }
    task = with_own_teachers(runner.task(config), answers)
    trained = runner.retrain_arms(name, config, starts, task=task)
    return {arm: one.results for arm, one in trained.items()}


def chosen_lessons(
    runner: StudyRunner, name: str, pilot: ConfigDict, study: ConfigDict, rates: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """The best teacher's weight, temperature and learning rate of pilot students, by arm.

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

    def best(arm: str) -> int:
        losses = {i: found[f"{arm} {i}"]["validation_loss_best"] for i in range(len(grid))}
        return best_setting(losses)

    return {arm: grid[best(arm)] for arm in STUDENTS}


def matched(
    runner: StudyRunner, config: ConfigDict, answers: NDArray[np.float32], one: Start, weight: float
) -> float:
    """The label smoothing with the same target entropy as a start's teacher."""
    rows = runner.task(config).own_rows(one.replicate)
    labels = runner.dataset(config).train.y[rows]
    logits = answers[one.replicate * len(labels) :][: len(labels)]
    entropy = distillation.mixed_entropy(logits, labels, weight)
    return distillation.matching_smoothing(entropy, answers.shape[-1])
