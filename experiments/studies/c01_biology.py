"""C1: the lottery that the hypothesis is named after, where varied offspring outlive clones."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.configs.studies import c01
from experiments.studies.protocol import STUDIES, Control, Evidence, Primary, Protocol, Row, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax.measures.odds import clones_survive, varied_survive
from lth_jax.measures.verdicts import NOT_SUPPORTED, REVERSED, SUPPORTED, simultaneous
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
    in_family=False,
)
DIFFERENCE = "log survival, varied − clones"


class Winners(NamedTuple):
    """How many offspring of each family have the type that is wanted, `[families]`."""

    varied: NDArray[np.int64]
    clones: NDArray[np.int64]


def simulate(
    rng: np.random.Generator, types: int, clones: int, repeats: float, *, families: int
) -> Winners:
    """One generation of families of both kinds."""
    stays = rng.random(families) < repeats
    meets = rng.integers(types, size=families) == 0
    varied = rng.binomial(clones // 2, 1 / types, families)
    return Winners(varied, clones * (stays | meets))


def log_survival(winners: Winners) -> float:
    """The log share of families with a winner, varied minus clones."""
    return float(np.log(np.mean(winners.varied > 0)) - np.log(np.mean(winners.clones > 0)))


def log_mean(winners: Winners) -> float:
    """The log mean number of winners, varied minus clones."""
    return float(np.log(np.mean(winners.varied)) - np.log(np.mean(winners.clones)))


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """The primary cell, and the map over all of them with intervals that hold at once."""
    del runner
    study = config.study
    cells: list[tuple[Any, ...]] = list(
        product(study.grid_types, study.grid_clones, study.grid_repeats)
    )
    values = np.empty((study.seeds, 1 + len(cells)))
    for seed in range(study.seeds):
        rng = np.random.default_rng([1, seed])
        first = simulate(rng, study.types, study.clones, study.repeats, families=study.families)
        others = (simulate(rng, *cell, families=study.grid_families) for cell in cells)
        values[seed] = [log_survival(winners) for winners in (first, *others)]
    rows: list[Row] = [
        {
            "types": types,
            "clones": clones,
            "repeats": repeats,
            "replicate": seed,
            "metric": DIFFERENCE,
            "value": float(values[seed, 1 + i]),
        }
        for i, (types, clones, repeats) in enumerate(cells)
        for seed in range(study.seeds)
    ]
    told = _map_in_words(values[:, 1:], cells)
    return Evidence([Primary(DIFFERENCE, values[:, 0], study.delta, "nats")], rows, notes=told)


def _map_in_words(values: NDArray[np.float64], cells: Sequence[tuple[Any, ...]]) -> tuple[str, ...]:
    """Who is safer where, and how far the simulation is from the closed forms."""
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


def controls(runner: StudyRunner, config: ConfigDict) -> list[Control]:
    """Two types (ln 2, but for one family in a thousand), one (0), and the mean count (−ln 2)."""
    del runner
    study = config.study

    def control(
        name: str, expected: str, measure: Callable[[Winners], float], offset: int, *cell: Any
    ) -> Control:
        drawn = (
            simulate(np.random.default_rng([offset, seed]), *cell, families=study.families)
            for seed in range(study.control_seeds)
        )
        values = np.array([measure(winners) for winners in drawn])
        return Control(name, expected, [Primary(DIFFERENCE, values, study.delta, "nats")])

    return [
        control("two types, no repeats: + ln 2", SUPPORTED, log_survival, 901, 2, 20, 0.0),
        control("one type: all live", NOT_SUPPORTED, log_survival, 902, 1, 20, 0.0),
        control("the mean number of winners: − ln 2", REVERSED, log_mean, 903, 100, 100, 0.0),
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """A map over types and repeats for each size of family."""
    return tidy.grid_map(
        rows,
        "repeats",
        "types",
        DIFFERENCE,
        label="varied − clones (nats per generation)",
        x_label="Chance of a repeat",
        y_label="Types",
        panel="clones",
        panel_label="Clones:",
    )


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, c01.get_config, controls, gather, draw))
