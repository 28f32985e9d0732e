"""CRITERIA: iterative magnitude pruning against one shot, at equal sparse and equal total steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments import scoring
from experiments.studies import common
from experiments.studies.common import RATE, vary
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.retraining import retrained
from experiments.studies.study_runner import StudyRunner
from lth_jax.lottery import Start, Task
from lth_jax.measures.claims import (
    MAP,
    Control,
    Evidence,
    Primary,
    Protocol,
    Row,
    arm_rows,
    draws,
    relative,
)
from lth_jax.measures.generalization import least_squares_errors
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.pruning.schedules import exponential
from lth_jax.pruning.scopes import globally
from lth_jax.report import tidy
from lth_jax.types import DENSE, TICKET

ITERATIVE, ONE_SHOT, BEST = "iterative", "one shot after training", "best at initialisation"
LONGER = ", equal total steps"
PROTOCOL = Protocol(
    claim="CRITERIA",
    title="Which weights to keep",
    says="What is worth keeping shows only in training: iterative magnitude pruning finds better "
    "tickets than any score of a network that has not been trained.",
    question="Is there a density at which tickets of iterative magnitude pruning beat one-shot "
    "tickets of the best criterion at initialisation by δ, at as many sparse steps and at as many "
    "steps in all?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, an MLP 40-90-90-10 with Adam, 300 "
    "steps a training; pruned over the whole network in rounds of 53 %, rewound to the start. "
    "Criteria at initialisation: magnitude, SNIP, GraSP and SynFlow (100 rounds), on 512 examples.",
    arms=(ITERATIVE, ONE_SHOT, BEST, "magnitude", "snip", "grasp", "synflow"),
    statistic="test accuracy of iterative magnitude pruning minus that of the best criterion at "
    "initialisation, in % of the dense error, paired by seed",
    rule="Densities .22, .1 and .049 are a map with simultaneous bands; a density holds if both "
    "parts do: the other ticket trained for as many steps as the last training of the iterative "
    "one, or for as many as all its trainings together. The other half of the seeds chooses the "
    "best criterion at equal sparse steps, and the learning rate of every arm.",
    expects="Found (Frankle et al., 2021), at the lowest density by most. One shot after training "
    "is far behind there and shown beside.",
    limits="Steps are equal and FLOPs are not: dense steps cost more. One small network, trained "
    "briefly.",
    paragraph="The Original Lottery, paragraph 2",
    chosen_by="The network of ORIGINAL with less than half of its steps, since the last density "
    "takes five trainings; the rounds are few, which is against the claim.",
    kind=MAP,
)
TEST = "test_accuracy_final"


def get_config(size: str = "laptop") -> ConfigDict:
    """Four rounds to density .049, 24 seeds; masks of one shot at the last three densities."""
    common.check_size(size)
    config = common.mnist1d(seeds=24)
    config.experiment.train.steps = 300
    config.experiment.prune.update(scope="globally", rate=0.53, levels=4)
    config.experiment.control_levels = (3,)
    config.study = common.numbers(
        delta=10.0,  # % of the dense error
        levels=(2, 3, 4),
        criteria=("magnitude", "snip", "grasp", "synflow"),
        examples=512,  # examples for a criterion
        rounds=100,  # rounds of SynFlow
        rates=(3e-3, 1e-2, 3e-2),
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config)
        config.study.setup += (
            " A null would mean that at these densities a score at the start is as good as all "
            "those trainings."
        )
    return config


def made_starts(
    runner: StudyRunner, config: ConfigDict, density: Mapping[int, float]
) -> tuple[dict[tuple[str, int], list[Start]], dict[tuple[float, int], list[Start]]]:
    """One-shot starts: at initialisation by criterion, after training by rate; and by level."""
    study, name, task = config.study, PROTOCOL.claim, runner.task(config)
    at = {rate: vary(config, **{RATE: rate}) for rate in study.rates}
    origins = runner.origins(name, at[study.rates[0]])

    def starts(criterion: str, level: int, networks: Sequence[Any]) -> list[Start]:
        return masked_starts(task, config, criterion, density[level], origins, networks)

    before = {(c, i): starts(c, i, origins) for c in study.criteria for i in density}
    dense = {rate: runner.networks(name, cell, DENSE) for rate, cell in at.items()}
    after = {(r, i): starts("magnitude", i, dense[r]) for r in dense for i in density}
    return before, after


def masked_starts(
    task: Task,
    config: ConfigDict,
    criterion: str,
    density: float,
    origins: Sequence[Start],
    networks: Sequence[Any],
) -> list[Start]:
    """The origins under one-shot masks, from the scores of networks (starts or stored ones)."""
    rounds = config.study.rounds if criterion == "synflow" else 1
    densities = [exponential(rounds, density)(level) for level in range(1, rounds + 1)]
    points = [one.params for one in networks]
    return scoring.one_shot(config, task, criterion, globally(), densities, origins, points)


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """The ladder, one-shot tickets of all criteria, and longer training of the best ones."""
    study, name, steps = config.study, PROTOCOL.claim, config.experiment.train.steps
    ladder = runner.tuned(name, config)
    density = {level: (1 - config.experiment.prune.rate) ** level for level in study.levels}
    before, after = made_starts(runner, config, density)
    short = retrained(
        runner,
        name,
        config,
        lambda rate: {
            **{f"{c} {i}": starts for (c, i), starts in before.items()},
            **{f"{ONE_SHOT} {i}": after[rate, i] for i in study.levels},
        },
    )
    trained, notes = [ladder, short], list[str]()
    primaries, secondary, rows = list[Primary](), list[Primary](), list[Row]()
    for level, kept in density.items():
        arms = [f"{c} {level}" for c in study.criteria]
        best = [arm.rpartition(" ")[0] for arm in short.best_arm(arms)]
        some = {c: before[c, level] for c in sorted(set(best))}
        whole, rest = (vary(config, train__steps=n * steps) for n in (1 + level, level))
        late = {rate: {ONE_SHOT: after[rate, level]} for rate in study.rates}
        longer = retrained(runner, name, whole, dict.fromkeys(study.rates, some).__getitem__)
        again = retrained(runner, name, rest, late.__getitem__)
        trained += [longer, again]
        test = {c: 100 * short.of(f"{c} {level}", TEST) for c in (*study.criteria, ONE_SHOT)}
        by_best = {c: 100 * longer.of(c, TEST) for c in some}
        test |= {
            ITERATIVE: 100 * ladder.of(TICKET, TEST, level),
            BEST: np.array([test[c][i] for i, c in enumerate(best)]),
            BEST + LONGER: np.array([by_best[c][i] for i, c in enumerate(best)]),
            ONE_SHOT + LONGER: 100 * again.of(ONE_SHOT, TEST),
        }
        rows += arm_rows(TEST, test, density=kept)
        where, dense = f"density {kept:.2g}", {DENSE: 100 * ladder.of(DENSE, TEST)}
        ahead = relative(dense | test, delta=study.delta, label=f"{where}, ")
        primaries += [ahead(ITERATIVE, arm)._replace(cell=where) for arm in (BEST, BEST + LONGER)]
        secondary += [ahead(ITERATIVE, arm) for arm in (ONE_SHOT, ONE_SHOT + LONGER)]
        notes += [f"Best at initialisation, {where}: {' and '.join(some)}."]
    middle = config.experiment.control_levels[0]
    ticket, shuffle = (ladder.of(arm, TEST, middle) for arm in (TICKET, "shuffle"))
    return Evidence(
        primaries,
        rows,
        secondary,
        100 * (ticket - shuffle),
        member_steps=sum(one.member_steps for one in trained),
        flops=ladder.flops(),
        notes=(*notes, ladder.described(), short.described()),
    )


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


def draw(rows: Sequence[Row]) -> Figure:
    """Test accuracy of every kind of ticket against the density."""
    return tidy.against(rows, "density", TEST, label="Test accuracy (%)", x_label="Density")


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw, minutes=4))
