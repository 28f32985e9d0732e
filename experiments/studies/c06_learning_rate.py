"""C6: a mask changes the curvature and the best learning rate."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner, vary
from lth_jax import keys
from lth_jax import store as stores
from lth_jax.lottery import Start, training_program
from lth_jax.lottery.curvature import stability_edges
from lth_jax.lottery.starts import start_fingerprint
from lth_jax.measures.claims import Contrasts, Control, Evidence, Primary, Protocol, arm_rows, draws
from lth_jax.measures.optima import descent_losses, interpolated_minimum
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.report.arms import looks
from lth_jax.store import Node

PROTOCOL = Protocol(
    claim="C6",
    title="Curvature and learning rate",
    says="Pruning restricts training to a subspace with another Hessian, so the learning rate that "
    "suits a ticket is not that of its dense parent.",
    question="At density .047, is the best learning rate of tickets another than their dense "
    "parents', by at least half an octave?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, an MLP 40-64-64-10 with plain SGD, "
    "300 steps at ten rates half an octave apart; magnitude pruning in six rounds, rewound to "
    "the start.",
    arms=("dense", "ticket", "shuffle", "ticket found slowly"),
    statistic="log₂ of the rate with the smallest training loss at the end, interpolated by a "
    "parabola in the logarithm of the loss; TICKET minus DENSE, in octaves, paired by seed",
    rule="Two-sided: different from 0 (Holm) and at least δ in size.",
    expects="A pilot of four seeds saw the rate of random masks rise by .8 octaves and that of "
    "tickets hardly move; 2/λmax told the best rate where training ended, not where it began.",
    limits="One small network without normalisation and plain SGD at a fixed budget; Adam and "
    "BatchNorm rescale the steps and may hide the shift.",
    two_sided=True,
)
CHANCE = np.log(10)  # the loss of a uniform prediction over ten classes; used for diverged networks
OCTAVES = (0.5, "octaves", True)
CURVED = ("dense", "ticket", "shuffle")
START, TRAINED = WHEN = ("at the start", "when trained")
Losses = NDArray[np.float64]


def get_config(size: str = "laptop") -> ConfigDict:
    """4,000 examples, 300 steps of plain gradient descent on batches, density .047."""
    common.check_size(size)
    config = common.mnist1d(seeds=48)
    experiment = config.experiment
    experiment.model.options.features = (64, 64, 10)
    experiment.train.update(steps=300, eval_every=150)
    experiment.optimizer.update(name="sgd", learning_rate=0.5, momentum=0.0)
    experiment.prune.levels = 6
    experiment.control_levels = (6,)
    config.study = common.numbers(
        delta=0.5,  # in log₂ of the learning rate
        rates=tuple(2.0 ** (power / 2) for power in range(-5, 5)),
        slow=0.125,  # the other learning rate of the masks
        examples=1000,  # examples of a seed in its Hessian
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config)
        experiment.optimizer.update(name="sgd", learning_rate=0.1, momentum=0.0)
        config.study.rates = tuple(2.0 ** (power / 2) for power in range(-14, 3))
        config.study.slow = 0.025
        config.study.setup = config.study.setup.replace("Adam", "plain SGD at 17 rates")
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Masks of two ladders and shuffled ones, each trained at every rate from the same start."""
    study, name = config.study, PROTOCOL.claim
    slow = vary(config, optimizer__learning_rate=study.slow, controls=())
    found = runner.ladders(name, {"found": config, "found slowly": slow})
    origins = runner.origins(name, config)
    begun = runner.starts(name, config, CURVED[1:]) | {
        "dense": origins,
        "ticket found slowly": runner.starts(name, slow, ("ticket",))["ticket"],
    }
    arms = {
        arm: [
            start._replace(mask=under.mask, hyper={"learning_rate": rate})
            for start, under in zip(origins, begun[arm], strict=True)
            for rate in study.rates
        ]
        for arm in PROTOCOL.arms
    }
    trained = runner.retrain_arms(name, config, arms)

    def table(arm: str, metric: str) -> Losses:
        return np.reshape(trained[arm].results[metric], (-1, len(study.rates))).astype(float)

    losses = {arm: table(arm, "train_loss_final") for arm in arms}
    chosen = {arm: np.nanargmin(each, axis=1) for arm, each in losses.items()}
    seeds = np.arange(len(origins))
    accuracy = {arm: 100 * table(arm, "test_accuracy_final")[seeds, chosen[arm]] for arm in arms}
    best = {arm: _best_rates(study.rates, losses[arm]) for arm in arms}
    members = {arm: seeds * len(study.rates) + chosen[arm] for arm in CURVED}
    own = {arm: [arms[arm][i] for i in members[arm]] for arm in CURVED}
    ends = {arm: trained[arm].at(members[arm]).params for arm in CURVED}
    edges = _edges(runner, config, own, ends)
    lowest = {arm: np.log(np.nanmin(each, axis=1)) for arm, each in losses.items()}
    shift = Contrasts(best, "octaves", 0.5, "best rate, ", two_sided=True)
    at_edge = sum(int(np.isin(b, np.log2(study.rates)[[0, -1]]).sum()) for b in best.values())
    return Evidence(
        primaries=[shift("ticket", "dense", study.delta)],
        rows=_rows(study.rates, losses, best, edges),
        secondary=[
            shift("shuffle", "dense", name="best rate, random mask − dense"),
            shift("ticket", "shuffle", name="best rate, ticket − random mask"),
            shift(
                "ticket",
                "ticket found slowly",
                name=f"best rate, ticket − ticket found at {study.slow:g}",
            ),
            *(
                shift._replace(values=edges[when])(
                    arm, "dense", name=f"2/λmax {when}, {words} − dense"
                )
                for when in edges
                for arm, words in (("ticket", "ticket"), ("shuffle", "random mask"))
            ),
            *(
                Primary(f"best rate − 2/λmax {TRAINED}, {arm}", best[arm] - edge, *OCTAVES)
                for arm, edge in edges[TRAINED].items()
            ),
            Contrasts(lowest, "nats", 0.1, "log training loss, ", two_sided=True)(
                "ticket", "dense"
            ),
        ],
        gate=accuracy["ticket"] - accuracy["shuffle"],
        member_steps=found.member_steps
        + sum(map(len, arms.values())) * config.experiment.train.steps,
        notes=(
            f"{at_edge} of {sum(map(len, best.values()))} best rates lie at an end of the grid.",
            "2/λmax when trained is no forecast: curvature adapts to the rate of its own training "
            "(Cohen et al., 2021), so the two agree near the edge of stability.",
        ),
    )


def _best_rates(rates: Sequence[float], losses: Losses) -> Losses:
    """log₂ of the best rate of every seed."""
    capped = np.log(np.fmin(losses, CHANCE))
    return np.array([interpolated_minimum(np.log2(rates), row) for row in capped])


def _edges(
    runner: StudyRunner,
    config: ConfigDict,
    starts: Mapping[str, Sequence[Start]],
    ends: Mapping[str, Mapping[str, NDArray]],
) -> dict[str, dict[str, Losses]]:
    """log₂ of 2/λmax at the start and after training at the best rate, by arm."""
    task = runner.task(config)
    key = keys.stream(runner.seeds(config).root, "lanczos", "edges")

    def compute(partial: Any) -> Node:
        del partial  # a minute or two
        found = {}
        for arm, own in starts.items():
            begun = [{k: v * one.mask[k] for k, v in one.params.items()} for one in own]
            ended = [{k: v[i] for k, v in ends[arm].items()} for i in range(len(own))]
            for when, points in zip(WHEN, (begun, ended), strict=True):
                edges = stability_edges(task, own, points, key, examples=config.study.examples)
                found[f"{when}/{arm}"] = np.log2(edges)
        return Node(found, {})

    what = {
        "kind": "edges",
        **{name: config[name].to_dict() for name in ("experiment", "study")},
        "program": training_program(task.trainer, task.data, task.hyper, keys.from_seed(0)),
        "data": runner.dataset(config).fingerprint,
        "starts": {arm: [start_fingerprint(start) for start in own] for arm, own in starts.items()},
        "ends": stores.fingerprint({arm: dict(params) for arm, params in ends.items()}),
    }
    arrays = runner.node(what, compute).arrays
    return {when: {arm: arrays[f"{when}/{arm}"] for arm in CURVED} for when in WHEN}


def _rows(
    rates: Sequence[float],
    losses: Mapping[str, Losses],
    best: Mapping[str, Losses],
    edges: Mapping[str, Mapping[str, Losses]],
) -> list[tidy.Row]:
    curves = [
        row
        for i, rate in enumerate(rates)
        for row in arm_rows(
            "training loss",
            {arm: np.fmin(table, CHANCE)[:, i] for arm, table in losses.items()},
            rate=rate,
        )
    ]
    measured = {"best rate": best, **{f"2/λmax {when}": edges[when] for when in WHEN}}
    return curves + [row for metric, arms in measured.items() for row in arm_rows(metric, arms)]


def controls(config: ConfigDict) -> list[Control]:
    """Gradient descent on least squares, whose best step is 1 / (1 + features/examples).

    With 20 examples the best rate of 4 features is a factor 3/1.2 (log₂ 1.3) above that of 40, in
    the limit of many; that of 20 features equals that of 20 others.
    """
    study, rates = config.study, np.log2(config.study.rates)

    def best(rng: np.random.Generator, features: int) -> float:
        x, w = rng.normal(size=(20, features)), rng.normal(size=features)
        losses = descent_losses(x, w, study.rates, 50)
        return interpolated_minimum(rates, np.log(losses + 1e-300))

    def shift(few: int, many: int) -> list[Primary]:
        seeds = range(600, 600 + study.control_seeds)
        values = draws(lambda rng: best(rng, few) - best(rng, many), seeds)
        return [Primary("best rate, sparse − dense", values, study.delta, "octaves", True)]

    return [
        Control("4 of 40 features, 20 examples", SUPPORTED, shift(4, 40)),
        Control("20 features and 20 others", NOT_SUPPORTED, shift(20, 20)),
    ]


def draw(rows: Sequence[tidy.Row]) -> Figure:
    """Training loss against the learning rate, and the mean of 2/λmax when trained."""
    figure = tidy.against(
        rows, "rate", "training loss", label="Training loss", x_label="Learning rate"
    )
    axes = figure.axes[0]
    axes.set_title("dotted: 2/λmax when trained")
    for arm in CURVED:
        edge = np.nanmean(tidy.values_of(rows, arm=arm, metric=f"2/λmax {TRAINED}"))
        axes.axvline(2**edge, color=looks([arm])[arm].color, linestyle=":")
    return figure


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
