"""How networks fare in two groups, and networks that train with groups that count."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments import scoring
from experiments.networks import module
from experiments.studies.one_shot import at_count, chooser
from experiments.studies.starts import Start
from experiments.studies.study_runner import StudyRunner
from lth_jax.lottery import Task
from lth_jax.measures import fairness
from lth_jax.population.groups import group_robust, in_groups
from lth_jax.pruning.criteria import Criterion, by_group
from lth_jax.pruning.prune import prune
from lth_jax.pruning.scopes import layerwise
from lth_jax.types import DENSE, TICKET, TrainState

PARTS = ("params", "state")


MIXED, FAIR = "ticket, mixed scores", "ticket, fair scores"


class Fared(NamedTuple):
    """How networks fare in the two groups, one value per seed, in [0, 1]."""

    majority: NDArray[np.float64]
    minority: NDArray[np.float64]

    @property
    def gap(self) -> NDArray[np.float64]:
        """In points; positive where the minority fares worse."""
        return 100 * (self.majority - self.minority)

    @property
    def odds(self) -> NDArray[np.float64]:
        """The gap in log-odds."""
        return fairness.log_odds(self.majority) - fairness.log_odds(self.minority)

    def overall(self, minority: float) -> NDArray[np.float64]:
        """Accuracy where the minority has this share, in points."""
        return 100 * ((1 - minority) * self.majority + minority * self.minority)


def fared(predictions: NDArray[np.int64], y: NDArray, groups: NDArray) -> Fared:
    """Accuracies in each group of networks whose predictions are `(networks, n)`."""
    right = predictions == y
    return Fared(right[:, groups == 0].mean(axis=1), right[:, groups == 1].mean(axis=1))


def fair(task: Task, groups: NDArray) -> Task:
    """Trains with groups that count, each network by the numbers in its `hyper`."""
    transform, add_groups = task.trainer.transform_batch, in_groups(2)

    def with_groups(key: Any, data: Any, rows: Any, member: Any, constants: Any) -> Any:
        batch = transform(key, data, rows, member, constants)
        return add_groups(key, batch, rows, member, constants)

    return task.replace(
        trainer=task.trainer._replace(
            transform_batch=with_groups,
            objective=group_robust,
            constants={**task.trainer.constants, "groups": jnp.asarray(groups)},
        )
    )


class Asked:
    """What the networks of a cell's ladder, and others like them, predict on its test examples.

    Args:
      runner: where they were trained.
      name: of the study.
      config: the cell.
    """

    def __init__(self, runner: StudyRunner, name: str, config: ConfigDict):
        self._bench, self._name = runner, name
        self._config, data = config, runner.dataset(config)
        self._x, self._y, self._groups = data.test.x, data.test.y, data.groups["test"]

    def predicted(self, networks: Sequence[Any]) -> NDArray[np.int64]:
        """Of some networks: `(networks, n)`."""
        logits = self._bench.logits(self._name, self._config, networks, self._x)
        return np.asarray(logits.argmax(axis=-1))

    def fared(self, predictions: NDArray[np.int64]) -> Fared:
        """How predictions fare in each group."""
        return fared(predictions, self._y, self._groups)

    def ladder(self) -> dict[tuple[str, int], NDArray[np.int64]]:
        """The predictions of every arm and level, seed by seed."""
        arms = (DENSE, TICKET, *self._config.experiment.controls)
        networks = sorted(
            self._bench.networks(self._name, self._config, arms), key=lambda n: n.replicate
        )
        all_of_them = self.predicted(networks)
        places = [(n.arm, n.level) for n in networks]
        return {
            place: all_of_them[[i for i, p in enumerate(places) if p == place]]
            for place in dict.fromkeys(places)
        }


def scored(
    runner: StudyRunner, name: str, config: ConfigDict, study: ConfigDict
) -> dict[str, list[Start]]:
    """Starts under masks of one shot, by Fisher scores of the trained dense networks.

    `MIXED` has the scores of a network's first examples, `FAIR` those in which as many of each
    group count alike. Layers keep as many weights as the tickets'.
    """
    task, groups = runner.task(config), runner.dataset(config).groups["train"]
    dense = sorted(runner.networks(name, config, (DENSE,)), key=lambda one: one.replicate)
    own = [np.arange(len(groups))[runner.own_rows(config, one.replicate)] for one in dense]
    each = study.examples // 2
    of_group = [np.stack([rows[groups[rows] == g][:each] for rows in own]) for g in (0, 1)]
    seen = {MIXED: [np.stack([rows[: 2 * each] for rows in own])], FAIR: of_group}
    fisher, scope = scoring.criterion("fisher", task, module(config.experiment), None), layerwise()
    kept = (1 - config.experiment.prune.rate) ** study.level

    def one_shot(criterion: Criterion) -> Any:
        def pruner(like: Any, prunable: Any) -> Any:
            count = scope.counts(like, kept, prunable=prunable)
            keep = prune(criterion, scope)
            return at_count(keep, count)

        return chooser(task, runner.seeds(config).root, pruner)

    makers = {MIXED: one_shot(fisher), FAIR: one_shot(by_group(fisher, (0.5, 0.5)))}
    begun = runner.starts(name, config, (DENSE,), level=study.level)[DENSE]

    def under(mask: Mapping[str, NDArray], i: int) -> Start:
        mine = {leaf: values[i] for leaf, values in mask.items()}
        params = {leaf: value * mine[leaf] for leaf, value in begun[i].params.items()}
        return begun[i]._replace(params=params, mask=mine)

    found = {arm: make([one.params for one in dense], seen[arm]) for arm, make in makers.items()}
    return {arm: [under(mask, i) for i in range(len(begun))] for arm, mask in found.items()}


def mitigated(
    runner: StudyRunner,
    name: str,
    config: ConfigDict,
    study: ConfigDict,
    rates: Mapping[str, float],
) -> tuple[dict[str, list[TrainState]], int]:
    """Networks trained again from the same starts with groups that count; the steps it took.

    Groups count in the loss of the balanced and robust ones, and in the scores of which masks are
    made of the fairly scored ones.
    """
    starts = runner.starts(name, config, (DENSE, TICKET), level=study.level)
    starts |= scored(runner, name, config, study)
    arms = {  # whose starts, and how the groups count in the loss
        "ticket, balanced": (TICKET, 1.0, 0.0),
        "ticket, robust": (TICKET, 1.0, study.sharpness),
        "dense, balanced": (DENSE, 1.0, 0.0),
        MIXED: (MIXED, 0.0, 0.0),
        FAIR: (FAIR, 0.0, 0.0),
    }
    numbers = ("learning_rate", "balance", "sharpness")
    asked = [
        start._replace(hyper=dict(zip(numbers, (rates.get(arm, rates[TICKET]), *how), strict=True)))
        for arm, *how in arms.values()
        for start in starts[arm]
    ]
    groups = runner.dataset(config).groups["train"]
    done = runner.retrain(name, config, asked, task=fair(runner.task(config), groups))

    def point(i: int) -> TrainState:
        params, state = ({leaf: a[i] for leaf, a in done[part].items()} for part in PARTS)
        return TrainState(params, state, {})

    points = [point(i) for i in range(len(asked))]
    seeds = len(points) // len(arms)
    networks = {arm: points[seeds * i :][:seeds] for i, arm in enumerate(arms)}
    return networks, len(asked) * config.experiment.train.steps
