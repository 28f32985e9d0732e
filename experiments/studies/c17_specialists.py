"""C17: whether tickets are specialists by class, and dense networks generalists."""

import functools

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments import networks
from experiments.studies import common
from experiments.studies.c05_ensembles import restarted
from experiments.studies.common import RATE, vary
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax.lottery import logits_of
from lth_jax.measures.claims import Contrasts, Control, Evidence, Protocol, arm_rows, draws
from lth_jax.measures.ensembles import specialisation
from lth_jax.measures.verdicts import REVERSED, SUPPORTED
from lth_jax.report import tidy

PROTOCOL = Protocol(
    claim="C17",
    title="Specialists and generalists",
    says="Sparse tickets are specialists, each good at other classes; dense networks are "
    "generalists.",
    question="Do the accuracies by class of tickets from different starts differ more than those "
    "of dense networks, by δ?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, an MLP 40-64-64-10 with Adam, 400 "
    "steps; magnitude pruning in two rounds of half within layers, rewound to the start; eight "
    "starts for every seed.",
    arms=("dense", "ticket", "shuffle"),
    statistic="the standard deviation of the interaction of start and class in the table of "
    "accuracies, in points; TICKET minus DENSE in % of the mean of DENSE, paired by seed",
    rule="The difference is at least δ, a tenth. Each arm has the learning rate that the other "
    "half of the seeds chose, by the accuracy of the first start.",
    expects="Reversed: in C5, on other seeds and data, tickets of this density differed less than "
    "dense networks. A claim of specialists would need the opposite.",
    limits="One small network and ten balanced classes. The table contains the sampling error of "
    "accuracies on 1,000 examples of a class, which is the same in all arms of equal accuracy.",
    paragraph="The Engineer's Delight, paragraph 4",
    chosen_by="The network and steps of C5; its density at which tickets are as accurate as dense "
    "networks, since less accurate networks differ more by class.",
)
TEST, SPECIAL = "test_accuracy_final", "specialisation (points)"


def get_config(size: str = "laptop") -> ConfigDict:
    """An MLP 40-64-64-10, 400 steps, two rounds to density .25, eight starts."""
    common.check_size(size)
    config = common.mnist1d(seeds=32)
    experiment = config.experiment
    experiment.data.options.update(train=130_000, test=10_000)
    experiment.model.options.features = (64, 64, 10)
    experiment.train.update(steps=400, eval_every=400)
    experiment.prune.update(rate=0.5, levels=2)
    experiment.control_levels = (2,)
    config.study = common.numbers(
        delta=10.0,  # % of the specialisation of dense networks
        starts=8,
        rates=(3e-3, 1e-2, 3e-2),
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config)
        config.study.setup += (
            " Not supported would mean that tickets of LeNet are generalists, as dense networks "
            "are."
        )
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Rates from the first start, then all starts, and the differences of their accuracies."""
    study, name = config.study, PROTOCOL.claim
    tuned = runner.tuned(name, config)
    rates = {arm: tuned.chosen(arm) for arm in PROTOCOL.arms}
    cells = {
        f"{start} {rate:g}": vary(restarted(config, start), **{RATE: float(rate)})
        for start in range(study.starts)
        for rate in np.unique(np.concatenate(list(rates.values())))
    }
    trained, data = runner.ladders(name, cells), runner.dataset(config)
    model = networks.model(config.experiment)

    def special(arm: str) -> NDArray[np.float64]:
        level = 0 if arm == "dense" else config.experiment.prune.levels
        found = [
            network
            for start in range(study.starts)
            for network in runner.networks_at(
                name, restarted(config, start), arm, rates[arm], level
            )
        ]
        logits = logits_of(model, found, data.test.x)
        by_seed = logits.reshape(study.starts, -1, *logits.shape[1:]).swapaxes(0, 1)
        return np.array([specialisation(each, data.test.y) for each in by_seed])

    found = {arm: special(arm) for arm in PROTOCOL.arms}
    accuracy = {arm: 100 * tuned.of(arm, TEST) for arm in PROTOCOL.arms}
    ahead = _relative(found, study.delta)
    return Evidence(
        primaries=[ahead("ticket", "dense")],
        rows=arm_rows(SPECIAL, found),
        secondary=[
            ahead("shuffle", "dense"),
            Contrasts(accuracy, "points", 2.0, "test accuracy, ")("ticket", "dense"),
        ],
        gate=accuracy["ticket"] - accuracy["shuffle"],
        member_steps=tuned.member_steps + trained.member_steps,
        flops=tuned.flops(),
        notes=(tuned.described(),),
    )


def _relative(found: dict[str, NDArray[np.float64]], delta: float) -> Contrasts:
    """Contrasts of specialisation in % of its mean over dense networks."""
    shares = {arm: 100 * each / found["dense"].mean() for arm, each in found.items()}
    return Contrasts(shares, "% of dense networks", delta, "specialisation, ")


def controls(config: ConfigDict) -> list[Control]:
    """Eight members that are right with probability .7 ± s by class: s = .05 against .1."""

    def tables(rng: np.random.Generator) -> list[float]:
        return [_drawn(rng, strength) for strength in (0.05, 0.1)]

    few, more = draws(tables, [[971, i] for i in range(config.study.control_seeds)]).T
    delta = config.study.delta
    return [
        Control(
            "members twice as far apart by class",
            SUPPORTED,
            [_relative({"dense": few, "ticket": more}, delta)("ticket", "dense")],
        ),
        Control(
            "members half as far apart by class",
            REVERSED,
            [_relative({"dense": more, "ticket": few}, delta)("ticket", "dense")],
        ),
    ]


def _drawn(rng: np.random.Generator, strength: float) -> float:
    """The specialisation of eight members on 200 examples of each of ten classes."""
    right = 0.7 + strength * rng.choice((-1, 1), size=(8, 10))
    labels = np.repeat(np.arange(10), 200)
    is_right = rng.random((8, labels.size)) < np.repeat(right, 200, axis=1)
    answers = np.where(is_right, labels, (labels + 1) % 10)
    return specialisation(np.eye(10)[answers], labels)


draw = functools.partial(tidy.by_arm, metrics=(SPECIAL,), label="")

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
