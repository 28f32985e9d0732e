"""C3: the size of masks in bytes, and whether training reduces it."""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import c07_regularisation
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner, vary
from lth_jax import trees
from lth_jax.coding import integers
from lth_jax.coding.entropy import break_even_density
from lth_jax.coding.size import order_saving, rate_points
from lth_jax.coding.stored import Stored
from lth_jax.measures.claims import Control, Evidence, Primary, Protocol, draws
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.population.segment import evaluate
from lth_jax.report import tidy

PROTOCOL = Protocol(
    claim="C3",
    title="The entropy of masks",
    says="Pruning pays although the mask has to be told as well, and the masks that training finds "
    "have order in them, so that they cost less than masks drawn at random.",
    question="At density .13, does a ticket's mask take fewer bytes than the same mask shuffled "
    "within its layers, by at least 3 %?",
    setup="The networks of C7 (MNIST-1D, which has no dead inputs; MLP 40-90-90-10; magnitude "
    "pruning in four rounds). Each leaf's mask is written by the shortest of six codes, among them "
    "one with densities for classes of rows and columns; all side information is counted.",
    arms=("ticket", "shuffle"),
    statistic="100 · (1 − bytes of the ticket's mask / bytes of its shuffled twin), per seed",
    rule="The saving is at least δ.",
    expects="Supported: units die, and inputs differ in worth. The arithmetic half is no question: "
    "a mask costs at most one bit per weight and saves 32 of each that goes.",
    limits="Bytes are those of these codes; a mask made by a short program has few bits however "
    "long its code. Against a dense network of few bits per weight the advantage may vanish.",
)
SAVED = "mask bytes saved"
TEST = "test_accuracy_final"
BITS = (8, 4, 2)


def get_config(size: str = "laptop") -> ConfigDict:
    """The ladders of C7 to density .13; the networks are shared."""
    config = c07_regularisation.get_config(size)
    asked = {
        "delta": 3.0,  # per cent of a mask's bytes
        "control_seeds": 48,
    }
    shared = ("rates", "pilot_seeds", "setup")
    config.study = ConfigDict(asked | {k: v for k, v in config.study.items() if k in shared})
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Tuned ladders, the code lengths of their masks, and quantised networks."""
    study, name = config.study, PROTOCOL.claim
    tuned = runner.tuned(name, config, PROTOCOL.arms)
    cell = vary(config, optimizer__learning_rate=tuned.rates["ticket"])
    dense, tickets = (runner.networks(name, cell, arm) for arm in ("dense", "ticket"))
    rows = [row for one in tickets for row in _rows(one)]
    last = tickets[-1].level
    values = tidy.values_of(rows, arm="all layers", level=last)
    return Evidence(
        primaries=[Primary(f"{SAVED}, ticket against shuffled", values, study.delta, "%")],
        rows=rows,
        secondary=_beside_dense(
            runner, config, dense, [one for one in tickets if one.level == last]
        ),
        gate=100 * (tuned.of("ticket", TEST) - tuned.of("shuffle", TEST)),
        member_steps=tuned.member_steps,
        flops=tuned.flops(),
        notes=(tuned.described(), _break_even()),
    )


def _rows(one: Stored) -> list[tidy.Row]:
    may = {name: leaf for name, leaf in one.mask.items() if one.prunable[name]}
    found = order_saving(may, np.random.default_rng([3, one.level, one.replicate]))
    place = {"level": one.level, "replicate": one.replicate, "density": 100 * one.density}
    return [
        {"arm": name, **place, "metric": SAVED, "value": value} for name, value in found.items()
    ]


def _beside_dense(
    runner: StudyRunner, config: ConfigDict, dense: Sequence[Stored], tickets: Sequence[Stored]
) -> list[Primary]:
    """Bytes and accuracy of tickets and dense networks at few bits per value."""
    task, precisions = runner.task(config), [integers(bits) for bits in BITS]
    test = jax.jit(lambda p, s: evaluate(task.trainer, p, s, task.data.test)["accuracy"])
    like = task.shapes

    def weighed(one: Stored) -> list[tuple[float, float]]:
        points = rate_points(one.mask, one.params, prunable=one.prunable, precisions=precisions)
        state = trees.from_named(one.state, like[1])
        return [
            (p.mask + p.values, 100 * float(test(trees.from_named(p.params, like[0]), state)))
            for p in points
        ]

    small, large = (np.array([weighed(one) for one in arm]) for arm in (tickets, dense))
    parts = []
    for ticket, parent in ((0, 0), (1, 1), (1, 2)):
        sparse, full = small[:, ticket], large[:, parent]
        names = f"ticket at {BITS[ticket]} bits, dense at {BITS[parent]}"
        parts += [
            Primary(f"{names}: bytes saved", 100 * (1 - sparse[:, 0] / full[:, 0]), 10.0, "%"),
            Primary(f"{names}: test accuracy", sparse[:, 1] - full[:, 1], 1.0, "points"),
        ]
    return parts


def _break_even() -> str:
    points = ", ".join(f"{break_even_density(b):.3f} at {b}" for b in (1, 2, 4, 8, 32))
    return f"A mask without order pays below density {points} bits per value."


def controls(config: ConfigDict) -> list[Control]:
    """Masks whose rows have two densities, and random masks."""
    study, shapes = config.study, {"first": (40, 90), "second": (90, 90), "third": (90, 10)}

    def control(name: str, expected: str, dense: float, thin: float, offset: int) -> Control:
        def saving(rng: np.random.Generator) -> float:
            mask = {name: _rows_of(rng, shape, dense, thin) for name, shape in shapes.items()}
            return order_saving(mask, rng)["all layers"]

        values = draws(saving, [[offset, seed] for seed in range(study.control_seeds)])
        return Control(name, expected, [Primary(SAVED, values, study.delta, "%")])

    return [
        control("rows of density .24 and .02", SUPPORTED, 0.24, 0.02, 931),
        control("no order, density .13", NOT_SUPPORTED, 0.13, 0.13, 932),
    ]


def _rows_of(
    rng: np.random.Generator, shape: tuple[int, int], dense: float, thin: float
) -> NDArray[np.bool_]:
    density = np.where(np.arange(shape[0]) % 2 == 0, dense, thin)
    return rng.random(shape) < density[:, None]


draw = functools.partial(  # what each layer's mask saves, against the density
    tidy.against,
    x="density",
    metric=SAVED,
    label="Mask bytes saved against shuffled (%)",
    x_label="Weights remaining (%)",
    zero=True,
)

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
