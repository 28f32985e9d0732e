"""The results of several ladders by cell, arm, level and metric, and what they cost."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lth_jax.report.tables import Row
from lth_jax.types import DENSE, TICKET

LAST = -1
"""Stands for the last level of a ladder."""


class Cost(NamedTuple):
    """What the cost of a cell's networks depends on: steps of a level, batch size, weights."""

    steps: int
    batch: int
    weights: int


class Results:
    """The results of ladders, by cell, arm, level and metric.

    Args:
      rows: tidy: `cell`, `arm`, `level`, `replicate`, `density`, `metric`, `value`.
      costs: costs by cell.
    """

    def __init__(self, rows: Sequence[Row], costs: Mapping[str, Cost]):
        self.rows, self._costs = list(rows), dict(costs)
        self._values: dict[tuple[str, str, int, str], dict[int, float]] = {}
        self._levels: dict[str, set[int]] = {}
        for row in self.rows:
            self._levels.setdefault(row["cell"], set()).add(row["level"])
            value = np.nan if row["value"] is None else row["value"]
            place = (row["cell"], row["arm"], row["level"], row["metric"])
            self._values.setdefault(place, {})[row["replicate"]] = value

    def with_rows(self, rows: Sequence[Row]) -> "Results":
        """The same results and further ones of the same networks, such as another metric."""
        return Results([*self.rows, *rows], self._costs)

    @property
    def cells(self) -> list[str]:
        """The names of the cells."""
        return list(self._costs)

    def levels(self, cell: str) -> list[int]:
        """The levels of a cell's ladder."""
        return sorted(self._levels[cell])

    def of(self, cell: str, arm: str, metric: str, level: int = LAST) -> NDArray[np.float64]:
        """One value per replicate, in order; NaN for networks that diverged.

        Args:
          cell: its name.
          arm: dense networks are always those of level 0.
          metric: such as `test_accuracy_final`.
          level: level of the ladder; the last by default.
        """
        chosen = self.levels(cell)[-1] if level == LAST else level
        found = self._values[cell, arm, 0 if arm == DENSE else chosen, metric]
        return np.array([found[replicate] for replicate in sorted(found)])

    @property
    def member_steps(self) -> int:
        """The training steps of all networks together."""
        networks = {(r["cell"], r["arm"], r["level"], r["replicate"]) for r in self.rows}
        return sum(self._costs[cell].steps for cell, *_ in networks)

    def flops(self, cell: str) -> dict[str, float]:
        """Floating-point operations per network and arm, the search for its mask included.

        `6 · kept weights · batch · steps` for each training: two for every weight in the forward
        pass and four in the backward pass, which counts networks that use a weight once per
        example. Arms that have the ticket's mask, or as many weights per layer, include all
        trainings from the dense network to the ticket's parent; `random` does not.
        """
        steps, batch, weights = self._costs[cell]
        mine = [row for row in self.rows if row["cell"] == cell]
        density = {(row["arm"], row["level"]): row["density"] for row in mine}

        def training(arm: str, level: int) -> float:
            return 6.0 * density[arm, level] * weights * batch * steps

        last = self.levels(cell)[-1]
        trained = (
            {TICKET: [training(TICKET, level) for level in range(1, last + 1)]} if last else {}
        )
        search = training(DENSE, 0) + sum(trained.get(TICKET, [])[:-1])
        own = {arm: training(arm, level) for arm, level in density if level == last or arm == DENSE}
        free = (DENSE, "random")
        return {arm: cost + (0.0 if arm in free else search) for arm, cost in own.items()}


class Tuned:
    """Ladders at several learning rates, with the rate of each network chosen on other seeds.

    Rates are cross-fitted: a seed of one half has the rate with the best mean of a metric over the
    seeds of the other half, for each arm and level. So the interval accounts for the choice.

    Args:
      results: cells by `cell_name(variant, rate)`; the variant `""` holds the ladder, and each
        other one is an arm of its own, the dense network of its cell.
      rates: the candidates.
      by: the metric of the choice: the largest, or for a loss the smallest.
    """

    def __init__(self, results: Results, rates: Sequence[float], by: str = "test_accuracy_final"):
        self.results, self.rates, self._by = results, sorted(rates), by
        self._asked: dict[tuple[str, int], NDArray[np.float64]] = {}

    @classmethod
    def of_results(
        cls, results: Mapping[tuple[str, float], Mapping[str, ArrayLike]], cost: Cost
    ) -> "Tuned":
        """From networks without levels, such as `lottery.retrain` trains them.

        Args:
          results: by arm and rate, the final metrics by name, `[seeds]`.
          cost: cost of every network.
        """
        rows = [
            {"cell": cell_name("", rate), "arm": arm, "level": 0, "density": None}
            | {"replicate": i, "metric": metric, "value": float(value)}
            for (arm, rate), found in results.items()
            for metric, values in found.items()
            if metric.endswith("_final")
            for i, value in enumerate(np.asarray(values))
        ]
        rates = list(dict.fromkeys(rate for _, rate in results))
        return cls(Results(rows, {cell_name("", rate): cost for rate in rates}), rates)

    def of(self, arm: str, metric: str, level: int = LAST) -> NDArray[np.float64]:
        """One value per replicate, at the rate chosen for it.

        Raises:
          ValueError: the arm diverged at every rate.
        """
        chosen = self.chosen(arm, level)
        table = self._table(arm, metric, level)
        return table[[self.rates.index(rate) for rate in chosen], np.arange(len(chosen))]

    def chosen(self, arm: str, level: int = LAST) -> NDArray[np.float64]:
        """The rate of each replicate."""
        if (arm, level) not in self._asked:
            half, table = self._scores(arm, level)
            best = [self._best(table[:, half != h], arm) for h in (0, 1)]
            self._asked[arm, level] = np.array(best)[half]
        return self._asked[arm, level]

    def best_level(self, arm: str, levels: Sequence[int]) -> NDArray[np.int64]:
        """The level of each replicate that is best for the other half of the seeds.

        Each level counts with its best rate for that half.
        """
        return np.asarray(levels)[self._best_of([(arm, level) for level in levels])]

    def best_arm(self, arms: Sequence[str], level: int = LAST) -> list[str]:
        """The arm of each replicate that is best for the other half, at its best rate for it."""
        return [arms[i] for i in self._best_of([(arm, level) for arm in arms])]

    def _best_of(self, places: Sequence[tuple[str, int]]) -> NDArray[np.int64]:
        """The index of the best arm and level of each replicate, by the other half."""
        half = self._scores(*places[0])[0]
        tables = [self._scores(*place)[1] for place in places]
        best = [np.argmax([_means(t[:, half != h]).max() for t in tables]) for h in (0, 1)]
        return np.array(best)[half]

    def usual(self, arm: str, level: int = LAST) -> float:
        """The rate that all seeds together choose, for secondary results."""
        return self._best(self._scores(arm, level)[1], arm)

    def _scores(self, arm: str, level: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The half of each replicate, and what it is chosen by: rates by replicates, or −loss."""
        table = self._table(arm, self._by, level) * (-1 if "loss" in self._by else 1)
        return np.arange(table.shape[1]) % 2, table

    def _best(self, table: NDArray[np.float64], arm: str) -> float:
        means = _means(table)
        if not np.isfinite(means).any():
            raise ValueError(f"every learning rate diverged for '{arm}'.")
        return self.rates[int(means.argmax())]

    def _table(self, arm: str, metric: str, level: int) -> NDArray[np.float64]:
        variants = {cell.rpartition(" ")[0] for cell in self.results.cells}
        variant, inner = (arm, DENSE) if arm in variants else ("", arm)
        cells = [cell_name(variant, rate) for rate in self.rates]
        return np.stack([self.results.of(cell, inner, metric, level) for cell in cells])

    @property
    def member_steps(self) -> int:
        """The training steps of all networks together, at all rates."""
        return self.results.member_steps

    def flops(self) -> dict[str, float]:
        """As `Results.flops`, for every arm at its rate."""
        cells = [cell for cell in self.results.cells if cell.endswith(f"{self.rates[0]:g}")]
        found: dict[str, float] = {}
        for cell in cells:
            variant, costs = cell.rpartition(" ")[0], self.results.flops(cell)
            found |= {variant: costs[DENSE]} if variant else costs
        return found

    def described(self) -> str:
        """A sentence on the rates of all arms that were read, and on the ends of the grid."""
        read = {arm: self.chosen(arm, level) for arm, level in self._asked}
        rates = {arm: " and ".join(f"{r:g}" for r in np.unique(each)) for arm, each in read.items()}
        ends = [
            arm
            for arm, each in read.items()
            if np.isin(each, self.rates[:: len(self.rates) - 1 or 1]).any()
        ]
        listed = ", ".join(f"{arm} {rate}" for arm, rate in rates.items())
        grid = f"the grid from {self.rates[0]:g} to {self.rates[-1]:g}"
        beyond = f" Rates at an end of {grid}: {', '.join(ends)}." if ends else ""
        return f"Learning rates, each chosen by the other half of the seeds: {listed}.{beyond}"


def _means(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each row, −∞ if one of its values is not finite."""
    finite = np.isfinite(table).all(axis=1)
    return np.where(finite, np.nan_to_num(table).mean(axis=1), -np.inf)


def cell_name(variant: str, rate: float) -> str:
    """The name of a cell of `Tuned`.

    >>> cell_name("small", 0.01), cell_name("", 0.01)
    ('small 0.01', '0.01')
    """
    return f"{variant} {rate:g}".strip()
