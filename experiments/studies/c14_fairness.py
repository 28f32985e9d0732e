"""C14: whether pruning takes from the smaller group."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.configs.studies import c14, common
from experiments.studies import simultaneous
from experiments.studies.group_accuracy import FAIR, MIXED, Asked, Fared, mitigated
from experiments.studies.protocol import STUDIES, Control, Evidence, Primary, Protocol, Row, Study
from experiments.studies.study_runner import StudyRunner, dense_only, vary
from lth_jax.measures import fairness, two_groups
from lth_jax.measures.verdicts import NOT_SUPPORTED, REVERSED, SUPPORTED
from lth_jax.report import tidy
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


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Ladders with a minority, mitigated tickets, and a ladder with groups of one size."""
    study, name = config.study, PROTOCOL.claim
    pilot = vary(
        common.pilot(config, study.pilot_seeds),
        data__options__data_seed=study.pilot_data,
        prune__levels=study.level,
        controls=(),
    )
    rates = runner.tune(name, pilot, study.rates, (DENSE, TICKET))
    cells = cells_of(config, rates)
    ladders = {cell: runner.ladders(name, {cell: one}) for cell, one in cells.items()}
    asked = Asked(runner, name, cells[TICKET])
    predicted = asked.ladder() | {(DENSE, 0): Asked(runner, name, cells[DENSE]).ladder()[DENSE, 0]}
    mended, steps = mitigated(runner, name, cells[TICKET], study, rates)
    found = {
        DENSE: asked.fared(predicted[DENSE, 0]),
        **{
            f"ticket, {kept(config, level):.3g} %": asked.fared(predicted[TICKET, level])
            for level in range(1, config.experiment.prune.levels + 1)
        },
        "shuffle": asked.fared(predicted["shuffle", study.level]),
        **{arm: asked.fared(asked.predicted(networks)) for arm, networks in mended.items()},
    }
    even = Asked(runner, name, cells["even"])
    null = {place: even.fared(answers).gap for place, answers in even.ladder().items()}
    data = runner.dataset(cells[TICKET])
    minority, classes = data.groups["test"] == 1, data.classes
    cost = ladders[TICKET].flops(TICKET)
    told = ", ".join(f"{arm} {rate:g}" for arm, rate in rates.items())
    return evidence(config, found, null[TICKET, study.level] - null[DENSE, 0])._replace(
        member_steps=sum(results.member_steps for results in ladders.values()) + steps,
        flops={arm: cost[arm] for arm in (DENSE, TICKET)},
        notes=(
            f"Learning rates chosen on pilot seeds: {told}.",
            exemplars(predicted[DENSE, 0], predicted[TICKET, study.level], minority, classes),
            "Wider than dense, in points, all intervals at once: "
            f"{simultaneous.described(widened_at(found))}.",
        ),
    )


def cells_of(config: ConfigDict, rates: dict[str, float]) -> dict[str, ConfigDict]:
    """The ladder, the dense networks at their own rate, and a ladder with groups of one size."""
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
    dense: NDArray[np.int64],
    ticket: NDArray[np.int64],
    minority: NDArray[np.bool_],
    classes: int,
) -> str:
    """Whom the examples belong to on which the two populations disagree, in a sentence."""
    pies = fairness.pruning_identified(dense, ticket, classes=classes)
    return (
        f"Dense networks and tickets, by their most frequent answers, disagree on "
        f"{100 * pies.mean():.1f} % of the test examples, {100 * minority[pies].mean():.0f} % of "
        f"which belong to the minority, as {100 * minority.mean():.0f} % of all do."
    )


def kept(config: ConfigDict, level: int) -> float:
    """The weights that a level leaves, in percent."""
    return 100 * (1 - config.experiment.prune.rate) ** level


def widened_at(found: dict[str, Fared]) -> dict[str, NDArray[np.float64]]:
    """By how much the gap is wider than that of dense networks, at every density."""
    tickets = [arm for arm in found if arm.startswith("ticket, ") and arm.endswith("%")]
    return {arm.split(", ")[1]: found[arm].gap - found[DENSE].gap for arm in tickets}


def evidence(config: ConfigDict, found: dict[str, Fared], widened: NDArray[np.float64]) -> Evidence:
    """What follows from how all arms fare.

    Args:
      config: the study's.
      found: by arm.
      widened: by how much tickets widen the gap between groups of one size.
    """
    study, minority = config.study, config.experiment.data.options.minority
    asked = f"ticket, {kept(config, study.level):.3g} %"
    ticket, dense = found[asked], found[DENSE]

    def wider(name: str, first: Fared, second: Fared) -> Primary:
        return Primary(f"gap, {name}", first.gap - second.gap, study.delta, "points")

    def loss(name: str, first: Fared, second: Fared) -> Primary:
        lost = first.overall(minority) - second.overall(minority)
        return Primary(f"accuracy, {name}", lost, study.margin, "points")

    return Evidence(
        primaries=judged(ticket, dense, minority, study),
        rows=[
            {"arm": arm, "replicate": i, "metric": metric, "value": float(value)}
            for arm, one in found.items()
            for metric, values in ((GAP, one.gap), (OVERALL, one.overall(minority)))
            for i, value in enumerate(values)
        ],
        secondary=[
            loss("ticket − dense", ticket, dense),
            Primary("gap in log-odds, ticket − dense", ticket.odds - dense.odds, 0.1, ""),
            wider("shuffle − dense", found["shuffle"], dense),
            wider("ticket − shuffle", ticket, found["shuffle"]),
            Primary("gap with groups of one size, ticket − dense", widened, study.delta, "points"),
            wider("balanced ticket − ticket", found["ticket, balanced"], ticket),
            loss("balanced ticket − ticket", found["ticket, balanced"], ticket),
            wider("robust ticket − ticket", found["ticket, robust"], ticket),
            loss("robust ticket − ticket", found["ticket, robust"], ticket),
            wider("fair scores − mixed scores", found[FAIR], found[MIXED]),
            loss("fair scores − mixed scores", found[FAIR], found[MIXED]),
            wider(
                "balanced ticket − balanced dense",
                found["ticket, balanced"],
                found["dense, balanced"],
            ),
        ],
        gate=ticket.overall(minority) - found["shuffle"].overall(minority),
    )


def judged(sparse: Fared, dense: Fared, minority: float, study: ConfigDict) -> list[Primary]:
    """The two parts of the claim."""
    spared = sparse.overall(minority) - dense.overall(minority) + study.margin
    return [
        Primary("gap, sparse − dense", sparse.gap - dense.gap, study.delta, "points"),
        Primary(f"accuracy, sparse − dense + {study.margin:g}", spared, 0.0, "points"),
    ]


def controls(runner: StudyRunner, config: ConfigDict) -> list[Control]:
    """A linear classifier of two Gaussian groups, each known by 20 weights of its own, is pruned.

    Of 40 weights 20 go. Where a tenth of the examples belongs to the second group, they are exactly
    that group's; where nine tenths do, they are the first group's. Where the groups are of one
    size, the 4 weights that go are as often of either.
    """
    del runner

    def control(name: str, expected: str, minority: float, **options: Any) -> Control:
        rngs = (np.random.default_rng(1400 + i) for i in range(config.study.control_seeds))
        drawn = [two_groups.pruned_errors(rng, minority, **options) for rng in rngs]
        dense, sparse = (Fared(*(1 - np.array(errors)).T) for errors in zip(*drawn, strict=True))
        return Control(name, expected, judged(sparse, dense, minority, config.study))

    return [
        control("Gaussian groups, a tenth in the second", SUPPORTED, 0.1),
        control("Gaussian groups, nine tenths in the second", REVERSED, 0.9),
        control("Gaussian groups of one size", NOT_SUPPORTED, 0.5, strength=4.0, keep=36),
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """The gap and the overall accuracy of every arm, tickets at every density."""
    return tidy.by_arm(rows, (GAP, OVERALL), "")


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, c14.get_config, controls, gather, draw))
