"""The results of several ladders by cell, arm, level and metric, and what they cost."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lth_jax.measures.optima import best_setting
from lth_jax.report.tables import Row
from lth_jax.types import DENSE, TICKET

LAST = -1
"""Stands for the last level of a ladder."""


class Cost(NamedTuple):
    """What a step of a cell's networks takes: steps of a level, batch size, prunable weights."""

    steps: int
    batch: int
    weights: int


class Results:
    """The results of ladders, by cell, arm, level and metric.

    Args:
      rows: tidy: `cell`, `arm`, `level`, `replicate`, `density`, `metric`, `value`.
      costs: by cell.
    """

    def __init__(self, rows: Sequence[Row], costs: Mapping[str, Cost]):
        self.rows, self._costs = list(rows), dict(costs)
        self._values: dict[tuple[str, str, int, str], dict[int, float]] = {}
        for row in self.rows:
            value = np.nan if row["value"] is None else row["value"]
            place = (row["cell"], row["arm"], row["level"], row["metric"])
            self._values.setdefault(place, {})[row["replicate"]] = value

    def levels(self, cell: str) -> list[int]:
        """The levels of a cell's ladder."""
        return sorted({row["level"] for row in self.rows if row["cell"] == cell})

    def of(self, cell: str, arm: str, metric: str, level: int = LAST) -> NDArray[np.float64]:
        """One value per replicate, in order; NaN for networks that diverged.

        Args:
          cell: its name.
          arm: dense networks are always those of level 0.
          metric: such as `test_accuracy_final`.
          level: of the ladder; the last by default.
        """
        chosen = self.levels(cell)[-1] if level == LAST else level
        found = self._values[cell, arm, 0 if arm == DENSE else chosen, metric]
        return np.array([found[replicate] for replicate in sorted(found)])

    def best_cell(self, arm: str, level: int = LAST) -> str:
        """The cell in which an arm has the smallest mean `validation_loss_best`.

        Raises:
          ValueError: if a network of the arm diverged in every cell.
        """
        return best_setting(
            {cell: self.of(cell, arm, "validation_loss_best", level) for cell in self._costs}
        )

    @property
    def member_steps(self) -> int:
        """The training steps of all networks together."""
        networks = {(r["cell"], r["arm"], r["level"], r["replicate"]) for r in self.rows}
        return sum(self._costs[cell].steps for cell, *_ in networks)

    def flops(self, cell: str) -> dict[str, float]:
        """Floating-point operations per network and arm, the search for its mask included.

        `6 · kept weights · batch · steps` for each training: two for every weight in the forward
        pass and four in the backward pass, which counts networks that use a weight once per
        example. Arms that have the ticket's mask, or as many weights per layer, pay for all
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


class Tuned(NamedTuple):
    """Ladders of which every arm has the learning rate that suits it.

    Attributes:
      rates: by arm, chosen on pilot seeds.
      results: of the ladders at these rates.
    """

    rates: dict[str, float]
    results: Results

    def of(self, arm: str, metric: str, level: int = LAST) -> NDArray[np.float64]:
        """One value per replicate of an arm, at the arm's own rate."""
        return self.results.of(f"{self.rates[arm]:g}", arm, metric, level)

    @property
    def member_steps(self) -> int:
        """The training steps of all networks together, the pilot's not counted."""
        return self.results.member_steps

    def flops(self) -> dict[str, float]:
        """As of `Results.flops`, for the arms that were tuned."""
        return {arm: self.results.flops(f"{rate:g}")[arm] for arm, rate in self.rates.items()}

    def described(self) -> str:
        """`rates_note` of the rates."""
        return rates_note(self.rates)


def rates_note(rates: Mapping[str, float]) -> str:
    """A sentence on chosen learning rates.

    >>> rates_note({"dense": 0.01, "ticket": 0.03})
    'Learning rates chosen on pilot seeds: dense 0.01, ticket 0.03.'
    """
    chosen = ", ".join(f"{arm} {rate:g}" for arm, rate in rates.items())
    return f"Learning rates chosen on pilot seeds: {chosen}."
