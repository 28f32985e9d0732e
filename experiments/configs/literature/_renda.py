"""Rewinding, fine-tuning and reinitialisation of networks for CIFAR, as Renda et al. (2020)."""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import literature
from lth_jax.measures.expected import Expected, Networks, accuracies

SOURCE = "Renda et al. (2020)"
EPOCHS, REWIND = 182, 32  # the levels retrain for 150 epochs
RUNS = {
    "wr": "weight rewinding",
    "wr-init": "weight rewinding to the start",
    "lrr": "learning-rate rewinding",
    "fine-tuning": "fine-tuning",
}
ONE_SHOT = {**RUNS, "one-shot": "one shot"}
SETTING = (
    "SGD with Nesterov momentum 0.9, batches of 128, a rate of 0.1 that falls to a tenth after 91 "
    "and 136 of 182 epochs, weight decay 2e-4, crops and mirrored images; 20 % of the weights are "
    "pruned over the whole network in each level, which retrains for 150 epochs; 3 replicates. "
    "The weight decay is that of the authors' code (lottery-ticket/rewinding-iclr20-public). "
)


def configs(
    model: str,
    size: str,
    family: str,
    small: dict[str, Any],
    densities: tuple[float, ...],
    *,
    replicates: int = 5,
) -> dict[str, ConfigDict]:
    """The ladder of each way of retraining, and reinitialised one-shot tickets.

    Args:
      model: the network at full size, which the recipe is named after.
      size: `"short"` or `"full"`.
      family: the network at short size.
      small: its options.
      densities: of the one-shot tickets; none if empty.
      replicates: at short size.
    """
    found = {run: literature.ladder(model, run) for run in RUNS}
    shots = {f"one-shot@{d}": literature.ladder(model, f"one-shot@{d}") for d in densities}
    for config in [*found.values(), *shots.values()]:
        _train(config.experiment, model, size, family, small)
        if size == literature.SHORT:
            config.experiment.replicates = replicates
    steps = found["wr"].experiment.train.steps
    step = round(steps * REWIND / EPOCHS)
    found["wr"].experiment.rewind.step = step
    found["lrr"].experiment.rewind.update(what="learning_rate", step=step, state="keep")
    found["fine-tuning"].experiment.rewind.update(what="nothing", step=step, state="keep")
    for density, config in zip(densities, shots.values(), strict=True):
        config.experiment.prune.update(schedule="one_shot", final=density, levels=1)
        config.experiment.controls = ("reinit",)
    return found | shots


def _train(
    experiment: ConfigDict, model: str, size: str, family: str, small: dict[str, Any]
) -> None:
    experiment.replicates = 3
    literature.images(experiment)
    experiment.model.name, experiment.model.options = model, ConfigDict()
    literature.epochs(experiment, EPOCHS, 128)
    literature.sgd(experiment, 0.1, 2e-4)
    experiment.prune.update(scope="globally", rate=0.2, levels=10)
    if size == literature.SHORT:
        literature.signals(experiment, family, **small)
        experiment.train.update(steps=728, eval_every=104, batch_size=100)
        experiment.prune.update(rate=1 - 0.8**3, levels=4)


def curves(rows: dict[str, dict[float, float]], source: str, spread: float) -> list[Expected]:
    """The table of the paper, by run; `"reinit"` is that of one-shot tickets."""
    return [
        one
        for run, points in rows.items()
        for one in accuracies(
            points,
            source,
            run="one-shot" if run == "reinit" else run,
            arm="reinit" if run == "reinit" else "ticket",
            spread=spread,
        )
    ]


def shapes(density: float, *, reinit: bool) -> list[Expected]:
    """The order of the methods at a density, and their distance to dense networks."""
    at = {run: Networks("ticket", density, run) for run in RUNS}
    found = [
        Expected(at["wr"], SOURCE, at["wr-init"], low=0.0),
        Expected(at["lrr"], SOURCE, at["wr-init"], low=0.0),
        Expected(at["lrr"], SOURCE, at["wr"], low=-0.005),
        Expected(at["lrr"], SOURCE, at["fine-tuning"], low=0.0),
        Expected(at["lrr"], SOURCE, Networks("dense"), low=-0.01),
    ]
    if reinit:
        other = Networks("reinit", density, "one-shot")
        found.append(Expected(at["wr"], SOURCE, other, low=0.0))
    return found
