"""C6: a mask changes the curvature, and with it the learning rate that suits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.configs.studies import c06
from experiments.studies.protocol import STUDIES, Control, Evidence, Primary, Protocol, Row, Study
from experiments.studies.sharpness import stability_edges
from experiments.studies.starts import Start, fingerprint
from experiments.studies.study_runner import StudyRunner, program, vary
from lth_jax import store as stores
from lth_jax.measures.optima import descent_losses, interpolated_minimum
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.report.figures import looks
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
CHANCE = np.log(10)  # the loss of knowing nothing of ten classes; what diverged has no less
CURVED = ("dense", "ticket", "shuffle")
WHEN = ("at the start", "when trained")
Losses = NDArray[np.float64]


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Masks of two ladders and shuffled ones, each trained at every rate from the same start."""
    study, name = config.study, PROTOCOL.claim
    slow = vary(config, optimizer__learning_rate=study.slow, controls=())
    found = runner.ladders(name, {"found": config, "found slowly": slow})
    origins = runner.origins(name, config)
    masks = {
        "dense": [start.mask for start in origins],
        "ticket": _masks(runner, config, "ticket"),
        "shuffle": _masks(runner, config, "shuffle"),
        "ticket found slowly": _masks(runner, slow, "ticket"),
    }
    starts = [
        start._replace(mask=mask, hyper={"learning_rate": rate})
        for arm in PROTOCOL.arms
        for start, mask in zip(origins, masks[arm], strict=True)
        for rate in study.rates
    ]
    trained = runner.retrain(name, config, starts)
    shape = (len(PROTOCOL.arms), len(origins), len(study.rates))
    ended = np.reshape(trained["results"]["train_loss_final"], shape).astype(float)
    losses = dict(zip(PROTOCOL.arms, ended, strict=True))
    best = {arm: _best_rates(study.rates, losses[arm]) for arm in PROTOCOL.arms}
    edges = _edges(runner, config, starts, trained["params"], losses)
    lowest = {arm: np.log(np.nanmin(losses[arm], axis=1)) for arm in PROTOCOL.arms}
    accuracy = 100 * trained["results"]["test_accuracy_final"].astype(float)
    reached = {arm: accuracy[_best_members(losses, arm)] for arm in PROTOCOL.arms}

    def shift(values: Mapping[str, Any], arm: str, other: str = "dense") -> Any:
        return values[arm] - values[other]

    at_edge = sum(int(np.isin(b, np.log2(study.rates)[[0, -1]]).sum()) for b in best.values())
    return Evidence(
        primaries=[
            Primary(
                "best rate, ticket − dense", shift(best, "ticket"), study.delta, "octaves", True
            )
        ],
        rows=_rows(study.rates, losses, best, edges),
        secondary=[
            _octaves("best rate, random mask − dense", shift(best, "shuffle")),
            _octaves("best rate, ticket − random mask", shift(best, "ticket", "shuffle")),
            _octaves(
                f"best rate, ticket − ticket found at {study.slow:g}",
                shift(best, "ticket", "ticket found slowly"),
            ),
            *(
                _octaves(f"2/λmax {when}, {told} − dense", shift(edges[when], arm))
                for when in edges
                for arm, told in (("ticket", "ticket"), ("shuffle", "random mask"))
            ),
            *(
                _octaves(f"best rate − 2/λmax when trained, {arm}", best[arm] - edge)
                for arm, edge in edges["when trained"].items()
            ),
            Primary(
                "log training loss, ticket − dense", shift(lowest, "ticket"), 0.1, "nats", True
            ),
        ],
        gate=shift(reached, "ticket", "shuffle"),
        member_steps=found.member_steps + len(starts) * config.experiment.train.steps,
        notes=(
            f"{at_edge} of {sum(map(len, best.values()))} best rates lie at an end of the grid.",
            "2/λmax when trained is no forecast: curvature adapts to the rate of its own training "
            "(Cohen et al., 2021), so the two agree near the edge of stability.",
        ),
    )


def _octaves(name: str, values: Any) -> Primary:
    return Primary(name, values, 0.5, "octaves", True)


def _masks(runner: StudyRunner, config: ConfigDict, arm: str) -> list[dict[str, NDArray]]:
    """The masks of the last level, seed by seed."""
    return [start.mask for start in runner.starts(PROTOCOL.claim, config, (arm,))[arm]]


def _best_rates(rates: Sequence[float], losses: Losses) -> Losses:
    """log₂ of the best rate of every seed."""
    capped = np.log(np.fmin(losses, CHANCE))
    return np.array([interpolated_minimum(np.log2(rates), row) for row in capped])


def _edges(
    runner: StudyRunner,
    config: ConfigDict,
    starts: Sequence[Start],
    params: Mapping[str, NDArray],
    losses: Mapping[str, Losses],
) -> dict[str, dict[str, Losses]]:
    """log₂ of 2/λmax at the start and where the best rate of the grid ended, by arm."""
    chosen = {arm: _best_members(losses, arm) for arm in CURVED}

    def compute(partial: Any) -> Node:
        del partial  # a minute or two
        found = {}
        for arm, members in chosen.items():
            own = [starts[i] for i in members]
            begun = [{k: v * one.mask[k] for k, v in one.params.items()} for one in own]
            ended = [{k: v[i] for k, v in params.items()} for i in members]
            for when, points in zip(WHEN, (begun, ended), strict=True):
                at = (runner, config, own, points, config.study.examples)
                found[f"{when}/{arm}"] = stability_edges(*at)
        return Node(found, {})

    what = {
        "kind": "edges",
        **{name: config[name].to_dict() for name in ("experiment", "study")},
        "program": program(runner.task(config)),
        "data": runner.dataset(config).fingerprint,
        "starts": [fingerprint(start) for start in starts],
        "ends": stores.fingerprint(dict(params)),
    }
    arrays = runner.node(what, compute).arrays
    return {when: {arm: arrays[f"{when}/{arm}"] for arm in CURVED} for when in WHEN}


def _best_members(losses: Mapping[str, Losses], arm: str) -> list[int]:
    """Which networks of the whole population an arm's best rates of the grid are, seed by seed."""
    seeds, rates = losses[arm].shape
    first = list(losses).index(arm) * seeds
    return [(first + i) * rates + int(np.nanargmin(row)) for i, row in enumerate(losses[arm])]


def _rows(
    rates: Sequence[float],
    losses: Mapping[str, Losses],
    best: Mapping[str, Losses],
    edges: Mapping[str, Mapping[str, Losses]],
) -> list[Row]:
    curves = [
        {"arm": arm, "replicate": i, "rate": rate, "metric": "training loss", "value": value}
        for arm, table in losses.items()
        for rate, column in zip(rates, np.fmin(table, CHANCE).T, strict=True)
        for i, value in enumerate(column.tolist())
    ]
    measured = {"best rate": best, **{f"2/λmax {when}": edges[when] for when in WHEN}}
    points = [
        {"arm": arm, "replicate": i, "metric": metric, "value": value}
        for metric, by_arm in measured.items()
        for arm, values in by_arm.items()
        for i, value in enumerate(values.tolist())
    ]
    return curves + points


def controls(runner: StudyRunner, config: ConfigDict) -> list[Control]:
    """Gradient descent on least squares, whose best step is 1 / (1 + features/examples).

    With 20 examples the best rate of 4 features is log₂(3/1.2) = 1.3 octaves above that of 40, in
    the limit of many; of 20 features it is that of 20 others.
    """
    del runner
    rates = np.log2(config.study.rates)

    def best(rng: np.random.Generator, features: int) -> float:
        x, w = rng.normal(size=(20, features)), rng.normal(size=features)
        losses = descent_losses(x, w, config.study.rates, 50)
        return interpolated_minimum(rates, np.log(losses + 1e-300))

    def shift(few: int, many: int) -> list[Primary]:
        drawn = [np.random.default_rng(600 + i) for i in range(config.study.control_seeds)]
        values = np.array([best(rng, few) - best(rng, many) for rng in drawn])
        return [Primary("best rate, sparse − dense", values, config.study.delta, "octaves", True)]

    return [
        Control("4 of 40 features, 20 examples", SUPPORTED, shift(4, 40)),
        Control("20 features and 20 others", NOT_SUPPORTED, shift(20, 20)),
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """Training loss against the learning rate, and the mean of 2/λmax when trained."""
    figure = tidy.against(
        rows, "rate", "training loss", label="Training loss", x_label="Learning rate"
    )
    axes = figure.axes[0]
    axes.set_title("dotted: 2/λmax when trained", fontsize=9)
    for arm in CURVED:
        edge = np.nanmean(tidy.values_of(rows, arm=arm, metric=f"2/λmax {WHEN[1]}"))
        axes.axvline(2**edge, color=looks([arm])[arm].color, linestyle=":")
    return figure


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, c06.get_config, controls, gather, draw))
