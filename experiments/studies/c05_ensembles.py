"""C5: many sparse networks against few dense ones, at equal cost."""

import functools
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments import networks
from experiments.studies import common
from experiments.studies.common import RATE, dense_only, vary
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax.lottery import logits_of
from lth_jax.measures import ensembles
from lth_jax.measures.claims import (
    MAP,
    Control,
    Evidence,
    Primary,
    Protocol,
    arm_rows,
    draws,
    relative,
)
from lth_jax.measures.ensembles import Scores, equal_run, equal_training
from lth_jax.measures.verdicts import REVERSED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.types import DENSE, TICKET

PROTOCOL = Protocol(
    claim="C5",
    title="Ensembles at equal compute",
    says="For the same compute, an ensemble of several sparse tickets, each a specialist, can "
    "sometimes beat a smaller ensemble of dense networks.",
    question="Is there a number of tickets and a density at which they together err less, by δ, "
    "than dense networks that cost as much to run, and than those that cost as much to train, the "
    "search for the tickets included?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, MLPs 40-64-64-10 with Adam, 400 "
    "steps; all networks of a seed see the same examples from different starts in different "
    "orders; magnitude pruning, half of the weights in each round, rewound to the start.",
    arms=("dense", "tickets", "shuffled", "small"),
    statistic="differences of test accuracy of the mean probabilities, in % of the error of one "
    "dense network, paired by seed",
    rule="Four and eight members and densities .25 and .125 are a map with simultaneous bands; a "
    "cell counts if the tickets beat both dense ensembles, the numbers of which are rounded up. "
    "Each arm has, at each density, the learning rate at which the other half of the seeds did "
    "best with one network. Shuffled masks and small dense networks as members are secondary.",
    expects="Not found: eight answers average more than two that cost as much to run, but fourteen "
    "dense networks that cost as much to train average more still. Tickets found during one "
    "training would change that (Liu et al., 2022).",
    limits="Weights and training steps stand for compute; whether a device is faster for it is "
    "C15's question, and whether tickets are specialists is C17's. One small task; the search is "
    "not shared between tickets. δ is 5 % of the dense error, as in ORIGINAL.",
    paragraph="The Engineer's Delight, paragraph 4",
    chosen_by="A network of ORIGINAL's family that fits 15 trainings for each seed into the "
    "budget, whose dense networks err alike after twice the steps and beat their shuffled tickets.",
    kind=MAP,
)
ACCURACY = "test_accuracy_final"
ERROR, NLL = "test error (%)", "negative log-likelihood (nats)"
SEED_STEP = 2**24
"""Seed offset between the starts of a seed's networks; the seeds of all rounds are smaller."""


def get_config(size: str = "laptop") -> ConfigDict:
    """An MLP 40-64-64-10 (7,296 weights), 400 steps, three rounds to density .125."""
    common.check_size(size)
    config = common.mnist1d(seeds=16)
    experiment = config.experiment
    experiment.data.options.update(train=66_000, test=10_000)
    experiment.model.options.features = (64, 64, 10)
    experiment.train.steps = 400
    experiment.prune.update(rate=0.5, levels=3)
    experiment.control_levels = (2, 3)
    config.study = common.numbers(
        delta=5.0,  # % of the error of one dense network
        members=(4, 8),
        small={"2": (24, 24, 10), "3": (14, 14, 10)},  # by level, with as many weights as a ticket
        rates=(3e-3, 1e-2, 3e-2),
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config)
        config.study.small = ConfigDict({"2": (82, 27, 10), "3": (41, 22, 10)})
        config.study.setup += (
            " Not found would mean that on MNIST a search for tickets costs more than their "
            "ensembles gain."
        )
    return config


class Arm(NamedTuple):
    """Networks of one kind: their config, their arm and level in it, and their arm in `Tuned`."""

    config: ConfigDict
    arm: str
    level: int
    tuned: str


def arms_of(config: ConfigDict) -> dict[str, Arm]:
    """Dense networks, and at each level tickets, shuffled masks and small dense networks."""
    found = {"dense": Arm(dense_only(config), DENSE, 0, DENSE)}
    for level in config.experiment.control_levels:
        widths = tuple(config.study.small[str(level)])
        small = dense_only(config, model__options__features=widths)
        found[f"tickets {level}"] = Arm(config, TICKET, level, TICKET)
        found[f"shuffled {level}"] = Arm(config, "shuffle", level, "shuffle")
        found[f"small {level}"] = Arm(small, DENSE, 0, f"small {level}")
    return found


def restarted(config: ConfigDict, start: int) -> ConfigDict:
    """The same experiment on the same examples from another start."""
    return vary(config, seed=config.experiment.seed + SEED_STEP * start)


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Rates from the first start of each kind, then all starts, and their ensembles."""
    study, name, levels = config.study, PROTOCOL.claim, config.experiment.control_levels
    arms, most, rate = arms_of(config), max(study.members), config.experiment.prune.rate
    beside = {arm: one.config for arm, one in arms.items() if arm.startswith("small")}
    tuned = runner.tuned(name, config, beside=beside)
    rates = {arm: tuned.chosen(one.tuned, one.level) for arm, one in arms.items()}
    starts = dict.fromkeys(arms, most) | {"dense": equal_training(most, max(levels), rate)}
    cells = {
        f"{config_key(one.config)} {start} {lr:g}": vary(
            restarted(one.config, start), **{RATE: float(lr)}
        )
        for arm, one in arms.items()
        for start in range(starts[arm])
        for lr in np.unique(rates[arm])
    }
    trained, data = runner.ladders(name, cells), runner.dataset(config)
    answers = {arm: _logits(runner, one, rates[arm], starts[arm]) for arm, one in arms.items()}

    def scored(arm: str, size: int) -> list[Scores]:
        return [
            ensembles.scores(shown[:size], data.test.y, held_out[:size], data.validation.y)
            for held_out, shown in zip(*answers[arm], strict=True)
        ]

    one = 100 * tuned.of(DENSE, ACCURACY)
    found, primaries, secondary = {"1 dense": scored("dense", 1)}, [], []
    for level in levels:
        density = (1 - rate) ** level
        for size in study.members:
            cell, equal = f"{size} at density {density:g}", equal_training(size, level, rate)
            run, trains = f"{equal_run(size, density)} dense", f"{equal} dense"
            for dense in (run, trains):
                found[dense] = found.get(dense) or scored("dense", int(dense.split()[0]))
            for words in PROTOCOL.arms[1:]:
                found[f"{words}, {cell}"] = scored(f"{words} {level}", size)
            accuracy = {arm: 100 - _of(each, "error") for arm, each in found.items()}
            ahead = relative(accuracy | {"one": one}, dense="one", delta=study.delta)
            tickets = f"tickets, {cell}"
            primaries += [ahead(tickets, dense)._replace(cell=cell) for dense in (run, trains)]
            secondary += [ahead(tickets, f"{words}, {cell}") for words in PROTOCOL.arms[2:]]
            gained = 100 * (1 - _of(found[tickets], "nll") / _of(found[run], "nll"))
            secondary.append(Primary(f"{tickets}: likelihood over {run}", gained, 2.0, "%"))
    cost = tuned.flops()
    return Evidence(
        primaries=primaries,
        rows=[
            row
            for metric, field in ((ERROR, "error"), (NLL, "nll"))
            for row in arm_rows(metric, {arm: _of(each, field) for arm, each in found.items()})
        ],
        secondary=secondary,
        gate=100 * (tuned.of(TICKET, ACCURACY) - tuned.of("shuffle", ACCURACY)),
        member_steps=tuned.member_steps + trained.member_steps,
        flops={"one dense network": cost[DENSE], "one ticket and its search": cost[TICKET]},
        notes=(tuned.described(),),
    )


def config_key(config: ConfigDict) -> str:
    """Widths and levels: what distinguishes the experiments of this study.

    >>> config_key(get_config())
    '64-64-10, 3'
    """
    experiment = config.experiment
    return f"{'-'.join(map(str, experiment.model.options.features))}, {experiment.prune.levels}"


def _logits(
    runner: StudyRunner, arm: Arm, rates: NDArray[np.float64], starts: int
) -> list[NDArray[np.float32]]:
    """On validation and test examples: `[seeds, starts, n, classes]`."""
    found = [
        network
        for start in range(starts)
        for network in runner.networks_at(
            PROTOCOL.claim, restarted(arm.config, start), arm.arm, rates, arm.level
        )
    ]
    data, model = runner.dataset(arm.config), networks.model(arm.config.experiment)
    logits = (logits_of(model, found, part.x) for part in (data.validation, data.test))
    return [z.reshape(starts, -1, *z.shape[1:]).swapaxes(0, 1) for z in logits]


def _of(scores: list[Scores], field: str) -> NDArray[np.float64]:
    return np.array([getattr(one, field) for one in scores])


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


draw = functools.partial(tidy.by_arm, metrics=(ERROR, NLL), label="")

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
