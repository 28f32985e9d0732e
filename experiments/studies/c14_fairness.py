"""C14: whether pruning costs the smaller group more accuracy."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.networks import model
from experiments.studies import common
from experiments.studies.common import vary
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax.lottery import logits_of
from lth_jax.measures import fairness, two_groups
from lth_jax.measures.claims import (
    MAP,
    Control,
    Evidence,
    Primary,
    Protocol,
    Row,
    arm_rows,
    draws,
    relative,
)
from lth_jax.measures.fairness import GroupAccuracy
from lth_jax.measures.verdicts import NOT_SUPPORTED, REVERSED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.report.cells import Tuned
from lth_jax.types import DENSE, TICKET

PROTOCOL = Protocol(
    claim="C14",
    title="Fairness",
    says="Where a data set has a smaller group, pruning can cost that group more accuracy than the "
    "others.",
    question="Is there a setting in which the gap in accuracy between majority and minority is "
    "wider by δ for tickets than for their dense parents, while the minority itself loses δ?",
    setup="20 Gaussian features and the group; in each group the label is a linear rule, on the "
    "same features or on an own half of them; 8,000 examples of its own for every seed, .02 or .1 "
    "of them of the minority; an MLP 21-64-64-2 with Adam, 400 steps; magnitude pruning in rounds "
    "of 40 %, rewound to the start; tested on 10,000 examples of each group.",
    arms=(DENSE, TICKET, "shuffle"),
    statistic="accuracy in the majority minus accuracy in the minority, TICKET minus DENSE; and "
    "accuracy in the minority, DENSE minus TICKET; in % of the error of dense networks in the "
    "minority, paired by seed",
    rule="Features (shared or own), minority and density (.22, .078, .028) are a map of twelve "
    "cells with simultaneous bands; a cell holds if both parts do. Each arm has, at each density, "
    "the learning rate that the other half of the seeds chose for accuracy on the balanced test "
    "examples.",
    expects="Found where the minority has features of its own, whose weights are small for want of "
    "examples, at the lowest densities; not where both groups share all features.",
    limits="Two groups with linear rules, and an input that states the group. A wider gap at a "
    "density where the majority loses too is damage as much as unfairness: accuracy on the mix of "
    "the groups is shown beside.",
    paragraph="A Sobering Conclusion, paragraph 2",
    chosen_by="Dense networks must be better than chance in the minority, with an error of at most "
    "two fifths, so that it has something to lose; tickets beat their shuffles.",
    kind=MAP,
)
OPTIONS: dict[str, dict[str, Any]] = {"shared": {"apart": False}, "own": {"apart": True}}
GAP, MIX = "gap, ticket − dense (% of the dense error in the minority)", "accuracy on the mix (%)"
Found = dict[tuple[str, int], GroupAccuracy]
"""By arm and level."""


def get_config(size: str = "laptop") -> ConfigDict:
    """8,000 examples, 400 steps, seven rounds, of which three are judged, on four data sets."""
    common.check_size(size)
    config = common.mnist1d(seeds=24, examples=8000)
    experiment = config.experiment
    experiment.data.name = "grouped"
    experiment.data.options = ConfigDict(
        {
            "data_seed": 7,
            "features": 20,
            "minority": 0.1,
            "gap": 0.5,  # fraction of inputs on which the rules of the groups differ
            "apart": False,
            "train": 194_000,
            "test": 20_000,
            "test_minority": 0.5,
        }
    )
    experiment.model.options.features = (64, 64, 2)
    experiment.train.update(steps=400)
    experiment.prune.levels = 7
    experiment.control_levels = (5,)
    config.study = common.numbers(
        delta=10.0,  # % of the dense error in the minority
        levels=(3, 5, 7),
        minorities=(0.02, 0.1),
        features=("shared", "own"),
        rates=(3e-3, 1e-2, 3e-2),
        control_delta=2.0,  # points
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config)
        experiment.data.options = ConfigDict({"data_seed": 7, "minority": 0.1})
        config.study.features = ("shared",)
        config.study.setup += (
            " The minority's images are turned by half a turn. A null would mean that a network "
            "with room for both groups keeps them at these densities."
        )
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Ladders on every data set, and the accuracies of both groups."""
    config = common.without_training_metrics(config)
    study, name = config.study, PROTOCOL.claim
    primaries, secondary, rows = list[Primary](), list[Primary](), list[Row]()
    notes, gates, steps = [], [], 0
    for features, minority in product(study.features, study.minorities):
        own = OPTIONS[features] if "apart" in config.experiment.data.options else {}
        changes = {f"data__options__{option}": value for option, value in own.items()}
        cell = vary(config, data__options__minority=minority, **changes)
        tuned = runner.tuned(name, cell)
        found, identified = accuracies(runner, name, cell, tuned)
        where = f"{features} features, minority {minority:g}"
        for level in study.levels:
            each = judged(found[TICKET, level], found[DENSE, 0], study)
            density = float(f"{(1 - config.experiment.prune.rate) ** level:.2g}")
            at = f"{where}, density {density:g}"
            primaries += [p._replace(name=f"{at}: {p.name}", cell=at) for p in each]
            fields = {"features": features, "minority": minority, "density": density}
            rows += arm_rows(GAP, {TICKET: each[0].values}, **fields)
            both = {DENSE: found[DENSE, 0], TICKET: found[TICKET, level]}
            mixes = {arm: one.overall(minority) for arm, one in both.items()}
            rows += arm_rows(MIX, mixes, **fields)
        extra, gate = beside(found, config.experiment.control_levels[0], minority, study)
        secondary += [part._replace(name=f"{where}: {part.name}") for part in extra]
        gates.append(gate)
        notes += [f"{where}: {identified} {tuned.described()}"]
        steps += tuned.member_steps
    return Evidence(
        primaries, rows, secondary, np.mean(gates, axis=0), member_steps=steps, notes=tuple(notes)
    )


def accuracies(
    runner: StudyRunner, name: str, config: ConfigDict, tuned: Tuned
) -> tuple[Found, str]:
    """The accuracies of a cell's arms by group, each network at its rate; a note on examples."""
    data, study = runner.dataset(config), config.study
    middle, groups = config.experiment.control_levels[0], data.groups["test"]

    def predictions(arm: str, level: int) -> NDArray[np.int64]:
        networks = runner.networks_at(name, config, arm, tuned.chosen(arm, level), level)
        logits = logits_of(model(config.experiment), networks, data.test.x)
        return np.asarray(logits.argmax(axis=-1))

    places = [(DENSE, 0), *((TICKET, level) for level in study.levels), ("shuffle", middle)]
    predicted = {place: predictions(*place) for place in places}
    pies = fairness.pruning_identified(
        predicted[DENSE, 0], predicted[TICKET, middle], classes=data.classes
    )
    minority = 100 * np.mean(groups[pies] == 1)
    note = (
        f"by their most frequent answers, dense networks and tickets of level {middle} disagree on "
        f"{100 * pies.mean():.1f} % of the test examples, {minority:.0f} % of which belong to the "
        "minority."
    )
    found = {p: GroupAccuracy.of(each, data.test.y, groups) for p, each in predicted.items()}
    return found, note


def judged(sparse: GroupAccuracy, dense: GroupAccuracy, study: ConfigDict) -> list[Primary]:
    """The two parts of a cell."""
    minority = {DENSE: 100 * dense.minority, TICKET: 100 * sparse.minority}
    gaps = {"sparse": sparse.gap, "before": dense.gap}
    share = relative(minority | gaps, delta=study.delta)
    return [
        share("sparse", "before", name="gap, ticket − dense"),
        share(DENSE, TICKET, name="accuracy in the minority, dense − ticket"),
    ]


def beside(
    found: Found, level: int, minority: float, study: ConfigDict
) -> tuple[list[Primary], NDArray[np.float64]]:
    """Secondary results of a data set, and by how much tickets beat shuffles on the mix."""
    dense, ticket, shuffle = (found[p] for p in ((DENSE, 0), (TICKET, level), ("shuffle", level)))
    mix = {DENSE: dense, TICKET: ticket, "shuffle": shuffle}
    overall = relative({arm: one.overall(minority) for arm, one in mix.items()}, delta=study.delta)
    parts = [
        overall(TICKET, DENSE, name="accuracy on the mix, ticket − dense"),
        judged(shuffle, dense, study)[0]._replace(name="gap, shuffle − dense"),
        Primary("gap in log-odds, ticket − dense", ticket.odds - dense.odds, 0.1, ""),
    ]
    return parts, overall(TICKET, "shuffle").values


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
        wider, delta = sparse.gap - dense.gap, config.study.control_delta
        return Control(name, expected, [Primary("gap, sparse − dense", wider, delta, "points")])

    return [
        control("Gaussian groups, a tenth in the second", SUPPORTED, 0.1),
        control("Gaussian groups, nine tenths in the second", REVERSED, 0.9),
        control("Gaussian groups of one size", NOT_SUPPORTED, 0.5, strength=4.0, keep=36),
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """How much wider the gap is, over density and minority, a panel for each kind of features."""
    return tidy.grid_map(
        rows,
        x="density",
        y="minority",
        metric=GAP,
        label="Gap, ticket − dense (%)",
        x_label="Density",
        y_label="Share of the minority",
        show="{:+.0f}".format,
        panel="features",
        panel_label="Features:",
    )


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw, minutes=4))
