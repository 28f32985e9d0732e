"""C11: recurrent networks have tickets, and sharing weights over time shapes them."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.common import RATE, dense_only, vary
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax.lottery import Start
from lth_jax.measures.claims import Contrasts, Control, Evidence, Primary, Protocol, arm_rows
from lth_jax.measures.overlap import member_kappas
from lth_jax.measures.registers import even_recurrence, masked_fits, shift_register
from lth_jax.measures.spectra import spectral_radius
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.pruning.one_shot import largest_weights
from lth_jax.report import tidy

KERNEL = "TiedLayer_0/recurrent_kernel"
TEST = "test_accuracy_final"
Values = NDArray[np.float64]
ByArm = Mapping[str, Values]
PROTOCOL = Protocol(
    claim="C11",
    title="Recurrent networks",
    says="The hypothesis holds in recurrent networks too, where weights are shared by all time "
    "steps, and that sharing shapes which subnetworks form.",
    question="Do more tickets than shuffled masks of a tanh network learn a task of memory, at a "
    "tenth of its weights?",
    setup="Naming the first of 21 symbols, of four kinds: a tanh network of 24 units, Adam with "
    "clipping, 800 steps on 1,000 sequences of its own for every seed; two rounds to density .1 "
    "within layers, rewound to the start.",
    arms=("dense", "ticket", "reinit", "shuffle", "shuffle, same radius"),
    statistic="whether a seed's ticket has solved the task and its shuffled mask has not, minus "
    "the reverse, in % of the seeds; solved is a test accuracy of at least 90 %",
    rule="The difference is at least δ, a tenth of the seeds. The interval is exact for shares of "
    "paired seeds. Each arm has the learning rate with the best mean accuracy of the other half "
    "of the seeds, since shares of few seeds tie.",
    expects="Supported, in part because random pruning shrinks the spectral radius by √ρ, and with "
    "it the memory: the arm of the same radius shows how much.",
    limits="One memory task and one cell. Accuracy is a mixture of solved and failed seeds, so its "
    "mean is secondary. The effect of tying is shown by the agreement of the masks of two data "
    "orders in a tied network and in its unrolled twin, without a verdict.",
    paragraph="The Modern Frontier, second item",
    chosen_by="The shortest delay and largest density at which almost every dense network solves "
    "the task and most shuffled masks do not, at the best rate of each.",
)
SAME = PROTOCOL.arms[4]
SOLVED = 90.0
"""The test accuracy in percent from which on a task counts as solved."""


def get_config(size: str = "laptop") -> ConfigDict:
    """A tanh network of 24 units that recalls the first of 21 symbols."""
    common.check_size(size)
    config = common.ladder(seeds=96)
    experiment = config.experiment
    experiment.data.update(name="delayed_recall", validation=500)
    experiment.data.options = ConfigDict(
        {"symbols": 4, "delay": 20, "train": 96 * 1000 + 500, "test": 2000, "data_seed": 3}
    )
    experiment.model.name = "rnn"
    experiment.model.options = ConfigDict({"width": 24, "vocabulary": 4, "classes": 4})
    experiment.train.update(steps=800, eval_every=400, batch_size=32, share=1000)
    experiment.optimizer.update(learning_rate=3e-3, clip_norm=1.0)
    experiment.prune.update(scope="layerwise", rate=0.684, levels=2)
    experiment.controls = ("reinit", "shuffle")
    experiment.control_levels = (2,)
    config.study = common.numbers(
        delta=10.0,  # % of the seeds
        rates=(1e-3, 3e-3, 1e-2),
        siblings=16,  # seeds for the comparison of masks between data orders
        control_seeds=96,
    )
    if size == "full":
        experiment.data.options.delay = 60
        common.longer(config, 5000, width=256)
        config.study.setup += (
            " The delay is 60. Sequences are generated: only for these it is known what must be "
            "remembered. A null would mean that in wide networks shuffled masks solve it as often."
        )
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Ladders at all rates, shuffled masks with the tickets' radius, masks of unrolled networks."""
    study, name = config.study, PROTOCOL.claim
    tuned = runner.tuned(name, config)
    at_rate = vary(config, **{RATE: tuned.usual("ticket")})
    begun = runner.starts(name, at_rate, ("ticket", "shuffle"))
    scaled = [
        _of_radius(start, _radius(ticket))._replace(hyper={"learning_rate": float(rate)})
        for start, ticket, rate in zip(
            begun["shuffle"], begun["ticket"], tuned.chosen("shuffle"), strict=True
        )
    ]
    accuracy = {arm: 100 * tuned.of(arm, TEST) for arm in PROTOCOL.arms[:4]}
    accuracy[SAME] = 100 * runner.retrain(name, at_rate, scaled).results[TEST].astype(float)
    radii = {arm: np.array([_radius(start) for start in starts]) for arm, starts in begun.items()}
    agreed = _agreed(runner, at_rate, runner.origins(name, at_rate)[: study.siblings])
    networks = 2 * len(scaled) + 4 * study.siblings  # in addition to those of the ladders
    return evidence(study.delta, accuracy, radii, agreed)._replace(
        member_steps=tuned.member_steps + networks * config.experiment.train.steps,
        flops=tuned.flops(),
        notes=(tuned.described(),),
    )


def evidence(delta: float, accuracy: ByArm, radii: ByArm, agreed: ByArm) -> Evidence:
    """The evidence from accuracies in percent, spectral radii of starts, and κ of two orders."""
    solved = {arm: 100.0 * (each >= SOLVED) for arm, each in accuracy.items()}
    share = Contrasts(solved, "% of the seeds", delta, "solved, ", is_share=True)
    ahead = Contrasts(accuracy, "points", 2.0, "test accuracy, ")
    others = (SAME, "reinit", "dense")
    return Evidence(
        primaries=[share("ticket", "shuffle")],
        rows=[
            row
            for metric, arms in (("test accuracy", accuracy), ("solved", solved))
            for row in arm_rows(metric, arms)
        ],
        secondary=[
            *(share("ticket", other) for other in others),
            *(ahead("ticket", other) for other in ("shuffle", *others)),
            *(Primary(f"spectral radius, {arm}", radii[arm], 0.1, "") for arm in radii),
            *(Primary(f"κ of two data orders, {kind}", agreed[kind], 0.05, "κ") for kind in agreed),
            Contrasts(agreed, "κ", 0.05, "κ, ")("tied", "unrolled"),
        ],
    )


def _agreed(runner: StudyRunner, config: ConfigDict, origins: Sequence[Start]) -> dict[str, Values]:
    """κ of two data orders in the tied network, and in the unrolled network from its own starts."""
    name = f"{PROTOCOL.claim}-untied"
    unrolled = dense_only(config, replicates=len(origins), model__options__tied=False)
    runner.ladders(name, {"untied": unrolled})
    kept = (1 - config.experiment.prune.rate) ** config.experiment.prune.levels
    return {
        "tied": _agreement(runner, config, origins, kept),
        "unrolled": _agreement(runner, unrolled, runner.origins(name, unrolled), kept),
    }


def _radius(start: Start) -> float:
    """The spectral radius of a start's recurrent kernel."""
    return float(spectral_radius(start.params[KERNEL])[0])


def _of_radius(start: Start, radius: float) -> Start:
    """The start with its recurrent kernel scaled to a spectral radius."""
    factor = np.float32(radius / max(_radius(start), 1e-6))
    return start._replace(params={**start.params, KERNEL: start.params[KERNEL] * factor})


def _agreement(
    runner: StudyRunner, config: ConfigDict, origins: Sequence[Start], density: float
) -> Values:
    """κ between the one-shot masks of two data orders, per initialisation."""
    root = runner.seeds(config).root
    arms = {"first": origins, "second": [start.reordered(root) for start in origins]}
    trained = runner.retrain_arms(PROTOCOL.claim, config, arms)
    return member_kappas(*(largest_weights(one.params, density) for one in trained.values()))


def controls(config: ConfigDict) -> list[Control]:
    """Linear recurrences: a shift register has a ticket, equal weights have none.

    A mask has solved the task if its fit explains half of the variance.
    """
    rngs = [np.random.default_rng(300 + i) for i in range(config.study.control_seeds)]
    register = np.array([masked_fits(rng, shift_register(12), kept=11) for rng in rngs])
    # The generators are shared, so the second control must be drawn after the first.
    even = np.array(
        [masked_fits(rng, even_recurrence(rng, 12), kept=36, noise=0.0) for rng in rngs]
    )

    def parts(fits: Values) -> list[Primary]:
        solved = 100.0 * (fits >= 50.0)
        won = Contrasts(
            {"magnitude": solved[:, 0], "random": solved[:, 1]}, "%", 30.0, is_share=True
        )
        return [won("magnitude", "random")]

    return [
        Control("a shift register, whose support is known", SUPPORTED, parts(register)),
        Control("weights of one size, of which none is better", NOT_SUPPORTED, parts(even)),
    ]


draw = functools.partial(tidy.by_arm, metrics=("test accuracy", "solved"), label="%")

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw, minutes=8))
