"""C4: tickets of whole units, which are small networks."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax import store as stores
from lth_jax.analysis.dead_units import mostly_dead, one_unit_each
from lth_jax.analysis.latency import Shrinker
from lth_jax.coding.stored import Stored
from lth_jax.lottery import Task
from lth_jax.machine import cores
from lth_jax.measures.claims import (
    MAP,
    Control,
    Evidence,
    Primary,
    Protocol,
    arm_rows,
    draws,
    relative,
)
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.models.convnet import ConvNet
from lth_jax.models.transformer import Transformer
from lth_jax.report import tidy
from lth_jax.report.cells import Tuned
from lth_jax.timing import median_relative_times

PROTOCOL = Protocol(
    claim="C4",
    title="Structured tickets",
    says="It is possible to find tickets of whole units, channels or heads: smaller networks that "
    "are as accurate as the dense one, and faster on ordinary hardware.",
    question="Is there a kind of unit and a density at which tickets match their dense parents "
    "within the margin, beat as many units drawn at random, and take δ less time?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, Adam with gradients clipped to norm "
    "1 and rates that rise for 60 steps and decay to 0 by a cosine, batches of 32: an MLP "
    "40-256-128-10 and a convolutional network of 32 and 64 channels, 600 steps, and a one-layer "
    "Transformer with four heads on five windows, 1,200 steps; magnitude pruning of whole units in "
    "three rounds, rewound to the start. The small networks are cut out.",
    arms=("dense", "ticket", "random_units"),
    statistic="test accuracy of TICKET minus DENSE in % of the dense error, plus the margin; that "
    "of TICKET minus RANDOM_UNITS; and the time saved by a forward pass of 512 signals, in %, of "
    "the two networks of each seed",
    rule="Three kinds and three densities are a map with simultaneous bands; a cell counts if all "
    "three parts hold. Every seed's networks are timed in alternated rounds on buffers that are "
    "copied anew three times; the fastest round counts, and the median of the copies. Each arm "
    "has, at each density, the learning rate that the other half of the seeds chose.",
    expects="Found for units, less surely for channels and heads, where few are to choose from.",
    limits="Times are of one machine, on which the laptop's other load counts, and of networks so "
    "small that overheads count. Networks of one shape share a compiled program.",
    paragraph="The Engineer's Delight, paragraph 3",
    chosen_by="Widths at which a forward pass takes a quarter of a millisecond or more, ten "
    "times the overhead of a call; steps after which the dense network's error is at most twice "
    "that after twice as many; and training in which no dense network of a pilot on other seeds "
    "fails: without clipping and warm-up some convolutional networks erred ten times as often as "
    "the median. Grids of rates are around the best of that pilot.",
    kind=MAP,
)
TEST, SAVED = "test_accuracy_final", "time saved"
Passes = Mapping[str, Callable[[], Any]]
"""Forward passes by name."""
UNITS, CHANNELS, HEADS = KINDS = ("units", "channels", "heads")


class Windows(nn.Module):
    """A network on signals that are cut to windows: `(batch, n) -> (batch, n / size, size)`."""

    network: nn.Module
    size: int

    @property
    def initialization(self) -> Any:
        """That of the network, by which `scratch` draws smaller networks."""
        return self.network.initialization

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(batch, n)` to the network's outputs."""
        return self.network(x.reshape(len(x), -1, self.size), train=train)


def channels(**options: Any) -> Windows:
    """A `ConvNet` on signals."""
    return Windows(ConvNet(**options), 1)


def heads(**options: Any) -> Windows:
    """A `Transformer` on windows of eight numbers."""
    return Windows(Transformer(**options), 8)


def get_config(size: str = "laptop") -> ConfigDict:
    """600 or 1,200 steps on each of three networks; densities .75, .5 and .25."""
    common.check_size(size)
    own = "experiments.studies.c04_structured:"
    config = _kind("mlp", features=(256, 128, 10))
    config[CHANNELS] = _kind(f"{own}channels", stages=((32,), (64,)), hidden=())
    config[HEADS] = _kind(f"{own}heads", width=32, heads=4, hidden=64, layers=1)
    config.heads.experiment.train.update(steps=1200, eval_every=400)
    config.heads.experiment.prune.groups = ("*Attention*",)
    config.study = common.numbers(
        delta=10.0,  # % of the time of a forward pass
        margin=10.0,  # % of the dense error that may be lost
        grids={  # learning rates
            UNITS: (5e-3, 1e-2, 1.5e-2),
            CHANNELS: (1e-2, 2e-2, 4e-2),
            HEADS: (5e-3, 1e-2),
        },
        batch=512,  # of a timed forward pass
        rounds=12,  # alternated, of which the fastest counts
        placements=3,  # copies of the buffers, of which the median counts
        series=2,
        control_seeds=24,
    )
    if size == "full":
        config.experiment.model.options.features = (1024, 512, 10)
        conv = {"stages": ((64, 64), (128, 128)), "hidden": ()}
        config.channels.experiment.model = ConfigDict({"name": "convnet", "options": conv})
        vit = {"width": 128, "heads": 8, "hidden": 256, "layers": 4}
        config.heads.experiment.model = ConfigDict({"name": "vit", "options": vit})
        for experiment in common.experiments_of(config):
            experiment.data = ConfigDict(
                {"name": "cifar10", "seed": 0, "validation": 5000, "train_examples": 0}
                | {"unlabelled": 0, "options": {}}
            )
            experiment.train.update(steps=5000, eval_every=1000, batch_size=128, share=0)
            experiment.replicates = 12
        config.study.grids = ConfigDict({kind: (1e-4, 3e-4, 1e-3) for kind in KINDS})
        config.study.setup = (
            "CIFAR-10, one training set for all seeds: an MLP of 1,024 and 512 units, a "
            "convolutional network of 64 and 128 channels, and "
            "a ViT of four layers and width 128; Adam, 5,000 steps. Not found would mean that "
            "magnitude finds no such units here; other criteria may."
        )
    return config


def _kind(model: str, **options: Any) -> ConfigDict:
    config = common.mnist1d(seeds=24)
    experiment = config.experiment
    experiment.data.validation = 1000
    experiment.data.options.update(train=97_000, test=5_000)
    experiment.optimizer.update(schedule="cosine", warmup=60, clip_norm=1.0)
    experiment.model.name, experiment.model.options = model, ConfigDict(options)
    experiment.train.update(steps=600, eval_every=200, batch_size=32)
    experiment.prune.update(granularity="units", schedule="linear", final=0.25, levels=3)
    experiment.controls, experiment.control_levels = PROTOCOL.arms[2:], (1, 2, 3)
    return config


def train(runner: StudyRunner, config: ConfigDict) -> dict[str, Tuned]:
    """The ladders of all kinds at all rates."""
    return {
        kind: runner.tuned(f"{PROTOCOL.claim}-{kind}", part, rates=config.study.grids[kind])
        for kind, part in _parts(config).items()
    }


def _parts(config: ConfigDict) -> dict[str, ConfigDict]:
    config = common.without_training_metrics(config)
    return {UNITS: config, CHANNELS: config.channels, HEADS: config.heads}


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """The ladders of all kinds at all rates, and the times of their networks."""
    study, parts, tuned = config.study, _parts(config), train(runner, config)
    primaries, rows = [], []
    for kind, one in tuned.items():
        levels = parts[kind].experiment.prune.levels
        accuracy = {"dense": 100 * one.of("dense", TEST)}
        networks = [_networks(runner, kind, parts[kind], one, level) for level in range(levels + 1)]
        saved = 100 * (1 - timed(runner, networks, _small(runner.task(parts[kind]), study), study))
        for level in range(1, levels + 1):
            cell = f"{kind}, density {_density(parts[kind], level):.2g}"
            accuracy |= {arm: 100 * one.of(arm, TEST, level) for arm in PROTOCOL.arms[1:]}
            minus = relative(accuracy, label=f"{cell}: ")
            found = [
                minus("ticket", "dense", margin=study.margin),
                minus("ticket", "random_units", 0.0),
                Primary(f"{cell}: {SAVED}", saved[level - 1], study.delta, "%"),
            ]
            primaries += [part._replace(cell=cell) for part in found]
        rows += arm_rows(kind, accuracy)
    return Evidence(
        primaries=primaries,
        rows=rows,
        member_steps=sum(one.member_steps for one in tuned.values()),
        notes=tuple(f"{kind.capitalize()}. {one.described()}" for kind, one in tuned.items()),
    )


def _density(config: ConfigDict, level: int) -> float:
    prune = config.experiment.prune
    return 1 - (1 - prune.final) * level / prune.levels


def _networks(
    runner: StudyRunner, kind: str, config: ConfigDict, tuned: Tuned, level: int
) -> list[Stored]:
    arm = "ticket" if level else "dense"
    rates = tuned.chosen(arm, level)
    return runner.networks_at(f"{PROTOCOL.claim}-{kind}", config, arm, rates, level)


def _small(task: Task, study: ConfigDict) -> Callable[[Sequence[Stored]], Passes]:
    """The forward passes of networks without their dead units."""
    shrinker = Shrinker(task, study.batch)

    def passes(networks: Sequence[Stored]) -> Passes:
        return {str(i): shrinker.shrink(n, shrinker.live(n)) for i, n in enumerate(networks)}

    return passes


def timed(
    runner: StudyRunner,
    networks: Sequence[Sequence[Stored]],
    passes: Callable[[Sequence[Stored]], Passes],
    study: ConfigDict,
) -> NDArray[np.float64]:
    """The time of all forward passes of a seed relative to its first: `[other passes, seeds]`.

    Args:
      runner: stores the times.
      networks: `[arms][seeds]`.
      passes: from the networks of one seed to its forward passes by name.
      study: has `batch`, `rounds` and `placements`: how often `passes` copies the networks anew.
    """

    def once(same_seed: Sequence[Stored]) -> list[float]:
        found = median_relative_times(lambda: passes(same_seed), study.rounds, study.placements)
        return list(found.values())[1:]

    def compute(partial: Any) -> stores.Node:
        del partial  # interrupted rounds are discarded
        times = [once(same_seed) for same_seed in zip(*networks, strict=True)]
        return stores.Node({"times": np.transpose(times)}, {})

    what = {
        "kind": "times",
        "networks": [[one.key for one in arm] for arm in networks],
        "settings": [study.batch, study.rounds, study.placements],
        "cores": cores(),
        "environment": stores.environment(),
    }
    return runner.node(what, compute).arrays["times"]


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
                Primary(SAVED, saved, study.delta, "%"),
            ],
        ),
        Control(
            "half the units, where each class needs one",
            NOT_SUPPORTED,
            [Primary(name, study.margin - lost, 0.0, "points")],
        ),
    ]


draw = functools.partial(tidy.by_arm, metrics=KINDS, label="Test accuracy (%)")

STUDIES.register(
    PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw, train, minutes=9)
)
