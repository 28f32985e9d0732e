"""C10: pruned attention is more focused."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments import networks
from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner, vary
from lth_jax import models, trees
from lth_jax.measures.attention import random_entropies
from lth_jax.measures.claims import Contrasts, Control, Evidence, Primary, Protocol, arm_rows, draws
from lth_jax.measures.intervals import sign_flip_interval
from lth_jax.measures.verdicts import REVERSED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.report.cells import LAST
from lth_jax.types import DENSE, TICKET

PROTOCOL = Protocol(
    claim="C10",
    title="Attention and its entropy",
    says="Where attention scores are pruned and the network trained on, attention becomes less "
    "diffuse: its entropy falls, which makes it easier to read.",
    question="A trained network is trained on with each query's four largest scores of sixteen: "
    "is its attention more focused than that of its twin trained on with all of them, and more "
    "than the cut alone would make it?",
    setup="A Transformer encoder of one layer, four heads and width 32 names the one marked symbol "
    "of sixteen; 1,000 sequences of its own for every seed, Adam, 300 steps and 300 more, one "
    "learning rate for all, which would change attention too; weight tickets by magnitude pruning "
    "in two rounds to density .06, rewound to the start.",
    arms=("dense", "dense, cut", "top 4", "weight ticket"),
    statistic="entropy of attention in nats, mean over layers, heads, queries and 256 test "
    "sequences: DENSE minus TOP 4, and DENSE CUT (no training after the cut) minus TOP 4; by seed",
    rule="Both differences are at least δ. The first alone is nearly arithmetic: four keys cannot "
    "have more than ln 4 nats.",
    expects="The first holds; that training on sharpens what is left is doubtful.",
    limits="One layer and one task in which a single key matters; language spreads its attention. "
    "Weight tickets are the second arm, for which the literature expects no change; where they do "
    "not beat shuffled masks, nothing is said of them. (At density .25, in a first run, shuffled "
    "masks were as good; .06 was chosen on pilot seeds for tickets to be better.)",
)
ACCURACY = "test_accuracy_final"
MASS = "mass on the marked key"
Values = NDArray[np.float64]
Seen = Mapping[str, Values]


def get_config(size: str = "laptop") -> ConfigDict:
    """A Transformer of one layer and four heads on sequences of 16 tokens, one of them marked."""
    common.check_size(size)
    config = common.ladder(seeds=48)
    experiment = config.experiment
    experiment.data.update(name="marked_recall", validation=500)
    experiment.data.options = ConfigDict(
        {"symbols": 16, "length": 16, "train": 48 * 1000 + 500, "test": 2000, "data_seed": 3}
    )
    experiment.model.name = "transformer_encoder"
    experiment.model.options = ConfigDict(
        {"width": 32, "layers": 1, "heads": 4, "hidden": 64, "vocabulary": 32, "classes": 16}
    )
    experiment.train.update(steps=300, eval_every=150, batch_size=32, share=1000)
    experiment.optimizer.learning_rate = 3e-3
    experiment.prune.update(scope="layerwise", rate=0.75, levels=2)
    experiment.controls = ("shuffle",)
    experiment.control_levels = (2,)
    config.study = common.numbers(
        delta=0.1,  # nats
        top_k=4,
        examples=256,  # examples of the test set for attention
        control_seeds=48,
    )
    if size == "full":
        common.longer(config, 5000, width=128, layers=4, hidden=512)
        config.study.setup += " Sequences stay made: there it is known where attention belongs."
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Continues the dense networks with and without pruned scores, and measures attention."""
    name = PROTOCOL.claim
    ladder = runner.ladders(name, {"plain": config})
    cut = vary(config)
    cut.experiment.model.options.top_k = config.study.top_k
    dense = runner.networks(name, config, DENSE)
    starts = [
        origin._replace(params=one.params, state=one.state)
        for origin, one in zip(runner.origins(name, config), dense, strict=True)
    ]
    once, sparse = (
        trees.stack([one.params for one in each])
        for each in (dense, runner.networks(name, config, TICKET, LAST))
    )
    whole, top = (runner.retrain(name, one, starts) for one in (config, cut))
    looked = {
        "dense": _look(runner, config, whole.params),
        "dense, cut": _look(runner, cut, whole.params),
        "top 4": _look(runner, cut, top.params),
        "weight ticket": _look(runner, config, sparse),
    }
    ticket, shuffle = (ladder.of("plain", arm, ACCURACY) for arm in (TICKET, "shuffle"))
    return evidence(
        config.study.delta,
        looked,
        before=_look(runner, config, once)["entropy"],
        gained=100 * (top.results[ACCURACY] - whole.results[ACCURACY]),
        worth=100 * (ticket - shuffle),
    )._replace(member_steps=ladder.member_steps + 2 * len(starts) * config.experiment.train.steps)


def evidence(
    delta: float, looked: Mapping[str, Seen], before: Values, gained: Values, worth: Values
) -> Evidence:
    """The evidence from the attention of every arm.

    Args:
      delta: the smallest entropy that matters, in nats.
      looked: of each arm.
      before: entropy of the dense networks that were trained once, as tickets are.
      gained: test accuracy of TOP 4 over DENSE, in points.
      worth: that of weight tickets over shuffled masks.
    """
    ticket, once = "weight ticket", "dense after one training"
    metrics = {m: {arm: seen[m] for arm, seen in looked.items()} for m in ("entropy", MASS)}
    less = Contrasts(metrics["entropy"] | {once: before}, "nats", delta, "entropy, ")
    return Evidence(
        primaries=[
            less("dense", "top 4"),
            less("dense, cut", "top 4", name="entropy, dense cut − top 4"),
        ],
        rows=[row for metric, arms in metrics.items() for row in arm_rows(metric, arms)],
        secondary=[
            Contrasts(metrics[MASS], "", 0.05, f"{MASS}, ")("top 4", "dense"),
            Primary("test accuracy, top 4 − dense", gained, 1.0, "points"),
            less(once, ticket),
            Primary(f"{ticket} − shuffle, test accuracy", worth, 1.0, "points"),
        ],
        notes=(premise(worth),),
    )


def premise(worth: Values) -> str:
    """The premise that weight tickets exist; pruned scores do not need it."""
    low = sign_flip_interval(worth, rng=np.random.default_rng(10)).low
    how = "are tickets: they beat" if low > 0 else "say nothing about tickets: they do not beat"
    return f"The weight tickets {how} shuffled masks."


def _look(runner: StudyRunner, config: ConfigDict, params: Any) -> dict[str, Values]:
    """Entropy in nats and the mass on the marked key, one number per network."""
    module, task = networks.module(config.experiment), runner.task(config)
    x = jnp.asarray(task.data.test.x[: config.study.examples])
    marked = x >= config.experiment.data.options.symbols
    like, state = task.shapes

    @jax.jit
    def look(named: Any) -> tuple[jax.Array, jax.Array]:
        one = trees.from_named(named, like)
        layers = models.attention_probabilities(module, one, state, x).values()
        seen = jnp.stack(list(layers))
        entropy = jnp.sum(jax.scipy.special.entr(seen), axis=-1)
        return jnp.mean(entropy), jnp.mean(jnp.sum(seen * marked[:, None, None], axis=-1))

    entropy, mass = jax.lax.map(look, jax.tree.map(jnp.asarray, params))
    return {"entropy": np.asarray(entropy), MASS: np.asarray(mass)}


def controls(config: ConfigDict) -> list[Control]:
    """Cutting scores lowers entropy for certain; cutting random query and key weights raises it."""
    study = config.study
    seeds = range(500, 500 + study.control_seeds)
    whole, cut, pruned = draws(lambda rng: random_entropies(rng, study.top_k), seeds).T
    return [
        Control(name, expected, [Primary("entropy lost", whole - other, study.delta, "nats")])
        for name, expected, other in (
            ("the largest scores of random ones (majorisation)", SUPPORTED, cut),
            (
                "the largest fifth of random query and key weights, untrained: scores shrink",
                REVERSED,
                pruned,
            ),
        )
    ]


draw = functools.partial(tidy.by_arm, metrics=("entropy", MASS), label="nats; share")

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
