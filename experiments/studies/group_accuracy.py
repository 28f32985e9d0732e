"""Accuracy in two groups, and group-robust training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments import scoring
from experiments.networks import model, module
from experiments.studies.study_runner import StudyRunner
from lth_jax.lottery import Retrained, Start, logits_of, one_shot_starts
from lth_jax.measures.fairness import GroupAccuracy
from lth_jax.population.groups import weigh_groups
from lth_jax.pruning.criteria import by_group
from lth_jax.pruning.masks import prunable_leaves
from lth_jax.pruning.one_shot import at_count
from lth_jax.pruning.prune import prune
from lth_jax.pruning.scopes import layerwise
from lth_jax.types import DENSE, TICKET

MIXED, FAIR = "ticket, mixed scores", "ticket, fair scores"
NUMBERS = ("learning_rate", "balance", "sharpness")


class Predictions:
    """The predictions of networks of a cell on its test examples, and their accuracy by group.

    Args:
      runner: where the cell was trained.
      name: of the study.
      config: the cell.
    """

    def __init__(self, runner: StudyRunner, name: str, config: ConfigDict):
        self._runner, self._name = runner, name
        self._config, data = config, runner.dataset(config)
        self._x, self._y, self._groups = data.test.x, data.test.y, data.groups["test"]

    def of(self, networks: Sequence[Any]) -> NDArray[np.int64]:
        """The predictions of networks: `(networks, n)`."""
        logits = logits_of(model(self._config.experiment), networks, self._x)
        return np.asarray(logits.argmax(axis=-1))

    def of_arm(self, arm: str, level: int = 0) -> NDArray[np.int64]:
        """The predictions of an arm of the cell's ladder, by seed."""
        return self.of(self._runner.networks(self._name, self._config, arm, level))

    def accuracy(self, predictions: NDArray[np.int64]) -> GroupAccuracy:
        """The accuracy of predictions in each group."""
        return GroupAccuracy.of(predictions, self._y, self._groups)


def scored(
    runner: StudyRunner, name: str, config: ConfigDict, study: ConfigDict
) -> dict[str, list[Start]]:
    """Starts under one-shot masks, by Fisher scores of the trained dense networks.

    `MIXED` scores the first examples, `FAIR` equally many of each group with equal weights. Layers
    keep as many weights as those of the tickets.
    """
    task, groups = runner.task(config), runner.dataset(config).groups["train"]
    dense = runner.networks(name, config, DENSE)
    own = [np.arange(len(groups))[task.own_rows(one.replicate)] for one in dense]
    each, scope, like = study.examples // 2, layerwise(), task.shapes[0]
    kept = (1 - config.experiment.prune.rate) ** study.level
    count = scope.counts(like, kept, prunable=prunable_leaves(like))
    fisher = scoring.criterion("fisher", task, module(config.experiment), None)
    of_group = [np.stack([rows[groups[rows] == g][:each] for rows in own]) for g in (0, 1)]
    seen = {
        MIXED: (fisher, [np.stack([rows[: 2 * each] for rows in own])]),
        FAIR: (by_group(fisher, (0.5, 0.5)), of_group),
    }
    begun = runner.starts(name, config, (DENSE,), level=study.level)[DENSE]
    root, points = runner.seeds(config).root, [one.params for one in dense]
    return {
        arm: one_shot_starts(
            task, begun, at_count(prune(criterion, scope), count), root, scored=points, rows=rows
        )
        for arm, (criterion, rows) in seen.items()
    }


def mitigated(
    runner: StudyRunner,
    name: str,
    config: ConfigDict,
    study: ConfigDict,
    rates: Mapping[str, float],
) -> tuple[dict[str, list[Retrained]], int]:
    """Networks retrained from the same starts with group weights, and the number of steps.

    Balanced and robust arms weight groups in the loss; fairly scored ones in the scores of the
    masks.
    """
    starts = runner.starts(name, config, (DENSE, TICKET), level=study.level)
    starts |= scored(runner, name, config, study)
    arms = {  # starts, balance and sharpness
        "ticket, balanced": (TICKET, 1.0, 0.0),
        "ticket, robust": (TICKET, 1.0, study.sharpness),
        "dense, balanced": (DENSE, 1.0, 0.0),
        MIXED: (MIXED, 0.0, 0.0),
        FAIR: (FAIR, 0.0, 0.0),
    }

    def hyper(arm: str, *how: float) -> dict[str, float]:
        return dict(zip(NUMBERS, (rates.get(arm, rates[TICKET]), *how), strict=True))

    arms_starts = {
        name: [start._replace(hyper=hyper(arm, *how)) for start in starts[arm]]
        for name, (arm, *how) in arms.items()
    }
    task = weigh_groups(runner.task(config), runner.dataset(config).groups["train"], 2)
    trained = runner.retrain_arms(name, config, arms_starts, task=task)
    steps = sum(map(len, arms_starts.values())) * config.experiment.train.steps
    return {arm: found.networks() for arm, found in trained.items()}, steps
