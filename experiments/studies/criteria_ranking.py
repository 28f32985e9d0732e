"""CRITERIA: iterative magnitude pruning against one shot, at equal sparse and equal total steps."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments import build, scoring
from experiments.networks import module
from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.retraining import retrained
from experiments.studies.study_runner import RATE, StudyRunner, vary
from lth_jax import trees
from lth_jax.lottery import Start, Task, one_shot_starts
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
from lth_jax.pruning import masks, schedules, scopes
from lth_jax.pruning.iterative import iterate
from lth_jax.pruning.one_shot import at_count
from lth_jax.pruning.prune import Pruner, prune
from lth_jax.report import tidy
from lth_jax.report.cells import Tuned, cell_name
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


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """The ladder, one-shot tickets of all criteria, and longer training of the best ones."""
    study, name = config.study, PROTOCOL.claim
    ladder = runner.tuned(name, config)
    at = {rate: vary(config, **{RATE: rate}) for rate in study.rates}
    origins, task = runner.origins(name, at[study.rates[0]]), runner.task(config)
    density = {level: (1 - config.experiment.prune.rate) ** level for level in study.levels}
    initial = [one.params for one in origins]

    def made(criterion: str, level: int, points: Sequence[Mapping[str, NDArray]]) -> list[Start]:
        return masked_starts(task, config, criterion, density[level], origins, points)

    before = {(c, i): made(c, i, initial) for c in study.criteria for i in study.levels}
    after = {
        (rate, level): made("magnitude", level, [one.params for one in networks])
        for rate, cell in at.items()
        for networks in (runner.networks(name, cell, DENSE),)
        for level in study.levels
    }
    short = retrained(
        runner,
        name,
        config,
        lambda rate: {
            **{f"{c} {i}": starts for (c, i), starts in before.items()},
            **{f"{ONE_SHOT} {i}": after[rate, i] for i in study.levels},
        },
    )

    def in_all(level: int, best: Sequence[str]) -> tuple[Tuned, Tuned]:
        """The best criteria, and one shot after training, at equal total steps."""
        whole = vary(config, train__steps=(1 + level) * config.experiment.train.steps)
        rest = vary(config, train__steps=level * config.experiment.train.steps)
        starts = {c: before[c, level] for c in sorted(set(best))}
        return (
            retrained(runner, name, whole, lambda rate: starts),
            retrained(runner, name, rest, lambda rate: {ONE_SHOT: after[rate, level]}),
        )

    trained, notes = [ladder, short], []
    primaries: list[Primary] = []
    secondary: list[Primary] = []
    rows: list[Row] = []
    for level, kept in density.items():
        best = chosen_criteria(short, study.criteria, level)
        longer, again = in_all(level, best)
        trained += [longer, again]
        test = {c: 100 * short.of(f"{c} {level}", TEST) for c in (*study.criteria, ONE_SHOT)}
        by_best = {c: 100 * longer.of(c, TEST) for c in sorted(set(best))}
        test |= {
            ITERATIVE: 100 * ladder.of(TICKET, TEST, level),
            BEST: np.array([test[c][i] for i, c in enumerate(best)]),
            BEST + LONGER: np.array([by_best[c][i] for i, c in enumerate(best)]),
            ONE_SHOT + LONGER: 100 * again.of(ONE_SHOT, TEST),
        }
        rows += arm_rows(TEST, test, density=kept)
        dense = {DENSE: 100 * ladder.of(DENSE, TEST)}
        where = f"density {kept:.2g}"
        ahead = relative(dense | test, delta=study.delta, label=f"{where}, ")
        primaries += [ahead(ITERATIVE, arm)._replace(cell=where) for arm in (BEST, BEST + LONGER)]
        secondary += [ahead(ITERATIVE, arm) for arm in (ONE_SHOT, ONE_SHOT + LONGER)]
        notes += [f"Best at initialisation, {where}: {' and '.join(sorted(set(best)))}."]
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


def chosen_criteria(tuned: Tuned, criteria: Sequence[str], level: int) -> list[str]:
    """The criterion of every seed: the best of the other half, at that half's best rate."""
    rates = {c: tuned.chosen(f"{c} {level}") for c in criteria}
    half = np.arange(len(rates[criteria[0]])) % 2

    def best(h: int) -> str:
        def mean(criterion: str) -> float:
            rate = rates[criterion][half == h][0]
            found = tuned.results.of(cell_name("", rate), f"{criterion} {level}", TEST)
            return float(np.nan_to_num(found[half != h], nan=-np.inf).mean())

        return max(criteria, key=mean)

    chosen = [best(h) for h in (0, 1)]
    return [chosen[h] for h in half]


def masked_starts(
    task: Task,
    config: ConfigDict,
    criterion: str,
    density: float,
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
        _pruner(task, config, criterion, density),
        build.seeds(config.experiment).root,
        scored=points,
        rows=[rows],
    )


def _pruner(task: Task, config: ConfigDict, name: str, density: float) -> Pruner:
    study, like, scope = config.study, task.shapes[0], scopes.globally()
    prunable = masks.prunable_leaves(like)
    pruner = prune(scoring.criterion(name, task, module(config.experiment), None), scope)
    if name != "synflow":
        return at_count(pruner, scope.counts(like, density, prunable=prunable))
    schedule = schedules.exponential(study.rounds, density)
    levels = range(1, study.rounds + 1)
    counts = [scope.counts(like, schedule(level), prunable=prunable) for level in levels]
    return iterate(pruner, trees.stack(counts))


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


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
