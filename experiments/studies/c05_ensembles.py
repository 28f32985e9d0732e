"""C5: many sparse networks against few dense ones, at equal cost."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments import networks
from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner, dense_only, vary
from lth_jax.lottery import logits_of
from lth_jax.measures import ensembles, simultaneous
from lth_jax.measures.claims import Control, Evidence, Primary, Protocol, arm_rows, draws
from lth_jax.measures.ensembles import Scores
from lth_jax.measures.verdicts import REVERSED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.report.cells import rates_note
from lth_jax.types import DENSE, TICKET

PROTOCOL = Protocol(
    claim="C5",
    title="Ensembles at equal compute",
    says="For the same compute, an ensemble of several sparse tickets can sometimes beat a smaller "
    "ensemble of dense networks.",
    question="Do eight tickets at density .25 together give new examples a higher likelihood than "
    "two dense networks, which cost as much to run?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, MLPs 40-64-64-10 with Adam, 400 "
    "steps; all networks of a seed see the same examples from different starts in different "
    "orders; magnitude pruning in three rounds, rewound to the start.",
    arms=("2 dense", "8 tickets", "8 shuffled", "8 small", "1 wide", "18 dense"),
    statistic="how much lower the tickets' negative log-likelihood of the mean probabilities is on "
    "20,000 test examples, in percent of the dense networks', each ensemble at the temperature "
    "that suits 2,000 validation examples",
    rule="At least δ lower. Learning rates are tuned on pilot seeds for dense, sparse, small and "
    "wide networks; shuffled masks train at the tickets' rate.",
    expects="Supported, as a pilot of four seeds saw: errors vary much from start to start, and "
    "eight answers average more of that than two. Against the 18 dense networks that cost as much "
    "to train as the tickets and the search for them, the reverse.",
    limits="Equal cost means equal weights used for an answer; whether a device is faster for it "
    "is another question. One small task; tickets found one by one, not together.",
)
ACCURACY = "test_accuracy_final"
METRICS = (
    "negative log-likelihood (nats)",
    "… uncalibrated (nats)",
    "test error (%)",
    "diversity (Brier score)",
)
SEED_STEP = 10
"""Seed offset between the starts of a seed's networks; leaves room for pilot seeds."""


def get_config(size: str = "laptop") -> ConfigDict:
    """An MLP 40-64-64-10 (7,296 weights), 400 steps, three rounds to density .25."""
    common.check_size(size)
    config = common.mnist1d(seeds=16)
    experiment = config.experiment
    experiment.model.options.features = (64, 64, 10)
    experiment.train.steps = 400
    experiment.prune.update(rate=1 - 0.25 ** (1 / 3), levels=3)
    experiment.control_levels = (3,)
    config.study = common.numbers(
        delta=2.0,  # percent of the dense ensemble's negative log-likelihood
        tickets=8,
        dense=2,  # as many weights as the tickets have
        trained=18,  # dense networks that cost as much as the tickets and their search
        splits=((2, 5), (1, 3)),  # level and number: at .40 and .63, as many weights
        small=(24, 24, 10),  # dense, with as many weights as a ticket
        wide=(98, 98, 10),  # one dense network, with as many weights as all tickets
        rates=(3e-3, 1e-2, 3e-2),
        pilot_seeds=6,
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config)
        config.study.update(small=(82, 27, 10), wide=(560, 165, 10))
    return config


def restarted(config: ConfigDict, starts: int) -> dict[str, ConfigDict]:
    """The same experiment on the same examples from several starts."""
    first = config.experiment.seed
    return {str(i): vary(config, seed=first + SEED_STEP * i) for i in range(starts)}


def judged(
    runner: StudyRunner, config: ConfigDict, arm: str, level: int, *sizes: int
) -> list[list[Scores]]:
    """The ensembles of the first starts, for each size, one per seed."""
    found = [
        network
        for cell in restarted(config, max(sizes)).values()
        for network in runner.networks(PROTOCOL.claim, cell, arm, level)
    ]
    data, model = runner.dataset(config), networks.model(config.experiment)
    validation, test = (
        logits_of(model, found, part.x).reshape(max(sizes), -1, len(part.y), data.classes)
        for part in (data.validation, data.test)
    )

    def one(seed: int, size: int) -> Scores:
        parts = test[:size, seed], data.test.y, validation[:size, seed], data.validation.y
        return ensembles.scores(*parts)

    return [[one(seed, size) for seed in range(test.shape[1])] for size in sizes]


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Ensembles of tickets, of dense networks small and large, and of shuffled masks."""
    study, name, levels = config.study, PROTOCOL.claim, config.experiment.prune.levels
    cells = {
        TICKET: config,
        DENSE: dense_only(config),
        "small": dense_only(config, model__options__features=tuple(study.small)),
        "wide": dense_only(config, model__options__features=tuple(study.wide)),
    }
    starts = {TICKET: study.tickets, DENSE: study.trained, "small": study.tickets, "wide": 1}
    rates, trained = {}, {}
    for cell, planned in cells.items():
        arm = cell if cell == TICKET else DENSE
        rates[cell] = runner.tune(name, planned, (arm,))[arm]
        cells[cell] = vary(planned, optimizer__learning_rate=rates[cell])
        trained[cell] = runner.ladders(name, restarted(cells[cell], starts[cell]))

    def of(cell: str, arm: str, level: int, size: int) -> list[Scores]:
        return judged(runner, cells[cell], arm, level, size)[0]

    many, few = judged(runner, cells[DENSE], DENSE, 0, study.trained, study.dense)
    found = {
        f"{study.dense} dense": few,
        f"{study.tickets} tickets": of(TICKET, TICKET, levels, study.tickets),
        **{
            f"{size} tickets of round {level}": of(TICKET, TICKET, level, size)
            for level, size in study.splits
        },
        f"{study.tickets} shuffled": of(TICKET, "shuffle", levels, study.tickets),
        f"{study.tickets} small": of("small", DENSE, 0, study.tickets),
        "1 wide": of("wide", DENSE, 0, 1),
        f"{study.trained} dense": many,
    }
    ticket, shuffled = (trained[TICKET].of("0", arm, ACCURACY) for arm in (TICKET, "shuffle"))
    cost = {cell: results.flops("0") for cell, results in trained.items()}
    return evidence(study, found)._replace(
        gate=100 * (ticket - shuffled),
        member_steps=sum(results.member_steps for results in trained.values()),
        flops={
            f"{study.dense} dense": study.dense * cost[DENSE][DENSE],
            f"{study.trained} dense": study.trained * cost[DENSE][DENSE],
            f"{study.tickets} tickets": study.tickets * cost[TICKET][TICKET],
            f"{study.tickets} small": study.tickets * cost["small"][DENSE],
            "1 wide": cost["wide"][DENSE],
        },
        notes=(
            rates_note(rates),
            f"Likelihood over {study.dense} dense at equal cost, in percent, all intervals at "
            f"once: {simultaneous.in_words(by_density(study, found))}.",
        ),
    )


def by_density(
    study: ConfigDict, found: Mapping[str, Sequence[Scores]]
) -> dict[str, NDArray[np.float64]]:
    """The gain of ensembles with equal numbers of weights over few dense networks."""
    few = np.array([one.nll for one in found[f"{study.dense} dense"]])
    arms = [arm for arm in found if "tickets" in arm]
    return {arm: 100 * (1 - np.array([one.nll for one in found[arm]]) / few) for arm in arms}


def evidence(study: ConfigDict, found: Mapping[str, Sequence[Scores]]) -> Evidence:
    """The evidence from the ensembles of each arm."""
    few, many = f"{study.dense} dense", f"{study.trained} dense"
    tickets = f"{study.tickets} tickets"

    def of(arm: str, field: str) -> Any:
        return np.array([getattr(one, field) for one in found[arm]])

    def gain(arm: str, over: str = few, field: str = "nll") -> Primary:
        gained = 100 * (1 - of(arm, field) / of(over, field))
        how = ", uncalibrated" if field == "raw" else ""
        return Primary(f"{arm} over {over}, likelihood{how}", gained, study.delta, "%")

    fewer = of(few, "error") - of(tickets, "error")
    return Evidence(
        primaries=[gain(tickets)],
        rows=[
            row
            for metric, field in zip(METRICS, Scores._fields, strict=True)
            for row in arm_rows(metric, {arm: of(arm, field) for arm in found})
        ],
        secondary=[
            gain(tickets, field="raw"),
            Primary("test error, dense − tickets", fewer, 1.0, "points"),
            gain(tickets, over=many),
            *(gain(arm) for arm in found if arm not in (few, tickets)),
        ],
    )


def controls(config: ConfigDict) -> list[Control]:
    """Least squares on 40 features against the mean of two fits on 20 each: as many coefficients.

    With 50 examples the excess risks are 40/9 and 1.19 of the noise's variance: averaging is
    better; with 200 they are .25 and .61: its bias is worse.
    """
    seeds, delta = range(500, 500 + config.study.control_seeds), config.study.delta

    def control(n: int, expected: str) -> Control:
        dense, mean = draws(lambda rng: ensembles.block_errors(rng, n), seeds).T
        gained = Primary("excess risk gained", 100 * (dense - mean) / dense, delta, "%")
        return Control(f"two halves against one fit, {n} examples", expected, [gained])

    return [control(50, SUPPORTED), control(200, REVERSED)]


draw = functools.partial(tidy.by_arm, metrics=METRICS[:1] + METRICS[2:3], label="")

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
