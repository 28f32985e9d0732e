"""C1: the lottery model of biology, where varied offspring survive more often than clones."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax.measures import families
from lth_jax.measures.claims import (
    CURVE,
    Control,
    Evidence,
    Primary,
    Protocol,
    Row,
    arm_rows,
    draws,
)
from lth_jax.measures.families import Winners, log_mean, log_survival, simulate
from lth_jax.measures.verdicts import NOT_SUPPORTED, REVERSED, SUPPORTED
from lth_jax.report import tidy

PROTOCOL = Protocol(
    claim="C1",
    title="The lottery of biology",
    says="In an environment that changes unpredictably, a family with many different types has a "
    "higher chance of one survivor than as many copies of one type, even at a cost.",
    question="Up to which chance that the environment repeats is a family of varied offspring "
    "safer than one of clones, over the number of types, the size of the family and the cost?",
    setup="Families are simulated for one generation: clones have the type that the last "
    "environment favoured; varied offspring have random types, and are fewer by the cost (1, 2 or "
    "4; sex has 2). A family survives if one of its members has the type that is favoured now.",
    arms=("varied", "clones"),
    statistic="the chance r* of a repeat at which both families survive equally often, from the "
    "share of varied families that survive; and the log of their survival minus that of clones, in "
    "nats, if the environment repeats once in ten generations",
    rule="A curve without a verdict: the model has a closed form, r* = (P − 1/M)/(1 − 1/M) with "
    "P = 1 − (1 − 1/M)ᵏ for M types and k varied offspring. The simulation is its control.",
    expects="The closed form. The number of clones does not matter to them, and on the mean number "
    "of survivors variety only loses its cost.",
    limits="Offspring are independent, parents do not adapt, and siblings do not compete; in "
    "comparative biology this model did badly against others (Burt and Bell, 1987). It is a "
    "statement about its own assumptions, and none about networks.",
    paragraph="The Original Lottery, paragraph 1",
    chosen_by="The usual cost of sex and its half and double; families from a tenth to a thousand "
    "times the number of types.",
    kind=CURVE,
)
EVEN, DIFFERENCE = "break-even chance of a repeat", "log survival, varied − clones"
FIELDS = ("types", "clones", "cost")


def get_config(size: str = "laptop") -> ConfigDict:
    """All of 3 numbers of types, 4 sizes of families and 3 costs."""
    common.check_size(size)
    config = ConfigDict()
    config.study = common.numbers(
        delta=0.01,  # of the chance, and nats of survival
        seeds=48,
        families=20_000,  # simulated for each seed and cell
        repeats=0.1,
        types=(10, 100, 1000),
        clones=(10, 100, 1000, 10_000),
        costs=(1.0, 2.0, 4.0),
        control_families=100_000,
        control_seeds=64,
    )
    if size == "full":
        config.study.families = 100_000
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Break-even chances and log survival in all cells, simulated and exact."""
    del runner
    study = config.study
    cells = list(product(study.types, study.clones, study.costs))

    def measured(rng: np.random.Generator) -> list[tuple[float, float]]:
        found = []
        for types, clones, cost in cells:
            drawn = simulate(rng, types, clones, study.repeats, cost, families=study.families)
            even = families.break_even(types, np.mean(drawn.varied > 0))
            found.append((float(even), log_survival(drawn)))
        return found

    values = draws(measured, [[study.seed, i] for i in range(study.seeds)])
    types, clones, costs = np.array(cells).T
    varied = families.varied_survive(types, clones // costs)
    exact = {
        EVEN: families.break_even(types, varied),
        DIFFERENCE: np.log(varied) - np.log(families.clones_survive(types, study.repeats)),
    }
    rows: list[Row] = []
    for i, cell in enumerate(cells):
        fields = dict(zip(FIELDS, cell, strict=True))
        for j, (metric, curve) in enumerate(exact.items()):
            arms: dict[str, Any] = {
                f"M = {cell[0]}": values[:, i, j],
                f"M = {cell[0]}, exact": [curve[i]],
            }
            rows += arm_rows(metric, arms, **fields)

    label = "{}: {} types, {} clones, cost {:g}".format
    means = values.mean(axis=0).T
    apart = [np.abs(mean - one).max() for mean, one in zip(means, exact.values(), strict=True)]
    return Evidence(
        primaries=[
            Primary(label(EVEN, *cell), values[:, i, 0], study.delta, "")
            for i, cell in enumerate(cells)
            if cell[:2] == (100, 100)
        ],
        rows=rows,
        notes=(
            f"Over {len(cells)} cells, simulated means differ from the exact break-even chance by "
            f"at most {apart[0]:.2g}, and from the exact log survival by {apart[1]:.2g} nats. "
            f"If it repeats with chance {study.repeats:g}, varied families are safer in "
            f"{np.sum(exact[DIFFERENCE] > 0)} cells and clones in {np.sum(exact[DIFFERENCE] < 0)}.",
        ),
    )


def controls(config: ConfigDict) -> list[Control]:
    """Two types (ln 2), the exact break-even chance (0), and the mean count (−ln 2)."""
    study = config.study
    even = families.break_even(100, families.varied_survive(100, 25)).item()

    def control(
        name: str, expected: str, measure: Callable[[Winners], float], offset: int, *cell: Any
    ) -> Control:
        values = draws(
            lambda rng: measure(simulate(rng, *cell, families=study.control_families)),
            [[offset, seed] for seed in range(study.control_seeds)],
        )
        return Control(name, expected, [Primary(DIFFERENCE, values, study.delta, "nats")])

    return [
        control("two types, no repeats: + ln 2", SUPPORTED, log_survival, 901, 2, 20, 0.0),
        control(
            "the exact break-even chance: 0", NOT_SUPPORTED, log_survival, 902, 100, 100, even, 4.0
        ),
        control("the mean number of survivors: − ln 2", REVERSED, log_mean, 903, 100, 100, 0.0),
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """The break-even chance against the size of the family, a panel for each cost."""
    mine = [row for row in rows if row["metric"] == EVEN]
    parts = {
        f"cost {cost:g}": [row for row in mine if row["cost"] == cost]
        for cost in tidy.known(mine, "cost")
    }
    return tidy.against_each(
        parts, "clones", label="Break-even chance of a repeat", x_label="Clones of a family"
    )


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
