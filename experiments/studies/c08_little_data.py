"""C8: with little data dense networks overfit more, and tickets are further ahead of them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.common import vary
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax.measures.claims import (
    SHARE,
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
from lth_jax.report.cells import Tuned
from lth_jax.types import DENSE, TICKET

PROTOCOL = Protocol(
    claim="C8",
    title="Little data",
    says="The fewer the examples the more a dense network overfits, and the more a ticket, whose "
    "capacity suits the data, is ahead of it.",
    question="Are tickets of the best density further ahead of their dense parents with 1,000 "
    "examples than with 4,000, if all are stopped early?",
    setup="MNIST-1D, 1,000 or 4,000 examples of its own for every seed, an MLP 40-64-64-10 with "
    "Adam, 700 steps; magnitude pruning in three rounds of 60 % within layers, rewound to the "
    "start.",
    arms=("ticket", "dense", "shuffle"),
    statistic="gain: test accuracy of TICKET minus DENSE at the step of the best validation loss, "
    "in % of the dense error with as many examples; the gain with 1,000 examples minus that with "
    "4,000, by seed",
    rule="The difference of the gains is at least δ. The other half of the seeds chooses the "
    "density of the tickets, for each number of examples, and the learning rate of each arm at "
    "each density, both by this accuracy.",
    expects="Open: few examples overfit more, but also choose the mask worse.",
    limits="One small network and one family of data. Tickets have densities from .06 to .4, and "
    "their gain may be negative. The step of the best validation loss is not that of the best "
    "accuracy: with 1,000 examples dense networks are better at the last step, so that the gains "
    "there are shown, too. With 250 examples tickets are no better than shuffled masks. The rule "
    "that joins two rounds was changed after this replication, as the page on studies states.",
    paragraph="A Deeper Dive, paragraph 3",
    chosen_by="1,000 and 4,000 examples: the fewest with which tickets beat shuffled masks, and "
    "the most that every seed can have for itself. Steps: dense networks on 4,000 examples have "
    "their best validation loss before the end at every rate from .003 on.",
)
TEST, END = "test_accuracy_early_stop", "test_accuracy_final"
EXAMPLES = "{:,} examples".format


def get_config(size: str = "laptop") -> ConfigDict:
    """1,000 and 4,000 examples, 700 steps, densities .4 to .06."""
    common.check_size(size)
    config = common.mnist1d(seeds=32)
    experiment = config.experiment
    experiment.model.options.features = (64, 64, 10)
    experiment.train.update(steps=700, eval_every=25)
    experiment.prune.update(rate=0.6, levels=3)
    experiment.control_levels = (2,)
    config.study = common.numbers(
        delta=SHARE,  # % of the dense error
        examples=(1000, 4000),
        rates=(1e-3, 3e-3, 1e-2, 3e-2),
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config, steps=5000)
        experiment.replicates = 13  # limited by the 55,000 examples
        experiment.train.share = 4000
        config.study.setup = config.study.setup.replace(
            "one training set for all seeds", "1,000 or 4,000 examples of its own for every seed"
        )
        config.study.setup += (
            " A null would mean that LeNet's tickets gain as much from many digits as from few."
        )
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Ladders at all rates for both numbers of examples."""
    few, many = config.study.examples
    tuned = {
        n: runner.tuned(f"{PROTOCOL.claim}-{n}", vary(config, train__share=n), by=TEST)
        for n in (few, many)
    }
    density = 1 - config.experiment.prune.rate
    levels = range(1, config.experiment.prune.levels + 1)
    [control] = config.experiment.control_levels

    def gains(metric: str, words: str) -> list[Primary]:
        each = [_gain(Tuned(t.results, t.rates, metric), metric, levels) for t in tuned.values()]
        name = f"gain with {EXAMPLES(few)} − with {EXAMPLES(many)}{words}"
        difference = Primary(
            name, each[0].values - each[1].values, config.study.delta, each[0].unit
        )
        named = zip(each, (few, many), strict=True)
        alone = [one._replace(name=f"gain with {EXAMPLES(n)}{words}") for one, n in named]
        return [difference, *alone]

    def accuracy(n: int, level: int) -> NDArray[np.float64]:
        return 100 * tuned[n].of(TICKET if level else DENSE, TEST, level)

    def ahead(n: int) -> NDArray[np.float64]:
        return accuracy(n, control) - 100 * tuned[n].of("shuffle", TEST, control)

    def densities(n: int) -> str:
        chosen = np.unique(tuned[n].best_level(TICKET, levels))
        shown = " and ".join(f"{density**level:.2g}" for level in chosen)
        words = f"{EXAMPLES(n)}: the halves of the seeds chose density {shown}."
        return f"{words} {tuned[n].described()}"

    stopped, at_end = gains(TEST, ""), gains(END, ", at the last step")
    return Evidence(
        primaries=stopped[:1],
        rows=[
            row
            for n in tuned
            for level in (0, *levels)
            for row in arm_rows(
                "ticket − dense",
                {EXAMPLES(n): accuracy(n, level) - accuracy(n, 0)},
                examples=n,
                density=density**level,
            )
        ],
        secondary=[
            *stopped[1:],
            *at_end,
            *(Primary(f"{EXAMPLES(n)}, ticket − shuffle", ahead(n), 1.0, "points") for n in tuned),
        ],
        gate=ahead(few),
        member_steps=sum(one.member_steps for one in tuned.values()),
        notes=tuple(map(densities, tuned)),
    )


def _gain(tuned: Tuned, metric: str, levels: Sequence[int]) -> Primary:
    """A metric of tickets at their best level minus that of dense networks."""
    chosen = tuned.best_level(TICKET, levels)
    tickets = np.stack([tuned.of(TICKET, metric, level) for level in levels])
    best = tickets[np.searchsorted(levels, chosen), np.arange(len(chosen))]
    return relative({TICKET: 100 * best, DENSE: 100 * tuned.of(DENSE, metric)})(TICKET, DENSE)


def controls(config: ConfigDict) -> list[Control]:
    """Least squares on 8 of 40 features: the gain over all 40 is 40/(n − 41) − 8/(n − 9).

    With 60 examples the gain in test error is about 2 of the noise's variance, with 240 it is .17;
    between two samples of one size it does not differ.
    """

    def gain(rng: np.random.Generator, n: int) -> float:
        dense, sparse = (least_squares_errors(rng, which, n=n)[1] for which in ("dense", "oracle"))
        return dense - sparse

    def difference(few: int, many: int) -> list[Primary]:
        seeds = range(800, 800 + 4 * config.study.control_seeds)
        values = draws(lambda rng: gain(rng, few) - gain(rng, many), seeds)
        return [Primary(f"gain with {few} − {many} examples", values, 0.3, "σ²")]

    return [
        Control("least squares, 60 examples and 240", SUPPORTED, difference(60, 240)),
        Control("least squares, 240 examples and 240 others", NOT_SUPPORTED, difference(240, 240)),
    ]


def draw(rows: Sequence[tidy.Row]) -> Figure:
    """The gain of tickets over dense networks against density, by the number of examples."""
    return tidy.against(
        [row | {"kept": 100 * row["density"]} for row in rows],
        "kept",
        "ticket − dense",
        label="Ticket − dense, stopped early (points)",
        x_label="Weights kept (%)",
        zero=True,
    )


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
