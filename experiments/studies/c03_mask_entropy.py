"""C3: the bytes of tickets, their masks included, against dense networks of few bits."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax.analysis.frontier import tester
from lth_jax.coding import integers, rate_points
from lth_jax.coding.entropy import binary_entropy, break_even_density
from lth_jax.coding.size import order_saving, within_layer, within_margins
from lth_jax.coding.stored import Stored
from lth_jax.lottery import Task
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
from lth_jax.report import tidy

PROTOCOL = Protocol(
    claim="C3",
    title="The entropy of masks",
    says="A sparse network is smaller only if the weights that it drops save more than its mask "
    "costs; how much depends on sparsity, on the bits of a weight and on the mask's order.",
    question="Is there a density and a number of bits at which tickets, masks included, match "
    "dense networks within the margin and take δ fewer bytes than the smallest dense network of "
    "2, 4 or 8 bits that does so too?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, an MLP 40-90-90-10 with Adam, 700 "
    "steps; magnitude pruning in four rounds of 40 % within layers. Weights are rounded after "
    "training and entropy-coded; each mask is written by the shortest of six codes.",
    arms=("dense", "ticket", "shuffle"),
    statistic="test accuracy of the rounded ticket minus that of the exact dense network, in % of "
    "the dense error, plus the margin; and the bytes saved in %; per seed",
    rule="Four densities and three numbers of bits are a map with simultaneous bands; a cell "
    "counts if both parts hold. The other half of the seeds chooses the dense network's bits: the "
    "fewest whose mean accuracy is within the margin. The order in masks is secondary: bytes "
    "against masks of the same density, and of the same sums of rows and columns; codes use "
    "only sums, so the pairs of columns that share rows are counted, too. Learning rates are "
    "chosen by the accuracy of exact networks, since rounding follows training.",
    expects="Found: at density .2 a mask costs .7 bits per weight and saves most of four. Half of "
    "the order in a mask is expected to be dead units and poor inputs, which the sums contain.",
    limits="Bytes are those of these codes, without training for few bits, by which dense networks "
    "gain (Kuzmin et al., 2023). A mask made by a short program needs few bits. The margin is 5 % "
    "of the dense error, as in ORIGINAL.",
    paragraph="The Engineer's Delight, paragraph 2",
    chosen_by="The network of ORIGINAL with 700 steps, after which dense networks beat their "
    "shuffled tickets and still improve: trained five times as long, they erred 5.9 % less in "
    "version 2 of ORIGINAL; the bits from where rounding ruins the dense network to where it "
    "changes nothing.",
    kind=MAP,
)
SAVED, TEST = "bytes saved", "test_accuracy_final"
ORDERS = {"the same density": within_layer, "the same sums of rows and columns": within_margins}


def get_config(size: str = "laptop") -> ConfigDict:
    """4,000 examples, 700 steps, densities .6 to .13."""
    common.check_size(size)
    config = common.mnist1d(seeds=48)
    config.experiment.control_levels = (4,)
    config.study = common.numbers(
        delta=10.0,  # % of the bytes of the dense network
        margin=5.0,  # % of the dense error that rounding and pruning may cost
        bits=(8, 4, 2),
        rates=(3e-3, 1e-2, 3e-2),
        control_seeds=48,
    )
    if size == "full":
        common.lenet(config)
        config.study.setup += (
            " The map is over the same densities; not found would mean that pruning adds nothing "
            "to rounding on MNIST."
        )
    return config


class Weighed(NamedTuple):
    """Bytes of mask and values, and test accuracy in percent; `[seeds, bits]`."""

    size: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def weigh(task: Task, networks: Sequence[Stored], bits: Sequence[int]) -> Weighed:
    """The networks with their prunable weights rounded to few bits."""
    accuracy, coded = tester(task), [integers(each) for each in bits]

    def points(one: Stored) -> list[tuple[float, float]]:
        found = rate_points(one.mask, one.params, prunable=one.prunable, precisions=coded)
        return [(p.mask + p.values, 100 * accuracy(p.params, one.state)) for p in found]

    return Weighed(*np.moveaxis(np.array([points(one) for one in networks], float), -1, 0))


def least_dense(dense: Weighed, exact: NDArray[np.float64], allowed: float) -> NDArray[np.int64]:
    """The column of fewest bytes within an allowed loss, chosen by the other half of the seeds."""
    half = np.arange(len(exact)) % 2

    def best(rows: NDArray[np.bool_]) -> int:
        lost = (exact[rows, None] - dense.accuracy[rows]).mean(axis=0)
        size = np.where(lost <= allowed, dense.size[rows].mean(axis=0), np.inf)
        return int(size.argmin() if np.isfinite(size).any() else lost.argmin())

    return np.array([best(half != 0), best(half != 1)])[half]


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Ladders at all rates, their rounded networks, and the code lengths of their masks."""
    study, name, experiment = config.study, PROTOCOL.claim, config.experiment
    tuned, task = runner.tuned(name, config), runner.task(config)
    levels = range(1, experiment.prune.levels + 1)
    exact, seeds = 100 * tuned.of("dense", TEST), np.arange(experiment.replicates)

    def networks(arm: str, level: int) -> list[Stored]:
        return runner.networks_at(name, config, arm, tuned.chosen(arm, level), level)

    dense = weigh(task, networks("dense", 0), study.bits)
    chosen = least_dense(dense, exact, study.margin / 100 * (100 - exact.mean()))
    primaries, rows = [], []
    for level in levels:
        density = (1 - experiment.prune.rate) ** level
        found = weigh(task, networks("ticket", level), study.bits)
        for i, bits in enumerate(study.bits):
            cell = f"density {density:.2g}, {bits} bits"
            saved = 100 * (1 - found.size[:, i] / dense.size[seeds, chosen])
            tested = relative({"dense": exact, "ticket": found.accuracy[:, i]}, label=f"{cell}: ")
            parts = [
                tested("ticket", "dense", margin=study.margin),
                Primary(f"{cell}: {SAVED}", saved, study.delta, "%"),
            ]
            primaries += [part._replace(cell=cell) for part in parts]
            rows += arm_rows(SAVED, {f"{bits} bits": saved}, density=100 * density)
    masks = [_prunable(one) for one in networks("ticket", experiment.prune.levels)]
    picked = ", ".join(f"{study.bits[i]}" for i in np.unique(chosen))
    return Evidence(
        primaries=primaries,
        rows=rows,
        secondary=[
            *(
                Primary(f"mask bytes saved against masks of {kept}", _order(masks, how), 3.0, "%")
                for kept, how in ORDERS.items()
            ),
            Primary(
                "columns that share rows, above masks of the same sums",
                np.array([together(m, np.random.default_rng([4, i])) for i, m in enumerate(masks)]),
                3.0,
                "%",
            ),
        ],
        gate=100 * (tuned.of("ticket", TEST) - tuned.of("shuffle", TEST)),
        member_steps=tuned.member_steps,
        flops=tuned.flops(),
        notes=(tuned.described(), f"Bits of the smallest dense network: {picked}.", _break_even()),
    )


def _prunable(one: Stored) -> dict[str, NDArray[np.bool_]]:
    return {name: leaf for name, leaf in one.mask.items() if one.prunable[name]}


def _order(masks: Sequence[dict[str, NDArray[np.bool_]]], how: Any) -> NDArray[np.float64]:
    rngs = [np.random.default_rng([3, i]) for i in range(len(masks))]
    found = [order_saving(mask, rng, shuffle=how) for mask, rng in zip(masks, rngs, strict=True)]
    return np.array([one["all layers"] for one in found])


def together(mask: dict[str, NDArray[np.bool_]], rng: np.random.Generator) -> float:
    """Squared numbers of rows that two columns share, in % above a mask of the same sums."""

    def shared(leaf: NDArray[np.bool_]) -> float:
        counts = leaf.T.astype(float) @ leaf
        return float(np.sum(counts**2) - np.sum(np.diag(counts) ** 2))

    drawn = [within_margins(leaf, rng) for leaf in mask.values()]
    return 100 * (sum(map(shared, mask.values())) / sum(map(shared, drawn)) - 1)


def _break_even() -> str:
    points = ", ".join(f"{break_even_density(b):.3f} at {b}" for b in (1, 2, 4, 8, 32))
    return f"A mask without order pays below density {points} bits per value."


def controls(config: ConfigDict) -> list[Control]:
    """Normal weights under random masks, which save `1 − ρ − H(ρ)/b` of `b` bits per weight.

    Entropy coding writes normal weights of four bits in about three: at density .13 the mask saves
    two thirds; at .9 it costs as much as it saves.
    """
    study = config.study

    def control(density: float, expected: str) -> Control:
        def saving(rng: np.random.Generator) -> float:
            values = {"w": rng.normal(size=(100, 100)).astype(np.float32)}
            masks = [rng.random((100, 100)) < share for share in (density, 1.0)]
            sparse, dense = (
                rate_points({"w": mask}, values, prunable={"w": True}, precisions=[integers(4)])[0]
                for mask in masks
            )
            return 100 * (1 - (sparse.mask + sparse.values) / (dense.mask + dense.values))

        seeds = [[931, round(100 * density), seed] for seed in range(study.control_seeds)]
        bits = f"{float(binary_entropy(density)):.2f} bits of mask per weight"
        part = Primary(SAVED, draws(saving, seeds), study.delta, "%")
        return Control(f"random masks of density {density:g}, {bits}", expected, [part])

    return [control(0.13, SUPPORTED), control(0.9, NOT_SUPPORTED)]


draw = functools.partial(  # the bytes saved, by bits of a weight, against the density
    tidy.against,
    x="density",
    metric=SAVED,
    label="Bytes saved (%)",
    x_label="Weights remaining (%)",
    zero=True,
)

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
