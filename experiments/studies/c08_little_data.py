"""C8: with little data the right capacity is smaller, and a ticket is a way to find it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.configs.studies import c08, common
from experiments.studies import simultaneous
from experiments.studies.protocol import STUDIES, Control, Evidence, Primary, Protocol, Row, Study
from experiments.studies.results import Results
from experiments.studies.study_runner import StudyRunner, vary
from lth_jax.measures.generalization import drawn_nested_errors
from lth_jax.measures.optima import interpolated_minimum
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import tidy
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


class Liked(NamedTuple):
    """The learning rates that pilot seeds like best: by level of the ladder, and of SHUFFLE."""

    levels: tuple[float, ...]
    shuffle: float


class Ladders:
    """All ladders of the study, read at the learning rate that suits each level.

    Args:
      found: cells by number, noise and rate.
      rates: by number of examples.
      level: where SHUFFLE is.
    """

    def __init__(self, found: Results, rates: Mapping[int, Liked], level: int):
        self._found, self._rates, self._level = found, rates, level

    def curves(self, n: int, noise: float, metric: str) -> NDArray[np.float64]:
        """A metric along each seed's ladder, dense first, in points: `[seeds, levels]`."""
        read = [
            self._found.of(AT(n, noise, rate), TICKET if level else DENSE, metric, level)
            for level, rate in enumerate(self._rates[n].levels)
        ]
        return 100 * np.stack(read, axis=1)

    def ahead(self, n: int, noise: float) -> NDArray[np.float64]:
        """Test accuracy of tickets over that of shuffled masks, in points."""
        ticket = self.curves(n, noise, "test_accuracy_final")[:, self._level]
        cell = AT(n, noise, self._rates[n].shuffle)
        return ticket - 100 * self._found.of(cell, "shuffle", "test_accuracy_final", self._level)


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Ladders for every number of examples and noise, each level at the rate that suits it."""
    study, [level] = config.study, config.experiment.control_levels
    few, many = study.asked
    tuned = {n: _liked(runner, vary(config, train__share=n)) for n in study.asked}
    rates = {n: tuned[few if n <= few else many] for n in study.examples}
    found = runner.ladders(PROTOCOL.claim, _cells(config, rates))
    known = evidence(config, Ladders(found, rates, level))
    told = f"Learning rates chosen on pilot seeds: {_told(tuned)}."
    return known._replace(member_steps=found.member_steps, notes=(told, *known.notes))


def _cells(config: ConfigDict, rates: Mapping[int, Liked]) -> dict[str, ConfigDict]:
    """The ladders to train: every rate that some level likes, for every number and noise."""
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
        for rate in sorted({*rates[n].levels, rates[n].shuffle})
    }


def evidence(config: ConfigDict, ladders: Ladders) -> Evidence:
    """What follows from the ladders of all cells."""
    study = config.study
    few, many = study.asked
    first, *noisy = study.noises
    places = {CELL(n, noise): (n, noise) for n in study.examples for noise in study.noises}
    curves = {cell: ladders.curves(*at, "test_accuracy_final") for cell, at in places.items()}
    step = -np.log2(1 - config.experiment.prune.rate)
    best = {cell: -step * _best_levels(curve) for cell, curve in curves.items()}
    won = {cell: _won(ladders, *at) for cell, at in places.items()}
    ahead = {cell: ladders.ahead(*at) for cell, at in places.items()}

    def shift(noise: float, told: str = "") -> Primary:
        values = best[CELL(many, noise)] - best[CELL(few, noise)]
        name = f"best density, {many:,} − {few:,} examples{told}"
        return Primary(name, values, study.delta, "octaves")

    def each(name: str, values: Mapping[str, NDArray], delta: float, unit: str) -> list[Primary]:
        return [Primary(f"{name}, {cell}", v, delta, unit) for cell, v in values.items()]

    return Evidence(
        primaries=[shift(first)],
        rows=[
            {
                "examples": n,
                "noise": noise,
                "arm": f"{n:,} examples",
                "replicate": i,
                "density": 2.0 ** (-step * level),
                "metric": "ticket − dense",
                "value": float(value - curve[0]),
            }
            for cell, (n, noise) in places.items()
            for i, curve in enumerate(curves[cell])
            for level, value in enumerate(curve)
        ],
        secondary=[
            *(shift(noise, f", noise {noise:g}") for noise in noisy),
            Primary(
                f"gain at the validated density, {few:,} − {many:,} examples",
                won[CELL(few, first)] - won[CELL(many, first)],
                1.0,
                "points",
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
    """The geometric mean of the best density in every cell, with simultaneous intervals.

    They pair the seeds of all cells, so those that not all cells have are left out here.
    """
    seeds = min(map(len, best.values()))
    best = {cell: values[:seeds] for cell, values in best.items()}
    return "; ".join(
        f"{cell}: {2**one.estimate:.2f} [{2**one.low:.2f}, {2**one.high:.2f}]"
        for cell, one in simultaneous.at_once(best).items()
    )


def _seeds(config: ConfigDict, n: int, noise: float) -> int:
    """All for the cells that the question is asked of, fewer for the rest of the map."""
    seeds: int = config.experiment.replicates
    asked = n in config.study.asked and noise == config.study.noises[0]
    return seeds if asked else min(seeds, config.study.map_seeds)


def _liked(runner: StudyRunner, config: ConfigDict) -> Liked:
    """The best rates by validation loss, for the number of examples that is shared out."""
    study, [level] = config.study, config.experiment.control_levels
    pilot = common.pilot(config, study.pilot_seeds)
    cells = {f"{rate:g}": vary(pilot, optimizer__learning_rate=rate) for rate in study.rates}
    found = runner.ladders(f"{PROTOCOL.claim}-{config.experiment.train.share}-pilot", cells)

    def best(arm: str, at: int) -> float:
        def loss(rate: float) -> float:
            mean = float(np.mean(found.of(f"{rate:g}", arm, "validation_loss_best", at)))
            return mean if np.isfinite(mean) else np.inf

        return min(study.rates, key=loss)

    levels = range(1, config.experiment.prune.levels + 1)
    tickets = (best(TICKET, at) for at in levels)
    return Liked((best(DENSE, 0), *tickets), best("shuffle", level))


def _told(rates: Mapping[int, Liked]) -> str:
    """Which rates were chosen."""
    return "; ".join(
        f"{n:,} examples: {', '.join(f'{rate:g}' for rate in liked.levels)} from dense to the "
        f"last level, shuffle {liked.shuffle:g}"
        for n, liked in rates.items()
    )


def _best_levels(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    levels = np.arange(curves.shape[1])
    return np.array([interpolated_minimum(levels, -curve) for curve in curves])


def _won(ladders: Ladders, n: int, noise: float) -> NDArray[np.float64]:
    """Test accuracy over the dense parent's, both stopped early, at the density validated best."""
    loss, test = (
        ladders.curves(n, noise, metric)
        for metric in ("validation_loss_best", "test_accuracy_early_stop")
    )
    chosen = np.argmin(loss, axis=1)
    return test[np.arange(len(test)), chosen] - test[:, 0]


def controls(runner: StudyRunner, config: ConfigDict) -> list[Control]:
    """Least squares on the first 1, 2, 4, … 32 features, whose mean test errors are known.

    With weights 2/j the best number of features is 9 for 40 examples and 32 for 640; for other
    examples, as many as before, it is the same as before.
    """
    del runner
    sizes, weights = [2**power for power in range(6)], 2 / np.arange(1, 33)

    def best(rng: np.random.Generator, n: int) -> float:
        errors = drawn_nested_errors(rng, n, weights, sizes)
        return interpolated_minimum(np.log2(sizes), errors)

    def shift(few: int, many: int) -> list[Primary]:
        drawn = [np.random.default_rng(800 + i) for i in range(config.study.control_seeds)]
        values = np.array([best(rng, many) - best(rng, few) for rng in drawn])
        name = f"best size, {many} − {few} examples"
        return [Primary(name, values, config.study.delta, "octaves")]

    return [
        Control("640 examples and 40", SUPPORTED, shift(40, 640)),
        Control("160 examples and 160 others", NOT_SUPPORTED, shift(160, 160)),
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """What tickets gain over their dense parents, against the density, by examples and noise."""
    shown = [row | {"kept": 100 * row["density"]} for row in rows]
    parts = {
        f"label noise {noise:g}": [row for row in shown if row["noise"] == noise]
        for noise in tidy.known(rows, "noise")
    }
    label, x_label = "Ticket − dense (points)", "Weights kept (%)"
    return tidy.against_each(parts, "kept", label=label, x_label=x_label)


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, c08.get_config, controls, gather, draw))
