"""Controls that run through the pipeline: data with a planted ticket, nulls, and broken stages.

A sparse teacher labels the data, so that tickets exist and their verdict is known. The same ladders
then run with random labels, and with one stage broken: the verdict must change. A pipeline without
masks, rewinding or magnitudes would fail here, whereas closed-form controls test the statistics
alone. `pipeline_controls` returns them all; the atlas judges them at α = .001. They take
about a minute of two cores, so the smoke size leaves them out.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.common import vary
from experiments.studies.study_runner import StudyRunner
from lth_jax.lottery import Retrained, Start
from lth_jax.measures.claims import Contrasts, Control, Primary, Protocol
from lth_jax.measures.verdicts import BELOW, NOT_SUPPORTED, REVERSED, SUPPORTED
from lth_jax.pruning.methods import Inputs, Method, static

NAME, TEST, LOSS = "PIPELINE", "test_accuracy_final", "train_loss_final"
TEACHER = {"inputs": 20, "hidden": 16, "classes": 4, "density": 0.1}  # two inputs for each unit
SOUND, NOISY, BY_POSITION, UNMASKED, TRAINED = "sound", "labels", "position", "unmasked", "trained"
Values = NDArray[np.float64]


def get_config(size: str = "laptop") -> ConfigDict:
    """An MLP 20-64-4 at density .125 on 1,000 examples of its own for every seed, 300 steps."""
    common.check_size(size)
    seeds, share = 96, 1000
    config = common.ladder(seeds)
    experiment = config.experiment
    sizes = {"train": seeds * share + 200, "test": 4000, "data_seed": 9}
    experiment.data.update(name="planted", validation=200, options=ConfigDict(TEACHER | sizes))
    experiment.model.options.features = (64, 4)
    experiment.train.update(steps=300, eval_every=300, batch_size=64, share=share)
    experiment.optimizer.learning_rate = 1e-2
    experiment.prune.update(scope="layerwise", rate=0.5, levels=3)
    experiment.controls, experiment.control_levels = ("reinit", "shuffle"), (3,)
    config.study = common.numbers(
        delta=2.75,  # points of test accuracy, ticket − reinit and ticket − shuffle
        chance=4.0,  # points with random labels, where networks differ more between seeds
        repeat=0.01,  # nats of training loss between two trainings of one ticket
    )
    return config


PROTOCOL = Protocol(
    claim=NAME,
    title="The pipeline",
    says="The same code that trains all studies finds tickets where they exist, finds none where "
    "they cannot, and gives another verdict when a stage is broken.",
    question="Do seven ladders with known verdicts receive those verdicts?",
    setup="A sparse teacher of 20 inputs and 4 classes labels 1,000 examples for every seed; an "
    "MLP 20-64-4 with Adam, 300 steps; magnitude pruning in three rounds by half.",
    arms=("dense", "ticket", "reinit", "shuffle"),
    statistic="differences of test accuracy in points, and of training loss in nats",
    rule="Each control is judged by the rule of the studies at α = .001. If one is judged wrong, "
    "all studies are void.",
    expects="All seven are judged right.",
    limits="A broken stage that changes every accuracy by less than a point is not detected.",
    paragraph="None: a control of the method.",
    chosen_by="Teachers and seeds of their own; the number of steps at which masks that are not "
    "applied win nothing by their first weights.",
)


def by_position(params: Any, mask: Any, **_: Any) -> Any:
    """A broken criterion: the first weights of each leaf score highest, whatever their values."""
    del mask
    return jax.tree.map(
        lambda leaf: -jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape), params
    )


def unmasked(**options: Any) -> Method:
    """A broken method: the mask applies to the first weights, and not in training."""
    sound = static(**options)

    def transform(inner: optax.GradientTransformation, inputs: Inputs) -> Any:
        everything = jax.tree.map(jnp.ones_like, inputs.mask)
        return sound.transform(inner, inputs._replace(mask=everything))

    return Method("unmasked", transform, sound.effective, sound.final, starts_dense=False)


def pipeline_controls(runner: StudyRunner, config: ConfigDict) -> list[Control]:
    """Trains sound and broken ladders, and returns the controls."""
    study = config.study
    runs = _cells(config)
    found = runner.ladders(NAME, runs)

    def arms(cell: str) -> dict[str, Values]:
        names = ("dense", "ticket", *runs[cell].experiment.controls)
        return {arm: 100 * found.of(cell, arm, TEST) for arm in names}

    def repeated(cell: str, again: Retrained) -> list[Primary]:
        losses = {"retrained": again.results[LOSS], "ladder": found.of(cell, "ticket", LOSS)}
        ahead = Contrasts(losses, "nats", study.repeat, "ticket's training loss, ")
        return [ahead("retrained", "ladder")]

    again, other = _retrained(runner, config)
    again_trained, _ = _retrained(runner, runs[TRAINED])
    sound, noisy = arms(SOUND), Contrasts(arms(NOISY), "points", study.chance)
    return [
        Control("a planted ticket", SUPPORTED, _wins(sound, study.delta)),
        Control("random labels: no ticket", NOT_SUPPORTED, [noisy("ticket", "shuffle")]),
        Control("the ticket again, in another data order", NOT_SUPPORTED, repeated(SOUND, again)),
        Control(
            "broken: the mask is not applied in training",
            NOT_SUPPORTED,
            _wins(arms(UNMASKED), study.delta),
            also=(BELOW,),
        ),
        Control(
            "broken: rewound to another network's values",
            NOT_SUPPORTED,
            _wins(sound | {"ticket": 100 * other.results[TEST].astype(float)}, study.delta),
            also=(BELOW,),
        ),
        Control(
            "broken: trained values instead of rewound ones",
            SUPPORTED,
            repeated(TRAINED, again_trained),
        ),
        Control("broken: pruned by position", REVERSED, _wins(arms(BY_POSITION), study.delta)),
    ]


def _cells(config: ConfigDict) -> dict[str, ConfigDict]:
    return {
        SOUND: config,
        NOISY: vary(config, train__label_noise=1.0, controls=("shuffle",)),
        BY_POSITION: vary(config, prune__criterion=f"{__name__}:by_position"),
        UNMASKED: vary(config, prune__method=f"{__name__}:unmasked"),
        TRAINED: vary(config, rewind__what="learning_rate", controls=()),
    }


def _wins(arms: Mapping[str, Values], delta: float) -> list[Primary]:
    """The parts of a winning ticket: as good as the dense network, better than both controls."""
    ahead = Contrasts(arms, "points", delta)
    return [ahead("ticket", "dense", 0.0), ahead("ticket", "reinit"), ahead("ticket", "shuffle")]


def _retrained(runner: StudyRunner, config: ConfigDict) -> tuple[Retrained, Retrained]:
    """A cell's tickets, retrained in another data order from two starts.

    Returns:
      From the replicate's own initial values, and from those of the next replicate.
    """
    root = runner.seeds(config).root
    own = [one.reordered(root) for one in runner.starts(NAME, config, ("ticket",))["ticket"]]
    initial = [one.params for one in runner.origins(NAME, config)]
    pairs = zip(own, initial[1:] + initial[:1], strict=True)
    starts = {"own": own, "other": [_from(start, values) for start, values in pairs]}
    trained = runner.retrain_arms(NAME, config, starts)
    return trained["own"], trained["other"]


def _from(start: Start, values: Mapping[str, Any]) -> Start:
    """The start with other values under its mask."""
    return start._replace(params={leaf: value * start.mask[leaf] for leaf, value in values.items()})
