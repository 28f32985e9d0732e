"""C8: with little data dense networks overfit more, and tickets are further ahead of them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner, vary
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
    "Adam, 1,000 steps; magnitude pruning in four rounds of half within layers, rewound to the "
    "start.",
    arms=("ticket", "dense", "shuffle"),
    statistic="gain: test accuracy of TICKET minus DENSE at the step of the best validation loss, "
    "in % of the dense error with as many examples; the gain with 1,000 examples minus that with "
    "4,000, by seed",
    rule="The difference of the gains is at least δ. The other half of the seeds chooses the "
    "density of the tickets, for each number of examples, and the learning rate of each arm at "
    "each density, both by this accuracy.",
    expects="Open: few examples overfit more, but also choose the mask worse.",
    limits="One small network and one family of data. The least density is .06 and the largest .5: "
    "a ticket that would like to be dense cannot be, and its gain may be negative. With 250 "
    "examples tickets are no better than shuffled masks, so that fewer examples ask nothing.",
    paragraph="A Deeper Dive, paragraph 3",
    chosen_by="1,000 and 4,000 examples: the fewest with which tickets beat shuffled masks, and "
    "the most that every seed can have for itself. Steps: dense networks on 4,000 examples have "
    "their best validation loss before the end.",
)
TEST = "test_accuracy_early_stop"
Accuracy = Mapping[str, NDArray[np.float64]]
EXAMPLES = "{:,} examples".format


def get_config(size: str = "laptop") -> ConfigDict:
    """1,000 and 4,000 examples, 1,000 steps, densities .5 to .06."""
    common.check_size(size)
    config = common.mnist1d(seeds=40)
    experiment = config.experiment
    experiment.model.options.features = (64, 64, 10)
    experiment.train.update(steps=1000, eval_every=25)
    experiment.prune.update(rate=0.5, levels=4)
    experiment.control_levels = (3,)
    config.study = common.numbers(
        delta=SHARE,  # % of the dense error
        examples=(1000, 4000),
        rates=(3e-3, 1e-2, 3e-2),
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
    curves = {n: _accuracies(one, config) for n, one in tuned.items()}
    levels = range(1, config.experiment.prune.levels + 1)
    chosen = {n: one.best_level(TICKET, levels) for n, one in tuned.items()}
    density = 1 - config.experiment.prune.rate
    [control] = config.experiment.control_levels

    def gain(n: int) -> Primary:
        accuracy = {
            DENSE: curves[n][0],
            TICKET: np.choose(chosen[n] - 1, [curves[n][level] for level in levels]),
        }
        contrasts = relative(accuracy, delta=config.study.delta, label=f"{EXAMPLES(n)}, gain: ")
        return contrasts(TICKET, DENSE)

    def ahead(n: int) -> NDArray[np.float64]:
        return curves[n][control] - 100 * tuned[n].of("shuffle", TEST, control)

    def overfitting(n: int) -> NDArray[np.float64]:
        return 100 * (tuned[n].of(DENSE, TEST) - tuned[n].of(DENSE, "test_accuracy_final"))

    gains = {n: gain(n) for n in (few, many)}
    difference = gains[few].values - gains[many].values
    return Evidence(
        primaries=[
            gains[few]._replace(
                name=f"gain with {EXAMPLES(few)} − with {EXAMPLES(many)}", values=difference
            )
        ],
        rows=[
            row
            for n, by_level in curves.items()
            for level, values in by_level.items()
            for row in arm_rows(
                "ticket − dense",
                {EXAMPLES(n): values - by_level[0]},
                examples=n,
                density=density**level,
            )
        ],
        secondary=[
            *gains.values(),
            *(
                Primary(f"{EXAMPLES(n)}, {name}", values(n), 1.0, "points")
                for n in (few, many)
                for name, values in (
                    ("ticket − shuffle", ahead),
                    ("dense stopped early − dense at the end", overfitting),
                )
            ),
        ],
        gate=ahead(few),
        member_steps=sum(one.member_steps for one in tuned.values()),
        notes=tuple(
            f"{EXAMPLES(n)}: densities chosen by the halves of the seeds "
            f"{' and '.join(f'{density**level:.2g}' for level in np.unique(chosen[n]))}. "
            f"{one.described()}"
            for n, one in tuned.items()
        ),
    )


def _accuracies(tuned: Tuned, config: ConfigDict) -> dict[int, NDArray[np.float64]]:
    """Test accuracy in percent at early stopping by level; level 0 is dense."""
    return {
        level: 100 * tuned.of(TICKET if level else DENSE, TEST, level)
        for level in range(config.experiment.prune.levels + 1)
    }


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
