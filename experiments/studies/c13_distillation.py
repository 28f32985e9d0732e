"""C13: a sparse student learns more from its dense parent than from labels alone."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.configs.studies import c13, common
from experiments.studies.bench import Bench, Start, vary
from experiments.studies.protocol import Control, Evidence, Primary, Protocol, Row, Study
from lth_jax import store as stores
from lth_jax.lottery import Lab
from lth_jax.measures import distillation
from lth_jax.measures.verdicts import NOT_SUPPORTED, REVERSED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.training import augment, losses
from lth_jax.training.segment import Member
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
ANSWERS, AMISS = 0, 1  # what is said of the examples: as the teacher says, or wrong classes mixed
RATE = "optimizer__learning_rate"
FINAL, LOST = "test_accuracy_final", "test_loss_final"
STUDENTS = (DENSE, TICKET)
LESSON = ("distillation", "temperature", "learning_rate")
ACCURACY, LOSS = "test accuracy (%)", "test loss (nats)"
Arms = Mapping[str, tuple[Sequence[Start], Sequence[Mapping[str, float]]]]


def lessons(bench: Bench, name: str, teachers: ConfigDict, seed: int) -> NDArray[np.float32]:
    """What the dense networks of a cell say of their own examples, and the same shuffled.

    Args:
      bench: where they were trained.
      name: of the study.
      teachers: the cell.
      seed: of the shuffling.

    Returns:
      `(2, examples, classes)`.
    """
    dense = sorted(bench.networks(name, teachers, (DENSE,)), key=lambda one: one.replicate)
    said = bench.own_logits(teachers, [one for one in dense if one.level == 0])
    said = said.reshape(-1, said.shape[-1])
    labels = bench.dataset(teachers).train.y[: len(said)]
    amiss = distillation.shuffled_answers(np.random.default_rng(seed), said, labels)
    return np.stack([said, amiss]).astype(np.float32)


def school(lab: Lab, answers: NDArray[np.float32]) -> Lab:
    """Trains with what teachers say, each network by the numbers in its `hyper`."""

    def choose(said: jax.Array, member: Member) -> jax.Array:
        return said[member.hyper["lesson"].astype(jnp.int32)][None]

    classes = answers.shape[-1]
    steps = (
        augment.soft_targets(classes),
        augment.smooth,
        augment.taught(jnp.asarray(answers), choose),
    )
    trainer = lab.trainer._replace(show=augment.shows(*steps), objective=losses.distillation)
    return lab._replace(trainer=trainer)


def taught(
    bench: Bench, name: str, config: ConfigDict, answers: NDArray[np.float32], arms: Arms
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Trains the starts of all arms together; results by arm and metric, one per start."""
    lab = school(bench.lab(config), answers)
    starts = [
        start._replace(hyper={"distillation": 0.0, "lesson": ANSWERS, **numbers})
        for group, each in arms.values()
        for start, numbers in zip(group, each, strict=True)
    ]
    facts = {"lessons": stores.fingerprint(answers)}
    results = bench.retrain(name, config, starts, lab=lab, facts=facts)["results"]
    ends = np.cumsum([len(group) for group, _ in arms.values()])[:-1]
    split = {metric: np.split(values, ends) for metric, values in results.items()}
    return {
        arm: {metric: parts[i] for metric, parts in split.items()} for i, arm in enumerate(arms)
    }


def chosen_lessons(
    bench: Bench, pilot: ConfigDict, study: ConfigDict, rates: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """The teacher's weight, its temperature and the rate that suit pilot students, by their arm.

    Args:
      bench: where the pilot's ladders were trained.
      pilot: the experiment on pilot seeds.
      study: the candidates.
      rates: learning rates of dense networks and tickets that learn from labels.
    """
    name = f"{PROTOCOL.claim}-pilot"
    ladder, teachers = (vary(pilot, **{RATE: rates[arm]}) for arm in (TICKET, DENSE))
    answers = lessons(bench, name, teachers, seed=pilot.experiment.seed)
    starts = bench.starts(name, ladder, STUDENTS)
    candidates = itertools.product(study.weights, study.temperatures, study.rates)
    grid = [dict(zip(LESSON, numbers, strict=True)) for numbers in candidates]
    arms = {
        f"{arm} {i}": (starts[arm], [numbers] * len(starts[arm]))
        for arm in STUDENTS
        for i, numbers in enumerate(grid)
    }
    found = taught(bench, name, ladder, answers, arms)

    def loss(arm: str, i: int) -> float:
        mean = float(np.mean(found[f"{arm} {i}"]["validation_loss_best"]))
        return mean if np.isfinite(mean) else np.inf

    return {arm: grid[min(range(len(grid)), key=lambda i: loss(arm, i))] for arm in STUDENTS}


def gather(bench: Bench, config: ConfigDict) -> Evidence:
    """Students of labels, of teachers, of smoothed labels and of answers that were shuffled."""
    study, name = config.study, PROTOCOL.claim
    pilot = vary(common.pilot(config, study.pilot_seeds), controls=())
    rates = bench.tune(name, pilot, study.rates, (DENSE, TICKET))
    lesson = chosen_lessons(bench, pilot, study, rates)
    lesson["shuffle"] = lesson[TICKET]
    cells = {"ticket": vary(config, **{RATE: rates[TICKET]})}
    cells["teacher"] = vary(config, prune__levels=0, **{RATE: rates[DENSE]})
    ladders = bench.ladders(name, cells)
    answers = lessons(bench, name, cells["teacher"], seed=config.experiment.seed)
    starts = bench.starts(name, cells["ticket"], (DENSE, TICKET, "shuffle"))
    weight, rate = (lesson[TICKET][field] for field in ("distillation", "learning_rate"))
    smoothing = [
        {
            "label_smoothing": matched(bench, config, answers[ANSWERS], one, weight),
            "learning_rate": rate,
        }
        for one in starts[TICKET]
    ]

    def arm(which: str, **numbers: float) -> tuple[Sequence[Start], list[dict[str, float]]]:
        plain = {"learning_rate": rates[DENSE if which == DENSE else TICKET]}
        return starts[which], [plain | numbers] * len(starts[which])

    found = taught(
        bench,
        name,
        cells["ticket"],
        answers,
        {
            **{f"{which}, labels": arm(which) for which in starts},
            **{f"{which}, taught": arm(which, **lesson[which]) for which in starts},
            "ticket, taught amiss": arm(TICKET, **lesson[TICKET], lesson=AMISS),
            "ticket, smoothed": (starts[TICKET], smoothing),
        },
    )
    steps = config.experiment.train.steps * sum(len(r[LOST]) for r in found.values())
    flops = ladders.flops("ticket")
    told = "; ".join(
        f"{arm} {rates[arm]:g} for labels, "
        "weight {:g}, temperature {:g} and rate {:g} if taught".format(*lesson[arm].values())
        for arm in STUDENTS
    )
    return evidence(study, found)._replace(
        gate=100 * (ladders.of("ticket", TICKET, FINAL) - ladders.of("ticket", "shuffle", FINAL)),
        member_steps=ladders.member_steps + steps,
        flops={arm: flops[arm.split(",")[0]] for arm in found},
        notes=(f"Chosen on pilot seeds: {told}.",),
    )


def matched(
    bench: Bench, config: ConfigDict, answers: NDArray[np.float32], one: Start, weight: float
) -> float:
    """How much smoothing makes labels as soft as a start's lesson is."""
    share = config.experiment.train.share
    rows = slice(one.replicate * share, (one.replicate + 1) * share)
    labels = bench.dataset(config).train.y[rows]
    entropy = distillation.mixed_entropy(answers[rows], labels, weight)
    return distillation.matching_smoothing(entropy, answers.shape[-1])


def evidence(study: ConfigDict, found: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> Evidence:
    """What follows from the accuracies of all arms."""

    def test(arm: str) -> Any:
        return 100 * np.asarray(found[arm][FINAL], np.float64)

    def gain(first: str, second: str) -> Primary:
        return Primary(f"{first} − {second}", test(first) - test(second), study.delta, "points")

    def loss(first: str, second: str) -> Primary:
        values = np.asarray(found[first][LOST], np.float64) - found[second][LOST]
        return Primary(f"test loss, {first} − {second}", values, 0.05, "nats")

    def taught_gain(which: str) -> Any:
        return test(f"{which}, taught") - test(f"{which}, labels")

    return Evidence(
        primaries=[gain("ticket, taught", "ticket, labels")],
        rows=[
            {"arm": arm, "replicate": i, "metric": metric, "value": float(value)}
            for arm in PROTOCOL.arms
            for metric, values in (
                (ACCURACY, test(arm)),
                (LOSS, np.asarray(found[arm][LOST])),
            )
            for i, value in enumerate(values)
        ],
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


def controls(bench: Bench, config: ConfigDict) -> list[Control]:
    """Least-squares students of the 8 features that matter, of 40, from 60 examples.

    The truth as a teacher takes their whole excess risk, 8/51; a dense least-squares fit takes
    exactly nothing; the truth about other examples hurts.
    """
    del bench

    def control(name: str, teacher: str, expected: str) -> Control:
        rngs = (np.random.default_rng(1300 + i) for i in range(config.study.control_seeds))
        labels, told = np.array([distillation.student_risks(rng, teacher) for rng in rngs]).T
        gained = np.round(labels - told, 12)  # what is exactly 0 is not left to rounding
        part = Primary("excess risk gained", gained, config.study.control_delta, "σ²")
        return Control(name, expected, [part])

    return [
        control("least squares, taught the truth", "truth", SUPPORTED),
        control("least squares, taught by the dense fit", "dense", NOT_SUPPORTED),
        control("least squares, taught about other examples", "stranger", REVERSED),
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """Test accuracy and loss of every student."""
    return tidy.by_arm(rows, (ACCURACY, LOSS), "")


STUDY = Study(PROTOCOL, c13.get_config, controls, gather, draw)
