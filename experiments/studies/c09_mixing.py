"""C9: Mixup and CutMix change the ticket."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.common import vary
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax import trees
from lth_jax.lottery import Start
from lth_jax.measures.claims import Control, Evidence, Primary, Protocol, arm_rows, draws, relative
from lth_jax.measures.mixing import kappas_lost
from lth_jax.measures.overlap import member_kappas
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.pruning.one_shot import largest_weights
from lth_jax.report import tidy
from lth_jax.types import Mask

PROTOCOL = Protocol(
    claim="C9",
    title="Mixup and CutMix",
    says="Which weights a ticket keeps depends on the geometry of the task: trained with Mixup or "
    "CutMix, a network has other tickets.",
    question="From one initialisation, do tickets of a mixed training differ from those of label "
    "smoothing of the same strength by more than tickets of one recipe differ between data orders?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, an MLP 40-90-90-10 with Adam, 500 "
    "steps; magnitude pruning in three rounds of half within layers, rewound to the start.",
    arms=("plain", "longer", "label smoothing", "mixup", "cutmix"),
    statistic="κ within minus κ between: Cohen's κ of the masks of two data orders, mean of both "
    "recipes, minus that of a mask of one recipe and one of the other on the other data order, "
    "mean of both directions; per initialisation. It is 0 if the masks have one distribution",
    rule="For Mixup against label smoothing, and for CutMix against it, the difference is at "
    "least δ, .05 of κ: a twentieth of the largest agreement beyond chance. Mixup (α = 1), CutMix "
    "(α = .5) and smoothing (.25) move the same mean share of the label. All recipes have as many "
    "steps and one learning rate, since a rate changes masks, too.",
    expects="A small shift: longer training or label smoothing may have most of it.",
    limits="One network, one learning rate. The recipes minimise losses with different targets "
    "and minima, so losses are not matched: label smoothing of the same strength replaces that "
    "control, and what longer training changes is shown beside. The verdict is on the identity of "
    "the masks; whether it matters is shown by the retraining of both masks with both recipes, "
    "for Mixup alone, as the time of a laptop allows.",
    paragraph="A Deeper Dive, paragraph 4",
    chosen_by="The network of ORIGINAL, its best learning rate for plain dense networks, and a "
    "density at which tickets beat shuffled masks.",
)
TEST = "test_accuracy_final"
SMOOTH, MIXED = "label smoothing", ("mixup", "cutmix")


def get_config(size: str = "laptop") -> ConfigDict:
    """An MLP 40-90-90-10 on MNIST-1D, tickets at an eighth of the weights."""
    common.check_size(size)
    config = common.mnist1d(seeds=32)
    config.experiment.train.update(steps=500)
    config.experiment.prune.update(rate=0.5, levels=3)
    config.experiment.control_levels = (3,)
    config.study = common.numbers(
        delta=0.05,  # of Cohen's kappa
        mixup=1.0,
        cutmix=0.5,
        smoothing=0.25,  # the mean of min(λ, 1 − λ) of Mixup and of CutMix
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config, steps=5000)
        config.study.setup += (
            " A null would mean that at this size the recipe does not choose the weights."
        )
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Tickets of every recipe on two data orders from each initialisation, and their agreement."""
    study, name = config.study, PROTOCOL.claim
    ladder = runner.ladders(name, {"plain": config})
    steps = config.experiment.train.steps
    recipes = {
        "plain": config,
        "longer": vary(config, train__steps=2 * steps),
        SMOOTH: vary(config, train__label_smoothing=study.smoothing),
        "mixup": vary(config, train__mixup=study.mixup),
        "cutmix": vary(config, train__cutmix=study.cutmix),
    }
    origins = runner.origins(name, config)
    found = {recipe: _tickets(runner, one, origins) for recipe, one in recipes.items()}
    within = {recipe: member_kappas(*pair) for recipe, pair in found.items()}

    def between(one: str, other: str) -> NDArray[np.float64]:
        (a, b), (c, d) = found[one], found[other]
        return (member_kappas(a, d) + member_kappas(b, c)) / 2

    def differ(one: str, other: str) -> Primary:
        values = (within[one] + within[other]) / 2 - between(one, other)
        return Primary(f"κ within − between, {one} and {other}", values, study.delta, "κ")

    accuracy = {arm: 100 * ladder.of("plain", arm, TEST) for arm in ("dense", "ticket", "shuffle")}
    trained = len(origins) * 2 * config.experiment.prune.levels * (len(recipes) + 1)
    return Evidence(
        primaries=[differ(recipe, SMOOTH) for recipe in MIXED],
        rows=[
            *arm_rows("κ within", within),
            *arm_rows("κ with plain", {recipe: between(recipe, "plain") for recipe in found}),
        ],
        secondary=[
            *(differ(recipe, "plain") for recipe in ("longer", SMOOTH, *MIXED)),
            _crossed(runner, recipes, origins, found, accuracy["dense"]),
        ],
        gate=accuracy["ticket"] - accuracy["shuffle"],
        member_steps=ladder.member_steps + (trained + 4 * len(origins)) * steps,
    )


def _tickets(
    runner: StudyRunner, config: ConfigDict, origins: Sequence[Start]
) -> tuple[Mask, Mask]:
    """The masks of iterative pruning with rewinding on two data orders, member by member."""
    root, n, levels = runner.seeds(config).root, len(origins), config.experiment.prune.levels
    starts = [*origins, *origins]
    for level in range(levels):
        ordered = [start.reordered(root, 2 * level + i // n) for i, start in enumerate(starts)]
        trained = runner.retrain(PROTOCOL.claim, config, ordered)
        masks = largest_weights(trained.params, (1 - config.experiment.prune.rate) ** (level + 1))
        starts = [one._replace(mask=trees.index(masks, i)) for i, one in enumerate(starts)]
    return trees.index(masks, slice(n)), trees.index(masks, slice(n, None))


def _crossed(
    runner: StudyRunner,
    recipes: Mapping[str, ConfigDict],
    origins: Sequence[Start],
    found: Mapping[str, tuple[Mask, Mask]],
    dense: NDArray[np.float64],
) -> Primary:
    """Accuracy with the mask of the same recipe minus that with the other's; 2 × 2."""
    both = (SMOOTH, "mixup")
    starts = {
        mask: [one._replace(mask=trees.index(found[mask][0], i)) for i, one in enumerate(origins)]
        for mask in both
    }
    gains = []
    for own, other in (both, both[::-1]):
        trained = runner.retrain_arms(PROTOCOL.claim, recipes[own], starts)
        accuracy = {mask: 100 * one.results[TEST] for mask, one in trained.items()}
        ahead = relative(accuracy | {"dense": dense})
        gains.append(
            ahead(own, other, name="test accuracy, mask of one's own recipe − the other's")
        )
    return gains[0]._replace(values=np.mean([gain.values for gain in gains], axis=0))


def controls(config: ConfigDict) -> list[Control]:
    """Least squares on 24 neighbouring features: Mixup keeps its minimiser, CutMix does not."""
    mixup, cutmix = draws(kappas_lost, range(700, 700 + config.study.control_seeds)).T
    return [
        Control(name, expected, [Primary("κ lost", lost, config.study.delta, "κ")])
        for name, expected, lost in (
            ("Mixup in least squares shrinks all moments alike", NOT_SUPPORTED, mixup),
            ("CutMix in least squares breaks the correlation of neighbours", SUPPORTED, cutmix),
        )
    ]


draw = functools.partial(tidy.by_arm, metrics=("κ within", "κ with plain"), label="Cohen's κ")

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
