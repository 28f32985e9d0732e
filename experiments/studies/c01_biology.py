"""C1: the lottery model of biology, where varied offspring survive more often than clones."""

import functools
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax.measures.claims import Control, Evidence, Primary, Protocol, draws
from lth_jax.measures.families import Winners, log_mean, log_survival, simulate
from lth_jax.measures.odds import clones_survive, varied_survive
from lth_jax.measures.simultaneous import simultaneous
from lth_jax.measures.verdicts import NOT_SUPPORTED, REVERSED, SUPPORTED
from lth_jax.report import tidy

PROTOCOL = Protocol(
    claim="C1",
    title="The lottery of biology",
    says="Where nobody knows what the next environment wants, a few varied offspring are safer "
    "than many copies of one parent, as different tickets are safer than one ticket many times.",
    question="With a hundred types, and an environment that stays in one generation of ten, does "
    "a family of fifty varied offspring survive more often than one of a hundred clones?",
    setup="Families are simulated for one generation: clones have the type that the last "
    "environment wanted, varied offspring a type at random each, and are half as many (the twofold "
    "cost of sex). A family lives if any of them has the type that is wanted now.",
    arms=("varied", "clones"),
    statistic="log of the share of varied families that live, minus that of clones, in nats per "
    "generation; a seed is 100,000 families of either kind",
    rule="The difference is at least δ. The verdict is a property of the chosen numbers, so it is "
    "not corrected with the others; the map over types, family sizes and repeats is the answer.",
    expects="Supported here. The closed forms say that clones are as safe where the environment "
    "repeats more often than (P − 1/M)/(1 − 1/M), P being the chance of the varied family, and "
    "that on the mean number of winners variety only loses.",
    limits="Offspring are independent, parents do not adapt, and siblings do not compete; in "
    "comparative biology this model did badly against others (Burt and Bell, 1987). It says "
    "nothing about networks.",
)
DIFFERENCE = "log survival, varied − clones"


def get_config(size: str = "laptop") -> ConfigDict:
    """A hundred types, a hundred clones against fifty varied offspring, nine changes in ten."""
    common.check_size(size)
    config = ConfigDict()
    config.study = common.numbers(
        delta=0.01,  # nats of survival per generation
        seeds=48,
        families=100_000,  # simulated for each number
        types=100,
        clones=100,
        repeats=0.1,
        grid_types=(10, 100, 1000),
        grid_clones=(10, 100, 1000, 10_000),
        grid_repeats=(0.0, 0.1, 0.3, 0.6, 0.9),
        grid_families=10_000,
        control_seeds=64,
    )
    if size == "full":
        config.study.grid_families = 100_000
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """The primary cell, and a map over all cells with simultaneous intervals."""
    del runner
    study = config.study
    grid: list[tuple[Any, ...]] = list(
        product(study.grid_types, study.grid_clones, study.grid_repeats)
    )

    def survivals(rng: np.random.Generator) -> list[float]:
        asked = study.types, study.clones, study.repeats
        first = simulate(rng, *asked, families=study.families)
        others = (simulate(rng, *cell, families=study.grid_families) for cell in grid)
        return [log_survival(winners) for winners in (first, *others)]

    values = draws(survivals, [[1, seed] for seed in range(study.seeds)])
    rows = [
        {
            **dict(zip(("types", "clones", "repeats"), cell, strict=True)),
            "replicate": seed,
            "metric": DIFFERENCE,
            "value": float(value),
        }
        for cell, column in zip(grid, values[:, 1:].T, strict=True)
        for seed, value in enumerate(column)
    ]
    primary = Primary(DIFFERENCE, values[:, 0], study.delta, "nats")
    return Evidence([primary], rows, notes=_map_in_words(values[:, 1:], grid))


def _map_in_words(values: NDArray[np.float64], cells: Sequence[tuple[Any, ...]]) -> tuple[str, ...]:
    """Which families are safer in which cells, and the agreement with closed forms."""
    bands = simultaneous(values, rng=np.random.default_rng(1))
    varied, clones = sum(b.low > 0 for b in bands), sum(b.high < 0 for b in bands)
    types, size, repeats = np.array(cells).T
    exact = np.log(varied_survive(types, size // 2)) - np.log(clones_survive(types, repeats))
    inside = sum(b.low <= e <= b.high for b, e in zip(bands, exact, strict=True))
    return (
        f"Of {len(cells)} cells, varied families are safer in {varied} and clones in {clones} "
        "(simultaneous 95 % intervals).",
        f"The intervals hold the exact value in {inside} of {len(cells)} cells.",
    )


def controls(config: ConfigDict) -> list[Control]:
    """Two types (ln 2 up to one family in a thousand), one (0), and the mean count (−ln 2)."""
    study = config.study

    def control(
        name: str, expected: str, measure: Callable[[Winners], float], offset: int, *cell: Any
    ) -> Control:
        values = draws(
            lambda rng: measure(simulate(rng, *cell, families=study.families)),
            [[offset, seed] for seed in range(study.control_seeds)],
        )
        return Control(name, expected, [Primary(DIFFERENCE, values, study.delta, "nats")])

    return [
        control("two types, no repeats: + ln 2", SUPPORTED, log_survival, 901, 2, 20, 0.0),
        control("one type: all live", NOT_SUPPORTED, log_survival, 902, 1, 20, 0.0),
        control("the mean number of winners: − ln 2", REVERSED, log_mean, 903, 100, 100, 0.0),
    ]


draw = functools.partial(  # a map over types and repeats for each size of family
    tidy.grid_map,
    x="repeats",
    y="types",
    metric=DIFFERENCE,
    label="varied − clones (nats per generation)",
    x_label="Chance of a repeat",
    y_label="Types",
    panel="clones",
    panel_label="Clones:",
)

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
