"""C10: pruned attention is more focused."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray
from scipy import special

from experiments import networks
from experiments.configs.studies import c10
from experiments.studies.bench import Bench, vary
from experiments.studies.protocol import Control, Evidence, Primary, Protocol, Row, Study
from lth_jax import models, trees
from lth_jax.measures.verdicts import REVERSED, SUPPORTED, assess
from lth_jax.report import tidy

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


def gather(bench: Bench, config: ConfigDict) -> Evidence:
    """Trains on from the dense networks with and without the cut, and looks at attention."""
    study, name = config.study, PROTOCOL.claim
    ladder = bench.ladders(name, {"plain": config})
    cut = vary(config)
    cut.experiment.model.options.top_k = study.top_k
    dense = sorted(bench.networks(name, config, ("dense",)), key=lambda one: one.replicate)
    tickets = [one for one in bench.networks(name, config, ("ticket",)) if one.level == 2]
    origins = bench.origins(name, config)
    starts = [
        origin._replace(params=one.params, state=one.state)
        for origin, one in zip(origins, dense, strict=True)
    ]
    on = {"dense": bench.retrain(name, config, starts), "top": bench.retrain(name, cut, starts)}
    tickets.sort(key=lambda one: one.replicate)
    looked = {
        "dense": _look(bench, config, on["dense"]["params"]),
        "dense, cut": _look(bench, cut, on["dense"]["params"]),
        "top 4": _look(bench, cut, on["top"]["params"]),
        "weight ticket": _look(bench, config, _stacked([one.params for one in tickets])),
    }
    before = _look(bench, config, _stacked([one.params for one in dense]))
    final = {arm: ladder.of("plain", arm, "test_accuracy_final") for arm in ("ticket", "shuffle")}
    worth = 100 * (final["ticket"] - final["shuffle"])
    accuracy = {arm: 100 * arrays["results"]["test_accuracy_final"] for arm, arrays in on.items()}
    rows = [
        {"arm": arm, "replicate": i, "metric": metric, "value": float(value)}
        for arm, found in looked.items()
        for metric, values in found.items()
        for i, value in enumerate(values)
    ]
    entropy = {arm: found["entropy"] for arm, found in looked.items()}
    mass = {arm: found["mass on the marked key"] for arm, found in looked.items()}
    steps = config.experiment.train.steps * 2 * len(starts)
    return Evidence(
        primaries=[
            Primary(
                "entropy, dense − top 4", entropy["dense"] - entropy["top 4"], study.delta, "nats"
            ),
            Primary(
                "entropy, dense cut − top 4",
                entropy["dense, cut"] - entropy["top 4"],
                study.delta,
                "nats",
            ),
        ],
        rows=rows,
        secondary=[
            Primary(
                "mass on the marked key, top 4 − dense", mass["top 4"] - mass["dense"], 0.05, ""
            ),
            Primary(
                "test accuracy, top 4 − dense", accuracy["top"] - accuracy["dense"], 1.0, "points"
            ),
            Primary(
                "entropy, dense after one training − weight ticket",
                before["entropy"] - entropy["weight ticket"],
                study.delta,
                "nats",
            ),
            Primary("weight ticket − shuffle, test accuracy", worth, 1.0, "points"),
        ],
        notes=(premise(worth),),
        member_steps=ladder.member_steps + steps,
    )


def premise(worth: NDArray[np.float64]) -> str:
    """Whether there are weight tickets to speak of; scores are pruned without any."""
    low = assess(worth, rng=np.random.default_rng(10))[0].low
    how = "are tickets: they beat" if low > 0 else "say nothing about tickets: they do not beat"
    return f"The weight tickets {how} shuffled masks."


def _stacked(trees_of: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees_of)


def _look(bench: Bench, config: ConfigDict, params: Any) -> dict[str, Any]:
    """Entropy in nats and the mass on the marked key, one number per network."""
    module, model = networks.module(config.experiment), networks.model(config.experiment)
    test = bench.dataset(config).test
    x = jnp.asarray(test.x[: config.study.examples])
    marked = x >= config.experiment.data.options.symbols
    like, state = jax.eval_shape(model.init, jax.random.key(0), x)

    @jax.jit
    def look(named: Any) -> tuple[jax.Array, jax.Array]:
        one = trees.from_named(named, like)
        layers = models.attention_probabilities(module, one, state, x).values()
        seen = jnp.stack(list(layers))
        entropy = jnp.sum(jax.scipy.special.entr(seen), axis=-1)
        return jnp.mean(entropy), jnp.mean(jnp.sum(seen * marked[:, None, None], axis=-1))

    entropy, mass = jax.lax.map(look, jax.tree.map(jnp.asarray, params))
    return {"entropy": np.asarray(entropy), "mass on the marked key": np.asarray(mass)}


def controls(bench: Bench, config: ConfigDict) -> list[Control]:
    """Cutting scores lowers entropy for certain; cutting random query and key weights raises it."""
    del bench
    rngs = [np.random.default_rng(500 + i) for i in range(config.study.control_seeds)]
    drawn = np.array([_entropies(rng, config.study.top_k) for rng in rngs])
    whole, cut, pruned = drawn.T
    delta = config.study.delta
    return [
        Control(
            "the largest scores of random ones (majorisation)",
            SUPPORTED,
            [Primary("entropy lost", whole - cut, delta, "nats")],
        ),
        Control(
            "the largest fifth of random query and key weights, untrained: scores shrink",
            REVERSED,
            [Primary("entropy lost", whole - pruned, delta, "nats")],
        ),
    ]


def _entropies(rng: np.random.Generator, keys: int, time: int = 32, width: int = 32) -> list[float]:
    """Of random attention: whole, its scores cut, and its kernels pruned to a fifth."""
    x = rng.normal(size=(time, width))
    kernels = [rng.normal(size=(width, width)) / np.sqrt(width) for _ in range(2)]
    pruned = [np.where(np.abs(w) >= np.quantile(np.abs(w), 0.8), w, 0) for w in kernels]

    def scores(query: Any, key: Any) -> Any:
        return (x @ query) @ (x @ key).T / np.sqrt(width)

    whole = scores(*kernels)
    least = np.sort(whole, axis=1)[:, -keys][:, None]
    cut = np.where(whole >= least, whole, -np.inf)
    tables = (whole, cut, scores(*pruned))
    return [float(special.entr(special.softmax(s, axis=1)).sum(1).mean()) for s in tables]


def draw(rows: Sequence[Row]) -> Figure:
    """Entropy and the mass on the marked key, by arm."""
    return tidy.by_arm(rows, ("entropy", "mass on the marked key"), "nats; share")


STUDY = Study(PROTOCOL, c10.get_config, controls, gather, draw)
