"""C12: a mask found in a plain network, used in a residual one."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.retraining import retrained
from experiments.studies.study_runner import StudyRunner
from lth_jax.lottery import Start
from lth_jax.measures.claims import (
    MAP,
    Contrasts,
    Control,
    Evidence,
    Primary,
    Protocol,
    arm_rows,
    draws,
    relative,
)
from lth_jax.measures.transfer import carried_risks, fieller
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import tidy
from lth_jax.report.cells import Tuned
from lth_jax.types import DENSE, TICKET

PROTOCOL = Protocol(
    claim="C12",
    title="Transfer between architectures",
    says="A mask found in a plain network is sometimes of use in a residual one.",
    question="In a residual network with new initial values, is there a layer, or all layers "
    "together, whose mask from a plain network beats its own shuffle by δ, where the residual "
    "network's own masks beat it, too?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, Adam. MLPs 40-90-90-10 with and "
    "without a skip around the second layer, 700 steps, density .05; convolutional networks of 16 "
    "channels, like VGG (three convolutions) and with a residual block (one and two), 400 steps at "
    "rates that decay to 0 by a cosine, density .49.",
    arms=(DENSE, TICKET, "shuffle", "layer 1", "layer 2", "layer 3", "layer 4", "all layers"),
    statistic="test accuracy of the residual network under transferred masks minus that under "
    "shuffled ones, in % of the dense error, paired by seed",
    rule="Pairs and layers are a map with simultaneous bands. In each arm one layer, or all, has "
    "the plain network's mask; the others have it shuffled. Shuffles keep the number of weights of "
    "every input, and in a convolution of its position, so transfer must be worth more than the "
    "choice of inputs. Initial values are those of another seed than found the masks. Each arm has "
    "the learning rate that the other half of the seeds chose; all masks are found at one rate. "
    "A cell has two parts: its gain reaches δ, and the network's own masks beat shuffled ones.",
    expects="Found for the first layer, which receives the same inputs in both networks.",
    limits="Two pairs of small networks; a mask needs equal shapes, which real VGGs and ResNets do "
    "not have. Transfer between MLPs that needs the initial values is shown beside, not judged.",
    paragraph="The Modern Frontier, point 2",
    chosen_by="The network of ORIGINAL with 700 steps, after which dense networks still improve "
    "(trained five times as long, they erred 5.9 % less in version 2 of ORIGINAL); a convolutional "
    "pair whose dense networks err on "
    "at most a tenth of the test examples after 400 steps. In each pair the smallest density of "
    "the ladder at which networks under shuffled masks err at most twice as often as dense ones: "
    "in pilots on other seeds 70 of 36 % at .05 and 7.0 of 3.6 % at .49. There the network's own "
    "masks beat shuffles by 30 and 29 % of the dense error, so δ can be reached.",
    kind=MAP,
)
BLOCK = {  # kernels of the plain network and the residual one
    "Conv_1/kernel": "ResidualBlock_0/Conv_0/kernel",
    "Conv_2/kernel": "ResidualBlock_0/Conv_1/kernel",
}
ALL, SAME = "all layers", ", same values"
MLP, CONV = "MLP", "conv"
TEST = "test_accuracy_final"
Mask = dict[str, NDArray[Any]]


def get_config(size: str = "laptop") -> ConfigDict:
    """Residual MLPs at density .05 and convolutional networks at density .49.

    Masks are transferred from `plain` to `experiment`, and in the second pair from `conv_plain` to
    `conv`.
    """
    common.check_size(size)
    config = common.mnist1d(seeds=24)
    experiment = config.experiment
    experiment.model.name = "residual_mlp_glorot"
    experiment.model.options = ConfigDict({"width": 90})
    experiment.controls = ()
    experiment.prune.levels = 6
    config.study = common.numbers(
        delta=10.0,  # % of the dense error
        rates=(3e-3, 1e-2, 3e-2, 6e-2),
        conv_rates=(1.5e-2, 3e-2, 6e-2),
        control_seeds=64,
        series=1,
    )
    config.conv = copy.deepcopy(experiment)
    config.conv.model.name = "experiments.studies.signals:resnet"
    config.conv.model.options = ConfigDict({"blocks": (1,), "width": 16})
    config.conv.train.update(steps=400, eval_every=200, batch_size=64)
    config.conv.optimizer.schedule = "cosine"
    config.conv.prune.update(rate=0.3, levels=2)
    if size == "full":
        experiment.replicates = 24
        experiment.model.options.width = 300
        common.on_mnist(config, "MLPs 784-300-300-10")
        config.study.conv_rates = config.study.rates
        _on_cifar(config.conv)
        config.study.setup += (
            " The second pair: 64 channels, on CIFAR-10, 10,000 steps, density .49. A "
            "null would mean that masks of this size say no more about another network than which "
            "inputs matter."
        )
    mlp, conv = experiment.model.options.width, config.conv.model.options.width
    config.plain = _plain(experiment, "mlp", features=(mlp, mlp, 10))
    config.conv_plain = _plain(config.conv, "vgg", stages=((conv,) * 3,))
    return config


def _plain(residual: ConfigDict, name: str, **options: Any) -> ConfigDict:
    """The same experiment with a plain network."""
    plain = copy.deepcopy(residual)
    module, colon, _ = residual.model.name.rpartition(":")
    plain.model.name = module + colon + name
    plain.model.options = ConfigDict(options)
    return plain


def _on_cifar(experiment: ConfigDict) -> None:
    experiment.replicates = 24
    experiment.data.update(name="cifar10", validation=5000)
    experiment.data.options = ConfigDict({})
    experiment.model.update(name="resnet")
    experiment.model.options.width = 64
    experiment.train.update(steps=10_000, eval_every=1000, batch_size=128, share=0)
    experiment.optimizer.learning_rate = 1e-3


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Both pairs of networks with transferred masks, layer by layer and together."""
    config = common.without_training_metrics(config)
    pairs = {MLP: ("experiment", "plain"), CONV: ("conv", "conv_plain")}
    found = {pair: _pair(runner, pair, config, *names) for pair, names in pairs.items()}
    minus = {
        pair: _contrasts(tuned, config.study.delta, pair) for pair, (tuned, _) in found.items()
    }
    worth = {pair: one(TICKET, "shuffle") for pair, one in minus.items()}
    return Evidence(
        primaries=[
            part._replace(cell=f"{pair}, {arm}")
            for pair, one in minus.items()
            for arm in one.values
            if arm in PROTOCOL.arms[3:]
            for part in (one(arm, "shuffle"), one(TICKET, "shuffle", 0.0))
        ],
        rows=[
            row
            for pair, (tuned, _) in found.items()
            for row in arm_rows(pair, _accuracy(tuned), pair=pair)
            if row["arm"] in PROTOCOL.arms
        ],
        secondary=[
            *(one(ALL, TICKET) for one in minus.values()),
            *(minus[MLP](arm + SAME, "shuffle" + SAME) for arm in (TICKET, ALL)),
        ],
        member_steps=sum(tuned.member_steps + steps for tuned, steps in found.values()),
        notes=tuple(
            f"{pair}: {_kept(minus[pair](ALL, 'shuffle'), worth[pair])} {tuned.described()}"
            for pair, (tuned, _) in found.items()
        ),
    )


def _pair(
    runner: StudyRunner, pair: str, config: ConfigDict, residual: str, plain: str
) -> tuple[Tuned, int]:
    """The residual networks under all masks, and the steps of the ladders that found these."""
    name = f"{PROTOCOL.claim}-{pair}"
    into, source = (
        ConfigDict({"experiment": config[one], "study": config.study}) for one in (residual, plain)
    )
    ladders = runner.ladders(name, {"residual": into, "plain": source})
    origins = runner.origins(name, into)
    own, other = (
        [one.mask for one in runner.starts(name, each, (TICKET,))[TICKET]]
        for each in (into, source)
    )
    masks = masks_of([one.mask for one in origins], own, other, into.experiment.seed)
    new = origins[1:] + origins[:1]

    def starts(arm: str, values: Sequence[Start]) -> list[Start]:
        each = zip(origins, values, masks[arm], strict=True)
        return [one._replace(params=v.params, state=v.state, mask=mask) for one, v, mask in each]

    arms = {arm: starts(arm, new) for arm in masks}
    if pair == MLP:
        arms |= {arm + SAME: starts(arm, origins) for arm in (TICKET, "shuffle", ALL)}
    rates = config.study.rates if pair == MLP else config.study.conv_rates
    trained = retrained(runner, name, into, lambda rate: arms, rates=rates)
    return trained, ladders.member_steps


def masks_of(
    dense: Sequence[Mask], own: Sequence[Mask], other: Sequence[Mask], seed: int
) -> dict[str, list[Mask]]:
    """The masks of every arm for the residual network, one per seed.

    Args:
      dense: of the dense residual network.
      own: of its tickets.
      other: of the plain network's tickets.
      seed: of the shuffles.
    """
    rng = np.random.default_rng(seed)
    kernels = [leaf for leaf in sorted(other[0]) if leaf.endswith("kernel")]
    layers = {f"layer {i}": [leaf] for i, leaf in enumerate(kernels, 1)} | {ALL: kernels}
    mixed = [{leaf: rng.permuted(one[leaf], axis=-1) for leaf in kernels} for one in other]

    def transferred(leaves: Sequence[str]) -> list[Mask]:
        return [
            whole
            | {BLOCK.get(leaf, leaf): (one if leaf in leaves else m)[leaf] for leaf in kernels}
            for whole, one, m in zip(dense, other, mixed, strict=True)
        ]

    arms = {arm: transferred(leaves) for arm, leaves in layers.items()}
    return {DENSE: list(dense), TICKET: list(own), "shuffle": transferred(()), **arms}


def _accuracy(tuned: Tuned) -> dict[str, NDArray[np.float64]]:
    arms = dict.fromkeys(row["arm"] for row in tuned.results.rows)
    return {arm: 100 * tuned.of(arm, TEST) for arm in arms}


def _contrasts(tuned: Tuned, delta: float, pair: str) -> Contrasts:
    return relative(_accuracy(tuned), delta=delta, label=f"{pair}, ")


def _kept(gain: Primary, worth: Primary) -> str:
    share = fieller(gain.values, worth.values)
    return (
        f"all layers keep {share.estimate:.2f} [{share.low:.2f}, {share.high:.2f}] of what the "
        "network's own masks are worth."
    )


def controls(config: ConfigDict) -> list[Control]:
    """Linear layers `y = W x` and `y = x + R x`, whose optima differ by the identity.

    The plain layer's support costs the residual layer far less than a shuffled one; with permuted
    rows it is no better than shuffled (`measures.transfer.carried_risks`).
    """
    seeds = range(1200, 1200 + config.study.control_seeds)

    def control(name: str, expected: str, permuted: bool) -> Control:
        transfer, shuffle = draws(lambda rng: carried_risks(rng, permuted), seeds).T
        part = Primary("excess risk, shuffle − transfer", shuffle - transfer, 5.0, "risk")
        return Control(name, expected, [part])

    return [
        control("the plain layer's own support", SUPPORTED, permuted=False),
        control("its rows in another order", NOT_SUPPORTED, permuted=True),
    ]


def draw(rows: Sequence[tidy.Row]) -> Figure:
    """Test accuracy of every arm, for every pair of networks."""
    return tidy.by_arm(rows, tidy.known(rows, "pair"), "Test accuracy (%)")


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw, minutes=10))
