"""C6: a mask changes the curvature and the best learning rate."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.common import vary
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax import keys
from lth_jax import store as stores
from lth_jax.lottery import Retrained, Start, training_program
from lth_jax.lottery.curvature import stability_edges
from lth_jax.lottery.starts import start_fingerprint
from lth_jax.measures.claims import Contrasts, Control, Evidence, Primary, Protocol, arm_rows, draws
from lth_jax.measures.optima import RateSweep, descent_optimum, sweep_rates
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.store import Node

PROTOCOL = Protocol(
    claim="C6",
    title="Curvature and learning rate",
    says="Pruning restricts training to a subspace with another Hessian, so the learning rate that "
    "suits a ticket is not that of its dense parent.",
    question="At density .047, is the best learning rate of tickets another than their dense "
    "parents', by at least half an octave, for a short and for a long training?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, an MLP 40-64-64-10 with plain SGD, "
    "300 and 1,500 steps at rates half an octave apart; magnitude pruning in four rounds of 53 % "
    "within layers, rewound to the start, for each number of steps.",
    arms=("dense", "ticket", "shuffle"),
    statistic="log₂ of the rate with the smallest training loss at the end, interpolated by a "
    "parabola in the logarithm of the loss; TICKET minus DENSE, in octaves, paired by seed",
    rule="Two-sided, for both numbers of steps. δ is half an octave, the spacing of the grid: a "
    "smaller shift changes no choice. The grid grows by half an octave at an end where "
    "more than one seed in twenty of an arm has its best rate.",
    expects="Random masks need larger rates; tickets smaller ones or the same, since magnitude "
    "pruning keeps the directions of high curvature. 2/λmax gives the best rate where training "
    "ends, not where it begins.",
    limits="One small network without normalisation and plain SGD at a fixed budget; Adam and "
    "BatchNorm rescale the steps and may hide the shift. Curvature is secondary: it shows whether "
    "the Hessian is the reason.",
    paragraph="A Deeper Dive, paragraph 2",
    chosen_by="A network of ORIGINAL's family that trains by plain SGD; a density at which "
    "shuffled masks train much worse than the dense network; 300 steps, where the dense loss "
    "still falls fast, and five times as many.",
    two_sided=True,
)
CHANCE = np.log(10)  # the loss of a uniform prediction over ten classes; used for diverged networks
OCTAVES = (0.5, "octaves", True)
LOSS = "training loss"
START, TRAINED = WHEN = ("at the start", "when trained")
Losses = NDArray[np.float64]


def get_config(size: str = "laptop") -> ConfigDict:
    """4,000 examples, 300 and 1,500 steps of plain gradient descent on batches, density .047."""
    common.check_size(size)
    config = common.mnist1d(seeds=32)
    experiment = config.experiment
    experiment.model.options.features = (64, 64, 10)
    experiment.optimizer.update(name="sgd", learning_rate=0.5, momentum=0.0)
    experiment.prune.update(rate=0.534, levels=4)
    experiment.control_levels = (4,)
    config.study = common.numbers(
        delta=0.5,  # in log₂ of the learning rate
        steps=(300, 1500),
        halves=(-4, 3),  # the first grid, in half octaves
        most=6,  # half octaves that the grid may grow by at either end
        curved=16,  # seeds whose curvature is measured
        examples=1000,  # examples of a seed in its Hessian
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config)
        experiment.optimizer.update(name="sgd", learning_rate=0.1, momentum=0.0)
        config.study.update(steps=(4000, 20_000), halves=(-12, 2))
        config.study.setup = config.study.setup.replace("Adam", "plain SGD at 15 rates")
        config.study.setup += (
            " Not supported would mean that one rate serves both networks on MNIST."
        )
    return config


class Swept(NamedTuple):
    """Networks of all arms at every rate.

    Attributes:
      grid: rates and final training losses, at most that of a uniform prediction.
      starts: by arm, `[seeds]`.
      trained: by arm and rate, the networks of all seeds.
    """

    grid: RateSweep
    starts: dict[str, list[Start]]
    trained: dict[tuple[str, float], Retrained]


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Tickets and shuffled masks, each trained at every rate from the dense network's start."""
    study, experiment = config.study, config.experiment
    short, long = (
        vary(config, train__steps=n, train__eval_every=n // 2, controls=controls)
        for n, controls in zip(study.steps, (("shuffle",), ()), strict=True)
    )
    found = runner.ladders(PROTOCOL.claim, {"short": short, "long": long})
    swept = {
        cell.experiment.train.steps: _sweep(runner, cell, arms)
        for cell, arms in ((short, PROTOCOL.arms), (long, PROTOCOL.arms[:2]))
    }
    best = {n: {arm: one.grid.best(arm) for arm in one.starts} for n, one in swept.items()}
    first = swept[study.steps[0]]
    edges = _edges(runner, short, first, study.curved)
    tested = {arm: _at_best(first, arm, "test_accuracy_final") for arm in ("ticket", "shuffle")}
    curved = {arm: values[: study.curved] for arm, values in best[study.steps[0]].items()}

    def shift(n: int, one: str, other: str, delta: float = 0.5) -> Primary:
        label = f"best rate after {n:,} steps, "
        return Contrasts(best[n], "octaves", delta, label, two_sided=True)(one, other)

    return Evidence(
        primaries=[shift(n, "ticket", "dense", study.delta) for n in study.steps],
        rows=[
            row
            for n, one in swept.items()
            for rate in one.grid.rates
            for row in arm_rows(
                LOSS,
                {f"{arm}, {n:,} steps": one.grid.losses[arm, rate] for arm in one.starts},
                rate=rate,
            )
        ],
        secondary=[
            shift(study.steps[0], "shuffle", "dense"),
            shift(study.steps[0], "ticket", "shuffle"),
            *(
                Contrasts(edges[when], "octaves", 0.5, f"2/λmax {when}, ", two_sided=True)(
                    arm, "dense"
                )
                for when in edges
                for arm in PROTOCOL.arms[1:]
            ),
            *(
                Primary(f"best rate − 2/λmax {TRAINED}, {arm}", curved[arm] - edge, *OCTAVES)
                for arm, edge in edges[TRAINED].items()
            ),
        ],
        gate=100 * (tested["ticket"] - tested["shuffle"]),
        member_steps=found.member_steps
        + sum(n * len(one.trained) * experiment.replicates for n, one in swept.items()),
        notes=(
            *(_ends(n, one.grid) for n, one in swept.items()),
            "2/λmax when trained is no forecast: curvature adapts to the rate of its own training "
            "(Cohen et al., 2021), so the two agree near the edge of stability.",
        ),
    )


def _at_best(swept: Swept, arm: str, metric: str) -> Losses:
    """A result of every seed at its best rate."""
    chosen = swept.grid.chosen(arm)
    found = [swept.trained[arm, rate].results[metric] for rate in swept.grid.rates]
    return np.array([found[c][i] for i, c in enumerate(chosen)], float)


def _ends(steps: int, grid: RateSweep) -> str:
    low, high = (f"{100 * grid.at_end(end):.0f} %" for end in (0, -1))
    return (
        f"{steps:,} steps: rates from {grid.rates[0]:.2g} to {grid.rates[-1]:.2g}; at most {low} "
        f"and {high} of the seeds of an arm have their best rate at an end."
    )


def _sweep(runner: StudyRunner, config: ConfigDict, arms: Sequence[str]) -> Swept:
    study, name = config.study, PROTOCOL.claim
    starts = {"dense": runner.origins(name, config)} | runner.starts(name, config, arms[1:])
    trained: dict[tuple[str, float], Retrained] = {}

    def train(rates: list[float]) -> dict[tuple[str, float], Losses]:
        at = {
            (arm, rate): [one._replace(hyper={"learning_rate": rate}) for one in begun]
            for arm, begun in starts.items()
            for rate in rates
        }
        new = runner.retrain_arms(name, config, at)
        trained.update(new)
        losses = {place: one.results["train_loss_final"] for place, one in new.items()}
        return {place: np.fmin(each.astype(float), CHANCE) for place, each in losses.items()}

    return Swept(sweep_rates(train, study.halves, study.most), starts, trained)


def _edges(
    runner: StudyRunner, config: ConfigDict, swept: Swept, seeds: int
) -> dict[str, dict[str, Losses]]:
    """log₂ of 2/λmax at the start and after training at the best rate, by arm, of some seeds."""
    task = runner.task(config)
    key = keys.stream(runner.seeds(config).root, "lanczos", "edges")
    starts = {arm: own[:seeds] for arm, own in swept.starts.items()}
    ends = {
        arm: [
            swept.trained[arm, swept.grid.rates[c]].at(i).params
            for i, c in enumerate(swept.grid.chosen(arm)[:seeds])
        ]
        for arm in starts
    }

    def compute(partial: Any) -> Node:
        del partial  # a minute or two
        found = {}
        for arm, own in starts.items():
            begun = [{k: v * one.mask[k] for k, v in one.params.items()} for one in own]
            for when, points in zip(WHEN, (begun, ends[arm]), strict=True):
                edges = stability_edges(task, own, points, key, examples=config.study.examples)
                found[f"{when}/{arm}"] = np.log2(edges)
        return Node(found, {})

    what = {
        "kind": "edges",
        **{name: config[name].to_dict() for name in ("experiment", "study")},
        "program": training_program(task.trainer, task.data, task.hyper, keys.from_seed(0)),
        "data": runner.dataset(config).fingerprint,
        "starts": {arm: [start_fingerprint(start) for start in own] for arm, own in starts.items()},
        "ends": stores.fingerprint({arm: [dict(p) for p in own] for arm, own in ends.items()}),
    }
    arrays = runner.node(what, compute).arrays
    return {when: {arm: arrays[f"{when}/{arm}"] for arm in starts} for when in WHEN}


def controls(config: ConfigDict) -> list[Control]:
    """Gradient descent on least squares, whose best step is 1 / (1 + features/examples).

    With 20 examples the best rate of 4 features is a factor 3/1.2 (log₂ 1.3) above that of 40, in
    the limit of many; that of 20 features equals that of 20 others.
    """
    study = config.study

    def shift(few: int, many: int) -> list[Primary]:
        seeds = range(600, 600 + study.control_seeds)
        values = draws(lambda rng: descent_optimum(rng, few) - descent_optimum(rng, many), seeds)
        return [Primary("best rate, sparse − dense", values, study.delta, "octaves", True)]

    return [
        Control("4 of 40 features, 20 examples", SUPPORTED, shift(4, 40)),
        Control("20 features and 20 others", NOT_SUPPORTED, shift(20, 20)),
    ]


draw = functools.partial(
    tidy.against, x="rate", metric=LOSS, label="Training loss", x_label="Learning rate"
)

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
