"""C13: a sparse student learns more from a powerful teacher than from labels alone."""

import copy
import functools

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.common import RATE, dense_only, vary
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.retraining import retrained
from experiments.studies.study_runner import StudyRunner
from lth_jax.lottery import Start
from lth_jax.measures import distillation
from lth_jax.measures.claims import Control, Evidence, Primary, Protocol, arm_rows, draws, relative
from lth_jax.measures.verdicts import NOT_SUPPORTED, REVERSED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.types import DENSE, TICKET

PROTOCOL = Protocol(
    claim="C13",
    title="Distillation into a sparse student",
    says="Pruning and distillation combine: a large, powerful teacher trains a sparse student "
    "better than labels alone.",
    question="Is a ticket at density .078 more accurate by δ if it learns from the answers of a "
    "powerful teacher than if it learns from its labels alone?",
    setup="MNIST-1D, 1,000 labelled examples of its own for every seed, an MLP 40-90-90-10 with "
    "Adam, 700 steps of 64 examples; students are tickets of five rounds of 40 % on the labels, "
    "rewound to the start. The teacher is an ensemble of four convolutional networks, trained on "
    "all 192,000 examples; taught students learn from its answers on their own examples, and on 64 "
    "of 160,000 further ones without labels in every step.",
    arms=(
        "ticket, labels",
        "ticket, taught",
        "ticket, taught on its own examples",
        "shuffle, labels",
        "shuffle, taught",
        "dense, labels",
        "dense, taught",
    ),
    statistic="test accuracy of the taught ticket minus that of the ticket trained on labels, in % "
    "of the error of dense networks trained on labels, paired by seed",
    rule="At least δ. The teacher has the weight .9 and the temperature 2, which were not tuned. "
    "Each arm has the learning rate that the other half of the seeds chose, and the mask that was "
    "found at this rate.",
    expects="Supported: the teacher passes on what 192 times as many examples hold (Hinton, "
    "Vinyals and Dean, 2015). Dense students should gain as much or more.",
    limits="All seeds share one ensemble of teachers, which a replication draws anew. The gain "
    "contains that of further examples; students of their own examples alone are shown beside. "
    "Taught students see twice as many examples in a step. The article says what distillation can "
    "do, and one setting is tested: each cell of a map would need teachers of its own.",
    paragraph="The Modern Frontier, point 3",
    chosen_by="A quarter of the labels of ORIGINAL, so that its network errs on more than half "
    "of the test examples, and a teacher that errs on less than a tenth; a density at which "
    "tickets beat their shuffles.",
)
TEST = "test_accuracy_final"
ACCURACY, OWN = "test accuracy (%)", "ticket, taught on its own examples"


def get_config(size: str = "laptop") -> ConfigDict:
    """1,000 labelled examples, students of density .078; `teacher` is the teachers' experiment."""
    common.check_size(size)
    config = common.mnist1d(seeds=24, examples=1000)
    experiment = config.experiment
    experiment.train.batch_size = 64
    experiment.prune.levels = 5
    experiment.control_levels = (5,)
    config.study = common.numbers(
        delta=10.0,  # % of the dense error
        rates=(3e-3, 1e-2, 3e-2),
        weight=0.9,  # of the teacher in the loss of labelled examples
        temperature=2.0,
        unlabelled=64,  # further examples in each step
        control_delta=0.05,  # in units of the noise's variance
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config)
        config.study.setup += (
            " 1,000 labelled examples, 50,000 without labels; four convolutional teachers that "
            "learn from all. A null would mean that students of this size take nothing from them."
        )
    config.teacher = _teacher(experiment)
    experiment.data.train_examples = 1000 * (experiment.replicates if size != "full" else 1)
    experiment.data.unlabelled = 50_000 if size == "full" else 160_000
    return config


def _teacher(experiment: ConfigDict) -> ConfigDict:
    """Four convolutional networks on all examples of an experiment."""
    teacher = copy.deepcopy(experiment)
    signals = "experiments.studies.signals:" if experiment.data.name == "mnist1d" else ""
    teacher.replicates = 4
    teacher.model.name = f"{signals}convnet"
    teacher.model.options = ConfigDict({"stages": ((16, 16), (32, 32)), "hidden": (64,)})
    teacher.train.update(steps=2000, eval_every=500, batch_size=128, share=0)
    teacher.optimizer.update(learning_rate=3e-3, schedule="cosine")
    return teacher


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Teachers, students of labels by ladders, and taught students from the same starts."""
    study, name = config.study, PROTOCOL.claim
    teacher = dense_only(ConfigDict({"experiment": config.teacher}))
    teachers = runner.ladders(name, {"teacher": teacher})
    distill = {
        "train__distill__teacher": runner.run_name(name, teacher),
        "train__distill__weight": study.weight,
        "train__distill__temperature": study.temperature,
    }
    own = vary(config, **distill)
    more = vary(own, train__distill__unlabelled=study.unlabelled)
    labels = runner.tuned(name, config)

    def starts(rate: float) -> dict[str, list[Start]]:
        found = runner.starts(name, vary(config, **{RATE: rate}), (DENSE, TICKET, "shuffle"))
        return {f"{arm}, taught": group for arm, group in found.items()}

    taught = retrained(runner, name, more, starts)
    alone = retrained(runner, name, own, lambda rate: {OWN: starts(rate)["ticket, taught"]})
    test = {f"{arm}, labels": 100 * labels.of(arm, TEST) for arm in (TICKET, "shuffle", DENSE)}
    test |= {arm: 100 * taught.of(arm, TEST) for arm in PROTOCOL.arms if arm.endswith("taught")}
    test[OWN] = 100 * alone.of(OWN, TEST)
    best = 100 * teachers.of("teacher", DENSE, TEST)
    cost = labels.flops()
    return evidence(study, {arm: test[arm] for arm in PROTOCOL.arms})._replace(
        member_steps=teachers.member_steps
        + labels.member_steps
        + taught.member_steps
        + alone.member_steps,
        flops={arm: cost[arm] for arm in (DENSE, TICKET)},
        notes=(
            f"Teachers: {best.mean():.1f} % of the test examples, each.",
            *(one.described() for one in (labels, taught, alone)),
        ),
    )


def evidence(study: ConfigDict, test: dict[str, NDArray[np.float64]]) -> Evidence:
    """The evidence from the test accuracies of all arms, in percent."""
    ahead = relative(test, dense="dense, labels", delta=study.delta)

    def gain(which: str) -> NDArray[np.float64]:
        return ahead(f"{which}, taught", f"{which}, labels").values

    both = gain(TICKET) - gain(DENSE)
    return Evidence(
        primaries=[ahead("ticket, taught", "ticket, labels")],
        rows=arm_rows(ACCURACY, test),
        secondary=[
            ahead("ticket, taught", "dense, taught"),
            ahead("ticket, taught", "dense, labels"),
            ahead("ticket, taught", "shuffle, taught"),
            ahead(OWN, "ticket, labels"),
            ahead("dense, taught", "dense, labels"),
            ahead("shuffle, taught", "shuffle, labels"),
            Primary("gain of tickets − gain of dense", both, study.delta, ahead.unit),
        ],
        gate=test["ticket, labels"] - test["shuffle, labels"],
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


draw = functools.partial(tidy.by_arm, metrics=(ACCURACY,), label="Test accuracy (%)")

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
