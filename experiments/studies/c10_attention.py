"""C10: tickets of attention are more focused."""

import functools
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
from lth_jax.data import text
from lth_jax.measures.attention import random_entropies
from lth_jax.measures.claims import Contrasts, Control, Evidence, Primary, Protocol, arm_rows, draws
from lth_jax.measures.matching import at_loss
from lth_jax.measures.verdicts import REVERSED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.report.cells import LAST, Results
from lth_jax.types import DENSE, TICKET

MATCHED, CUT = "dense at the ticket's loss", "dense, four largest scores"
PROTOCOL = Protocol(
    claim="C10",
    title="Attention and its entropy",
    says="The attention of a ticket is less diffuse than that of its dense parent: its entropy "
    "falls, which makes it easier to read.",
    question="Is the attention of tickets of the query and key weights more focused than that of "
    "dense networks of the same test loss?",
    setup="A causal Transformer of two layers, two heads and width 24 predicts the characters of "
    "passages that occur twice: 12 characters of Python's language reference, and the same 12 "
    "again. Every seed has 2,800 passages of its own; Adam, 2,000 steps of 8; the query and key "
    "weights alone are pruned by magnitude, in one round to density .22, and rewound to the start.",
    arms=("dense", MATCHED, TICKET, "shuffle", CUT),
    statistic="entropy of attention in nats, mean over layers, heads, queries and 256 test "
    "windows: dense minus TICKET, the dense network at the step where it has the ticket's test "
    "loss, interpolated between four numbers of steps; by seed",
    rule="The difference is at least δ, a tenth of a nat: the effective number of positions, the "
    "exponential of the entropy, falls by a tenth.",
    expects="Not supported: the attention of sparse translators hardly differs (Movva and Zhao, "
    "2020), and smaller scores are more diffuse.",
    limits="One small network and one text, which both rounds share: they differ in initial "
    "values, orders and the choice of passages. Attention to the first half decides the second. "
    "A ticket that is better than its dense parent at the end "
    "is compared with the end. All arms have one learning rate, since another changes attention, "
    "too. That the four largest scores of a query alone have less entropy is arithmetic "
    "(majorisation), and is shown without a demand.",
    paragraph="The Modern Frontier, first item",
    chosen_by="The smallest number of steps after which the dense test loss falls by less than a "
    "tenth of a nat in the last quarter, and of the densities .22 and .05 the larger at which each "
    "of four pilot networks under shuffled masks lost against its dense parent. On passages that "
    "occur once, they lost nothing: attention was not needed there.",
)
LOSS = "test_loss_final"
Values = NDArray[np.float64]


def passages(
    length: int, data_seed: int, limit: int | None = None
) -> dict[str, tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Passages of the text, each twice in a row, with the next symbols as targets.

    Args:
      length: symbols of a passage.
      data_seed: of the order of passages, the last tenth of which are the test set.
      limit: symbols of the text to use; all by default.
    """
    once = text.windows(text.standard_library(), window=length, limit=limit)
    x, last = (np.concatenate(parts) for parts in zip(once.train[:2], once.test[:2], strict=True))
    order = np.random.default_rng(data_seed).permutation(len(x))
    twice = np.concatenate([x, x, last[:, -1:]], axis=1)[order]
    x, y, train = twice[:, :-1], twice[:, 1:], len(once.train.x)
    return {"train": (x[:train], y[:train]), "test": (x[train:], y[train:])}


def get_config(size: str = "laptop") -> ConfigDict:
    """A Transformer of two layers on text, its queries and keys pruned."""
    common.check_size(size)
    config = common.ladder(seeds=12)
    experiment = config.experiment
    experiment.data.update(name="experiments.studies.c10_attention:passages", validation=800)
    experiment.data.options = ConfigDict({"data_seed": 7, "length": 12})
    experiment.model.name = "transformer_decoder"
    experiment.model.options = ConfigDict(
        {"width": 24, "layers": 2, "heads": 2, "hidden": 48, "vocabulary": 128, "classes": 128}
    )
    experiment.train.update(steps=2000, eval_every=1000, batch_size=8, share=2800)
    experiment.optimizer.learning_rate = 3e-3
    # Counts are rounded, so that a layer at this rate keeps all of its weights.
    experiment.prune.update(scope="layerwise", rate=1e-6, levels=1)
    experiment.prune.layer_rates = ConfigDict({"*/query/kernel": 0.776, "*/key/kernel": 0.776})
    experiment.controls = ("shuffle",)
    config.study = common.numbers(
        delta=0.1,  # nats
        top_k=4,
        shares=(0.125, 0.25, 0.5),  # of the steps, after which dense networks are measured, too
        examples=256,  # windows of the test set for attention
        control_seeds=48,
    )
    if size == "full":
        common.longer(config, 20_000, width=128, layers=4, hidden=512)
        config.study.setup += (
            " A null would mean that queries and keys lose three weights of four, and "
            "attention is as diffuse as before."
        )
    return config


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Tickets of queries and keys, and dense networks after several numbers of steps."""
    config = common.without_training_metrics(config)
    study, name, steps = config.study, PROTOCOL.claim, config.experiment.train.steps
    found = runner.ladders(name, {"plain": config})
    last = {arm: _last(runner, config, arm) for arm in (DENSE, TICKET, "shuffle")}
    entropy = {arm: _entropy(runner, config, params) for arm, params in last.items()}
    loss = {arm: found.of("plain", arm, LOSS) for arm in last}
    origins = runner.origins(name, config)
    shorter = [
        runner.retrain(name, vary(config, train__steps=max(round(share * steps), 1)), origins)
        for share in study.shares
    ]
    losses = np.array([*(one.results[LOSS] for one in shorter), loss[DENSE]])
    entropies = np.array([*(_entropy(runner, config, p.params) for p in shorter), entropy[DENSE]])
    cut = vary(config, model__options=config.experiment.model.options.to_dict())
    cut.experiment.model.options.top_k = study.top_k
    entropy[CUT] = _entropy(runner, cut, last[DENSE])
    matched = {arm: at_loss(loss[arm], losses, entropies) for arm in (TICKET, "shuffle")}
    entropy[MATCHED] = matched[TICKET]
    less = Contrasts(entropy, "nats", study.delta, "entropy, ")
    return Evidence(
        primaries=[less(MATCHED, TICKET)],
        rows=[*arm_rows("entropy", entropy), *arm_rows("test loss", loss)],
        secondary=[
            less(DENSE, TICKET, name="entropy, dense at the end − ticket"),
            less("shuffle", TICKET),
            Contrasts({"shuffle": entropy["shuffle"], DENSE: matched["shuffle"]}, "nats", 0.1)(
                DENSE, "shuffle", name="entropy, dense at the shuffled mask's loss − shuffle"
            ),
            less(DENSE, CUT, name="entropy, dense − its four largest scores (arithmetic)"),
            Contrasts(loss, "nats", 0.05, "test loss, ")(TICKET, DENSE),
        ],
        gate=loss["shuffle"] - loss[TICKET],
        member_steps=_steps(found, config),
    )


def _steps(found: Results, config: ConfigDict) -> int:
    shorter = sum(config.study.shares) * config.experiment.train.steps
    return found.member_steps + round(config.experiment.replicates * shorter)


def _last(runner: StudyRunner, config: ConfigDict, arm: str) -> Any:
    return trees.stack([one.params for one in runner.networks(PROTOCOL.claim, config, arm, LAST)])


def _entropy(runner: StudyRunner, config: ConfigDict, params: Any) -> Values:
    """The mean entropy of attention in nats, one number per network."""
    module, task = networks.module(config.experiment), runner.task(config)
    x = jnp.asarray(task.data.test.x[: config.study.examples])
    like, state = task.shapes

    @jax.jit
    def look(named: Any) -> jax.Array:
        one = trees.from_named(named, like)
        seen = jnp.stack(list(models.attention_probabilities(module, one, state, x).values()))
        return jnp.mean(jnp.sum(jax.scipy.special.entr(seen), axis=-1))

    return np.asarray(jax.lax.map(look, jax.tree.map(jnp.asarray, params)), np.float64)


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


draw = functools.partial(tidy.by_arm, metrics=("entropy",), label="Entropy of attention (nats)")

STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
