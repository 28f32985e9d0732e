"""C12: a mask found in a plain network, used in a residual one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.configs.studies import c12, common
from experiments.studies import simultaneous
from experiments.studies.protocol import STUDIES, Control, Evidence, Primary, Protocol, Row, Study
from experiments.studies.starts import Start
from experiments.studies.study_runner import StudyRunner, vary
from lth_jax.measures.transfer import excess_risk, fieller
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
BLOCK = {  # the residual network's kernels, by those of the plain one
    "Conv_1/kernel": "ResidualBlock_0/Conv_0/kernel",
    "Conv_2/kernel": "ResidualBlock_0/Conv_1/kernel",
}
PILOT_SPLIT = 1  # the data seed that holds out other examples than the study's
MLPS = ("into residual", "new init", "into plain")
Masks = list[dict[str, NDArray]]


def gather(runner: StudyRunner, config: ConfigDict) -> Evidence:
    """Both pairs of networks, the masks carried over, and back again for the MLPs."""
    study, name = config.study, PROTOCOL.claim
    pilot = common.pilot(config, study.pilot_seeds)
    rates = runner.tune(name, pilot, study.rates, ("ticket", "shuffle"))
    config, plain = _pair(config, study.plain, rates)
    masks, steps = _found(runner, name, config, plain)
    turned = masks | {"ticket": masks["transfer"], "transfer": masks["ticket"]}
    into = _trained(runner, name, config, masks, rates["shuffle"])
    back = _trained(runner, name, plain, turned, rates["shuffle"])
    fresh = _trained(runner, name, config, masks, rates["shuffle"], new=True)
    convs, conv_steps, conv_rates = _conv(runner, config)
    pairs = dict(zip(MLPS, (into, fresh, back), strict=True)) | {"VGG to ResNet": convs}
    gain, worth = _gain(into, "transfer"), _gain(into, "ticket")
    trained = 9 * len(gain) * config.experiment.train.steps
    return Evidence(
        primaries=[
            Primary("transfer − shuffle", gain, study.delta, "points"),
            Primary(
                f"transfer − shuffle, less {study.kept:g} (ticket − shuffle)",
                gain - study.kept * worth,
                0.0,
                "points",
            ),
        ],
        rows=[
            {"pair": pair, "arm": arm, "replicate": i, "metric": pair, "value": value}
            for pair, arms in pairs.items()
            for arm, values in arms.items()
            for i, value in enumerate(values.tolist())
        ],
        secondary=[
            Primary(f"{pair}: {arm} − shuffle", _gain(arms, arm), study.delta, "points")
            for pair, arms in pairs.items()
            for arm in ("ticket", "transfer")
        ],
        gate=worth,
        member_steps=steps + trained + conv_steps,
        notes=(
            *(_kept(pair, arms) for pair, arms in pairs.items()),
            "Transfer − shuffle between MLPs, in points, all intervals at once: "
            f"{simultaneous.described({pair: _gain(pairs[pair], 'transfer') for pair in MLPS})}.",
            f"Learning rates: ticket {rates['ticket']:g}, shuffle {rates['shuffle']:g}; of the "
            f"convolutional pair {conv_rates['ticket']:g} and {conv_rates['shuffle']:g}.",
        ),
    )


def _pair(
    config: ConfigDict, network: ConfigDict, rates: Mapping[str, float]
) -> tuple[ConfigDict, ConfigDict]:
    """The residual network and the plain one, at the rate of tickets; the plain one shuffles."""
    residual = vary(config, controls=(), **{RATE: rates["ticket"]})
    return residual, vary(_plain(residual, network), controls=("shuffle",))


def _plain(config: ConfigDict, network: ConfigDict) -> ConfigDict:
    varied = vary(config, model__name=network.name)
    varied.experiment.model.options = ConfigDict(network.options.to_dict())
    return varied


def _found(
    runner: StudyRunner, name: str, config: ConfigDict, plain: ConfigDict
) -> tuple[dict[str, Masks], int]:
    """The masks of both networks' last level, seed by seed, and the steps it took."""
    ladders = runner.ladders(name, {"residual": config, "plain": plain})

    def masks(cell: ConfigDict, arm: str) -> Masks:
        return [start.mask for start in runner.starts(name, cell, (arm,))[arm]]

    own, foreign, shuffled = (
        masks(config, "ticket"),
        masks(plain, "ticket"),
        masks(plain, "shuffle"),
    )
    return {"ticket": own, "transfer": foreign, "shuffle": shuffled}, ladders.member_steps


def _trained(
    runner: StudyRunner,
    name: str,
    config: ConfigDict,
    masks: Mapping[str, Masks],
    rate: float,
    *,
    new: bool = False,
) -> dict[str, NDArray[np.float64]]:
    """Test accuracy in points of every arm's masks, from the seeds' starts or each other's.

    Shuffled masks have a learning rate of their own.
    """
    origins = runner.origins(name, config)
    points = origins[1:] + origins[:1] if new else origins

    def start(arm: str, i: int) -> Start:
        mask = origins[i].mask | {BLOCK.get(k, k): v for k, v in masks[arm][i].items()}
        known = {leaf: mask[leaf] for leaf in origins[i].mask}
        own = rate if arm == "shuffle" else config.experiment.optimizer.learning_rate
        hyper = {"learning_rate": own}
        return origins[i]._replace(params=points[i].params, mask=known, hyper=hyper)

    starts = [start(arm, i) for arm in masks for i in range(len(origins))]
    accuracy = runner.retrain(name, config, starts)["results"]["test_accuracy_final"]
    return dict(zip(masks, 100 * np.reshape(accuracy, (len(masks), -1)).astype(float), strict=True))


def _conv(runner: StudyRunner, config: ConfigDict) -> tuple[dict[str, Any], int, dict[str, float]]:
    """The pair of convolutional networks, the steps it took, and its learning rates."""
    name, study = f"{PROTOCOL.claim}-conv", config.study
    given = ConfigDict({"experiment": config.conv})
    pilot = vary(common.pilot(given, study.conv_pilot_seeds), data__seed=PILOT_SPLIT)
    rates = runner.tune(name, pilot, study.conv_rates, ("ticket", "shuffle"))
    residual, plain = _pair(given, study.conv_plain, rates)
    masks, steps = _found(runner, name, residual, plain)
    trained = sum(map(len, masks.values())) * residual.experiment.train.steps
    return _trained(runner, name, residual, masks, rates["shuffle"]), steps + trained, rates


def _gain(arms: Mapping[str, Any], arm: str) -> Any:
    return arms[arm] - arms["shuffle"]


def _kept(pair: str, arms: Mapping[str, Any]) -> str:
    share = fieller(_gain(arms, "transfer"), _gain(arms, "ticket"))
    return f"{pair}: kept {share.estimate:.2f} [{share.low:.2f}, {share.high:.2f}] of its worth."


def controls(runner: StudyRunner, config: ConfigDict) -> list[Control]:
    """Linear layers `y = W x` and `y = x + R x`, whose optima differ by the identity.

    W has 10 inputs and outputs, a fifth of it off the diagonal and half of the diagonal nonzero.
    Its support costs the residual layer exactly 1 for each of the 5 empty places of the diagonal,
    a shuffled one about 18, and the layer's own nothing. With its rows in another order it is as
    good as shuffled.
    """
    del runner

    def parts(permuted: bool) -> list[Primary]:
        drawn = [_risks(np.random.default_rng(1200 + i), permuted) for i in range(seeds)]
        transfer, shuffle = np.array(drawn).T
        gain, kept = shuffle - transfer, config.study.kept
        return [
            Primary("excess risk, shuffle − transfer", gain, 5.0, "risk"),
            Primary(f"the same, less {kept:g} shuffle", gain - kept * shuffle, 0.0, "risk"),
        ]

    seeds = config.study.control_seeds
    return [
        Control("the plain layer's own support", SUPPORTED, parts(permuted=False)),
        Control("its rows in another order", NOT_SUPPORTED, parts(permuted=True)),
    ]


def _risks(rng: np.random.Generator, permuted: bool) -> tuple[float, float]:
    """What the residual layer loses by the plain one's support, and by a shuffled one."""
    plain = rng.normal(size=(10, 10)) * (rng.random((10, 10)) < 0.2)
    np.fill_diagonal(plain, 1.5 * rng.permutation(np.arange(10) % 2))
    residual, support = plain - np.eye(10), plain != 0
    carried = support[rng.permutation(10)] if permuted else support
    shuffled = rng.permutation(support.ravel()).reshape(support.shape)
    return excess_risk(residual, carried), excess_risk(residual, shuffled)


def draw(rows: Sequence[Row]) -> Figure:
    """Test accuracy of every arm, for every pair of networks."""
    return tidy.by_arm(rows, tuple(tidy.known(rows, "pair")), "Test accuracy (%)")


STUDIES.register(PROTOCOL.claim, Study(PROTOCOL, c12.get_config, controls, gather, draw))
