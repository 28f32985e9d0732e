"""C8: with little data the right capacity is smaller, and a ticket is a way to find it."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.configs.studies import c08, common
from experiments.studies import regimes
from experiments.studies.bench import Bench, vary
from experiments.studies.protocol import Control, Evidence, Primary, Protocol, Row, Study
from experiments.studies.results import Results
from lth_jax.measures.generalization import drawn_nested_errors
from lth_jax.measures.optima import interpolated_minimum
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import tidy

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
    rule="Above 0 (Holm) and at least δ. Learning rates are tuned on pilot seeds for each arm and "
    "both numbers. The picture is a map over examples and label noise.",
    expects="Open: too few examples find no ticket to prefer, many do not overfit. A first run "
    "asked about 250 examples, where tickets turned out no better than shuffled masks, so that "
    "there was none to ask about; 250 stays in the map.",
    limits="One small network and task; rates are tuned at density .13 for the whole ladder, and "
    "only at 1,000 and 4,000 examples with true labels. A first run had one rate for all arms, "
    "that of dense networks. A flat curve has its best density anywhere, which pulls the "
    "difference towards 0.",
)
RATE = "optimizer__learning_rate"
CELL = "{:d} examples, noise {:g}".format


def gather(bench: Bench, config: ConfigDict) -> Evidence:
    """Ladders for every number of examples and noise, each arm at the rate that suits it there."""
    study, name = config.study, PROTOCOL.claim
    few, many = study.asked
    rates = {n: _rates(bench, vary(config, train__share=n)) for n in study.asked}
    cells = {
        CELL(n, noise): vary(config, train__share=n, train__label_noise=noise)
        for n in study.examples
        for noise in study.noises
    }
    at = {c: rates[few if one.experiment.train.share <= few else many] for c, one in cells.items()}
    sparse = {c: vary(one, **{RATE: at[c]["ticket"]}) for c, one in cells.items()}
    dense = {
        c: vary(one, prune__levels=0, controls=(), **{RATE: at[c]["dense"]})
        for c, one in cells.items()
    }
    found, whole = bench.ladders(name, sparse), bench.ladders(f"{name}-dense", dense)
    curves = {cell: _curves(whole, found, cell, "test_accuracy_final") for cell in cells}
    step = -np.log2(1 - config.experiment.prune.rate)
    best = {cell: -step * _best_levels(curve) for cell, curve in curves.items()}
    won = {cell: _won(whole, found, cell) for cell in cells}
    ahead = {c: _ahead(bench, found, c, sparse[c], at[c]["shuffle"]) for c in cells}
    first = study.noises[0]
    rows = [
        {
            "examples": n,
            "noise": noise,
            "arm": f"{n:,} examples",
            "replicate": i,
            "density": 2.0 ** (-step * level),
            "metric": "ticket − dense",
            "value": float(value - curve[0]),
        }
        for n in study.examples
        for noise in study.noises
        for i, curve in enumerate(curves[CELL(n, noise)])
        for level, value in enumerate(curve)
    ]
    return Evidence(
        primaries=[
            Primary(
                f"best density, {many:,} − {few:,} examples",
                best[CELL(many, first)] - best[CELL(few, first)],
                study.delta,
                "octaves",
            )
        ],
        rows=rows,
        secondary=[
            *(
                Primary(
                    f"best density, {many:,} − {few:,} examples, noise {noise:g}",
                    best[CELL(many, noise)] - best[CELL(few, noise)],
                    study.delta,
                    "octaves",
                )
                for noise in study.noises[1:]
            ),
            Primary(
                f"gain at the validated density, {few:,} − {many:,} examples",
                won[CELL(few, first)] - won[CELL(many, first)],
                1.0,
                "points",
            ),
            *(
                Primary(f"log₂ best density, {c}", v, study.delta, "octaves")
                for c, v in best.items()
            ),
            *(
                Primary(f"gain at the validated density, {c}", v, 1.0, "points")
                for c, v in won.items()
            ),
            *(Primary(f"ticket − shuffle, {c}", v, 1.0, "points") for c, v in ahead.items()),
        ],
        gate=np.minimum(ahead[CELL(few, first)], ahead[CELL(many, first)]),
        member_steps=sum(ladders.member_steps for ladders in (found, whole))
        + config.experiment.train.steps * sum(map(len, ahead.values())),
        notes=(
            f"Learning rates chosen on pilot seeds: {_told(rates)}.",
            "Densities are validated by loss, which minds confident errors more than accuracy.",
            f"Best densities, intervals that hold at once: {_map(best)}.",
        ),
    )


def _map(best: Mapping[str, NDArray[np.float64]]) -> str:
    """The geometric mean of the best density in every cell, with simultaneous intervals."""
    return "; ".join(
        f"{cell}: {2**one.estimate:.2f} [{2**one.low:.2f}, {2**one.high:.2f}]"
        for cell, one in regimes.at_once(best).items()
    )


def _rates(bench: Bench, config: ConfigDict) -> dict[str, float]:
    """By arm, for the number of examples that is shared out; sparse ones where controls are."""
    [level] = config.experiment.control_levels
    pilot = common.pilot(vary(config, prune__levels=level), config.study.pilot_seeds)
    name = f"{PROTOCOL.claim}-{config.experiment.train.share}"
    return bench.tune(name, pilot, config.study.rates, PROTOCOL.arms)


def _told(rates: Mapping[int, Mapping[str, float]]) -> str:
    """Which rates were chosen."""
    told = {n: ", ".join(f"{arm} {rate:g}" for arm, rate in by.items()) for n, by in rates.items()}
    few, *_ = told
    return "; ".join(
        f"{n:,} examples{' or fewer' * (n == few)}: {each}" for n, each in told.items()
    )


def _curves(whole: Results, found: Results, cell: str, metric: str) -> NDArray[np.float64]:
    """A metric along each seed's ladder, dense first, in points: `[seeds, levels]`."""
    ladder = [found.of(cell, "ticket", metric, level) for level in found.levels(cell)[1:]]
    return 100 * np.stack([whole.of(cell, "dense", metric), *ladder], axis=1)


def _best_levels(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    levels = np.arange(curves.shape[1])
    return np.array([interpolated_minimum(levels, -curve) for curve in curves])


def _won(whole: Results, found: Results, cell: str) -> NDArray[np.float64]:
    """Test accuracy over the dense parent's, both stopped early, at the density validated best."""
    loss, test = (
        _curves(whole, found, cell, m) for m in ("validation_loss_best", "test_accuracy_early_stop")
    )
    chosen = np.argmin(loss, axis=1)
    return test[np.arange(len(test)), chosen] - test[:, 0]


def _ahead(
    bench: Bench, found: Results, cell: str, config: ConfigDict, rate: float
) -> NDArray[np.float64]:
    """Test accuracy of tickets over that of their shuffled masks, these at a rate of their own."""
    [level], metric = config.experiment.control_levels, "test_accuracy_final"
    starts = bench.starts(PROTOCOL.claim, config, ("shuffle",), level)["shuffle"]
    own = [start._replace(hyper={"learning_rate": rate}) for start in starts]
    shuffled = bench.retrain(PROTOCOL.claim, config, own)["results"][metric]
    return 100 * (found.of(cell, "ticket", metric, level) - shuffled)


def controls(bench: Bench, config: ConfigDict) -> list[Control]:
    """Least squares on the first 1, 2, 4, … 32 features, whose mean test errors are known.

    With weights 2/j the best number of features is 9 for 40 examples and 32 for 640; for other
    examples, as many as before, it is the same as before.
    """
    del bench
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


STUDY = Study(PROTOCOL, c08.get_config, controls, gather, draw)
