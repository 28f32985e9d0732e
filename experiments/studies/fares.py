"""How networks fare in two groups, and networks that train with groups that count."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies.bench import Bench
from lth_jax import store as stores
from lth_jax.lottery import Lab
from lth_jax.lottery.rewind import Point
from lth_jax.measures import fairness
from lth_jax.training.groups import group_robust, in_groups
from lth_jax.types import DENSE, TICKET

PARTS = ("params", "state")


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


def fair(lab: Lab, groups: NDArray) -> Lab:
    """Trains with groups that count, each network by the numbers in its `hyper`."""
    show, told = lab.trainer.show, in_groups(jnp.asarray(groups), 2)

    def shown(key: Any, data: Any, rows: Any, member: Any) -> Any:
        return told(key, show(key, data, rows, member), rows, member)

    return lab._replace(trainer=lab.trainer._replace(show=shown, objective=group_robust))


class Asked:
    """What the networks of a cell's ladder, and others like them, predict on its test examples.

    Args:
      bench: where they were trained.
      name: of the study.
      config: the cell.
    """

    def __init__(self, bench: Bench, name: str, config: ConfigDict):
        self._bench, self._name = bench, name
        self._config, data = config, bench.dataset(config)
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


def mitigated(
    bench: Bench, name: str, config: ConfigDict, study: ConfigDict, rates: Mapping[str, float]
) -> tuple[dict[str, list[Point]], int]:
    """Networks trained again from the same starts with groups that count; the steps it took."""
    starts = bench.starts(name, config, (DENSE, TICKET), level=study.level)
    arms = {
        "ticket, balanced": (TICKET, 0.0),
        "ticket, robust": (TICKET, study.sharpness),
        "dense, balanced": (DENSE, 0.0),
    }
    asked = [
        start._replace(hyper={"learning_rate": rates[arm], "balance": 1.0, "sharpness": sharpness})
        for arm, sharpness in arms.values()
        for start in starts[arm]
    ]
    groups = bench.dataset(config).groups["train"]
    lab, facts = fair(bench.lab(config), groups), {"groups": stores.fingerprint(groups)}
    done = bench.retrain(name, config, asked, lab=lab, facts=facts)

    def point(i: int) -> Point:
        params, state = ({leaf: a[i] for leaf, a in done[part].items()} for part in PARTS)
        return Point(params, state, {})

    points = [point(i) for i in range(len(asked))]
    seeds = len(points) // len(arms)
    networks = {arm: points[seeds * i :][:seeds] for i, arm in enumerate(arms)}
    return networks, len(asked) * config.experiment.train.steps
