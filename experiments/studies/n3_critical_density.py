"""N3: the critical density, from which on tickets fall behind their dense parents."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.common import RATE, vary
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax.measures.claims import Control, Evidence, Primary, Protocol, Row, draws
from lth_jax.measures.critical import (
    critical_density,
    planted_gains,
    rank_correlations,
    slopes,
    slopes_by_axis,
)
from lth_jax.measures.intervals import Interval
from lth_jax.measures.simultaneous import by_cell
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import maps
from lth_jax.report.cells import Tuned, cell_name
from lth_jax.types import DENSE, TICKET

PROTOCOL = Protocol(
    claim="N3",
    title="Critical density",
    says="Because the network is so large, a small part of it is enough: the larger the network, "
    "the smaller the share of its weights that a matching ticket needs.",
    question="Does the critical density fall at least by a factor √2 for each doubling of the "
    "width?",
    setup="MNIST-1D, an MLP with two hidden layers of 32, 64 or 128 units and Adam; 1,000 or 4,000 "
    "examples of its own for every seed, 200 or 600 steps; magnitude pruning in seven rounds to "
    "density .028, rewound to the start; 10,000 test examples.",
    arms=("dense", "ticket", "shuffle"),
    statistic="minus the slope of log₂ critical density on log₂ width, the mean over numbers of "
    "steps and examples; the critical density is where the mean of ticket − dense first falls "
    "below −10 % of the dense error, with one jackknife pseudo-value for each seed",
    rule="The slope is at least δ. Learning rates are chosen for each arm, density and cell by the "
    "other half of the seeds. Cells whose curve never falls below the margin have no critical "
    "density; numbers of steps and examples with such a cell are left out and noted.",
    expects="By a factor 3 for each doubling if tickets need a fixed number of weights, not at all "
    "if they need a fixed share. In between: wide parents are also harder to match.",
    limits="Networks of 2,600 to 22,800 weights on one generated task. The margin is needed: many "
    "mean curves stay near 0 over several densities, so where they cross 0 is ill-defined. "
    "Barriers are measured at the smaller learning rate, the best of dense networks.",
    paragraph="The Original Lottery, paragraph 2",
    chosen_by="A pilot on other seeds and data: dense networks at .003 are 1.6 to 3.2 points worse "
    "than at .01, and 0.9 to 4.8 worse at .03, which sparse tickets prefer; at .01 they fit 78 to "
    "100 % of the training set; tickets beat shuffled masks by more than 3 points in every cell.",
)
TEST = "test_accuracy_final"
GAIN, FALL = "ticket − dense", "octaves of density for each of width"
ARMS = (DENSE, TICKET)


class Place(NamedTuple):
    """A cell of the map: hidden units of a layer, steps, and examples of each seed."""

    width: int
    steps: int
    examples: int

    def __str__(self) -> str:
        return f"width {self.width}, {self.setting}"

    @property
    def setting(self) -> str:
        """Steps and examples."""
        return f"{self.steps:,} steps, {self.examples:,} examples"


ByPlace = Mapping[Place, NDArray[np.float64]]


def get_config(size: str = "laptop") -> ConfigDict:
    """Three widths, two numbers of steps and of examples, seven densities."""
    common.check_size(size)
    config = common.mnist1d(seeds=12)
    config.experiment.prune.levels = 7
    config.experiment.control_levels = (3,)
    config.experiment.data.options.test = 10_000
    config.study = common.numbers(
        delta=0.5,  # octaves of density for each octave of width
        margin=10.0,  # % of the dense error that a matching ticket may lose
        share=10.0,  # % of the dense error, the unit of the map
        stable=2.0,  # points of error: lower barriers count as stable (Frankle et al., 2020)
        widths=(32, 64, 128),
        steps=(200, 600),
        examples=(1000, 4000),
        rates=(1e-2, 3e-2),
        levels=(3, 5),  # of the tickets whose children are trained
        points=5,  # on the line between two children
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config, steps=5000)
        experiment, study = config.experiment, config.study
        experiment.replicates = 13  # limited by the 55,000 examples
        experiment.train.share = 4000
        experiment.prune.levels = 10
        study.update(widths=(64, 128, 256, 512), steps=(1000, 5000), levels=(4, 8), points=15)
        study.rates = (1.2e-3, 3.6e-3)
        study.setup = (
            "MLPs with two hidden layers of 64 to 512 units on MNIST, Adam, batches of 60, 1,000 "
            "or 5,000 steps, 1,000 or 4,000 examples of its own for every seed; ten rounds to "
            "density .006. No fall of the critical density here would mean that, over a factor of "
            "20 in weights, a larger lottery has no sparser winners."
        )
    return config


def cells_of(config: ConfigDict) -> dict[Place, ConfigDict]:
    """The ladder of every place, at the first learning rate."""
    study, outputs = config.study, config.experiment.model.options.features[-1]
    grid = itertools.product(study.steps, study.examples, study.widths)
    return {
        Place(width, steps, examples): vary(
            config,
            model__options__features=(width, width, outputs),
            train__steps=steps,
            train__eval_every=max(1, steps // 10),
            train__share=examples,
            **{RATE: study.rates[0]},
        )
        for steps, examples, width in grid
    }


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Ladders of all cells at all rates, and two children of dense networks and tickets."""
    study, cells = config.study, cells_of(config)
    found = {at: runner.tuned(PROTOCOL.claim, one) for at, one in cells.items()}
    barriers = {at: _barriers(runner, one, study) for at, one in cells.items()}
    networks = 2 * config.experiment.replicates * (1 + len(study.levels))
    trained = sum(found[at].member_steps + networks * at.steps for at in cells)
    return evidence(config, found, barriers)._replace(member_steps=trained)


def relative(of: Callable[..., NDArray[np.float64]], levels: Sequence[int]) -> NDArray[np.float64]:
    """Ticket − dense in % of the mean dense error, from test accuracies: `[seeds, levels]`."""
    dense = of(DENSE, TEST, 0)
    gains = np.stack([of(TICKET, TEST, level) - dense for level in levels], axis=1)
    return np.asarray(100 * gains / (1 - np.nanmean(dense)))


def _barriers(runner: StudyRunner, config: ConfigDict, study: ConfigDict) -> NDArray[np.float64]:
    """Barriers in points between two children of dense networks and tickets: `[seeds, arms]`."""
    name = PROTOCOL.claim
    starts = [runner.origins(name, config)]
    starts += [runner.starts(name, config, (TICKET,), level)[TICKET] for level in study.levels]
    found = runner.barriers(name, config, list(itertools.chain(*starts)), study.points)
    return found.reshape(len(starts), -1).T


def evidence(config: ConfigDict, found: Mapping[Place, Tuned], barriers: ByPlace) -> Evidence:
    """The evidence from all ladders and barriers."""
    study, places = config.study, list(found)
    kept, levels = 1 - config.experiment.prune.rate, range(1, config.experiment.prune.levels + 1)
    densities = kept ** np.array(levels)
    lowest = cell_name("", study.rates[0])
    first = {at: functools.partial(one.results.of, lowest) for at, one in found.items()}
    gains = {at: relative(found[at].of, levels) for at in places}
    critical = {at: critical_density(densities, gains[at], study.margin) for at in places}
    [level] = config.experiment.control_levels
    gate = [one.of(TICKET, TEST, level) - one.of("shuffle", TEST, level) for one in found.values()]
    below = {at: barriers[at][:, 1:] for at in places}
    lost = {at: -relative(first[at], study.levels) for at in places}
    stops = [[of(a, "early_stop_step", study.levels[0]) for a in ARMS] for of in first.values()]
    early = [100 * (dense - ticket) / np.nanmean(dense) for dense, ticket in stops]
    fall = functools.partial(slopes_by_axis, critical)
    sizes = [found[places[i]].flops()[DENSE] for i in range(len(study.widths))]
    growth = slopes(np.log2(study.widths), np.log2([sizes])).item()  # of the number of weights
    words = "; ".join(f"{at}: {one}" for at, one in critical.items())
    return Evidence(
        primaries=[Primary(FALL, -fall("width"), study.delta, "")],
        rows=[
            {
                "cell": f"{at}, {100 * density:.2g} %",
                "metric": GAIN,
                **at._asdict(),
                "setting": at.setting,
                "density": float(density),
                "replicate": seed,
                "value": float(value),
            }
            for at in places
            for density, values in zip(densities, gains[at].T, strict=True)
            for seed, value in enumerate(values)
        ],
        secondary=[
            Primary("octaves of weights kept for each of width", growth + fall("width"), 0.5, ""),
            *(
                Primary(f"octaves of density for each of {axis}", fall(axis), 0.25, "", True)
                for axis in ("steps", "examples")
            ),
            *stability(study, barriers, lost, kept),
            Primary("tickets stop earlier", np.mean(early, axis=0), 10.0, "% of dense steps", True),
        ],
        gate=100 * np.mean(gate, axis=0),
        notes=(
            f"Critical densities, with standard errors as factors: {words}.",
            _counts(study, below, lost, kept),
        ),
    )


def stability(study: ConfigDict, barriers: ByPlace, lost: ByPlace, kept: float) -> list[Primary]:
    """Barriers of tickets against those of dense networks, and against what tickets lose."""
    table, deficit = (np.stack(list(each.values()), axis=1) for each in (barriers, lost))
    dense, tickets = table[..., 0], table[..., 1:]
    seeds = len(table)
    both = [each.reshape(seeds, -1) for each in (tickets, deficit)]
    within = [rank_correlations(tickets[..., i], deficit[..., i]) for i in range(len(study.levels))]
    return [
        *(
            Primary(
                f"barrier, dense − ticket at {100 * kept**level:.2g} %",
                (dense - tickets[..., i]).mean(axis=1),
                study.stable,
                "points",
            )
            for i, level in enumerate(study.levels)
        ),
        Primary("rank correlation of barrier and loss", rank_correlations(*both), 0.5, "", True),
        Primary("the same within a density", np.mean(within, axis=0), 0.5, "", True),
    ]


def _counts(study: ConfigDict, barriers: ByPlace, lost: ByPlace, kept: float) -> str:
    """How many tickets of the map are stable, and how many of these match, by bands."""

    def bands(values: ByPlace) -> dict[str, Interval]:
        kinds = itertools.product(values.items(), enumerate(study.levels))
        named = {f"{at}, {100 * kept**n:.2g} %": each[:, i] for (at, each), (i, n) in kinds}
        return by_cell(named)

    def among(cells: Sequence[str]) -> str:
        matching = sum(loss[cell].high <= study.margin for cell in cells)
        behind = [cell for cell in cells if loss[cell].low > study.margin]
        such = f" ({'; '.join(behind)})" if behind else ""
        return f"{len(cells)}, of which {matching} match and {len(behind)} do not{such}"

    barrier, loss = bands(barriers), bands(lost)
    stable = [cell for cell, one in barrier.items() if one.high < study.stable]
    unstable = [cell for cell, one in barrier.items() if one.low >= study.stable]
    return (
        f"Of {len(barrier)} kinds of ticket, all at the rate {study.rates[0]:g}, by simultaneous "
        f"95 % intervals: stable (barrier below {study.stable:g} points) are {among(stable)}; "
        f"unstable {among(unstable)}."
    )


def controls(config: ConfigDict) -> list[Control]:
    """Curves whose critical density is known, with the noise of a pilot.

    A ticket loses `10 (ρ*/ρ)^1.5 − 10 ρ*^1.5` percent, and `ρ*` is inversely proportional to the
    number of weights, or the same for all widths.
    """
    study, levels = config.study, config.experiment.prune.levels
    densities = (1 - config.experiment.prune.rate) ** np.arange(1, levels + 1)
    widths = 32 * 2 ** np.arange(3)

    def fall(power: float, seed: int) -> list[Primary]:
        known = 0.3 * (widths / 32.0) ** -power
        seeds = range(seed, seed + study.control_seeds)
        gains = draws(lambda rng: planted_gains(rng, densities, known, study.margin), seeds)
        found = [critical_density(densities, g, study.margin) for g in np.moveaxis(gains, 1, 0)]
        values = -slopes(np.log2(widths), np.stack([one.values for one in found], axis=1))
        return [Primary(FALL, values, study.delta, "")]

    return [
        Control("a fixed number of weights", SUPPORTED, fall(1.0, 3300)),
        Control("a fixed share of the weights", NOT_SUPPORTED, fall(0.0, 3400)),
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """The map of ticket − dense: a panel for each number of steps and of examples."""
    shown: list[dict[str, Any]] = [row | {"kept": f"{100 * row['density']:.2g}"} for row in rows]
    return maps.effects(
        shown,
        10.0,
        label="Ticket − dense (units of δ)",
        y="kept",
        y_label="Weights kept (%)",
        group="width",
        panel="setting",
    )


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw, minutes=8))
