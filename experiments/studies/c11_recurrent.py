"""C11: recurrent networks have tickets, and sharing weights over time shapes them."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner, dense_only, vary
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
    question="Are tickets of a tanh network better than shuffled masks at a fifth of its weights?",
    setup="Naming the first of eleven symbols: a tanh network of 48 units, Adam with clipping, 400 "
    "steps on 1,000 sequences of its own for every seed; three rounds to density .2.",
    arms=("dense", "ticket", "reinit", "shuffle", "shuffle, same radius"),
    statistic="test accuracy of TICKET minus SHUFFLE at density .2, in points; paired by seed",
    rule="The difference is significant and at least δ. Tickets and shuffled masks have each the "
    "learning rate that pilot seeds like best.",
    expects="Supported, in part because random pruning shrinks the spectral radius by √ρ, and with "
    "it the memory: the arm of the same radius says how much.",
    limits="One short memory task and one cell. A first run had one learning rate for all arms, "
    "and tickets 7.7 points ahead; at the rates that suit them, most seeds of both arms are near "
    "100 % and a few that fail make the mean. What tying does is told by how far the masks of two "
    "data orders agree in a tied network and in its unrolled twin, without a verdict.",
)


def get_config(size: str = "laptop") -> ConfigDict:
    """A tanh network of 48 units that recalls the first of eleven symbols."""
    common.check_size(size)
    config = common.ladder(seeds=48)
    experiment = config.experiment
    experiment.data.update(name="delayed_recall", validation=500)
    experiment.data.options = ConfigDict(
        {"symbols": 8, "delay": 10, "train": 48 * 1000 + 500, "test": 2000, "data_seed": 3}
    )
    experiment.model.name = "rnn"
    experiment.model.options = ConfigDict({"width": 48, "vocabulary": 8, "classes": 8})
    experiment.train.update(steps=400, eval_every=200, batch_size=64, share=1000)
    experiment.optimizer.update(learning_rate=3e-3, clip_norm=1.0)
    experiment.prune.update(scope="layerwise", rate=0.42, levels=3)
    experiment.controls = ("reinit", "shuffle")
    experiment.control_levels = (3,)
    config.study = common.numbers(
        delta=2.0,  # points of test accuracy, ticket − shuffle
        rates=(1e-3, 3e-3, 1e-2),
        pilot_seeds=4,
        siblings=16,  # seeds for the comparison of masks between data orders
        control_seeds=48,
    )
    if size == "full":
        experiment.data.options.delay = 40
        common.longer(config, 5000, width=256)
        config.study.setup += (
            " The delay is 40. Sequences stay made: only there it is known what must be remembered."
        )
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """The ladder, shuffled masks with the tickets' radius, and masks of the unrolled network."""
    study, name = config.study, PROTOCOL.claim
    rates = runner.tune(name, config, ("ticket", "shuffle"))
    config = vary(config, optimizer__learning_rate=rates["ticket"])
    ladder = runner.ladders(name, {"tied": config})
    origins = runner.origins(name, config)
    begun = runner.starts(name, config, ("ticket", "shuffle"))
    hyper = {"learning_rate": rates["shuffle"]}
    shuffled = [start._replace(hyper=hyper) for start in begun["shuffle"]]
    scaled = [
        _of_radius(start, _radius(ticket))
        for start, ticket in zip(shuffled, begun["ticket"], strict=True)
    ]
    arms = dict(zip(PROTOCOL.arms[3:], (shuffled, scaled), strict=True))
    ended = runner.retrain_arms(name, config, arms)
    accuracy = {arm: 100 * ladder.of("tied", arm, TEST) for arm in PROTOCOL.arms[:3]}
    accuracy |= {arm: 100 * one.results[TEST].astype(float) for arm, one in ended.items()}
    radii = {arm: np.array([_radius(start) for start in starts]) for arm, starts in begun.items()}
    agreed = _agreed(runner, config, origins[: study.siblings])
    networks = 3 * len(origins) + 4 * len(agreed["tied"])  # in addition to those of the ladder
    return evidence(study.delta, accuracy, radii, agreed)._replace(
        member_steps=ladder.member_steps + networks * config.experiment.train.steps,
        notes=(
            f"Learning rates chosen on pilot seeds: tickets {rates['ticket']:g}, both kinds of "
            f"shuffled masks {rates['shuffle']:g}; dense and reinit have the tickets'.",
        ),
    )


def evidence(delta: float, accuracy: ByArm, radii: ByArm, agreed: ByArm) -> Evidence:
    """The evidence from the networks of every arm.

    Args:
      delta: the smallest difference that matters, in points.
      accuracy: on the test set, in points.
      radii: spectral radii of tickets and shuffled masks at their starts.
      agreed: κ of two data orders, tied and unrolled.
    """
    ahead, same = Contrasts(accuracy, "points", 2.0), "shuffle, same radius"
    return Evidence(
        primaries=[ahead._replace(label="test accuracy, ")("ticket", "shuffle", delta)],
        rows=arm_rows("test accuracy", accuracy),
        secondary=[
            ahead("ticket", same, delta, name="ticket − shuffle of the same radius"),
            ahead("ticket", "reinit"),
            ahead("ticket", "dense"),
            *(Primary(f"spectral radius, {arm}", radii[arm], 0.1, "") for arm in radii),
            *(Primary(f"κ of two data orders, {kind}", agreed[kind], 0.05, "κ") for kind in agreed),
            Contrasts(agreed, "κ", 0.05, "κ, ")("tied", "unrolled"),
        ],
    )


def _agreed(runner: StudyRunner, config: ConfigDict, origins: Sequence[Start]) -> dict[str, Values]:
    """κ of two data orders in the tied network, and in the unrolled network from its own starts."""
    name = f"{PROTOCOL.claim}-untied"
    unrolled = dense_only(config)
    unrolled.experiment.model.options.tied = False
    runner.ladders(name, {"untied": unrolled})
    kept = (1 - config.experiment.prune.rate) ** config.experiment.prune.levels
    starts = runner.origins(name, unrolled)[: len(origins)]
    return {
        "tied": _agreement(runner, config, origins, kept),
        "unrolled": _agreement(runner, unrolled, starts, kept),
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
    """Linear recurrences: a shift register has a ticket, equal weights have none."""
    rngs = [np.random.default_rng(300 + i) for i in range(config.study.control_seeds)]
    register = np.array([masked_fits(rng, shift_register(12), kept=11) for rng in rngs])
    # The generators are shared, so the second control must be drawn after the first.
    even = np.array(
        [masked_fits(rng, even_recurrence(rng, 12), kept=36, noise=0.0) for rng in rngs]
    )
    return [
        Control(
            name,
            expected,
            [Primary("explained, magnitude − random mask", x[:, 0] - x[:, 1], 2.0, "points")],
        )
        for name, expected, x in (
            ("a shift register, whose support is known", SUPPORTED, register),
            ("weights of one size, of which none is better", NOT_SUPPORTED, even),
        )
    ]


draw = functools.partial(tidy.by_arm, metrics=("test accuracy",), label="Test accuracy (%)")

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
