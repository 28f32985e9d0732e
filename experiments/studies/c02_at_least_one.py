"""C2: a given ticket is unlikely to win, but some ticket wins."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner, vary
from lth_jax import keys, population, trees
from lth_jax.measures import odds, xor
from lth_jax.measures.claims import Contrasts, Control, Evidence, Primary, Protocol, arm_rows, draws
from lth_jax.measures.intervals import clopper_pearson
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.pruning.criteria import random
from lth_jax.pruning.masks import prunable_leaves
from lth_jax.pruning.one_shot import at_count, member_masks
from lth_jax.pruning.prune import prune
from lth_jax.pruning.scopes import layerwise
from lth_jax.report import tidy
from lth_jax.types import DENSE, TICKET

PROTOCOL = Protocol(
    claim="C2",
    title="At least one winner",
    says="Any given subnetwork is most unlikely to be a winner, but there are so many that a wide "
    "enough network almost surely holds one.",
    question="From 2 to 16 hidden units, does the chance that some subnetwork of six weights "
    "learns XOR rise, while the chance of a single one of them falls a hundredfold?",
    setup="ReLU networks 2-H-1 without biases, normal weights (0.5), full-batch gradient descent. "
    "Only two whole hidden units can be XOR with six weights, so all C(H, 2) candidates of the "
    "C(3H, 6) masks are trained; networks of every width are drawn afresh.",
    arms=("H = 2", "H = 4", "H = 8", "H = 16"),
    statistic="whether some mask wins at H = 16, minus whether it does at H = 2; and the share of "
    "masks that win at H = 2, minus a hundred times that at H = 16",
    rule="The first is at least δ and the second above 0.",
    expects="Supported; winners of one network share units, so that some mask wins less often than "
    "if they were independent. That random masks are hopeless is not expected at moderate "
    "densities (Liu et al., 2022).",
    limits="That a winner is there does not say that anyone finds it. What counts as winning "
    "decides the numbers, and XOR is the smallest case.",
)
WIDE, ONE, KEPT = "some mask wins", "one mask wins", "a given mask is kept"
ALONE = "if they were independent"
TEST = "test_accuracy_final"


def get_config(size: str = "laptop") -> ConfigDict:
    """Four hundred XOR networks of each width; random and learned masks of an MLP."""
    common.check_size(size)
    config = common.mnist1d(seeds=48)
    experiment = config.experiment
    experiment.train.steps = 500
    experiment.prune.update(criterion="random", schedule="one_shot", levels=1)
    experiment.controls = ()
    config.study = common.numbers(
        delta=0.3,  # rise of the chance that some mask wins
        factor=100.0,  # by which the chance of one mask must at least fall
        seeds=400,
        hidden=(2, 4, 8, 16),
        densities=(0.5, 0.2, 0.1, 0.05),  # of random masks that are trained
        margin=1.0,  # points of test accuracy within which a random mask wins
        popup={"seeds": 16, "widths": (16, 64, 256), "density": 0.5, "steps": 500, "rate": 0.02},
        control_seeds=200,
    )
    if size == "full":
        common.lenet(config)
        config.study.hidden = (2, 4, 8, 16, 32, 64)
        config.study.popup.update(widths=(16, 64, 256, 1024, 4096), steps=5000)
        config.study.setup = (
            "XOR as on a laptop, to width 64. " + config.study.setup.split(";")[0] + "; learned "
            "masks of one hidden layer to width 4,096."
        )
    return config


def wins(
    hidden: int, seeds: int, seed: int, activation: Callable[[Any], Any] = jax.nn.relu
) -> NDArray[np.int64]:
    """The number of winning masks of six weights in each network."""
    key = keys.stream(keys.from_seed(seed), "xor", hidden)
    weights = xor.draw(key, seeds, hidden)
    won = xor.solved(xor.pairs(weights), activation=activation)
    return np.asarray(won).sum(axis=1)


def parts(few: NDArray[np.int64], many: NDArray[np.int64], study: ConfigDict) -> list[Primary]:
    """The two halves of the claim, from the winners in narrow and in wide networks."""
    narrow, wide = study.hidden[0], study.hidden[-1]
    share = [10.0 ** -odds.log10_choose(3 * hidden, 6) for hidden in (narrow, wide)]
    rise = (many > 0).astype(float) - (few > 0)
    fall = few * share[0] - study.factor * many * share[-1]
    return [
        Primary(f"chance that some mask wins, H = {wide} − H = {narrow}", rise, study.delta, ""),
        Primary(f"chance of one mask, H = {narrow} − {study.factor:g} × H = {wide}", fall, 0.0, ""),
    ]


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """XOR at every width; then random and learned masks of an MLP on MNIST-1D."""
    study, seed = config.study, config.experiment.seed
    found = {h: wins(h, study.seeds, seed) for h in study.hidden}
    trained, words, steps = random_masks(runner, config)
    return Evidence(
        primaries=parts(found[study.hidden[0]], found[study.hidden[-1]], study),
        rows=[row for hidden, won in found.items() for row in _rows(hidden, won)],
        secondary=[*trained, *learned_masks(runner, config)],
        member_steps=steps,
        notes=(words, _given()),
    )


def _rows(hidden: int, won: NDArray[np.int64]) -> list[tidy.Row]:
    masks = 10 ** odds.log10_choose(3 * hidden, 6)
    share = won / masks
    alone = float(odds.at_least_one(share.mean(), masks))
    chances: dict[str, Any] = {WIDE: won > 0, ONE: share, ALONE: [alone], KEPT: [1 / masks]}
    return arm_rows("chance", chances, hidden=hidden)


def random_masks(runner: StudyRunner, config: ConfigDict) -> tuple[list[Primary], str, int]:
    """How often a trained random mask is within the margin of its dense network."""
    study = config.study
    cells = {f"{d:g}": vary(config, prune__final=d) for d in study.densities}
    found = runner.ladders(PROTOCOL.claim, cells)
    parts, words = [], []
    for cell in cells:
        dense, mask = (100 * found.of(cell, arm, TEST) for arm in (DENSE, TICKET))
        won = mask >= dense - study.margin
        name = f"a random mask of density {cell} comes within a point of dense"
        parts.append(Primary(name, won.astype(float), 0.5, ""))
        _, low, high, *_ = clopper_pearson(int(won.sum()), len(won))
        words.append(
            f"Density {cell}: {won.mean():.0%} of random masks win [{low:.0%}, {high:.0%}]"
        )
    return parts, "; ".join(words) + " (Clopper and Pearson).", found.member_steps


def learned_masks(runner: StudyRunner, config: ConfigDict) -> list[Primary]:
    """Accuracy of masks of untrained networks by width, learned by edge-popup."""
    study, name = config.study.popup, f"{PROTOCOL.claim}-popup"
    cells = {
        width: vary(
            config,
            replicates=study.seeds,
            model__options__features=(width, 10),
            prune__method="edge_popup",
            prune__final=study.density,
            train__steps=study.steps,
            optimizer__learning_rate=study.rate,
        )
        for width in study.widths
    }
    found = runner.ladders(name, {str(width): cell for width, cell in cells.items()})
    few, many = study.widths[0], study.widths[-1]
    reached = {f"width {w}": 100 * found.of(str(w), TICKET, TEST) for w in (few, many)}
    chance = 100 * _untrained(runner, name, cells[many])
    label = "untrained, learned mask: test accuracy, "
    by_width = Contrasts(reached, "points", 5.0)
    against = Contrasts({"learned": reached[f"width {many}"], "random mask": chance}, "points")
    return [
        by_width(f"width {many}", f"width {few}", name=f"{label}width {many} − {few}"),
        against(
            "learned", "random mask", 5.0, name=f"untrained, width {many}: learned − random mask"
        ),
    ]


def _untrained(runner: StudyRunner, name: str, config: ConfigDict) -> NDArray[np.float64]:
    """The test accuracy of a cell's networks before any training, under random masks."""
    task, origins = runner.task(config), runner.origins(name, config)
    like, scope = task.shapes[0], layerwise()
    prunable, root = prunable_leaves(like), runner.seeds(config).root
    count = scope.counts(like, config.experiment.prune.final, prunable=prunable)
    params = trees.stack([trees.from_named(one.params, like) for one in origins])
    own = jax.numpy.stack([keys.derive(root, one.replicate, "popup") for one in origins])
    pruner = at_count(prune(random(), scope), count)
    masks = member_masks(pruner, params, prunable=prunable, keys=own)
    members = population.initial(task, own, params=params, masks=masks)
    return population.measure(task, members)["accuracy"].astype(float)


def _given() -> str:
    chances = ", ".join(
        f"10^{odds.log10_kept(12_600, 1260, s):.0f} for {s:,}" for s in (10, 100, 1000)
    )
    return (
        "A random pruning of 12,600 weights to a tenth keeps a given subnetwork with chance "
        f"{chances} weights."
    )


def controls(config: ConfigDict) -> list[Control]:
    """Sums of subsets come within 0.01 of any target; linear networks are never XOR."""
    study = config.study

    def gaps(rng: np.random.Generator) -> NDArray[np.float64]:
        found = odds.subset_sum_gaps(rng.uniform(-1, 1, 14), rng.uniform(-0.5, 0.5))
        return found[[0, -1]]

    met = draws(gaps, [[912, i] for i in range(study.control_seeds)]) <= 0.01
    rise = np.subtract(met[:, 1], met[:, 0], dtype=float)
    few, many = (wins(h, study.control_seeds, 913, lambda x: x) for h in (2, 16))
    return [
        Control(
            "sums of 1 and of 14 numbers (Lueker, 1998)",
            SUPPORTED,
            [Primary("chance of a sum within 0.01", rise, study.delta, "")],
        ),
        Control("linear networks", NOT_SUPPORTED, parts(few, many, study)[:1]),
    ]


def draw(rows: Sequence[tidy.Row]) -> Figure:
    """The chances of some mask and of one mask against the width."""
    figure = tidy.against(
        rows, "hidden", "chance", label="Chance", x_label="Hidden units H of the XOR network"
    )
    figure.axes[0].set_yscale("log")
    return figure


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
