"""C16: how fast tickets and dense networks reach the same training loss."""

import functools

import numpy as np
from ml_collections import ConfigDict

from experiments.studies import common
from experiments.studies.common import RATE, vary
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax.measures.claims import MAP, Contrasts, Control, Evidence, Primary, Protocol, draws
from lth_jax.measures.matching import first_below
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import RunRecord, tidy
from lth_jax.report.cells import Tuned, cell_name

PROTOCOL = Protocol(
    claim="C16",
    title="Speed of convergence",
    says="A ticket is a new machine with learning dynamics of its own, possibly better ones.",
    question="Is there a density and a training loss that tickets reach in fewer steps than their "
    "dense parents, by δ, each at its best learning rate?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, an MLP 40-64-64-10 with plain SGD, "
    "800 steps at five rates; magnitude pruning in four rounds of 40 % within layers, rewound to "
    "the start.",
    arms=("dense", "ticket", "shuffle"),
    statistic="log₂ of the steps to the loss, DENSE minus TICKET, in octaves, paired by seed; the "
    "loss is the mean over the batches of ten steps, and a network that does not reach it counts "
    "as if it did at the last step",
    rule="Four densities and two losses are a map with simultaneous bands; a cell counts if its "
    "lower band is at least δ, a quarter of an octave, which is 16 % of the steps. Each arm has, "
    "at each density and loss, the learning rate at which the other half of the seeds was fastest.",
    expects="Found at density .6 or .36, as Frankle and Carbin (2019) report for early stopping; "
    "at .13 capacity limits the loss.",
    limits="One small network and plain SGD. The steps of the search for the ticket do not count, "
    "and steps are not time.",
    paragraph="A Deeper Dive, paragraph 2",
    chosen_by="The network and optimiser of C6; losses that the dense network reaches after about "
    "a quarter and a half of the steps at its best rate.",
    kind=MAP,
)
TEST, STEPS = "test_accuracy_final", "steps to loss"


def get_config(size: str = "laptop") -> ConfigDict:
    """800 steps of plain gradient descent on batches, densities .6 to .13."""
    common.check_size(size)
    config = common.mnist1d(seeds=32)
    experiment = config.experiment
    experiment.data.validation = 500
    experiment.model.options.features = (64, 64, 10)
    experiment.train.update(steps=800, eval_every=10)
    experiment.optimizer.update(name="sgd", learning_rate=0.5, momentum=0.0)
    experiment.control_levels = (4,)
    config.study = common.numbers(
        delta=0.25,  # octaves: a sixth fewer steps
        losses=(1.0, 0.7),
        rates=(0.25, 0.5, 1.0, 2.0, 4.0),
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config)
        experiment.train.update(eval_every=100)
        experiment.optimizer.update(name="sgd", learning_rate=0.1, momentum=0.0)
        config.study.update(losses=(0.2, 0.1), rates=(0.02, 0.05, 0.1, 0.2, 0.5))
        config.study.setup = config.study.setup.replace("Adam", "plain SGD at five rates")
        config.study.setup += " Not found would mean that sparsity slows training on MNIST."
    return config


def rows_of(record: RunRecord, cell: str, losses: tuple[float, ...]) -> list[tidy.Row]:
    """The steps to each loss of all networks of a run, in the form of `report.cells.Results`."""
    return [
        {"cell": cell, "arm": member.arm, "level": level.level, "replicate": member.replicate}
        | {"density": member.density, "metric": f"{STEPS} {loss:g}", "value": float(steps)}
        for level in record.levels
        for loss in losses
        for member, steps in zip(
            level.members, first_below(level.steps, level.curves["train_loss"], loss), strict=False
        )
    ]


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Ladders at all rates, and the steps that their networks take to each loss."""
    study, name, prune = config.study, PROTOCOL.claim, config.experiment.prune
    usual = runner.tuned(name, config)
    further = [
        row
        for rate in usual.rates
        for row in rows_of(
            runner.record(name, vary(config, **{RATE: rate})), cell_name("", rate), study.losses
        )
    ]
    results = usual.results.with_rows(further)
    primaries, secondary, rows, notes = [], [], [], []
    for loss in study.losses:
        metric = f"{STEPS} {loss:g}"
        fastest = Tuned(results, usual.rates, by=metric)
        dense = np.log2(fastest.of("dense", metric))
        for level in range(1, prune.levels + 1):
            density = (1 - prune.rate) ** level
            octaves = {"dense": dense, "ticket": np.log2(fastest.of("ticket", metric, level))}
            label = f"density {density:.2g}, loss {loss:g}: "
            part = Contrasts(octaves, "octaves", study.delta, label)("dense", "ticket")
            primaries.append(part._replace(cell=label.strip(": ")))
            rows += [
                {"arm": f"{arm}, loss {loss:g}", "density": 100 * density, "replicate": i}
                | {"metric": STEPS, "value": float(2**value)}
                for arm, values in octaves.items()
                for i, value in enumerate(values)
            ]
        at_end = {arm: np.log2(fastest.of(arm, metric)) for arm in ("shuffle", "ticket")}
        ahead = Contrasts(at_end, "octaves", study.delta, f"density {density:.2g}, loss {loss:g}: ")
        secondary.append(ahead("shuffle", "ticket"))
        missed = np.mean(2 ** at_end["ticket"] >= config.experiment.train.steps)
        notes.append(
            f"Loss {loss:g}: {100 * missed:.0f} % of the last tickets do not reach it. "
            f"{fastest.described()}"
        )
    return Evidence(
        primaries=primaries,
        rows=rows,
        secondary=secondary,
        gate=100 * (usual.of("ticket", TEST) - usual.of("shuffle", TEST)),
        member_steps=usual.member_steps,
        flops=usual.flops(),
        notes=tuple(notes),
    )


def controls(config: ConfigDict) -> list[Control]:
    """Gradient descent on least squares at its best step, 2/(λmin + λmax), with 200 examples.

    The error shrinks by (κ − 1)/(κ + 1) in each step; κ is about 1.8 with 4 features and 6.9 with
    40, so that the former converge in a quarter of the steps (Marchenko & Pastur, 1967).
    """
    study = config.study

    def steps(rng: np.random.Generator, features: int) -> float:
        values = np.linalg.svd(rng.normal(size=(200, features)), compute_uv=False) ** 2
        return float(np.log(1e-3) / np.log((values[0] - values[-1]) / (values[0] + values[-1])))

    def control(name: str, expected: str, sparse: int, dense: int) -> Control:
        values = draws(
            lambda rng: np.log2(steps(rng, dense) / steps(rng, sparse)),
            [[961, seed] for seed in range(study.control_seeds)],
        )
        return Control(name, expected, [Primary("dense − sparse", values, study.delta, "octaves")])

    return [
        control("4 of 40 features", SUPPORTED, 4, 40),
        control("40 features and 40 others", NOT_SUPPORTED, 40, 40),
    ]


draw = functools.partial(
    tidy.against,
    x="density",
    metric=STEPS,
    label="Steps to the loss",
    x_label="Weights remaining (%)",
)

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
