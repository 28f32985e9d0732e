"""C8: with little data the best capacity is smaller, and pruning finds it."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner, vary
from lth_jax.measures.claims import Contrasts, Control, Evidence, Primary, Protocol, arm_rows, draws
from lth_jax.measures.generalization import drawn_nested_errors
from lth_jax.measures.optima import interpolated_minimum
from lth_jax.measures.simultaneous import by_cell
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.report.cells import Results
from lth_jax.types import DENSE, TICKET

PROTOCOL = Protocol(
    claim="C8",
    title="Little data",
    says="The fewer the examples the more a dense network overfits, and the more a ticket, whose "
    "capacity suits the data, is ahead of it.",
    question="Is the density with the best test accuracy higher with 4,000 examples than with "
    "1,000?",
    setup="MNIST-1D, an MLP 40-64-64-10 with Adam, 300 steps whatever the number of examples; "
    "magnitude pruning in six rounds to density .047, rewound to the start.",
    arms=("ticket", "dense", "shuffle"),
    statistic="log₂ of the density of the best test accuracy along a seed's ladder, interpolated "
    "by a parabola; with 4,000 examples minus with 1,000, in octaves",
    rule="Above 0 (Holm) and at least δ. Learning rates are tuned on pilot seeds, for both numbers "
    "and at every density: a rate for all would favour the densities that it suits. The picture is "
    "a map over examples and label noise.",
    expects="Open: too few examples find no ticket to prefer, many do not overfit. A first run "
    "asked about 250 examples, where tickets turned out no better than shuffled masks, so that "
    "there was none to ask about; 250 stays in the map.",
    limits="One small network and task; 250 examples have the rates of 1,000, and noisy labels "
    "those of true ones. With one rate for all arms, that of dense networks, a first run saw 0.4 "
    "octaves; with one rate for all sparse ones, that of density .13, a second saw 1.3. A flat "
    "curve has its best density anywhere, which pulls the "
    "difference towards 0.",
)
CELL = "{:d} examples, noise {:g}".format
AT = "{:d} examples, noise {:g}, rate {:g}".format
TEST = "test_accuracy_final"
Rates = dict[tuple[str, int], float]
"""The best learning rate of pilot seeds, by arm and level."""


def get_config(size: str = "laptop") -> ConfigDict:
    """250, 1,000 and 4,000 examples with true labels and a fifth drawn at random, 300 steps."""
    common.check_size(size)
    config = common.mnist1d(seeds=32)
    experiment = config.experiment
    experiment.model.options.features = (64, 64, 10)
    experiment.train.update(steps=300, eval_every=150)
    experiment.prune.levels = 6
    experiment.control_levels = (4,)
    config.study = common.numbers(
        delta=1.0,  # in log₂ of the density
        examples=(250, 1000, 4000),
        asked=(1000, 4000),  # numbers of examples between which the best density is compared
        noises=(0.0, 0.2),
        rates=(3e-3, 1e-2, 3e-2),
        pilot_seeds=4,
        map_seeds=8,  # seeds of cells outside the question
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config, steps=5000)
        experiment.replicates = 13  # limited by the 55,000 examples
        experiment.train.share = 4000
        config.study.noises = (0.0, 0.1, 0.2, 0.4)
        config.study.setup = config.study.setup.replace(
            "one training set for all seeds", "250 to 4,000 examples of its own for every seed"
        )
    return config


class Ladders:
    """All ladders of the study, each level at its best learning rate.

    Args:
      found: cells by number, noise and rate.
      rates: by number of examples.
      level: where SHUFFLE is.
    """

    def __init__(self, found: Results, rates: Mapping[int, Rates], level: int):
        self._found, self._rates, self._level = found, rates, level

    def _of(self, n: int, noise: float, place: tuple[str, int], metric: str) -> NDArray[np.float64]:
        return 100 * self._found.of(AT(n, noise, self._rates[n][place]), place[0], metric, place[1])

    def curves(self, n: int, noise: float, metric: str) -> NDArray[np.float64]:
        """A metric along each seed's ladder, dense first, in points: `[seeds, levels]`."""
        places = [(arm, level) for arm, level in self._rates[n] if arm != "shuffle"]
        return np.stack([self._of(n, noise, place, metric) for place in places], axis=1)

    def ahead(self, n: int, noise: float) -> NDArray[np.float64]:
        """Test accuracy of tickets over that of shuffled masks, in points."""
        ticket = self.curves(n, noise, TEST)[:, self._level]
        return ticket - self._of(n, noise, ("shuffle", self._level), TEST)

    def won(self, n: int, noise: float) -> NDArray[np.float64]:
        """Test accuracy minus that of the dense network, early-stopped, at the best density."""
        loss, test = (
            self.curves(n, noise, metric)
            for metric in ("validation_loss_best", "test_accuracy_early_stop")
        )
        chosen = np.argmin(loss, axis=1)
        return test[np.arange(len(test)), chosen] - test[:, 0]


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Ladders for every number of examples and noise, each level at its best rate."""
    study, [level] = config.study, config.experiment.control_levels
    few, many = study.asked
    tickets = [(TICKET, i) for i in range(1, config.experiment.prune.levels + 1)]
    places = [(DENSE, 0), *tickets, ("shuffle", level)]
    tuned = {
        n: runner.tune(f"{PROTOCOL.claim}-{n}", vary(config, train__share=n), places)
        for n in study.asked
    }
    rates = {n: tuned[few if n <= few else many] for n in study.examples}
    found = runner.ladders(PROTOCOL.claim, _cells(config, rates))
    known = evidence(config, Ladders(found, rates, level))
    words = f"Learning rates chosen on pilot seeds: {_in_words(tuned)}."
    return known._replace(member_steps=found.member_steps, notes=(words, *known.notes))


def _cells(config: ConfigDict, rates: Mapping[int, Rates]) -> dict[str, ConfigDict]:
    """The ladders to train: each rate that is best for some level, for every number and noise."""
    return {
        AT(n, noise, rate): vary(
            config,
            train__share=n,
            train__label_noise=noise,
            optimizer__learning_rate=rate,
            replicates=_seeds(config, n, noise),
        )
        for n in config.study.examples
        for noise in config.study.noises
        for rate in sorted(set(rates[n].values()))
    }


def evidence(config: ConfigDict, ladders: Ladders) -> Evidence:
    """The evidence from the ladders of all cells."""
    study = config.study
    few, many = study.asked
    first, *noisy = study.noises
    cells = {CELL(n, noise): (n, noise) for n in study.examples for noise in study.noises}
    curves = {cell: ladders.curves(*at, TEST) for cell, at in cells.items()}
    step = -np.log2(1 - config.experiment.prune.rate)
    best = {cell: -step * _best_levels(curve) for cell, curve in curves.items()}
    won = {cell: ladders.won(*at) for cell, at in cells.items()}
    ahead = {cell: ladders.ahead(*at) for cell, at in cells.items()}
    asked = f"{few:,} − {many:,} examples"

    def shift(noise: float, words: str = "") -> Primary:
        name = f"best density, {many:,} − {few:,} examples{words}"
        minus = Contrasts(best, "octaves", study.delta)
        return minus(CELL(many, noise), CELL(few, noise), name=name)

    def each(name: str, values: Mapping[str, NDArray], delta: float, unit: str) -> list[Primary]:
        return [Primary(f"{name}, {cell}", v, delta, unit) for cell, v in values.items()]

    return Evidence(
        primaries=[shift(first)],
        rows=[
            row
            for cell, (n, noise) in cells.items()
            for level, values in enumerate(curves[cell].T)
            for row in arm_rows(
                "ticket − dense",
                {f"{n:,} examples": values - curves[cell][:, 0]},
                examples=n,
                noise=noise,
                density=2.0 ** (-step * level),
            )
        ],
        secondary=[
            *(shift(noise, f", noise {noise:g}") for noise in noisy),
            Contrasts(won, "points")(
                CELL(few, first), CELL(many, first), name=f"gain at the validated density, {asked}"
            ),
            *each("log₂ best density", best, study.delta, "octaves"),
            *each("gain at the validated density", won, 1.0, "points"),
            *each("ticket − shuffle", ahead, 1.0, "points"),
        ],
        gate=np.minimum(ahead[CELL(few, first)], ahead[CELL(many, first)]),
        notes=(
            "Densities are validated by loss, which minds confident errors more than accuracy.",
            f"Best densities, intervals that hold at once: {_map(best)}.",
        ),
    )


def _map(best: Mapping[str, NDArray[np.float64]]) -> str:
    """The best density of every cell, in words.

    The intervals pair the seeds of all cells, so those that not all cells have are left out here.
    """
    seeds = min(map(len, best.values()))
    found = by_cell({cell: values[:seeds] for cell, values in best.items()})
    return "; ".join(
        f"{cell}: {2**one.estimate:.2f} [{2**one.low:.2f}, {2**one.high:.2f}]"
        for cell, one in found.items()
    )


def _seeds(config: ConfigDict, n: int, noise: float) -> int:
    """The number of seeds: all for the cells of the question, fewer for other cells."""
    seeds: int = config.experiment.replicates
    asked = n in config.study.asked and noise == config.study.noises[0]
    return seeds if asked else min(seeds, config.study.map_seeds)


def _in_words(tuned: Mapping[int, Rates]) -> str:
    """The chosen rates, as text."""

    def words(rates: Rates) -> str:
        *levels, shuffle = rates.values()
        chosen = ", ".join(f"{rate:g}" for rate in levels)
        return f"{chosen} from dense to the last level, shuffle {shuffle:g}"

    return "; ".join(f"{n:,} examples: {words(rates)}" for n, rates in tuned.items())


def _best_levels(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    levels = np.arange(curves.shape[1])
    return np.array([interpolated_minimum(levels, -curve) for curve in curves])


def controls(config: ConfigDict) -> list[Control]:
    """Least squares on the first 1, 2, 4, … 32 features, whose mean test errors are known.

    With weights 2/j the best number of features is 9 for 40 examples and 32 for 640; for another
    sample of the same size it is the same.
    """
    sizes, weights = [2**power for power in range(6)], 2 / np.arange(1, 33)

    def best(rng: np.random.Generator, n: int) -> float:
        errors = drawn_nested_errors(rng, n, weights, sizes)
        return interpolated_minimum(np.log2(sizes), errors)

    def shift(few: int, many: int) -> list[Primary]:
        seeds = range(800, 800 + config.study.control_seeds)
        values = draws(lambda rng: best(rng, many) - best(rng, few), seeds)
        name = f"best size, {many} − {few} examples"
        return [Primary(name, values, config.study.delta, "octaves")]

    return [
        Control("640 examples and 40", SUPPORTED, shift(40, 640)),
        Control("160 examples and 160 others", NOT_SUPPORTED, shift(160, 160)),
    ]


def draw(rows: Sequence[tidy.Row]) -> Figure:
    """The gain of tickets over dense networks against density, by examples and noise."""
    shown = [row | {"kept": 100 * row["density"]} for row in rows]
    parts = {
        f"label noise {noise:g}": [row for row in shown if row["noise"] == noise]
        for noise in tidy.known(rows, "noise")
    }
    label, x_label = "Ticket − dense (points)", "Weights kept (%)"
    return tidy.against_each(parts, "kept", label=label, x_label=x_label)


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
