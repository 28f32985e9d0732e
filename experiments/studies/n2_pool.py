"""N2: whether a larger pool holds better tickets of the same size."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.common import dense_only, vary
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax.measures.claims import Contrasts, Control, Evidence, Primary, Protocol, arm_rows, draws
from lth_jax.measures.extremes import best_of
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.types import DENSE, TICKET

SHUFFLE, RANDOM, BEST = "shuffle", "random", "best of W/32"
PROTOCOL = Protocol(
    claim="N2",
    title="A larger pool",
    says="Because the initial network is so large, it almost surely holds a winning ticket: a "
    "larger pool holds better tickets of the same size.",
    question="With 1,600 weights left, is the ticket of a network of 1,024 hidden units better "
    "than that of one of 64, and by more than random masks of these networks differ?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, MLPs 40-W-10 with Adam, 300 steps "
    "of 32 examples. The width W doubles from 32, whose 50 · 32 weights are all kept, and each "
    "doubling has one more round of magnitude pruning by half, rewound to the start.",
    arms=(DENSE, TICKET, SHUFFLE, RANDOM, BEST),
    statistic="test accuracy of the widest network's ticket minus that of the narrowest's (W = "
    "64), in % of the test error of a dense network of 1,600 weights; and the same for the ticket "
    "minus the mean of random tickets of its width, paired by seed",
    rule="Both are at least δ.",
    expects="The second is supported: the edge over random tickets grows with the pool. The first "
    "is open: sparser layers are harder to train, and random masks lose by width. The best of "
    "W/32 random tickets, as many as fit side by side into the network, should be worse than IMP.",
    limits="The width changes more than the pool: inputs per unit, the number of biases, which are "
    "not counted, and the size of initial values, which are not rescaled. One learning rate for "
    "all. IMP from wider networks has more rounds and more computation. The best of W/32 draws is "
    "computed from the draws and not from the tail of N1, since W/32 is far inside the sample.",
    paragraph="The Original Lottery, paragraph 2",
    chosen_by="The rate is the best of .005, .01 and .03 for dense networks on other seeds and "
    "data. From 64 to 1,024 the pool grows sixteenfold.",
)
TEST = "test_accuracy_final"
UNIT = "% of the dense error"


def get_config(size: str = "laptop") -> ConfigDict:
    """Widths 64 to 1,024, twelve seeds."""
    common.check_size(size)
    config = common.mnist1d(seeds=12)
    experiment = config.experiment
    experiment.data.options.update(train=50_000, test=10_000)
    experiment.train.update(steps=300, eval_every=300, batch_size=32)
    experiment.model.options.features = (1024, 10)
    experiment.prune.update(rate=0.5, levels=5)
    config.study = common.numbers(
        delta=10.0,  # % of the dense error
        base=32,  # width of a dense network with a ticket's weights
        widths=(64, 128, 256, 512, 1024),
        draws=32,  # random tickets of each seed and width, at least as many as W/32
        block=192,
        chunk=64,
        control_seeds=256,
        series=1,
    )
    if size == "full":
        config.experiment.replicates = 48
        config.experiment.data.options.train = 194_000
        common.longer(config, 1000)
        config.study.update(block=768, chunk=768)
        config.study.setup = (
            "As on a laptop, with 1,000 steps. A null would mean that, trained for longer, wider "
            "networks hold no better tickets of the same size."
        )
    return config


def cell_of(config: ConfigDict, width: int) -> ConfigDict:
    """The ladder of a width: a round of pruning by half for each doubling of the base."""
    rounds = int(np.log2(width // config.study.base))
    return vary(
        config, model__options__features=(width, 10), prune__levels=rounds, control_levels=(rounds,)
    )


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """A ladder of each width down to the same number of weights, and random tickets."""
    config = common.without_training_metrics(config)
    study, name = config.study, PROTOCOL.claim
    cells = {width: cell_of(config, width) for width in study.widths}
    small = dense_only(config, model__options__features=(study.base, 10))
    found = runner.ladders(name, {str(w): cell for w, cell in {study.base: small, **cells}.items()})
    dense = 100 * found.of(str(study.base), DENSE, TEST)
    accuracy: dict[int, dict[str, NDArray[np.float64]]] = {}
    for width, cell in cells.items():
        tickets = runner.starts(name, cell, (TICKET,))[TICKET]
        sample = runner.random_tickets(cell, tickets)
        accuracy[width] = {
            arm: 100 * found.of(str(width), arm, TEST) for arm in (DENSE, TICKET, SHUFFLE)
        }
        accuracy[width] |= {RANDOM: sample.mean(axis=1), BEST: best_of(sample, width // study.base)}
    trained = len(cells) * len(dense) * study.draws * config.experiment.train.steps
    parts, secondary = results(accuracy, 100 / (100 - dense.mean()), study.delta)
    return Evidence(
        primaries=parts,
        rows=[
            row
            for width, arms in {study.base: {DENSE: dense}, **accuracy}.items()
            for row in arm_rows("accuracy", arms, width=width)
        ],
        secondary=secondary,
        gate=accuracy[study.widths[-1]][TICKET] - accuracy[study.widths[-1]][SHUFFLE],
        member_steps=found.member_steps + trained,
    )


def results(
    accuracy: Mapping[int, Mapping[str, NDArray[np.float64]]], unit: float, delta: float
) -> tuple[list[Primary], list[Primary]]:
    """Primary and secondary results, from accuracies in percent, which are multiplied by `unit`."""
    widths = sorted(accuracy)
    few, many = widths[0], widths[-1]

    def edges(arm: str) -> NDArray[np.float64]:
        """The arm minus random tickets: `[widths, seeds]`."""
        return unit * np.stack([accuracy[w][arm] - accuracy[w][RANDOM] for w in widths])

    ticket, best, shuffled = edges(TICKET), edges(BEST), edges(SHUFFLE)
    absolute = {f"W = {w}": unit * accuracy[w][TICKET] for w in widths}
    wider = Contrasts(absolute, UNIT, delta, "ticket, ")
    doublings = len(widths) - 1
    growth = {"ticket": np.diff(ticket, axis=0), BEST: np.diff(best, axis=0)}
    mean_growth = {arm: each.mean(axis=0) for arm, each in growth.items()}
    law = Contrasts(mean_growth, UNIT, 1.0, "edge over random per doubling, ", two_sided=True)
    parts = [
        wider(f"W = {many}", f"W = {few}"),
        Primary(f"ticket − random, W = {many} − W = {few}", ticket[-1] - ticket[0], delta, UNIT),
    ]
    secondary = [
        *(wider(f"W = {w}", f"W = {few}") for w in widths[1:-1]),
        *(
            Primary(f"ticket − random, W = {w}", ticket[i], delta, UNIT)
            for i, w in enumerate(widths)
        ),
        Primary(f"ticket − {BEST}, W = {many}", ticket[-1] - best[-1], delta, UNIT),
        law("ticket", BEST),
        Primary(f"shuffle − random, W = {many}", shuffled[-1], delta, UNIT, True),
    ]
    if doublings > 1:
        bend = growth["ticket"][-1] - growth["ticket"][0]
        secondary.append(Primary("edge, last − first doubling", bend, 1.0, UNIT, True))
    return parts, secondary


def controls(config: ConfigDict) -> list[Control]:
    """Literal lotteries of normal tickets: pools that grow, and pools that do not."""
    study = config.study

    def lottery(rng: np.random.Generator, sizes: Sequence[int]) -> list[list[float]]:
        return [[20 * rng.normal(size=n).max(), 20 * rng.normal()] for n in sizes]

    def parts(sizes: Sequence[int], offset: int) -> list[Primary]:
        seeds = [[offset, i] for i in range(study.control_seeds)]
        won, lost = np.moveaxis(draws(lambda rng: lottery(rng, sizes), seeds), 2, 0)
        accuracy = {
            w: {TICKET: won[:, i], RANDOM: lost[:, i], SHUFFLE: lost[:, i], BEST: won[:, i]}
            for i, w in enumerate((1, 2))
        }
        return results(accuracy, 1.0, study.delta)[0][:1]

    return [
        Control("the best of 16 tickets against the best of 2", SUPPORTED, parts((2, 16), 931)),
        Control("the best of 16 tickets, twice", NOT_SUPPORTED, parts((16, 16), 932)),
    ]


def draw(rows: Sequence[tidy.Row]) -> Figure:
    """Test accuracy of tickets of 1,600 weights against the width of the dense network."""
    return tidy.against(
        rows,
        "width",
        "accuracy",
        label="Test accuracy (%)",
        x_label="Hidden units W of the dense network; 1,600 of 50 W weights kept",
    )


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw, minutes=5))
