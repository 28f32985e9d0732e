"""C7: a ticket trades training error for the same test error."""

import functools

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner, dense_beside, dense_only, vary
from lth_jax.measures import simultaneous
from lth_jax.measures.claims import Contrasts, Control, Evidence, Primary, Protocol, arm_rows, draws
from lth_jax.measures.generalization import least_squares_errors
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.report.cells import Tuned

PROTOCOL = Protocol(
    claim="C7",
    title="Implicit regularisation",
    says="A sparse network cannot memorise everything: a ticket may err more than its dense parent "
    "on the training set and no more on the test set.",
    question="At density .13, is the tickets' training error higher than their dense parents', "
    "while their test accuracy is not lower by a point?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, an MLP 40-90-90-10 with Adam, "
    "700 steps; magnitude pruning in four rounds to density .13, rewound to the start.",
    arms=("dense", "ticket", "reinit", "shuffle", "small", "dense+"),
    statistic="training error of TICKET minus DENSE, in points, and their test accuracies' "
    "difference plus the margin; paired by seed",
    rule="Both must hold: the training error is higher by at least δ, and the test accuracy is "
    "within the margin (intersection–union). Learning rates are tuned for each arm on pilot seeds.",
    expects="Supported with 4,000 examples; with a few hundred both fit the training set exactly.",
    limits="One small network on one generated task; what a pruned ImageNet network memorises is "
    "another question.",
)
RATE = "optimizer__learning_rate"
LADDER, BESIDE = PROTOCOL.arms[:4], PROTOCOL.arms[4:]


def get_config(size: str = "laptop") -> ConfigDict:
    """4,000 examples, 700 steps, density .13, where the training error rises in a pilot."""
    common.check_size(size)
    config = common.mnist1d(seeds=48)
    config.experiment.controls = ("reinit", "shuffle")
    config.experiment.control_levels = (4,)
    config.study = common.numbers(
        delta=2.0,  # points of training error
        margin=1.0,  # points of test accuracy that may be lost
        rates=(3e-3, 1e-2, 3e-2),
        pilot_seeds=8,
        noise=1.0,  # the memorisation arm: all labels are drawn at random
        small=(22, 22, 10),  # dense, with as many weights as the ticket has
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config)
        config.study.small = (43, 14, 10)
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Tuned ladders, the small and the long dense network, and the arm of random labels."""
    study, name = config.study, PROTOCOL.claim
    tuned = runner.tuned(name, config, LADDER)
    noisy = {"train__label_noise": study.noise}
    others = {
        **dense_beside(config, study.small, tuned.rates["dense"]),
        "random labels": vary(config, controls=(), **noisy, **{RATE: tuned.rates["ticket"]}),
        "random labels, dense": dense_only(config, **noisy, **{RATE: tuned.rates["dense"]}),
    }
    beside = runner.ladders(name, others)

    def percent(metric: str) -> dict[str, NDArray[np.float64]]:
        own = {arm: 100 * tuned.of(arm, metric) for arm in LADDER}
        return own | {arm: 100 * beside.of(arm, "dense", metric) for arm in BESIDE}

    errors = {arm: 100 - each for arm, each in percent("train_accuracy_final").items()}
    test = percent("test_accuracy_final")
    stopped = 100 * tuned.of("dense", "test_accuracy_early_stop")
    fitted = {
        "ticket": beside.of("random labels", "ticket", "shown_loss_final"),
        "dense": beside.of("random labels, dense", "dense", "shown_loss_final"),
    }
    ahead = Contrasts(test | {"stopped": stopped}, "points")
    tested = ahead._replace(label="test accuracy, ")
    trained = Contrasts(errors, "points", label="training error, ")
    return Evidence(
        primaries=[
            trained("ticket", "dense", study.delta),
            tested("ticket", "dense", margin=study.margin),
        ],
        rows=[
            *arm_rows("train error", errors),
            *arm_rows("test error", {arm: 100 - each for arm, each in test.items()}),
        ],
        secondary=[
            tested("ticket", "dense"),
            ahead("ticket", "reinit"),
            ahead("ticket", "small"),
            ahead("ticket", "dense+", name="ticket − dense trained as long in all"),
            ahead("ticket", "stopped", name="ticket − dense stopped early"),
            Contrasts(fitted, "nats", 0.1, "loss on random labels, ")("ticket", "dense"),
        ],
        gate=test["ticket"] - test["shuffle"],
        member_steps=tuned.member_steps + beside.member_steps,
        flops=tuned.flops(),
        notes=(
            tuned.described(),
            "Ticket − dense at each density, in points, all intervals at once: "
            f"{simultaneous.in_words(by_density(config, tuned))}.",
        ),
    )


def by_density(config: ConfigDict, tuned: Tuned) -> dict[str, NDArray[np.float64]]:
    """Differences of training error and test accuracy at every level of the ladder."""

    def added(metric: str, level: int) -> NDArray[np.float64]:
        return 100 * (tuned.of("ticket", metric, level) - tuned.of("dense", metric))

    kept, levels = 1 - config.experiment.prune.rate, range(1, config.experiment.prune.levels + 1)
    return {
        f"{what} at {100 * kept**level:.3g} %": sign * added(metric, level)
        for level in levels
        for what, metric, sign in (
            ("training error", "train_accuracy_final", -1),
            ("test accuracy", "test_accuracy_final", 1),
        )
    }


def controls(config: ConfigDict) -> list[Control]:
    """Least squares of 60 examples with 8 features that matter of 40.

    On the true support the training error rises from 1 − 40/60 to 1 − 8/60 of the noise and the
    test error falls from 1 + 40/19 to 1 + 8/51 of it. On 8 random features the test error rises,
    since the signal is lost.
    """

    def errors(support: str) -> NDArray[np.float64]:
        seeds = range(900, 900 + config.study.control_seeds)
        return draws(lambda rng: least_squares_errors(rng, support), seeds)

    def control(name: str, expected: str, support: str) -> Control:
        train, test = (errors(support) - errors("dense")).T
        parts = [
            Primary("training error, sparse − dense", train, 0.3, "σ²"),
            Primary("test error, dense − sparse", -test, 0.0, "σ²"),
        ]
        return Control(name, expected, parts)

    return [
        control("least squares on the true support", SUPPORTED, "oracle"),
        control("least squares on random features", NOT_SUPPORTED, "random"),
    ]


draw = functools.partial(tidy.by_arm, metrics=("train error", "test error"), label="Error (%)")

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
