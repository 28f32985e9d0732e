"""C9: Mixup and CutMix change the ticket."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner, vary
from lth_jax import trees
from lth_jax.lottery import Start
from lth_jax.measures.claims import Control, Evidence, Primary, Protocol, arm_rows, draws
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
    question="From one initialisation, do the masks of a plain and of a mixed training agree less "
    "than those of two plain trainings on different data orders, by more than training twice as "
    "long changes them?",
    setup="Digits of 8 × 8 pixels, an MLP 64-64-64-10 with Adam, 500 steps, one learning rate for "
    "all, which would change masks too; masks are the largest tenth of the weights of each layer "
    "at the end.",
    arms=("plain", "longer", "label smoothing", "mixup", "cutmix"),
    statistic="Cohen's κ between the masks of a recipe and of plain training on another data "
    "order, in both directions, subtracted from that of two plain trainings; per initialisation",
    rule="For Mixup and for CutMix the loss of agreement is at least δ, and larger than that of "
    "plain training for twice as many steps (four parts, all must hold).",
    expects="A small shift that longer training or label smoothing may mimic.",
    limits="Identity of masks, not their quality, which the cross-retraining shows; digits are "
    "easy, and all seeds share one data set.",
)
TEST = "test_accuracy_final"


def get_config(size: str = "laptop") -> ConfigDict:
    """An MLP 64-64-64-10 on digits, one-shot tickets at a tenth of the weights."""
    common.check_size(size)
    config = common.ladder(seeds=48)
    experiment = config.experiment
    experiment.data.update(name="digits", validation=200)
    experiment.model.options.features = (64, 64, 10)
    experiment.train.update(steps=500, eval_every=250, batch_size=64)
    experiment.optimizer.learning_rate = 3e-3
    experiment.prune.update(scope="layerwise", rate=0.9, levels=1)
    experiment.controls = ("shuffle",)
    config.study = common.numbers(
        delta=0.05,  # of Cohen's kappa
        mixup=0.4,
        cutmix=1.0,
        smoothing=0.1,
        control_seeds=64,
    )
    if size == "full":
        common.lenet(config, steps=5000)
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Trains every recipe on two data orders from each initialisation, and compares masks."""
    study, name = config.study, PROTOCOL.claim
    ladder = runner.ladders(name, {"plain": config})
    recipes = {
        "plain": config,
        "longer": vary(config, train__steps=2 * config.experiment.train.steps),
        "label smoothing": vary(config, train__label_smoothing=study.smoothing),
        "mixup": vary(config, train__mixup=study.mixup),
        "cutmix": vary(config, train__cutmix=study.cutmix),
    }
    origins, root = runner.origins(name, config), runner.seeds(config).root
    n, starts = len(origins), origins + [start.reordered(root) for start in origins]
    kept = 1 - config.experiment.prune.rate
    found = {
        recipe: largest_weights(runner.retrain(name, one, starts).params, kept)
        for recipe, one in recipes.items()
    }
    first = largest_weights(trees.stack([start.params for start in origins]), kept)

    def agreement(recipe: str) -> NDArray[np.float64]:
        """Agreement of plain training and a recipe on the other order, in both directions."""
        other = trees.index(found[recipe], np.roll(np.arange(2 * n), n))
        return member_kappas(found["plain"], other).reshape(2, n).mean(axis=0)

    agreed = {recipe: agreement(recipe) for recipe in recipes}
    lost = {recipe: agreed["plain"] - values for recipe, values in agreed.items()}
    initial = member_kappas(first, trees.index(found["plain"], slice(n)))
    ticket, shuffle = (100 * ladder.of("plain", arm, TEST) for arm in ("ticket", "shuffle"))
    mixed, delta = ("mixup", "cutmix"), study.delta
    return Evidence(
        primaries=[
            *(Primary(f"κ lost by {r}", lost[r], delta, "κ") for r in mixed),
            *(
                Primary(f"κ lost by {r} beyond longer", lost[r] - lost["longer"], 0.0, "κ")
                for r in mixed
            ),
        ],
        rows=arm_rows("agreement", agreed),
        secondary=[
            Primary("κ lost by training longer", lost["longer"], delta, "κ"),
            Primary("κ lost by label smoothing", lost["label smoothing"], delta, "κ"),
            Primary("κ of a mask with that of |w₀|", initial, delta, "κ"),
            Primary(
                "own mask − the other's, when retrained",
                _crossed(runner, recipes, origins, found),
                0.5,
                "points",
            ),
        ],
        gate=ticket - shuffle,
        member_steps=ladder.member_steps
        + len(starts) * len(recipes) * config.experiment.train.steps,
    )


def _crossed(
    runner: StudyRunner,
    recipes: Mapping[str, ConfigDict],
    origins: Sequence[Start],
    found: Mapping[str, Mask],
) -> NDArray[np.float64]:
    """Accuracy with the mask of the same recipe minus that with the other's; 2 × 2."""
    both = ("plain", "mixup")
    starts = {
        mask: [one._replace(mask=trees.index(found[mask], i)) for i, one in enumerate(origins)]
        for mask in both
    }
    gains = []
    for own, other in (both, both[::-1]):
        arms = {mask: starts[mask] for mask in (own, other)}
        trained = runner.retrain_arms(PROTOCOL.claim, recipes[own], arms)
        accuracy = {mask: 100 * one.results[TEST] for mask, one in trained.items()}
        gains.append(accuracy[own] - accuracy[other])
    return np.mean(gains, axis=0)


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


draw = functools.partial(
    tidy.by_arm, metrics=("agreement",), label="Cohen's κ with a plain ticket of another data order"
)

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
