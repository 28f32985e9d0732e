"""C10: pruned attention is more focused."""

from collections.abc import Mapping, Sequence
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
from experiments.studies.protocol import STUDIES, Control, Evidence, Primary, Protocol, Row, Study
from experiments.studies.study_runner import StudyRunner, vary
from lth_jax import models, trees
from lth_jax.coding.stored import Stored
from lth_jax.measures.verdicts import REVERSED, SUPPORTED, assess
from lth_jax.report import tidy
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


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Trains on from the dense networks with and without the cut, and looks at attention."""
    name, last = PROTOCOL.claim, config.experiment.prune.levels
    ladder = runner.ladders(name, {"plain": config})
    cut = vary(config)
    cut.experiment.model.options.top_k = config.study.top_k

    def ended(arm: str, level: int) -> list[Stored]:
        networks = [one for one in runner.networks(name, config, (arm,)) if one.level == level]
        return sorted(networks, key=lambda one: one.replicate)

    dense, tickets = ended(DENSE, 0), ended(TICKET, last)
    starts = [
        origin._replace(params=one.params, state=one.state)
        for origin, one in zip(runner.origins(name, config), dense, strict=True)
    ]
    whole, top = (runner.retrain(name, one, starts) for one in (config, cut))
    looked = {
        "dense": _look(runner, config, whole["params"]),
        "dense, cut": _look(runner, cut, whole["params"]),
        "top 4": _look(runner, cut, top["params"]),
        "weight ticket": _look(runner, config, _stacked([one.params for one in tickets])),
    }
    before = _look(runner, config, _stacked([one.params for one in dense]))["entropy"]
    ticket, shuffle = (ladder.of("plain", arm, ACCURACY) for arm in (TICKET, "shuffle"))
    gained = 100 * (top["results"][ACCURACY] - whole["results"][ACCURACY])
    steps = 2 * len(starts) * config.experiment.train.steps
    return evidence(config.study.delta, looked, before, gained, 100 * (ticket - shuffle))._replace(
        member_steps=ladder.member_steps + steps
    )


def evidence(
    delta: float, looked: Mapping[str, Seen], before: Values, gained: Values, worth: Values
) -> Evidence:
    """What follows from the attention of every arm.

    Args:
      delta: the smallest entropy that matters, in nats.
      looked: of each arm.
      before: entropy of the dense networks that were trained once, as tickets are.
      gained: test accuracy of TOP 4 over DENSE, in points.
      worth: that of weight tickets over shuffled masks.
    """

    def less(what: str, entropy: Values, arm: str) -> Primary:
        return Primary(what, entropy - looked[arm]["entropy"], delta, "nats")

    mass = looked["top 4"][MASS] - looked["dense"][MASS]
    ticket = "weight ticket"
    return Evidence(
        primaries=[
            less("entropy, dense − top 4", looked["dense"]["entropy"], "top 4"),
            less("entropy, dense cut − top 4", looked["dense, cut"]["entropy"], "top 4"),
        ],
        rows=[
            {"arm": arm, "replicate": i, "metric": metric, "value": float(value)}
            for arm, seen in looked.items()
            for metric, values in seen.items()
            for i, value in enumerate(values)
        ],
        secondary=[
            Primary(f"{MASS}, top 4 − dense", mass, 0.05, ""),
            Primary("test accuracy, top 4 − dense", gained, 1.0, "points"),
            less(f"entropy, dense after one training − {ticket}", before, ticket),
            Primary(f"{ticket} − shuffle, test accuracy", worth, 1.0, "points"),
        ],
        notes=(premise(worth),),
    )


def premise(worth: Values) -> str:
    """Whether there are weight tickets to speak of; scores are pruned without any."""
    low = assess(worth, rng=np.random.default_rng(10))[0].low
    how = "are tickets: they beat" if low > 0 else "say nothing about tickets: they do not beat"
    return f"The weight tickets {how} shuffled masks."


def _stacked(trees_of: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees_of)


def _look(runner: StudyRunner, config: ConfigDict, params: Any) -> dict[str, Values]:
    """Entropy in nats and the mass on the marked key, one number per network."""
    module, model = networks.module(config.experiment), networks.model(config.experiment)
    test = runner.dataset(config).test
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
    return {"entropy": np.asarray(entropy), MASS: np.asarray(mass)}


def controls(runner: StudyRunner, config: ConfigDict) -> list[Control]:
    """Cutting scores lowers entropy for certain; cutting random query and key weights raises it."""
    del runner
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
    return tidy.by_arm(rows, ("entropy", MASS), "nats; share")


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, c10.get_config, controls, gather, draw))
