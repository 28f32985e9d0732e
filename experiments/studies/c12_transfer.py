"""C12: a mask found in a plain network, used in a residual one."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.configs import base
from experiments.studies import common
from experiments.studies.protocol import STUDIES, Study
from experiments.studies.study_runner import StudyRunner, vary
from lth_jax.lottery import Start
from lth_jax.measures import simultaneous
from lth_jax.measures.claims import Contrasts, Control, Evidence, Primary, Protocol, arm_rows, draws
from lth_jax.measures.transfer import carried_risks, fieller
from lth_jax.measures.verdicts import NOT_SUPPORTED, SUPPORTED
from lth_jax.report import tidy

PROTOCOL = Protocol(
    claim="C12",
    title="Transfer between architectures",
    says="A mask found in a plain network can be of use in a residual one.",
    question="In a residual MLP at density .13, do masks of plain MLPs beat shuffled ones, and "
    "keep a quarter of what the network's own masks are worth?",
    setup="MNIST-1D, 4,000 examples of its own for every seed, MLPs 40-64-64-10 with and without a "
    "skip around the second layer, Adam, 400 steps; magnitude pruning in four rounds. Tickets and "
    "shuffled masks have each the learning rate that pilot seeds like best.",
    arms=("ticket", "transfer", "shuffle"),
    statistic="test accuracy of TRANSFER minus SHUFFLE in points, in the residual network from the "
    "start at which the plain one's mask was found; and that less a quarter of TICKET minus "
    "SHUFFLE, which is Fieller's test of the ratio",
    rule="Both must hold: transfer beats shuffle by at least δ, and the kept share is above a "
    "quarter (intersection–union).",
    expects="Supported: the first layer is the same in both and holds much of a mask's worth.",
    limits="Two shapes of small networks; a mask needs equal shapes, which real VGGs and ResNets "
    "do not have. Pilot seeds hardly tell rates of .01 and .03 apart: where they chose .01 for "
    "both arms, in a run before, transfer led by 7.6 points, at .03 by 10.2.",
)
RATE = "optimizer__learning_rate"
BLOCK = {  # kernels of the residual network and the plain one
    "Conv_1/kernel": "ResidualBlock_0/Conv_0/kernel",
    "Conv_2/kernel": "ResidualBlock_0/Conv_1/kernel",
}
PILOT_SPLIT = 1  # a data seed with other validation examples than the study
MLPS = ("into residual", "new init", "into plain")
Masks = list[dict[str, NDArray]]
Trained = dict[str, NDArray[np.float64]]


def get_config(size: str = "laptop") -> ConfigDict:
    """A residual MLP on 4,000 examples, 400 steps, density .13; and a residual conv net on digits.

    Masks are transferred from `plain` to `experiment`, and in the second pair from `conv_plain` to
    `conv`.
    """
    common.check_size(size)
    config = common.mnist1d(seeds=24)
    experiment = config.experiment
    experiment.model.name = "residual_mlp_glorot"
    experiment.model.options = ConfigDict({"width": 64})
    experiment.train.update(steps=400, eval_every=200)
    experiment.control_levels = (4,)
    config.study = common.numbers(
        delta=2.0,  # points of test accuracy, transfer − shuffle
        kept=0.25,  # fraction of the native mask's gain that must be retained
        rates=(3e-3, 1e-2, 3e-2),
        pilot_seeds=8,
        conv_rates=(1e-2, 3e-2),
        conv_pilot_seeds=3,
        plain={"name": "mlp", "options": {"features": (64, 64, 10)}},
        conv_plain={"name": "vgg", "options": {"stages": ((8, 8, 8),)}},
        control_seeds=64,
    )
    config.conv = _second_pair(seeds=16)
    if size == "full":
        experiment.replicates = 48
        experiment.model.options.width = 300
        config.study.plain.options.features = (300, 300, 10)
        common.on_mnist(config, "MLPs 784-300-300-10")
        _on_cifar(config.conv)
        config.study.conv_plain.options.stages = ((64, 64, 64),)
        config.study.conv_rates = (3e-4, 1e-3, 3e-3)
        config.study.setup += " The second pair: 64 channels, on CIFAR-10, with 10,000 steps."
    return config


def _on_cifar(experiment: ConfigDict) -> None:
    experiment.replicates = 48
    experiment.data.update(name="cifar10", validation=5000, train_examples=0)
    experiment.model.options.width = 64
    experiment.train.update(steps=10_000, eval_every=1000, batch_size=128)
    experiment.optimizer.learning_rate = 1e-3


def _second_pair(seeds: int) -> ConfigDict:
    """The second pair: a residual block on 400 digits, and a plain network of the same depth."""
    experiment = base.ladder().experiment
    experiment.update(replicates=seeds, seed=common.PRIMARY_SEED, controls=("shuffle",))
    experiment.data.update(validation=200, train_examples=400)
    experiment.model.name = "resnet"
    experiment.model.options = ConfigDict({"blocks": (1,), "width": 8})
    experiment.train.update(steps=200, eval_every=100, batch_size=64)
    experiment.optimizer.learning_rate = 1e-2
    experiment.prune.update(scope="layerwise", rate=0.5, levels=3)
    experiment.control_levels = (3,)
    return experiment


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Both pairs of networks with transferred masks; for the MLPs also in reverse."""
    study, name = config.study, PROTOCOL.claim
    rates = runner.tune(name, config, ("ticket", "shuffle"))
    config, plain = _pair(config, study.plain, rates)
    masks, steps = _found(runner, name, config, plain)
    turned = masks | {"ticket": masks["transfer"], "transfer": masks["ticket"]}
    into = _trained(runner, name, config, masks, rates["shuffle"])
    back = _trained(runner, name, plain, turned, rates["shuffle"])
    fresh = _trained(runner, name, config, masks, rates["shuffle"], new=True)
    convs, conv_steps, conv_rates = _conv(runner, config)
    pairs = dict(zip(MLPS, (into, fresh, back), strict=True)) | {"VGG to ResNet": convs}
    gains = {pair: Contrasts(arms, "points", study.delta) for pair, arms in pairs.items()}
    gain, worth = (gains[MLPS[0]](arm, "shuffle") for arm in ("transfer", "ticket"))
    ratio = f"transfer − shuffle, less {study.kept:g} (ticket − shuffle)"
    carried = {pair: gains[pair]("transfer", "shuffle").values for pair in MLPS}
    return Evidence(
        primaries=[gain, Primary(ratio, gain.values - study.kept * worth.values, 0.0, "points")],
        rows=[row for pair, arms in pairs.items() for row in arm_rows(pair, arms, pair=pair)],
        secondary=[
            minus._replace(label=f"{pair}: ")(arm, "shuffle")
            for pair, minus in gains.items()
            for arm in ("ticket", "transfer")
        ],
        gate=worth.values,
        member_steps=steps + 9 * len(gain.values) * config.experiment.train.steps + conv_steps,
        notes=(
            *(_kept(pair, minus) for pair, minus in gains.items()),
            "Transfer − shuffle between MLPs, in points, all intervals at once: "
            f"{simultaneous.in_words(carried)}.",
            f"Learning rates: ticket {rates['ticket']:g}, shuffle {rates['shuffle']:g}; of the "
            f"convolutional pair {conv_rates['ticket']:g} and {conv_rates['shuffle']:g}.",
        ),
    )


def _pair(
    config: ConfigDict, network: ConfigDict, rates: Mapping[str, float]
) -> tuple[ConfigDict, ConfigDict]:
    """The residual and the plain network at the rate of tickets; the plain one has shuffles."""
    residual = vary(config, controls=(), **{RATE: rates["ticket"]})
    plain = vary(residual, controls=("shuffle",), model__name=network.name)
    plain.experiment.model.options = ConfigDict(network.options.to_dict())
    return residual, plain


def _found(
    runner: StudyRunner, name: str, config: ConfigDict, plain: ConfigDict
) -> tuple[dict[str, Masks], int]:
    """The masks of both networks' last level by seed, and the number of steps."""
    ladders = runner.ladders(name, {"residual": config, "plain": plain})
    begun = {
        "ticket": runner.starts(name, config, ("ticket",))["ticket"],
        "transfer": runner.starts(name, plain, ("ticket",))["ticket"],
        "shuffle": runner.starts(name, plain, ("shuffle",))["shuffle"],
    }
    masks = {arm: [start.mask for start in starts] for arm, starts in begun.items()}
    return masks, ladders.member_steps


def _trained(
    runner: StudyRunner,
    name: str,
    config: ConfigDict,
    masks: Mapping[str, Masks],
    rate: float,
    *,
    new: bool = False,
) -> Trained:
    """Test accuracy in points of every arm's masks, from the same or another seed's start.

    Shuffled masks have a separate learning rate.
    """
    origins = runner.origins(name, config)
    points = origins[1:] + origins[:1] if new else origins

    def start(arm: str, i: int) -> Start:
        mask = origins[i].mask | {BLOCK.get(k, k): v for k, v in masks[arm][i].items()}
        known = {leaf: mask[leaf] for leaf in origins[i].mask}
        own = rate if arm == "shuffle" else config.experiment.optimizer.learning_rate
        hyper = {"learning_rate": own}
        return origins[i]._replace(params=points[i].params, mask=known, hyper=hyper)

    arms = {arm: [start(arm, i) for i in range(len(origins))] for arm in masks}
    trained = runner.retrain_arms(name, config, arms)
    return {
        arm: 100 * one.results["test_accuracy_final"].astype(float) for arm, one in trained.items()
    }


def _conv(runner: StudyRunner, config: ConfigDict) -> tuple[Trained, int, dict[str, float]]:
    """The pair of convolutional networks, the number of steps, and the learning rates."""
    name, study = f"{PROTOCOL.claim}-conv", config.study
    given = ConfigDict({"experiment": config.conv})
    pilot = vary(common.pilot(given, study.conv_pilot_seeds), data__seed=PILOT_SPLIT)
    rates = runner.tune(name, given, ("ticket", "shuffle"), pilot=pilot, rates=study.conv_rates)
    residual, plain = _pair(given, study.conv_plain, rates)
    masks, steps = _found(runner, name, residual, plain)
    trained = sum(map(len, masks.values())) * residual.experiment.train.steps
    return _trained(runner, name, residual, masks, rates["shuffle"]), steps + trained, rates


def _kept(pair: str, minus: Contrasts) -> str:
    share = fieller(*(minus(arm, "shuffle").values for arm in ("transfer", "ticket")))
    return f"{pair}: kept {share.estimate:.2f} [{share.low:.2f}, {share.high:.2f}] of its worth."


def controls(config: ConfigDict) -> list[Control]:
    """Linear layers `y = W x` and `y = x + R x`, whose optima differ by the identity.

    The plain layer's support costs the residual layer far less than a shuffled one; with permuted
    rows it is no better than shuffled (`measures.transfer.carried_risks`).
    """
    seeds, kept = range(1200, 1200 + config.study.control_seeds), config.study.kept

    def control(name: str, expected: str, permuted: bool) -> Control:
        transfer, shuffle = draws(lambda rng: carried_risks(rng, permuted), seeds).T
        gain = shuffle - transfer
        parts = [
            Primary("excess risk, shuffle − transfer", gain, 5.0, "risk"),
            Primary(f"the same, less {kept:g} shuffle", gain - kept * shuffle, 0.0, "risk"),
        ]
        return Control(name, expected, parts)

    return [
        control("the plain layer's own support", SUPPORTED, permuted=False),
        control("its rows in another order", NOT_SUPPORTED, permuted=True),
    ]


def draw(rows: Sequence[tidy.Row]) -> Figure:
    """Test accuracy of every arm, for every pair of networks."""
    return tidy.by_arm(rows, tidy.known(rows, "pair"), "Test accuracy (%)")


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, get_config, controls, gather, draw))
