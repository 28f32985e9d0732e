"""C9: Mixup and CutMix change the ticket."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.common import vary
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner
from lth_jax import trees
from lth_jax.lottery import Start
from lth_jax.measures.claims import (
    Contrasts,
    Control,
    Evidence,
    Primary,
    Protocol,
    arm_rows,
    draws,
    relative,
)
from lth_jax.measures.matching import at_loss
from lth_jax.measures.mixing import kappas_lost
from lth_jax.measures.overlap import kappas_apart, kappas_between, member_kappas
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
    "smoothing of the same strength, after as many steps and at the same training loss, by more "
    "than tickets of one recipe differ between data orders?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, an MLP 40-90-90-10 with Adam, 500 "
    "steps; magnitude pruning in three rounds of half within layers, rewound to the start.",
    arms=("plain", "longer", "label smoothing", "mixup", "cutmix"),
    statistic="κ within minus κ between: Cohen's κ of the masks of two data orders, mean of both "
    "recipes, minus that of a mask of one recipe and one of the other on the other data order, "
    "mean of both directions; per initialisation. It is 0 if the masks have one distribution",
    rule="For Mixup against label smoothing, and for CutMix against it, after as many steps and at "
    "equal loss, the difference is at least δ, .05 of κ: a twentieth of the largest agreement "
    "beyond chance. Mixup (α = 1), CutMix (α = .5) and smoothing (.25) move the same mean share of "
    "the label. The loss is the cross-entropy on unmixed examples and labels of the networks that "
    "are pruned last; smoothing is interpolated between four numbers of steps. All recipes have "
    "one learning rate, since a rate changes masks, too.",
    expects="A small shift: longer training or label smoothing may have most of it. At equal loss "
    "it is larger, since smoothing then trains for fewer steps, which moves weights less.",
    limits="One network, one learning rate. At equal loss, label smoothing has fewer steps: the "
    "effect includes that of the steps, as the one after as many steps includes that of the loss. "
    "The verdict is on the identity of the masks; whether it matters is shown by the retraining of "
    "both masks with both recipes, for Mixup alone, as the time of a laptop allows.",
    paragraph="A Deeper Dive, paragraph 4",
    chosen_by="The network of ORIGINAL, its best learning rate for plain dense networks, and a "
    "density at which tickets beat shuffled masks. The numbers of steps enclose the losses of "
    "Mixup and CutMix on other seeds and data.",
)
TEST, LOSS = "test_accuracy_final", "train_loss_final"
SMOOTH, MIXED = "label smoothing", ("mixup", "cutmix")
Values = NDArray[np.float64]


class Tickets(NamedTuple):
    """The tickets of one recipe.

    Attributes:
      masks: of two data orders, with a leading axis of initialisations.
      loss: training loss of the networks that were pruned last, mean of both orders.
    """

    masks: tuple[Mask, Mask]
    loss: Values


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
        shares=(0.125, 0.25, 0.5),  # of the steps, after which label smoothing is measured, too
        series=1,
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
    smooth = vary(config, train__label_smoothing=study.smoothing)
    recipes = {
        "plain": config,
        "longer": vary(config, train__steps=2 * steps),
        SMOOTH: smooth,
        "mixup": vary(config, train__mixup=study.mixup),
        "cutmix": vary(config, train__cutmix=study.cutmix),
    }
    shorter = [vary(smooth, train__steps=max(round(share * steps), 1)) for share in study.shares]
    origins = runner.origins(name, config)
    found = {recipe: _tickets(runner, one, origins) for recipe, one in recipes.items()}
    less = [*(_tickets(runner, one, origins) for one in shorter), found[SMOOTH]]
    within = {recipe: member_kappas(*one.masks) for recipe, one in found.items()}

    def differ(one: str, other: str) -> Primary:
        values = kappas_apart(found[one].masks, found[other].masks)
        return Primary(f"κ within − between, {one} and {other}", values, study.delta, "κ")

    def differ_at_loss(one: str) -> Primary:
        differences = [kappas_apart(found[one].masks, each.masks) for each in less]
        values = at_loss(found[one].loss, [each.loss for each in less], differences)
        name = f"κ within − between, {one} and {SMOOTH} at its loss"
        return Primary(name, values, study.delta, "κ")

    plain = found["plain"].masks
    losses = {recipe: one.loss for recipe, one in found.items()}
    costs = Contrasts(losses, "nats", 0.1, "training loss, ", two_sided=True)
    accuracy = {arm: 100 * ladder.of("plain", arm, TEST) for arm in ("dense", "ticket", "shuffle")}
    trained = 2 * len(origins) * config.experiment.prune.levels
    relative_steps = len(recipes) + 1 + sum(study.shares)
    return Evidence(
        primaries=[
            *(differ(recipe, SMOOTH) for recipe in MIXED),
            *(differ_at_loss(recipe) for recipe in MIXED),
        ],
        rows=[
            *arm_rows("κ within", within),
            *arm_rows(
                "κ with plain",
                {arm: kappas_between(one.masks, plain) for arm, one in found.items()},
            ),
        ],
        secondary=[
            *(differ(recipe, "plain") for recipe in ("longer", SMOOTH, *MIXED)),
            *(costs(recipe, SMOOTH) for recipe in MIXED),
            _crossed(runner, recipes, origins, found, accuracy["dense"]),
        ],
        gate=accuracy["ticket"] - accuracy["shuffle"],
        member_steps=ladder.member_steps
        + round((trained * relative_steps + 4 * len(origins)) * steps),
        notes=tuple(_range(one, found[one].loss, less) for one in MIXED),
    )


def _range(recipe: str, loss: Values, smoothed: Sequence[Tickets]) -> str:
    losses = np.array([one.loss for one in smoothed])
    inside = np.sum((losses.min(axis=0) <= loss) & (loss <= losses.max(axis=0)))
    means = ", ".join(f"{mean:.2f}" for mean in losses.mean(axis=1))
    return (
        f"Training loss of {recipe} {loss.mean():.2f} nats, of label smoothing after each number "
        f"of steps {means}; {inside} of {loss.size} seeds lie between them."
    )


def _tickets(runner: StudyRunner, config: ConfigDict, origins: Sequence[Start]) -> Tickets:
    """Iterative pruning with rewinding on two data orders."""
    root, n, levels = runner.seeds(config).root, len(origins), config.experiment.prune.levels
    starts = [*origins, *origins]
    for level in range(levels):
        ordered = [start.reordered(root, 2 * level + i // n) for i, start in enumerate(starts)]
        trained = runner.retrain(PROTOCOL.claim, config, ordered)
        masks = largest_weights(trained.params, (1 - config.experiment.prune.rate) ** (level + 1))
        starts = [one._replace(mask=trees.index(masks, i)) for i, one in enumerate(starts)]
    halves = trees.index(masks, slice(n)), trees.index(masks, slice(n, None))
    return Tickets(halves, trained.results[LOSS].reshape(2, n).mean(axis=0))


def _crossed(
    runner: StudyRunner,
    recipes: Mapping[str, ConfigDict],
    origins: Sequence[Start],
    found: Mapping[str, Tickets],
    dense: Values,
) -> Primary:
    """Accuracy with the mask of the same recipe minus that with the other's; 2 × 2."""
    both = (SMOOTH, "mixup")
    starts = {
        mask: [
            one._replace(mask=trees.index(found[mask].masks[0], i)) for i, one in enumerate(origins)
        ]
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

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw, minutes=5))
