"""C9: Mixup and CutMix change the ticket."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments.configs.studies import c09
from experiments.studies.agreement import at, kappa, largest, stacked
from experiments.studies.protocol import STUDIES, Control, Evidence, Primary, Protocol, Row, Study
from experiments.studies.starts import Start
from experiments.studies.study_runner import StudyRunner, vary
from lth_jax.keys import derive, from_seed
from lth_jax.measures.mixing import mixed_least_squares
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import tidy

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


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Trains every recipe on two data orders from every initialisation, and compares masks."""
    study, name = config.study, PROTOCOL.claim
    ladder = runner.ladders(name, {"plain": config})
    recipes = {
        "plain": config,
        "longer": vary(config, train__steps=2 * config.experiment.train.steps),
        "label smoothing": vary(config, train__label_smoothing=study.smoothing),
        "mixup": vary(config, train__mixup=study.mixup),
        "cutmix": vary(config, train__cutmix=study.cutmix),
    }
    origins = runner.origins(name, config)
    starts = origins + [_reordered(start, config) for start in origins]
    trained = {recipe: runner.retrain(name, one, starts) for recipe, one in recipes.items()}
    kept = 1 - config.experiment.prune.rate
    found = {recipe: largest(arrays["params"], kept) for recipe, arrays in trained.items()}
    first = largest(stacked(origins), kept)

    def agreement(recipe: str, i: int) -> float:
        """Between a recipe and plain training on the other order."""
        n = len(origins)
        pairs = [(i, n + i)] if recipe == "plain" else [(i, n + i), (n + i, i)]
        each = [kappa(at(found["plain"], a), at(found[recipe], b)) for a, b in pairs]
        return float(np.mean(each))

    agreed = {r: np.array([agreement(r, i) for i in range(len(origins))]) for r in recipes}
    lost = {recipe: agreed["plain"] - values for recipe, values in agreed.items()}
    crossed = _crossed(runner, recipes, origins, found)
    initial = np.array([kappa(at(first, i), at(found["plain"], i)) for i in range(len(origins))])
    rows = [
        {"arm": recipe, "replicate": i, "metric": "agreement", "value": float(value)}
        for recipe, values in agreed.items()
        for i, value in enumerate(values)
    ]
    n = len(starts) * len(recipes) * config.experiment.train.steps
    return Evidence(
        primaries=[
            *(Primary(f"κ lost by {r}", lost[r], study.delta, "κ") for r in ("mixup", "cutmix")),
            *(
                Primary(f"κ lost by {r} beyond longer", lost[r] - lost["longer"], 0.0, "κ")
                for r in ("mixup", "cutmix")
            ),
        ],
        rows=rows,
        secondary=[
            Primary("κ lost by training longer", lost["longer"], study.delta, "κ"),
            Primary("κ lost by label smoothing", lost["label smoothing"], study.delta, "κ"),
            Primary("κ of a mask with that of |w₀|", initial, study.delta, "κ"),
            Primary("own mask − the other's, when retrained", crossed, 0.5, "points"),
        ],
        gate=100
        * (
            ladder.of("plain", "ticket", "test_accuracy_final")
            - ladder.of("plain", "shuffle", "test_accuracy_final")
        ),
        member_steps=ladder.member_steps + n,
    )


def _reordered(start: Start, config: ConfigDict) -> Start:
    """The same start on another data order."""
    root = from_seed(config.experiment.seed)
    return start._replace(data_key=derive(root, start.replicate, "child", 1))


def _crossed(runner: StudyRunner, recipes: Any, origins: Sequence[Start], found: Any) -> Any:
    """Accuracy under the mask of the recipe trained with, minus under the other's; 2 × 2."""
    gains = []
    for recipe, other in (("plain", "mixup"), ("mixup", "plain")):
        starts = [
            start._replace(mask=at(found[mask], i))
            for mask in (recipe, other)
            for i, start in enumerate(origins)
        ]
        results = runner.retrain(PROTOCOL.claim, recipes[recipe], starts)["results"]
        own, others = np.split(100 * results["test_accuracy_final"], 2)
        gains.append(own - others)
    return np.mean(gains, axis=0)


def controls(runner: StudyRunner, config: ConfigDict) -> list[Control]:
    """Least squares on 24 neighbouring features: Mixup keeps its minimiser, CutMix does not."""
    del runner
    rngs = [np.random.default_rng(700 + i) for i in range(config.study.control_seeds)]
    lost = np.array([_lost_by_mixing(rng) for rng in rngs])
    return [
        Control(
            "Mixup in least squares shrinks all moments alike",
            NOT_SUPPORTED,
            [Primary("κ lost", lost[:, 0], config.study.delta, "κ")],
        ),
        Control(
            "CutMix in least squares breaks the correlation of neighbours",
            SUPPORTED,
            [Primary("κ lost", lost[:, 1], config.study.delta, "κ")],
        ),
    ]


def _lost_by_mixing(rng: np.random.Generator, n: int = 200, d: int = 24) -> list[float]:
    """1 − κ between the quarter of the weights that plain and mixed least squares keep."""
    noise = rng.normal(size=(n, d))
    x = np.zeros((n, d))
    for j in range(d):  # neighbours correlate by 0.9
        x[:, j] = 0.9 * x[:, j - 1] + np.sqrt(0.19) * noise[:, j] if j else noise[:, j]
    weights = rng.permutation(np.geomspace(0.1, 3, d)) * rng.choice([-1, 1], d)
    y = x @ weights + 0.5 * rng.normal(size=n)
    x, y = x - x.mean(axis=0), y - y.mean()
    kept = []
    for kind in ("plain", "mixup", "cutmix"):
        size = np.abs(mixed_least_squares(rng, x, y, kind, rounds=200))
        kept.append({"w": (size >= np.sort(size)[-(d // 4)])[:, None]})
    return [1 - kappa(kept[0], other) for other in kept[1:]]


def draw(rows: Sequence[Row]) -> Figure:
    """How far every recipe's masks agree with those of plain training on another order."""
    return tidy.by_arm(rows, ("agreement",), "Cohen's κ with a plain ticket of another data order")


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, c09.get_config, controls, gather, draw))
