"""C14: whether pruning costs the smaller group more accuracy."""

import functools
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.group_accuracy import FAIR, MIXED, Predictions, mitigated
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner, dense_only, vary
from lth_jax.measures import fairness, simultaneous, two_groups
from lth_jax.measures.claims import Contrasts, Control, Evidence, Primary, Protocol, arm_rows, draws
from lth_jax.measures.fairness import GroupAccuracy
from lth_jax.measures.verdicts import NOT_SUPPORTED, REVERSED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.report.cells import rates_note
from lth_jax.types import DENSE, TICKET

PROTOCOL = Protocol(
    claim="C14",
    title="Fairness",
    says="Where a data set has a smaller group, pruning may cost that group more than the others: "
    "a ticket that is as accurate overall may be less fair.",
    question="Is the gap in accuracy between a majority and a minority of a tenth wider for "
    "tickets at density .13 than for their dense parents, while overall accuracy is not lower by a "
    "point?",
    setup="20 Gaussian features and the group; in each group the label is a linear rule, and the "
    "rules disagree on 40 % of all inputs; 4,000 examples of its own for every seed, a tenth of "
    "them of the minority; an MLP 21-90-90-2 with Adam, 700 steps; magnitude pruning in five "
    "rounds, rewound to the start; tested on 40,000 examples. What may mend it: groups that count "
    "alike in the loss, or the worse one more; and groups that count alike in the scores of a mask "
    "of one shot, beside scores of the mix.",
    arms=(
        "dense",
        "ticket",
        "shuffle",
        "ticket, balanced",
        "ticket, robust",
        "ticket, mixed scores",
        "ticket, fair scores",
        "dense, balanced",
    ),
    statistic="accuracy in the majority minus accuracy in the minority, TICKET minus DENSE, in "
    "points, and the difference of their accuracies on the mix of groups that they trained on plus "
    "the margin; paired by seed",
    rule="Both must hold: the gap is wider by at least δ, and overall accuracy is within the "
    "margin. The learning rates of dense networks and tickets are tuned on pilot seeds.",
    expects="No: on four pilot seeds the gap became narrower by one or two points, down to the "
    "density where accuracy is lost, and wider where the mask was shuffled. A first design, a "
    "tenth of MNIST-1D's signals upside down, was given up after it had been run: its dense "
    "networks were at chance in the minority, which had nothing left to lose.",
    limits="Both groups are learnt from the same features; groups that need features of their own "
    "fare as the Gaussian control does.",
)
RATE = "optimizer__learning_rate"
GAP, OVERALL = "gap between groups (points)", "accuracy on the mix (%)"


def get_config(size: str = "laptop") -> ConfigDict:
    """4,000 examples, 700 steps, five rounds; the question is about the fourth, density .13."""
    common.check_size(size)
    config = common.mnist1d(seeds=24)
    experiment = config.experiment
    experiment.data.name = "grouped"
    experiment.data.options = ConfigDict(
        {
            "data_seed": 7,
            "features": 20,
            "minority": 0.1,
            "gap": 0.4,  # fraction of inputs on which the rules of the groups differ
            "train": 98_000,
            "test": 40_000,
        }
    )
    experiment.model.options.features = (90, 90, 2)
    experiment.prune.levels = 5
    experiment.control_levels = (4,)
    config.study = common.numbers(
        delta=2.0,  # points by which the gap grows
        margin=1.0,  # points of accuracy, on the mix trained on, that may be lost
        level=4,  # level of the question
        pilot_data=8,  # data seed of the pilot
        rates=(3e-3, 1e-2, 3e-2),
        pilot_seeds=4,
        sharpness=3.0,  # of the robust loss, per nat
        examples=512,  # examples for scoring one-shot masks
        null_seeds=12,  # with groups of one size
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config)
        experiment.data.options = ConfigDict({"data_seed": 7, "minority": 0.1})
        config.study.setup += " The minority's images are turned by half a turn."
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Ladders with a minority, mitigated tickets, and a ladder with equal groups."""
    study, name = config.study, PROTOCOL.claim
    pilot = vary(
        common.pilot(config, study.pilot_seeds),
        data__options__data_seed=study.pilot_data,
        prune__levels=study.level,
        controls=(),
    )
    rates = runner.tune(name, config, (DENSE, TICKET), pilot=pilot)
    cells = cells_of(config, rates)
    ladders = {cell: runner.ladders(name, {cell: one}) for cell, one in cells.items()}
    own, even = (Predictions(runner, name, cells[cell]) for cell in (TICKET, "even"))
    dense = Predictions(runner, name, cells[DENSE]).of_arm(DENSE)
    tickets = {
        level: own.of_arm(TICKET, level) for level in range(1, config.experiment.prune.levels + 1)
    }
    mended, steps = mitigated(runner, name, cells[TICKET], study, rates)
    predicted = {
        DENSE: dense,
        **{f"ticket, {kept(config, i):.3g} %": found for i, found in tickets.items()},
        "shuffle": own.of_arm("shuffle", study.level),
        **{arm: own.of(networks) for arm, networks in mended.items()},
    }
    found = {arm: own.accuracy(answers) for arm, answers in predicted.items()}
    null = even.accuracy(even.of_arm(TICKET, study.level)).gap
    widened = null - even.accuracy(even.of_arm(DENSE)).gap
    data, cost = runner.dataset(cells[TICKET]), ladders[TICKET].flops(TICKET)
    minority = data.groups["test"] == 1
    return evidence(config, found, widened)._replace(
        member_steps=sum(results.member_steps for results in ladders.values()) + steps,
        flops={arm: cost[arm] for arm in (DENSE, TICKET)},
        notes=(
            rates_note(rates),
            exemplars(dense, tickets[study.level], minority, data.classes),
            "Wider than dense, in points, all intervals at once: "
            f"{simultaneous.in_words(widened_at(found))}.",
        ),
    )


def cells_of(config: ConfigDict, rates: dict[str, float]) -> dict[str, ConfigDict]:
    """The ladder, the dense networks at their best rate, and a ladder with equal groups."""
    sparse, study = vary(config, **{RATE: rates[TICKET]}), config.study
    of_one_size = {"data__options__minority": 0.5, "replicates": study.null_seeds}
    return {
        TICKET: sparse,
        DENSE: dense_only(config, **{RATE: rates[DENSE]}),
        "even": vary(
            sparse, prune__levels=study.level, control_levels=(), controls=(), **of_one_size
        ),
    }


def exemplars(
    dense: NDArray[np.int64], ticket: NDArray[np.int64], minority: NDArray[np.bool_], classes: int
) -> str:
    """The groups of the examples on which the two populations differ, as text."""
    pies = fairness.pruning_identified(dense, ticket, classes=classes)
    return (
        f"Dense networks and tickets, by their most frequent answers, disagree on "
        f"{100 * pies.mean():.1f} % of the test examples, {100 * minority[pies].mean():.0f} % of "
        f"which belong to the minority, as {100 * minority.mean():.0f} % of all do."
    )


def kept(config: ConfigDict, level: int) -> float:
    """The weights kept at a level, in percent."""
    return 100 * (1 - config.experiment.prune.rate) ** level


def widened_at(found: dict[str, GroupAccuracy]) -> dict[str, NDArray[np.float64]]:
    """The increase of the gap over that of dense networks, at every density."""
    tickets = [arm for arm in found if arm.startswith("ticket, ") and arm.endswith("%")]
    return {arm.split(", ")[1]: found[arm].gap - found[DENSE].gap for arm in tickets}


def evidence(
    config: ConfigDict, found: dict[str, GroupAccuracy], widened: NDArray[np.float64]
) -> Evidence:
    """The evidence from the accuracies of all arms.

    Args:
      config: the study's.
      found: by arm.
      widened: the increase of the gap between equal groups.
    """
    study, minority = config.study, config.experiment.data.options.minority
    asked = f"ticket, {kept(config, study.level):.3g} %"
    gaps = {arm: one.gap for arm, one in found.items()}
    overall = {arm: one.overall(minority) for arm, one in found.items()}
    wider = Contrasts(gaps, "points", study.delta)
    loss = Contrasts(overall, "points", study.margin)
    odds = found[asked].odds - found[DENSE].odds

    def both(words: str, first: str, second: str) -> list[Primary]:
        return [
            wider(first, second, name=f"gap, {words}"),
            loss(first, second, name=f"accuracy, {words}"),
        ]

    return Evidence(
        primaries=judged(found[asked], found[DENSE], minority, study),
        rows=[*arm_rows(GAP, gaps), *arm_rows(OVERALL, overall)],
        secondary=[
            loss(asked, DENSE, name="accuracy, ticket − dense"),
            Primary("gap in log-odds, ticket − dense", odds, 0.1, ""),
            wider("shuffle", DENSE, name="gap, shuffle − dense"),
            wider(asked, "shuffle", name="gap, ticket − shuffle"),
            Primary("gap with groups of one size, ticket − dense", widened, study.delta, "points"),
            *both("balanced ticket − ticket", "ticket, balanced", asked),
            *both("robust ticket − ticket", "ticket, robust", asked),
            *both("fair scores − mixed scores", FAIR, MIXED),
            wider(
                "ticket, balanced", "dense, balanced", name="gap, balanced ticket − balanced dense"
            ),
        ],
        gate=overall[asked] - overall["shuffle"],
    )


def judged(
    sparse: GroupAccuracy, dense: GroupAccuracy, minority: float, study: ConfigDict
) -> list[Primary]:
    """The two parts of the claim."""
    spared = sparse.overall(minority) - dense.overall(minority) + study.margin
    return [
        Primary("gap, sparse − dense", sparse.gap - dense.gap, study.delta, "points"),
        Primary(f"accuracy, sparse − dense + {study.margin:g}", spared, 0.0, "points"),
    ]


def controls(config: ConfigDict) -> list[Control]:
    """Prunes a linear classifier of two Gaussian groups, each predicted by 20 separate weights.

    20 of 40 weights are removed. If a tenth of the examples belongs to the second group, these are
    exactly the weights of that group; if nine tenths do, those of the first. With equal groups, 4
    weights are removed, equally often from either.
    """
    seeds = range(1400, 1400 + config.study.control_seeds)

    def control(name: str, expected: str, minority: float, **options: Any) -> Control:
        errors = draws(lambda rng: two_groups.pruned_errors(rng, minority, **options), seeds)
        dense, sparse = (GroupAccuracy(*(1 - errors[:, i]).T) for i in (0, 1))
        return Control(name, expected, judged(sparse, dense, minority, config.study))

    return [
        control("Gaussian groups, a tenth in the second", SUPPORTED, 0.1),
        control("Gaussian groups, nine tenths in the second", REVERSED, 0.9),
        control("Gaussian groups of one size", NOT_SUPPORTED, 0.5, strength=4.0, keep=36),
    ]


draw = functools.partial(tidy.by_arm, metrics=(GAP, OVERALL), label="")

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
