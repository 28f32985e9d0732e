"""CRITERIA: pruning criteria before and after training, at equal budgets."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments import build, scoring
from experiments.networks import module
from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner, vary
from lth_jax import trees
from lth_jax.lottery import Start, Task, one_shot_starts
from lth_jax.measures.claims import Contrasts, Control, Evidence, Primary, Protocol, arm_rows, draws
from lth_jax.measures.generalization import least_squares_errors
from lth_jax.measures.optima import best_setting
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.pruning import masks, schedules, scopes
from lth_jax.pruning.iterative import iterate
from lth_jax.pruning.one_shot import at_count
from lth_jax.pruning.prune import Pruner, prune
from lth_jax.report import tidy
from lth_jax.report.cells import rates_note

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
BEFORE, AFTER = "at initialisation", "after training"
TEST, CHOICE = "test_accuracy_final", "validation_loss_best"


def get_config(size: str = "laptop") -> ConfigDict:
    """One shot to density .05, 48 seeds; at initialisation with twice the steps."""
    common.check_size(size)
    config = common.mnist1d(seeds=48)
    config.experiment.train.update(steps=300)
    config.experiment.prune.levels = 0  # the study makes the masks
    config.experiment.controls = ()
    config.study = common.numbers(
        delta=1.0,  # points of test accuracy
        density=0.05,
        criteria=("magnitude", "snip", "grasp", "synflow", "obd", "random"),
        examples=512,  # examples for a criterion
        rounds=100,  # rounds of SynFlow
        dense_rate=3e-3,
        rates=(1e-2, 3e-2),
        pilot_seeds=6,
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config)
        config.study.dense_rate = 1.2e-3
    return config


class Arm(NamedTuple):
    """A criterion, and when it is applied."""

    criterion: str
    when: str

    def __str__(self) -> str:
        return f"{self.criterion} {self.when}"


Found = dict[Arm, Mapping[str, NDArray[np.float32]]]
TICKET = Arm("magnitude", AFTER)


def arms(study: ConfigDict) -> list[Arm]:
    """All pairs; random criteria only at initialisation."""
    pairs = (Arm(*pair) for pair in product(study.criteria, (BEFORE, AFTER)))
    return [arm for arm in pairs if arm != Arm("random", AFTER)]


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Rates and the best criterion from a pilot; then all arms on separate seeds."""
    study, every = config.study, arms(config.study)
    pilot = common.pilot(config, study.pilot_seeds)
    tried = {rate: _retrained(runner, pilot, dict.fromkeys(every, rate)) for rate in study.rates}
    rates = {
        arm: best_setting({rate: found[arm][CHOICE] for rate, found in tried.items()})
        for arm in every
    }
    before = [arm for arm in every if arm.when == BEFORE]
    best = best_setting({arm: tried[rates[arm]][arm][CHOICE] for arm in before})
    found = _retrained(runner, config, rates)
    test = {arm: 100 * found[arm][TEST] for arm in every}
    ahead = Contrasts({str(arm): values for arm, values in test.items()}, "points")
    return Evidence(
        primaries=[
            ahead(
                str(TICKET),
                str(best),
                study.delta,
                name=f"magnitude after training − {best.criterion} at initialisation",
            )
        ],
        rows=[row for arm in every for row in arm_rows(arm.when, {arm.criterion: test[arm]})],
        secondary=[ahead(str(TICKET), str(a)) for a in every if a not in (best, TICKET)],
        member_steps=_steps(config, every),
        flops=_flops(runner, config, every),
        notes=(
            f"The pilot's best criterion at initialisation: {best.criterion}.",
            rates_note({str(arm): rate for arm, rate in rates.items()}),
        ),
    )


def _dense(config: ConfigDict) -> ConfigDict:
    return vary(config, optimizer__learning_rate=config.study.dense_rate)


def _retrained(runner: StudyRunner, config: ConfigDict, rates: Mapping[Arm, float]) -> Found:
    """Results of every arm's networks, by replicate."""
    name, cell = PROTOCOL.claim, _dense(config)
    runner.ladders(name, {"dense": cell})
    origins, task = runner.origins(name, cell), runner.task(cell)
    dense = runner.networks(name, cell, "dense")
    points = {BEFORE: [one.params for one in origins], AFTER: [one.params for one in dense]}
    found: Found = {}
    for when, times in ((BEFORE, 2), (AFTER, 1)):
        starts = {
            arm: [
                start._replace(hyper={"learning_rate": rate})
                for start in masked_starts(task, config, arm.criterion, origins, points[when])
            ]
            for arm, rate in rates.items()
            if arm.when == when
        }
        longer = vary(config, train__steps=times * config.experiment.train.steps)
        trained = runner.retrain_arms(name, longer, starts)
        found |= {arm: one.results for arm, one in trained.items()}
    return found


def masked_starts(
    task: Task,
    config: ConfigDict,
    criterion: str,
    origins: Sequence[Start],
    points: Sequence[Mapping[str, NDArray]],
) -> list[Start]:
    """The replicates' initial weights under one-shot masks; SynFlow prunes in rounds.

    The criterion uses the weights of `points`, and the first training examples of the replicate.
    """
    share = config.experiment.train.share
    rows = share * np.arange(len(origins))[:, None] + np.arange(config.study.examples)
    return one_shot_starts(
        task,
        origins,
        _pruner(task, config, criterion),
        build.seeds(config.experiment).root,
        scored=points,
        rows=[rows],
    )


def _pruner(task: Task, config: ConfigDict, name: str) -> Pruner:
    study, like = config.study, task.shapes[0]
    prunable = masks.prunable_leaves(like)
    scope = scopes.layerwise() if name == "random" else scopes.globally()
    criterion = scoring.criterion(name, task, module(config.experiment), None)
    pruner = prune(criterion, scope)
    if name != "synflow":
        return at_count(pruner, scope.counts(like, study.density, prunable=prunable))
    schedule = schedules.exponential(study.rounds, study.density)
    levels = range(1, study.rounds + 1)
    counts = [scope.counts(like, schedule(level), prunable=prunable) for level in levels]
    return iterate(pruner, trees.stack(counts))


def _steps(config: ConfigDict, every: Sequence[Arm]) -> int:
    """Steps of all networks, including dense ones, without the pilot."""
    trainings = 1 + sum(2 if arm.when == BEFORE else 1 for arm in every)
    return trainings * config.experiment.train.steps * config.experiment.replicates


def _flops(runner: StudyRunner, config: ConfigDict, every: Sequence[Arm]) -> dict[str, float]:
    """FLOPs per network, including dense training if the criterion needs it."""
    found = runner.ladders(PROTOCOL.claim, {"dense": _dense(config)})
    dense = found.flops("dense")["dense"]
    sparse = config.study.density * dense
    return {str(arm): 2 * sparse if arm.when == BEFORE else dense + sparse for arm in every}


def controls(config: ConfigDict) -> list[Control]:
    """Least squares on eight of 40 features: the true ones, or two draws at random."""

    def errors(which: str, offset: int) -> NDArray[np.float64]:
        seeds = [[offset, i] for i in range(config.study.control_seeds)]
        return draws(lambda rng: least_squares_errors(rng, which)[1], seeds)

    true, random, again = errors("oracle", 951), errors("random", 952), errors("random", 953)
    worse = Primary("test error, random − true support", random - true, 1.0, "σ²")
    same = Primary("test error, random − random", random - again, 3.0, "σ²")
    return [
        Control("the true support against a random one", SUPPORTED, [worse]),
        Control("two random supports", NOT_SUPPORTED, [same]),
    ]


def draw(rows: Sequence[tidy.Row]) -> Figure:
    """Test accuracy of every criterion, at initialisation and after training, on one scale."""
    figure = tidy.by_arm(rows, (BEFORE, AFTER), "Test accuracy (%)")
    first, second = figure.axes
    first.sharex(second)
    ends = np.array([first.get_xlim(), second.get_xlim()])
    first.set_xlim(ends.min(), ends.max())
    return figure


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
