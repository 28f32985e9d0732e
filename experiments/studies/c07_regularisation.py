"""C7: a ticket trades training error for the same test error."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.configs.studies import c07, common
from experiments.studies import simultaneous
from experiments.studies.protocol import STUDIES, Control, Evidence, Primary, Protocol, Row, Study
from experiments.studies.results import Tuned
from experiments.studies.study_runner import StudyRunner, dense_beside, dense_only, vary
from lth_jax.measures.generalization import least_squares_errors
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import tidy

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


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Tuned ladders, the small and the long dense network, and the arm of random labels."""
    study, name = config.study, PROTOCOL.claim
    arms = ("dense", "ticket", "reinit", "shuffle")
    tuned = runner.tuned(name, config, common.pilot(config, study.pilot_seeds), study.rates, arms)
    rate = {arm: {RATE: tuned.rates[arm]} for arm in arms}
    others = {
        **dense_beside(config, study.small, tuned.rates["dense"]),
        "random labels": vary(
            config, train__label_noise=study.noise, controls=(), **rate["ticket"]
        ),
        "random labels, dense": dense_only(config, train__label_noise=study.noise, **rate["dense"]),
    }
    beside = runner.ladders(name, others)

    def of(arm: str, metric: str) -> Any:
        if arm in ("small", "dense+"):
            return beside.of(arm, "dense", metric)
        return tuned.of(arm, metric)

    def error(arm: str) -> Any:
        return 100 - 100 * of(arm, "train_accuracy_final")

    def test(arm: str, when: str = "final") -> Any:
        return 100 * of(arm, f"test_accuracy_{when}")

    fitted = {
        "ticket": beside.of("random labels", "ticket", "shown_loss_final"),
        "dense": beside.of("random labels, dense", "dense", "shown_loss_final"),
    }
    rows = [
        {"arm": arm, "replicate": i, "metric": metric, "value": float(value)}
        for arm in (*arms, "small", "dense+")
        for metric, values in (("train error", error(arm)), ("test error", 100 - test(arm)))
        for i, value in enumerate(values)
    ]
    return Evidence(
        primaries=[
            Primary(
                "training error, ticket − dense",
                error("ticket") - error("dense"),
                study.delta,
                "points",
            ),
            Primary(
                f"test accuracy, ticket − dense + {study.margin:g}",
                test("ticket") - test("dense") + study.margin,
                0.0,
                "points",
            ),
        ],
        rows=rows,
        secondary=[
            Primary("test accuracy, ticket − dense", test("ticket") - test("dense"), 1.0, "points"),
            Primary("ticket − reinit", test("ticket") - test("reinit"), 1.0, "points"),
            Primary("ticket − small", test("ticket") - test("small"), 1.0, "points"),
            Primary(
                "ticket − dense trained as long in all",
                test("ticket") - test("dense+"),
                1.0,
                "points",
            ),
            Primary(
                "ticket − dense stopped early",
                test("ticket") - test("dense", "early_stop"),
                1.0,
                "points",
            ),
            Primary(
                "loss on random labels, ticket − dense",
                fitted["ticket"] - fitted["dense"],
                0.1,
                "nats",
            ),
        ],
        gate=test("ticket") - test("shuffle"),
        member_steps=tuned.member_steps + beside.member_steps,
        flops=tuned.flops(),
        notes=(
            tuned.described(),
            "Ticket − dense at each density, in points, all intervals at once: "
            f"{simultaneous.described(by_density(config, tuned))}.",
        ),
    )


def by_density(config: ConfigDict, tuned: Tuned) -> dict[str, NDArray[np.float64]]:
    """What tickets add to training error and test accuracy, at every level of the ladder."""

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


def controls(runner: StudyRunner, config: ConfigDict) -> list[Control]:
    """Least squares of 60 examples with 8 features that matter of 40.

    On the true support the training error rises from 1 − 40/60 to 1 − 8/60 of the noise and the
    test error falls from 1 + 40/19 to 1 + 8/51 of it; on 8 features drawn at random the test error
    rises, since the signal is lost.
    """
    del runner
    seeds = config.study.control_seeds
    dense, oracle, drawn = (
        np.array(
            [least_squares_errors(np.random.default_rng(900 + i), which) for i in range(seeds)]
        )
        for which in ("dense", "oracle", "random")
    )

    def parts(sparse: Any) -> list[Primary]:
        train, test = (sparse - dense).T
        return [
            Primary("training error, sparse − dense", train, 0.3, "σ²"),
            Primary("test error, dense − sparse", -test, 0.0, "σ²"),
        ]

    return [
        Control("least squares on the true support", SUPPORTED, parts(oracle)),
        Control("least squares on random features", NOT_SUPPORTED, parts(drawn)),
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """Training and test error of every arm."""
    return tidy.by_arm(rows, ("train error", "test error"), "Error (%)")


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, c07.get_config, controls, gather, draw))
