"""C7: a ticket trades training error for the same test error."""

import functools

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.common import RATE, dense_beside, dense_only, vary
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax.measures.claims import (
    MAP,
    Contrasts,
    Control,
    Evidence,
    Primary,
    Protocol,
    arm_rows,
    draws,
    relative,
)
from lth_jax.measures.generalization import least_squares_errors
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.report.cells import LAST, Tuned

PROTOCOL = Protocol(
    claim="C7",
    title="Implicit regularisation",
    says="A sparse network cannot memorise everything: a ticket may err more than its dense parent "
    "on the training set and no more on the test set.",
    question="Is there a density at which the tickets' training error is higher than their dense "
    "parents' by δ, while their test accuracy is within δ of that of dense networks trained to the "
    "end, and of dense networks stopped early?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, an MLP 40-90-90-10 with Adam, "
    "1,500 steps; magnitude pruning in four rounds of 40 % within layers, rewound to the start.",
    arms=("dense", "ticket", "reinit", "shuffle", "small", "dense+"),
    statistic="training error of TICKET minus DENSE, and differences of test accuracy plus the "
    "margin δ, all in % of the dense test error; paired by seed",
    rule="The four densities are a map with simultaneous bands; a density counts if all three "
    "parts hold there. Each arm has, at each density, the learning rate that the other half of "
    "the seeds chose; dense networks stopped early have the rate with the best accuracy there.",
    expects="Found with 4,000 examples; with a few hundred both fit the training set exactly.",
    limits="One small network on one generated task; what a pruned ImageNet network memorises is "
    "another question.",
    paragraph="A Deeper Dive, paragraph 3",
    chosen_by="The network and steps of ORIGINAL, whose dense networks have converged and beat "
    "shuffled tickets; 4,000 examples, the most that every seed can have for itself.",
    kind=MAP,
)
TEST, TRAIN, EARLY = "test_accuracy_final", "train_accuracy_final", "test_accuracy_early_stop"
LADDER, BESIDE = PROTOCOL.arms[:4], PROTOCOL.arms[4:]


def get_config(size: str = "laptop") -> ConfigDict:
    """4,000 examples, 1,500 steps, densities .6 to .13."""
    common.check_size(size)
    config = common.mnist1d(seeds=24)
    config.experiment.train.update(steps=1500, eval_every=150)
    config.experiment.controls = ("reinit", "shuffle")
    config.experiment.control_levels = (4,)
    config.study = common.numbers(
        delta=10.0,  # % of the dense test error
        rates=(3e-3, 1e-2, 3e-2, 6e-2),
        noise=1.0,  # the memorisation arm: all labels are drawn at random
        small=(22, 22, 10),  # dense, with as many weights as the last ticket
        control_seeds=64,
        series=1,
    )
    if size == "full":
        common.lenet(config)
        config.study.small = (43, 14, 10)
        config.study.setup += (
            " Not found would mean that the tickets of LeNet memorise as much as their dense "
            "parents wherever they generalise as well."
        )
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Ladders at all rates, the small and the long dense network, and the arm of random labels."""
    study, name, levels = config.study, PROTOCOL.claim, config.experiment.prune.levels
    tuned = runner.tuned(name, config, beside=dense_beside(config, study.small))
    noisy = {"train__label_noise": study.noise}
    random = runner.ladders(
        name,
        {
            "ticket": vary(config, controls=(), **noisy, **{RATE: tuned.usual("ticket")}),
            "dense": dense_only(config, **noisy, **{RATE: tuned.usual("dense")}),
        },
    )
    fitted = {arm: random.of(arm, arm, "batch_loss_final") for arm in ("ticket", "dense")}

    def percent(metric: str, level: int = LAST) -> dict[str, NDArray[np.float64]]:
        arms = PROTOCOL.arms if level == LAST else LADDER[:2]
        return {arm: 100 * tuned.of(arm, metric, level) for arm in arms}

    test, train = percent(TEST), percent(TRAIN)
    stopped = 100 * Tuned(tuned.results, tuned.rates, EARLY).of("dense", EARLY)

    def parts(level: int) -> list[Primary]:
        density = f"density {(1 - config.experiment.prune.rate) ** level:.2g}"
        errors = {arm: 100 - each for arm, each in percent(TRAIN, level).items()}
        trained = relative(errors | {"whole": test["dense"]}, dense="whole", delta=study.delta)
        tested = relative(percent(TEST, level) | {"dense stopped early": stopped})
        found = [
            trained._replace(label=f"{density}, training error, ")("ticket", "dense"),
            *(
                tested._replace(label=f"{density}, test, ")("ticket", other, margin=study.delta)
                for other in ("dense", "dense stopped early")
            ),
        ]
        return [part._replace(cell=density) for part in found]

    ahead = relative(test)
    return Evidence(
        primaries=[part for level in range(1, levels + 1) for part in parts(level)],
        rows=[
            *arm_rows("train error", {arm: 100 - each for arm, each in train.items()}),
            *arm_rows("test error", {arm: 100 - each for arm, each in test.items()}),
        ],
        secondary=[
            *(ahead("ticket", arm) for arm in ("dense", "reinit", "small")),
            ahead("ticket", "dense+", name="ticket − dense trained as long in all"),
            Contrasts(fitted, "nats", 0.1, "loss on random labels, ")("ticket", "dense"),
        ],
        gate=test["ticket"] - test["shuffle"],
        member_steps=tuned.member_steps + random.member_steps,
        flops=tuned.flops(),
        notes=(tuned.described(),),
    )


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

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw, minutes=7))
