"""C13: a sparse student learns more from its dense parent than from labels alone."""

import functools
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.distillation import (
    AMISS,
    ANSWERS,
    RATE,
    STUDENTS,
    Results,
    chosen_lessons,
    lessons,
    matched,
    taught,
)
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner, dense_only, vary
from lth_jax.lottery import Start
from lth_jax.measures import distillation
from lth_jax.measures.claims import Contrasts, Control, Evidence, Primary, Protocol, arm_rows, draws
from lth_jax.measures.verdicts import NOT_SUPPORTED, REVERSED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.types import DENSE, TICKET

PROTOCOL = Protocol(
    claim="C13",
    title="Distillation into a sparse student",
    says="Pruning and distillation go together: a dense teacher's answers train a sparse student "
    "better than labels alone.",
    question="Is a ticket at density .13 more often right on new examples if it learns from the "
    "answers of its dense parent than if it learns from the labels?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, an MLP 40-90-90-10 with Adam, "
    "700 steps; students are tickets of four rounds, rewound to the start; the teacher is the "
    "student's dense parent, trained on the same examples.",
    arms=(
        "ticket, labels",
        "ticket, taught",
        "ticket, smoothed",
        "ticket, taught amiss",
        "shuffle, labels",
        "shuffle, taught",
        "dense, labels",
        "dense, taught",
    ),
    statistic="test accuracy of the taught ticket minus that of the ticket trained on labels, from "
    "the same start on batches of the same order, in points",
    rule="At least δ. Learning rates are chosen on pilot seeds, for dense and sparse networks that "
    "learn from labels and for those that are taught, together with the teacher's weight and "
    "temperature.",
    expects="A small gain, which smoothed labels of the same entropy share in part and dense "
    "students as well: what helps is the softness of the targets more than the student's sparsity.",
    limits="One teacher, no larger than the student's parent and without further data; teachers "
    "that know more may teach more.",
)
FINAL, LOST = "test_accuracy_final", "test_loss_final"
ACCURACY, LOSS = "test accuracy (%)", "test loss (nats)"


def get_config(size: str = "laptop") -> ConfigDict:
    """4,000 examples, 700 steps, students of density .13."""
    common.check_size(size)
    config = common.mnist1d(seeds=48)
    config.experiment.control_levels = (4,)
    config.study = common.numbers(
        delta=1.0,  # points of test accuracy
        rates=(3e-3, 1e-2, 3e-2),
        temperatures=(1.0, 2.0, 4.0),
        weights=(0.5, 1.0),  # weights of the teacher in the loss
        pilot_seeds=4,
        control_delta=0.05,  # in units of the noise's variance
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config)
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Students of labels, teachers, smoothed labels and shuffled logits."""
    study, name = config.study, PROTOCOL.claim
    pilot = vary(common.pilot(config, study.pilot_seeds), controls=())
    rates = runner.tune(name, config, STUDENTS, pilot=pilot)
    lesson = chosen_lessons(runner, f"{name}-pilot", pilot, study, rates)
    lesson["shuffle"] = lesson[TICKET]
    cells = {"ticket": vary(config, **{RATE: rates[TICKET]})}
    cells["teacher"] = dense_only(config, **{RATE: rates[DENSE]})
    ladders = runner.ladders(name, cells)
    answers = lessons(runner, name, cells["teacher"], seed=config.experiment.seed)
    starts = runner.starts(name, cells["ticket"], (DENSE, TICKET, "shuffle"))
    weight, rate = (lesson[TICKET][field] for field in ("distillation", "learning_rate"))
    smoothing = [
        {
            "label_smoothing": matched(runner, config, answers[ANSWERS], one, weight),
            "learning_rate": rate,
        }
        for one in starts[TICKET]
    ]

    def arm(which: str, **numbers: float) -> tuple[Sequence[Start], list[dict[str, float]]]:
        plain = {"learning_rate": rates[DENSE if which == DENSE else TICKET]}
        return starts[which], [plain | numbers] * len(starts[which])

    arms = {
        **{f"{which}, labels": arm(which) for which in starts},
        **{f"{which}, taught": arm(which, **lesson[which]) for which in starts},
        "ticket, taught amiss": arm(TICKET, **lesson[TICKET], lesson=AMISS),
        "ticket, smoothed": (starts[TICKET], smoothing),
    }
    found = taught(runner, name, cells["ticket"], answers, arms)
    steps = config.experiment.train.steps * sum(len(r[LOST]) for r in found.values())
    flops = ladders.flops("ticket")
    chosen = "; ".join(
        f"{arm} {rates[arm]:g} for labels, "
        "weight {:g}, temperature {:g} and rate {:g} if taught".format(*lesson[arm].values())
        for arm in STUDENTS
    )
    return evidence(study, found)._replace(
        gate=100 * (ladders.of("ticket", TICKET, FINAL) - ladders.of("ticket", "shuffle", FINAL)),
        member_steps=ladders.member_steps + steps,
        flops={arm: flops[arm.split(",")[0]] for arm in found},
        notes=(f"Chosen on pilot seeds: {chosen}.",),
    )


def evidence(study: ConfigDict, found: Results) -> Evidence:
    """The evidence from the students of all arms."""
    test = {arm: 100 * np.asarray(found[arm][FINAL], np.float64) for arm in PROTOCOL.arms}
    losses = {arm: np.asarray(found[arm][LOST], np.float64) for arm in PROTOCOL.arms}
    gain = Contrasts(test, "points", study.delta)
    loss = Contrasts(losses, "nats", 0.05, "test loss, ")

    def taught_gain(which: str) -> NDArray[np.float64]:
        return gain(f"{which}, taught", f"{which}, labels").values

    return Evidence(
        primaries=[gain("ticket, taught", "ticket, labels")],
        rows=[*arm_rows(ACCURACY, test), *arm_rows(LOSS, losses)],
        secondary=[
            gain("ticket, taught", "ticket, smoothed"),
            gain("ticket, taught", "ticket, taught amiss"),
            gain("dense, taught", "dense, labels"),
            gain("shuffle, taught", "shuffle, labels"),
            Primary(
                "gain of tickets − gain of dense",
                taught_gain("ticket") - taught_gain("dense"),
                study.delta,
                "points",
            ),
            gain("ticket, taught", "dense, labels"),
            loss("ticket, labels", "ticket, taught"),
            loss("ticket, smoothed", "ticket, taught"),
        ],
    )


def controls(config: ConfigDict) -> list[Control]:
    """Least-squares students of the 8 features that matter, of 40, from 60 examples.

    The true function as a teacher removes the whole excess risk, 8/51; a dense least-squares fit
    removes exactly nothing; the truth about other examples increases it.
    """
    study, seeds = config.study, range(1300, 1300 + config.study.control_seeds)

    def control(name: str, teacher: str, expected: str) -> Control:
        labels, taught = draws(lambda rng: distillation.student_risks(rng, teacher), seeds).T
        gained = np.round(labels - taught, 12)  # exactly 0, without rounding errors
        return Control(
            name, expected, [Primary("excess risk gained", gained, study.control_delta, "σ²")]
        )

    return [
        control("least squares, taught the truth", "truth", SUPPORTED),
        control("least squares, taught by the dense fit", "dense", NOT_SUPPORTED),
        control("least squares, taught about other examples", "stranger", REVERSED),
    ]


draw = functools.partial(tidy.by_arm, metrics=(ACCURACY, LOSS), label="")

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
