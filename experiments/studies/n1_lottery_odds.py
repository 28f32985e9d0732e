"""N1: how many random tickets one IMP ticket is worth."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments import scoring
from experiments.studies import common
from experiments.studies.common import vary
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax.lottery import Start
from lth_jax.measures import extremes
from lth_jax.measures.claims import Control, Evidence, Primary, Protocol, Row, arm_rows, draws
from lth_jax.measures.odds import check_tails, described, odds_by_seed, odds_curves
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.pruning.scopes import layerwise
from lth_jax.report import tidy
from lth_jax.report.plotting import GREY, density_axis, legend, panes, style, value_ticks
from lth_jax.types import TICKET

PROTOCOL = Protocol(
    claim="N1",
    title="What one ticket is worth",
    says="A given subnetwork is a winner about as rarely as a first hand of five cards is a royal "
    "flush; iterative magnitude pruning finds one.",
    question="At density .36, is a random ticket as accurate as the ticket of iterative magnitude "
    "pruning (IMP) at most once in 649,740 draws, the odds of a royal flush?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, an MLP 40-32-10 with Adam, 300 "
    "steps of 32 examples, the same for all tickets. A random ticket has IMP's number of weights "
    "in each layer, random places, new initial values, and the seed's data order. Beside, at "
    "density .36, networks with half and twice the hidden units.",
    arms=(TICKET, "reinit", "shuffle", "magnitude", "snip", "grasp", "synflow"),
    statistic="log₁₀ of N, where one in N random tickets of the seed is as accurate on the test "
    "data. Beyond the best twentieth the tail is exponential, a lower bound on N for a generalised "
    "Pareto tail with a shape of at most 0",
    rule="log₁₀ N is at least δ, that of a royal flush. A lower bound below δ decides nothing "
    "against the claim. All tickets have the rate at which random ones are best.",
    expects="Supported: a ticket of IMP was six or seven standard deviations above random ones on "
    "other seeds. Its mask with new values, and criteria at initialisation, should be worth "
    "thousands at most (Frankle et al., 2021). Against the width: open.",
    limits="IMP costs several trainings of larger networks and a random ticket one of its own "
    "size. The best of many draws is chosen on the test data, IMP's ticket is not. The tail beyond "
    "the draws is a model: its shape, thresholds and held-out halves are shown. A small network, "
    "trained briefly. Three widths, at one density and one rate: every width needs 20,000 random "
    "tickets for each density. N2 varies the width at a fixed number of weights.",
    paragraph="The Original Lottery, paragraph 2",
    chosen_by="The rate is the one at which random tickets are best on other seeds and data, at "
    "all three widths. The "
    "density is the largest at which a shuffled ticket loses five points or more to the dense "
    "network. δ is the article's royal flush. Seeds, share of the tail and number of draws were "
    "set after a look at accuracies of tickets and random tickets on those seeds.",
)
CRITERIA = PROTOCOL.arms[3:]
TEST = "test_accuracy_final"
ODDS, BY_WIDTH, BEYOND = "odds", "odds by width", "odds by points"
UNIT = "log₁₀ N"
Values = NDArray[np.float64]
FLUSH = float(np.log10(649_740))
"""A first hand of five cards is a royal flush once in 649,740."""


def get_config(size: str = "laptop") -> ConfigDict:
    """Twenty seeds, three densities and three widths, 1,024 random tickets for each."""
    common.check_size(size)
    config = common.mnist1d(seeds=20)
    experiment = config.experiment
    experiment.data.options.update(train=82_000, test=10_000)
    experiment.model.options.features = (32, 10)
    experiment.train.update(steps=300, eval_every=300, batch_size=32)
    experiment.optimizer.learning_rate = 3e-2
    experiment.prune.levels = 6
    experiment.controls = ("reinit", "shuffle")
    experiment.control_levels = (2, 4, 6)
    config.study = common.numbers(
        delta=FLUSH,
        level=2,  # of the primary: density .36
        widths=(16, 64),  # hidden units, beside those of the primary
        draws=1024,  # random tickets of each seed and density
        tail=0.05,  # share of them in the tail
        examples=512,  # examples for a criterion
        block=2048,
        chunk=128,
        control_seeds=64,
        series=1,
    )
    if size == "full":
        common.longer(config, 1000)
        config.study.update(draws=49_152, tail=0.01, block=49_152, chunk=8192)
        config.study.setup = (
            "As on a laptop, with 1,000 steps and 983,040 random tickets of each density and "
            "width. A bound below δ would mean that, after longer training, random tickets come "
            "nearer to IMP’s."
        )
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Random tickets of each density and width; the odds of IMP's, of controls and criteria."""
    config = common.without_training_metrics(config)
    study, name, levels = config.study, PROTOCOL.claim, config.experiment.control_levels
    cells = {width: cell_of(config, width) for width in study.widths}
    found = runner.ladders(name, {name: config, **{str(w): cell for w, cell in cells.items()}})
    density = {level: (1 - config.experiment.prune.rate) ** level for level in levels}
    origins = runner.origins(name, config)

    def measured(cell: str, level: int) -> dict[str, Values]:
        return {arm: 100 * found.of(cell, arm, TEST, level) for arm in PROTOCOL.arms[:3]}

    accuracy, sample = {}, {}
    for level in levels:
        tickets = runner.starts(name, config, (TICKET,), level)[TICKET]
        made = _criteria(runner, config, origins, tickets, density[level])
        trained = runner.retrain_arms(name, config, made)
        of_criteria = {arm: 100.0 * one.results[TEST] for arm, one in trained.items()}
        accuracy[level] = measured(name, level) | of_criteria
        sample[level] = runner.random_tickets(config, tickets)
    odds = {level: _odds(sample[level], accuracy[level], study.tail) for level in levels}
    here, own, first = odds[study.level], sample[study.level], f"density {density[study.level]:.2g}"
    width = config.experiment.model.options.features[0]
    by_width = {width: {arm: here[arm] for arm in PROTOCOL.arms[:3]}}
    for other, cell in cells.items():
        tickets = runner.starts(name, cell, (TICKET,), study.level)[TICKET]
        drawn = runner.random_tickets(cell, tickets)
        by_width[other] = _odds(drawn, measured(str(other), study.level), study.tail)
    random = sum(map(np.size, sample.values())) + len(cells) * own.size
    trained_networks = random + len(levels) * len(CRITERIA) * len(own)
    return Evidence(
        primaries=[Primary(f"{TICKET}, {first}", here[TICKET], study.delta, UNIT)],
        rows=[
            *(
                row
                for at in levels
                for row in arm_rows(ODDS, odds[at], density=density[at], width=None, points=None)
            ),
            *(
                row
                for at, arms in sorted(by_width.items())
                for row in arm_rows(BY_WIDTH, arms, density=None, width=at, points=None)
            ),
            *curves(own, accuracy[study.level][TICKET], study.tail),
        ],
        secondary=[
            *(
                Primary(f"{arm}, {first}", here[arm], study.delta, UNIT)
                for arm in PROTOCOL.arms[1:]
            ),
            *(
                Primary(f"{TICKET}, density {density[at]:.2g}", odds[at][TICKET], study.delta, UNIT)
                for at in levels
                if at != study.level
            ),
            *widths_compared(by_width, study.delta),
            Primary(f"{TICKET} − reinit, {first}", here[TICKET] - here["reinit"], 1.0, UNIT, True),
            *checks(own, study.tail, first),
        ],
        gate=accuracy[study.level][TICKET] - accuracy[study.level]["shuffle"],
        member_steps=found.member_steps + trained_networks * config.experiment.train.steps,
        notes=tuple(
            f"Density {density[at]:.2g}, by generalised Pareto tails (medians of seeds): "
            + described(sample[at], {a: accuracy[at][a] for a in (TICKET, "reinit")}, study.tail)
            for at in levels
        ),
    )


def _odds(sample: Values, accuracy: Mapping[str, Values], tail: float) -> dict[str, Values]:
    """log₁₀ N of every arm by the exponential tail, one number per seed."""
    return {arm: odds_by_seed(sample, values, tail, shape=0.0) for arm, values in accuracy.items()}


def cell_of(config: ConfigDict, width: int) -> ConfigDict:
    """The ladder of another width, down to the density of the primary."""
    level = config.study.level
    return vary(
        config,
        model__options__features=(width, 10),
        prune__levels=level,
        control_levels=(level,),
    )


def widths_compared(odds: Mapping[int, Mapping[str, Values]], delta: float) -> list[Primary]:
    """The odds of tickets at each width, and their growth for each doubling of the width."""
    widths = sorted(odds)
    few, many = widths[0], widths[-1]
    growth = (odds[many][TICKET] - odds[few][TICKET]) / np.log2(many / few)
    return [
        *(Primary(f"{TICKET}, width {w}", odds[w][TICKET], delta, UNIT) for w in widths),
        Primary(f"{TICKET}, for each doubling of the width", growth, 1.0, UNIT, True),
    ]


def _criteria(
    runner: StudyRunner,
    config: ConfigDict,
    origins: Sequence[Start],
    tickets: Sequence[Start],
    density: float,
) -> dict[str, list[Start]]:
    """One-shot tickets at initialisation with IMP's counts, in the data order of its tickets."""
    task, points = runner.task(config), [one.params for one in origins]

    def starts(name: str) -> list[Start]:
        made = scoring.one_shot(config, task, name, layerwise(), [density], origins, points)
        pairs = zip(made, tickets, strict=True)
        return [one._replace(data_key=ticket.data_key) for one, ticket in pairs]

    return {name: starts(name) for name in CRITERIA}


def checks(sample: Values, tail: float, where: str) -> list[Primary]:
    """How the tail's model does on what it was not fitted to, one number per seed."""
    found = check_tails(sample, tail)
    return [
        Primary(
            f"largest of a held-out half − expected, {where}", found.missed, 0.5, "points", True
        ),
        Primary(f"shape ξ of the tail, {where}", found.shape, 0.1, "", True),
        Primary(f"ξ beyond {tail:g} − beyond {2 * tail:g} of draws", found.change, 0.1, "", True),
    ]


def curves(sample: Values, tickets: Values, tail: float) -> list[Row]:
    """log₁₀ N against the points above a seed's mean random ticket: measured, fitted, bounded."""
    points = np.linspace(0, np.mean(tickets - sample.mean(axis=1)), 25)
    return [
        row
        for distance, found in odds_curves(sample, points, tail)
        for row in arm_rows(BEYOND, found, density=None, width=None, points=distance)
    ]


def controls(config: ConfigDict) -> list[Control]:
    """Normal draws: a value eight standard deviations up, and two draws of the same kind."""
    study = config.study

    def odds(rng: np.random.Generator) -> list[float]:
        sample, (one, other) = rng.normal(size=1536), rng.normal(size=2)
        return [extremes.log10_odds(sample, v, 0.05, shape=0.0) for v in (8.0, one, other)]

    far, one, other = draws(odds, [[921, i] for i in range(study.control_seeds)]).T
    return [
        Control(
            "eight standard deviations above normal draws: one in 10^15.2",
            SUPPORTED,
            [Primary("planted ticket", far, study.delta, UNIT)],
        ),
        Control(
            "one random ticket against another",
            NOT_SUPPORTED,
            [Primary("random − random", one - other, study.delta, UNIT)],
        ),
    ]


@style()
def draw(rows: Sequence[Row]) -> Figure:
    """The odds of every arm against density and width, and how those of random tickets fall off."""
    figure, (left, middle, right) = panes(3, "", "log₁₀ N, at least", share_x=False)
    tidy.draw_against(left, [row for row in rows if row["metric"] == ODDS], "density")
    density_axis(left, tidy.known(rows, "density"))
    left.set_xlabel("Weights remaining (%)")
    tidy.draw_against(middle, [row for row in rows if row["metric"] == BY_WIDTH], "width")
    middle.set_xscale("log")
    value_ticks(middle.xaxis, tidy.known(rows, "width"))
    middle.set_xlabel("Hidden units")
    tidy.draw_against(right, [row for row in rows if row["metric"] == BEYOND], "points")
    right.set_xlabel("Points above random tickets")
    for axes in (left, middle, right):
        axes.axhline(FLUSH, color=GREY, linewidth=0.8, linestyle="--")
    middle.text(middle.get_xlim()[1], FLUSH, "royal flush ", color=GREY, ha="right", va="top")
    right.legend(loc="upper left", fontsize="small")
    legend(figure, left)
    return figure


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw, minutes=10))
