"""C15: tickets of single weights are not faster than dense networks."""

import functools
import itertools
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments.studies import common
from experiments.studies.c04_structured import timed
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax.analysis.sparse_forms import FORMS, Layers, dense_pass, layers, passes
from lth_jax.measures.claims import Control, Evidence, Primary, Protocol, draws
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.report.cells import Results
from lth_jax.timing import median_relative_times

PROTOCOL = Protocol(
    claim="C15",
    title="Unstructured sparsity and speed",
    says="Hardware hardly accelerates networks whose single weights are zero at random places.",
    question="At density .05, do tickets take at least as long as their dense parents, within the "
    "margin, both as masked dense matrices and as sparse ones?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, an MLP 40-256-128-10 with Adam, 300 "
    "steps on batches of 64; magnitude pruning within layers in four rounds. A forward pass of 512 "
    "signals is compiled for dense matrices and for JAX's BCOO matrices of the same ticket.",
    arms=("dense", "masked", "BCOO", "CSR"),
    statistic="time of a ticket's forward pass minus that of its dense parent, in % of the latter, "
    "plus the margin; per seed",
    rule="Both forms must reach 0. The rule has two sides: with an interval above 0 a form is not "
    "accelerated, with one below 0 it is, and the claim is not supported. Every seed's networks "
    "are timed in rounds of random order on buffers that are copied anew five times; a call of the "
    "same form that is not timed precedes each timed one. The fastest of a copy's rounds counts, "
    "and the median of the copies. SciPy's CSR matrices and larger densities are secondary.",
    expects="Supported: a masked matrix is a dense one, and BCOO products gather and scatter.",
    limits="One machine and two libraries: kernels that are written for sparse networks gain "
    "on CPUs (Elsen et al., 2020), and a batch of 512 suits dense products.",
    paragraph="The Engineer's Delight, paragraph 3",
    chosen_by="The MLP of C4, whose forward pass takes ten times the overhead of a call; a density "
    "at which tickets still beat their shuffled masks, as those of ORIGINAL do.",
)
TEST, SLOWER = "test_accuracy_final", "time against dense (%)"


def get_config(size: str = "laptop") -> ConfigDict:
    """300 steps, densities .47 to .05."""
    common.check_size(size)
    config = common.mnist1d(seeds=32)
    experiment = config.experiment
    experiment.data.validation = 1000
    experiment.data.options.update(train=129_000, test=5_000)
    experiment.model.options.features = (256, 128, 10)
    experiment.train.update(steps=300, batch_size=64)
    experiment.prune.rate = 1 - 0.05**0.25
    experiment.control_levels = (4,)
    config.study = common.numbers(
        margin=10.0,  # % of the dense network's time
        batch=512,  # of a timed forward pass
        rounds=12,  # of random order, of which the fastest counts
        placements=5,  # copies of the buffers, of which the median counts
        series=1,
        control_seeds=40,
    )
    if size == "full":
        common.lenet(config)
        config.study.setup += (
            " Times are of the accelerator, those of CSR of its host. Not supported would mean "
            "that the accelerator's sparse products pay at density .05."
        )
    return config


def train(runner: StudyRunner, config: ConfigDict) -> Results:
    """The ladder."""
    return runner.ladders(PROTOCOL.claim, {"": config})


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """The ladder, and the times of each ticket in all forms."""
    study, name, experiment = config.study, PROTOCOL.claim, config.experiment
    found = train(runner, config)
    x = np.resize(
        runner.dataset(config).test.x, (study.batch, *runner.task(config).example.shape[1:])
    )
    dense = runner.networks(name, config, "dense")
    levels, times = range(1, experiment.prune.levels + 1), {}
    for level in levels:
        tickets = runner.networks(name, config, "ticket", level)
        measured = timed(
            runner,
            [dense, tickets],
            lambda same: passes(x, layers(same[0]), layers(same[1])),
            study,
        )
        times[level] = dict(zip(FORMS, 100 * (measured - 1), strict=True))
    last = experiment.prune.levels

    def slower(form: str, level: int) -> Primary:
        words = f"density {(1 - experiment.prune.rate) ** level:.2g}: time, {form} − dense"
        return Primary(words, times[level][form], study.margin, "% of the dense time", True)

    return Evidence(
        primaries=[
            Primary(f"{part.name} + {study.margin:g}", part.values + study.margin, 0.0, part.unit)
            for part in (slower("masked", last), slower("BCOO", last))
        ],
        rows=[
            {"arm": form, "density": 100 * (1 - experiment.prune.rate) ** level, "replicate": i}
            | {"metric": SLOWER, "value": float(value)}
            for level, forms in times.items()
            for form, values in forms.items()
            for i, value in enumerate(values)
        ],
        secondary=[
            slower(form, level)
            for level in reversed(levels)
            for form in FORMS
            if level < last or form == "CSR"
        ],
        gate=100 * (found.of("", "ticket", TEST) - found.of("", "shuffle", TEST)),
        member_steps=found.member_steps,
    )


def controls(config: ConfigDict) -> list[Control]:
    """A matrix with zeros takes the time of any other; a quarter of the units takes less."""
    study, widths = config.study, (64, 512, 512, 10)

    def drawn(rng: np.random.Generator, sizes: Sequence[int], density: float) -> Layers:
        shapes = itertools.pairwise(sizes)
        kernels = [rng.normal(size=s) * (rng.random(s) < density) for s in shapes]
        return [(k.astype(np.float32), np.zeros(k.shape[1], np.float32)) for k in kernels]

    def control(name: str, expected: str, sizes: Sequence[int], density: float) -> Control:
        def slower(rng: np.random.Generator) -> float:
            x = rng.normal(size=(study.batch, widths[0])).astype(np.float32)
            forms = {"dense": drawn(rng, widths, 1.0), "other": drawn(rng, sizes, density)}
            times = median_relative_times(
                lambda: {name: dense_pass(form, x) for name, form in forms.items()},
                study.rounds,
                study.placements,
            )
            return 100 * (times["other"] - 1) + study.margin

        seeds = [[951, seed] for seed in range(study.control_seeds)]
        return Control(name, expected, [Primary(SLOWER, draws(slower, seeds), 0.0, "%")])

    return [
        control("19 of 20 weights are zero", SUPPORTED, widths, 0.05),
        control("a quarter of the units is left", NOT_SUPPORTED, (64, 128, 128, 10), 1.0),
    ]


draw = functools.partial(  # the time of each form, against the density
    tidy.against,
    x="density",
    metric=SLOWER,
    label="Time against dense (%)",
    x_label="Weights remaining (%)",
    zero=True,
)

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw, train))
