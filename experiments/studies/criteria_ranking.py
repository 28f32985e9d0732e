"""CRITERIA: which weights to keep, judged before or after training, on equal budgets."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.configs.studies import common
from experiments.configs.studies import criteria as configs
from experiments.studies.one_shot import mask_maker
from experiments.studies.protocol import STUDIES, Control, Evidence, Primary, Protocol, Row, Study
from experiments.studies.starts import Start
from experiments.studies.study_runner import StudyRunner, vary
from lth_jax.measures.generalization import least_squares_errors
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import tidy

PROTOCOL = Protocol(
    claim="CRITERIA",
    title="Which weights to keep",
    says="What is worth keeping shows only after training: magnitudes of trained weights choose "
    "better tickets than any score of a network that has not been trained.",
    question="At density .05 and equal numbers of steps in all, does a ticket chosen by the "
    "magnitude of trained weights beat the best of six criteria at initialisation?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, MLP 40-90-90-10 with Adam. Masks of "
    "one shot over the whole network (SynFlow: 100 rounds; random: within layers), on 512 "
    "examples. Trained networks are rewound to the start and trained 300 steps again; masks made "
    "at the start are trained 600 steps. Dense networks have the rate that C7's pilot chose.",
    arms=("magnitude", "snip", "grasp", "synflow", "obd", "random"),
    statistic="test accuracy of magnitude after training minus that of the criterion at "
    "initialisation that the pilot's validation loss likes best, in points, paired by seed",
    rule="The difference is at least δ. The criterion and all learning rates are chosen on pilot "
    "seeds.",
    expects="Supported: with the same number of trainings, those masks were better in the "
    "literature (Frankle et al., 2021); the double training of the others costs them little.",
    limits="Steps are equal and FLOPs are not: the dense training costs more than both sparse ones "
    "together. One shot, one density, one small network.",
)
START, END = "at initialisation", "after training"
TEST, CHOICE = "test_accuracy_final", "validation_loss_best"


class Arm(NamedTuple):
    """Who is compared: `criterion`, and `when` it looks."""

    criterion: str
    when: str


def arms(study: ConfigDict) -> list[Arm]:
    """All pairs; what is random is drawn at initialisation only."""
    pairs = (Arm(*pair) for pair in product(study.criteria, (START, END)))
    return [arm for arm in pairs if arm != Arm("random", END)]


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Rates and the best criterion from a pilot; then all arms on seeds of their own."""
    study, every = config.study, arms(config.study)
    pilot = common.pilot(config, study.pilot_seeds)
    tried = {rate: _retrained(runner, pilot, dict.fromkeys(every, rate)) for rate in study.rates}
    losses = {
        arm: {rate: float(found[arm][CHOICE].mean()) for rate, found in tried.items()}
        for arm in every
    }
    rates = {arm: min(by_rate, key=lambda rate: by_rate[rate]) for arm, by_rate in losses.items()}
    first = [arm for arm in every if arm.when == START]
    best = min(first, key=lambda arm: losses[arm][rates[arm]])
    found = _retrained(runner, config, rates)
    test = {arm: 100 * found[arm][TEST] for arm in every}
    ticket = test[Arm("magnitude", END)]
    told = ", ".join(f"{a.criterion} {a.when} {rate:g}" for a, rate in rates.items())
    return Evidence(
        primaries=[
            Primary(
                f"magnitude after training − {best.criterion} at initialisation",
                ticket - test[best],
                study.delta,
                "points",
            )
        ],
        rows=[
            {"arm": arm.criterion, "metric": arm.when, "replicate": i, "value": float(value)}
            for arm in every
            for i, value in enumerate(test[arm])
        ],
        secondary=[
            Primary(
                f"magnitude after training − {a.criterion} {a.when}",
                ticket - test[a],
                1.0,
                "points",
            )
            for a in every
            if a not in (best, Arm("magnitude", END))
        ],
        member_steps=_steps(config, every),
        flops=_flops(runner, config, every),
        notes=(
            f"The pilot's best criterion at initialisation: {best.criterion}.",
            f"Learning rates chosen on pilot seeds: {told}.",
        ),
    )


def _dense(config: ConfigDict) -> ConfigDict:
    return vary(config, optimizer__learning_rate=config.study.dense_rate)


def _retrained(
    runner: StudyRunner, config: ConfigDict, rates: Mapping[Arm, float]
) -> dict[Arm, dict[str, NDArray]]:
    """Results of every arm's networks, by replicate."""
    study, name = config.study, PROTOCOL.claim
    cell = _dense(config)
    runner.ladders(name, {"dense": cell})
    origins, task = runner.origins(name, cell), runner.task(cell)
    dense = sorted(runner.networks(name, cell, ("dense",)), key=lambda one: one.replicate)
    points = {START: [one.params for one in origins], END: [one.params for one in dense]}
    make = {name: mask_maker(task, config, name) for name in study.criteria}
    found: dict[Arm, dict[str, NDArray]] = {}
    for when, times in ((START, 2), (END, 1)):
        mine = [arm for arm in rates if arm.when == when]
        starts = [
            start
            for arm in mine
            for start in _starts(origins, make[arm.criterion](points[when]), rates[arm])
        ]
        longer = vary(config, train__steps=times * config.experiment.train.steps)
        results = runner.retrain(name, longer, starts)["results"]
        for i, arm in enumerate(mine):
            rows = slice(i * len(origins), (i + 1) * len(origins))
            found[arm] = {metric: np.asarray(values)[rows] for metric, values in results.items()}
    return found


def _starts(origins: Sequence[Start], chosen: Mapping[str, NDArray], rate: float) -> list[Start]:
    """The replicates' first weights under their masks."""
    return [
        one._replace(
            mask={name: leaf[i] for name, leaf in chosen.items()}, hyper={"learning_rate": rate}
        )
        for i, one in enumerate(origins)
    ]


def _steps(config: ConfigDict, every: Sequence[Arm]) -> int:
    """Steps of all networks, the dense ones included, the pilot's not."""
    trainings = 1 + sum(2 if arm.when == START else 1 for arm in every)
    return trainings * config.experiment.train.steps * config.experiment.replicates


def _flops(runner: StudyRunner, config: ConfigDict, every: Sequence[Arm]) -> dict[str, float]:
    """Per network, the dense training counted where a criterion needs it."""
    found = runner.ladders(PROTOCOL.claim, {"dense": _dense(config)})
    dense = found.flops("dense")["dense"]
    sparse = config.study.density * dense
    return {
        f"{arm.criterion} {arm.when}": 2 * sparse if arm.when == START else dense + sparse
        for arm in every
    }


def controls(runner: StudyRunner, config: ConfigDict) -> list[Control]:
    """Least squares on eight of 40 features: the true ones, or two draws at random."""
    del runner
    seeds = range(config.study.control_seeds)

    def errors(which: str, offset: int) -> NDArray[np.float64]:
        rngs = (np.random.default_rng([offset, i]) for i in seeds)
        return np.array([least_squares_errors(rng, which)[1] for rng in rngs])

    true, random, again = errors("oracle", 951), errors("random", 952), errors("random", 953)
    worse = Primary("test error, random − true support", random - true, 1.0, "σ²")
    same = Primary("test error, random − random", random - again, 3.0, "σ²")
    return [
        Control("the true support against a random one", SUPPORTED, [worse]),
        Control("two random supports", NOT_SUPPORTED, [same]),
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """Test accuracy of every criterion, at initialisation and after training, on one scale."""
    figure = tidy.by_arm(rows, (START, END), "Test accuracy (%)")
    first, second = figure.axes
    first.sharex(second)
    first.set_xlim(*_together(first.get_xlim(), second.get_xlim()))
    return figure


def _together(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return min(one[0], other[0]), max(one[1], other[1])


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, configs.get_config, controls, gather, draw))
