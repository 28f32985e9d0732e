"""C4: tickets of whole units, which are small networks."""

import functools
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments import units
from experiments.networks import module
from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner, vary
from lth_jax import store as stores
from lth_jax import structure as st
from lth_jax import trees
from lth_jax.analysis.dead_units import mostly_dead
from lth_jax.analysis.latency import Shrinker
from lth_jax.analysis.timing import time_saved
from lth_jax.measures.claims import Contrasts, Control, Evidence, Primary, Protocol, arm_rows, draws
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.report.cells import LAST, Tuned

PROTOCOL = Protocol(
    claim="C4",
    title="Structured tickets",
    says="Tickets of whole channels or heads are smaller networks: as accurate as the dense one, "
    "and faster on ordinary hardware.",
    question="With a quarter of the prunable weights left, are tickets of channels and of "
    "attention heads within a point of their dense parents, and do they save a tenth of the time?",
    setup="400 digits; a convolutional network (8, 8, 16, 16 channels) and a one-layer ViT with 8 "
    "heads of width 4, Adam, 200 steps; two rounds of magnitude pruning of whole units, rewound to "
    "the start. The small networks are cut out and timed beside the dense ones.",
    arms=("dense", "ticket", "scratch", "scratch-B", "random_units"),
    statistic="test accuracy of TICKET minus DENSE plus the margin, paired by seed; and the time "
    "that a forward pass of 512 images saves, in per cent, per block of alternated rounds",
    rule="All four must hold: within the margin, and at least δ of the time saved, for channels "
    "and for heads (intersection–union). Learning rates are tuned for each arm on pilot seeds. The "
    "premise is that tickets beat as many units drawn at random, on average over both networks.",
    expects="Within the margin for heads, perhaps not for channels. That a network of the ticket's "
    "shape does as well from scratch (Liu et al., 2019) is expected; it is secondary here.",
    limits="Seeds differ in initialisation and order, not in the digits. Times are of this machine "
    "and of networks so small that overheads count. Scratch-B has the dense training's compute.",
)
RATE, TEST = "optimizer__learning_rate", "test_accuracy_final"
ARMS = ("dense", "ticket", "scratch", "random_units")


def get_config(size: str = "laptop") -> ConfigDict:
    """400 digits to train on; two rounds to a quarter of the weights, about half of the units."""
    common.check_size(size)
    config = _structured("convnet", {"stages": ((8, 8), (16, 16)), "hidden": ()})
    config.heads = ConfigDict(
        {
            "experiment": _structured(
                "vit", {"patch": 4, "width": 32, "heads": 8, "hidden": 64, "layers": 1}
            ).experiment
        }
    )
    config.heads.experiment.prune.groups = ("*Attention*",)
    config.study = common.numbers(
        margin=1.0,  # points of test accuracy that may be lost
        delta=10.0,  # per cent of the time of a forward pass that must be saved
        rates=(3e-3, 1e-2),
        pilot_seeds=4,
        longer=4,  # number of trainings that make up the full budget of the small shape
        batch=512,  # of a timed forward pass
        rounds=(40, 5),  # blocks, and rounds of which the fastest counts
        control_seeds=24,
    )
    if size == "full":
        config.experiment.model.options.stages = ((64, 64), (128, 128))
        config.heads.experiment.model.options.update(width=192, hidden=384, layers=6)
        for experiment in (config.experiment, config.heads.experiment):
            experiment.data.update(name="cifar10", validation=5000, train_examples=0)
            experiment.train.update(steps=10_000, eval_every=1000, batch_size=128)
        config.study.rates = (3e-4, 1e-3)
        config.study.setup = (
            "CIFAR-10: a convolutional network of 64 and 128 channels, and a ViT of six layers and "
            "width 192; Adam, 10,000 steps; pruned and rewound as on a laptop."
        )
    return config


def _structured(model: str, options: dict) -> ConfigDict:
    config = common.ladder(seeds=20)
    experiment = config.experiment
    experiment.data.train_examples = 400
    experiment.model.name, experiment.model.options = model, ConfigDict(options)
    experiment.train.update(steps=200, eval_every=100, batch_size=32)
    experiment.prune.update(granularity="units", scope="layerwise", rate=0.5, levels=2)
    experiment.controls, experiment.control_levels = ("scratch", "random_units"), (2,)
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Both networks' ladders, the full-budget scratch of the convolutional one, and times."""
    study, experiment = config.study, config.experiment
    same = {"seed": experiment.seed, "replicates": experiment.replicates}
    kinds = {"channels": config, "heads": vary(config.heads, **same)}
    tuned = {kind: _tuned(runner, kind, part, study) for kind, part in kinds.items()}
    values = {kind: {arm: 100 * one.of(arm, TEST) for arm in ARMS} for kind, one in tuned.items()}
    values["channels"]["scratch-B"] = 100 * _full_budget(runner, config, tuned["channels"])
    saved = {kind: _time_saved(runner, kind, kinds[kind], tuned[kind], study) for kind in kinds}
    kept = {kind: Contrasts(arms, "points", 1.0, f"{kind}: ") for kind, arms in values.items()}
    return Evidence(
        primaries=[
            part
            for kind, minus in kept.items()
            for part in (
                minus._replace(label=f"{kind}: test accuracy, ")(
                    "ticket", "dense", margin=study.margin
                ),
                Primary(f"{kind}: time saved", saved[kind], study.delta, "%"),
            )
        ],
        rows=[row for kind, arms in values.items() for row in arm_rows(kind, arms)],
        secondary=[
            minus("ticket", arm)
            for minus in kept.values()
            for arm in minus.values
            if arm != "ticket"
        ],
        gate=np.mean([arms["ticket"] - arms["random_units"] for arms in values.values()], axis=0),
        member_steps=study.longer * experiment.train.steps * experiment.replicates
        + sum(one.member_steps for one in tuned.values()),
        notes=tuple(f"{kind.capitalize()}. {one.described()}" for kind, one in tuned.items()),
    )


def _name(kind: str) -> str:
    return f"{PROTOCOL.claim}-{kind}"


def _tuned(runner: StudyRunner, kind: str, config: ConfigDict, study: ConfigDict) -> Tuned:
    """Tuned ladders; the pilot holds out other digits."""
    pilot = vary(common.pilot(config, study.pilot_seeds), data__seed=1)
    return runner.tuned(_name(kind), config, ARMS, pilot=pilot, rates=study.rates)


def _full_budget(runner: StudyRunner, config: ConfigDict, tuned: Tuned) -> NDArray[np.float64]:
    """Scratch-B (Liu et al., 2019): the tickets' shapes, newly initialised, with the full budget.

    Initial weights are those of another replicate's dense network, rescaled to the small shape.
    """
    name, cell = _name("channels"), vary(config, **{RATE: tuned.rates["ticket"]})
    task, fan = runner.task(config), units.fan_of(module(config.experiment))
    model, like = task.trainer.model, task.shapes[0]
    layouts = model.layouts(task.example) if model.layouts else None
    origins, starts = runner.origins(name, cell), []
    tickets = runner.networks(name, cell, "ticket", LAST)
    for i, (one, own) in enumerate(zip(tickets, origins, strict=True)):
        other, mask, may = (
            trees.from_named(named, like)
            for named in (origins[i - 1].params, one.mask, one.prunable)
        )
        drawn = st.rescale(other, mask, may, fan, layouts=layouts)
        params = {n: np.asarray(p) for n, p in trees.to_named(drawn).items()}
        starts.append(own._replace(params=params, mask=one.mask))
    steps = config.study.longer * config.experiment.train.steps
    longer = vary(config, train__steps=steps, **{RATE: tuned.rates["scratch"]})
    return runner.retrain(name, longer, starts).results[TEST]


def _time_saved(
    runner: StudyRunner, kind: str, config: ConfigDict, tuned: Tuned, study: ConfigDict
) -> NDArray[np.float64]:
    """The time saved by a ticket's forward pass compared with the dense network, in per cent."""
    cells = {arm: vary(config, **{RATE: tuned.rates[arm]}) for arm in ("dense", "ticket")}
    dense, ticket = (runner.networks(_name(kind), cells[arm], arm, LAST)[0] for arm in cells)

    def compute(partial: Any) -> stores.Node:
        del partial  # interrupted rounds are discarded
        shrinker = Shrinker(runner.task(config), study.batch)
        slow, fast = (shrinker.shrink(one, shrinker.live(one)) for one in (dense, ticket))
        return stores.Node({"saved": time_saved(slow, fast, study.rounds)}, {})

    what = {
        "kind": "time saved",
        "networks": [dense.key, ticket.key],
        "settings": [study.batch, list(study.rounds)],
        "environment": stores.environment(),
    }
    return runner.node(what, compute).arrays["saved"]


def controls(config: ConfigDict) -> list[Control]:
    """A network with three quarters of dead units, and one that needs every unit."""
    study = config.study
    apart, saved = mostly_dead(
        np.random.default_rng(941),
        batch=study.batch,
        rounds=study.rounds,
        scales=study.control_seeds,
    )
    lost = draws(one_unit_each, [[942, i] for i in range(study.control_seeds)])
    name = f"test accuracy, ticket − dense + {study.margin:g}"
    return [
        Control(
            "dead units cut out",
            SUPPORTED,
            [
                Primary("1 − largest change of an output", 1 - apart, 0.0, ""),
                Primary("time saved", saved, study.delta, "%"),
            ],
        ),
        Control(
            "half the units, where each class needs one",
            NOT_SUPPORTED,
            [Primary(name, study.margin - lost, 0.0, "points")],
        ),
    ]


def one_unit_each(rng: np.random.Generator, classes: int = 10, examples: int = 200) -> float:
    """Points lost by an identity network on one-hot inputs when half of its units go."""
    alive = rng.permutation(classes) < classes // 2
    labels = rng.integers(classes, size=examples)
    guessed = (np.eye(classes)[labels] * alive).argmax(axis=1)
    return 100 * float(np.mean(guessed != labels))


draw = functools.partial(tidy.by_arm, metrics=("channels", "heads"), label="Test accuracy (%)")

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
