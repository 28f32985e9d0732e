"""The sizes by name, against the numbers of the papers, from shapes alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lth_jax import trees
from lth_jax.models import NETWORKS, from_linen, group_norm

CIFAR, IMAGENET = (32, 32, 3), (224, 224, 3)


def shapes(name, example, **options):
    model = from_linen(NETWORKS[name](**options))
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *example)))[0]


@pytest.mark.parametrize(
    ("name", "example", "weights"),
    [
        ("lenet_300_100", (28, 28, 1), 266_200),
        ("conv2", CIFAR, 4_300_992),
        ("conv4", CIFAR, 2_425_024),
        ("conv6", CIFAR, 2_261_184),
        ("vgg11", CIFAR, 9_222_848),
        ("vgg16", CIFAR, 14_715_584),
        ("vgg19", CIFAR, 20_024_000),
        ("resnet20", CIFAR, 270_896),
        ("resnet32", CIFAR, 464_432),
        ("resnet56", CIFAR, 851_504),
    ],
)
def test_weights_of_the_lottery_literature(name, example, weights):
    """Kernels only.

    Frankle and Carbin (2019), figure 2: 266K, 4.3M, 2.4M (1.7M there for Conv-6), 20.0M; Frankle
    et al. (2020), table 1: VGG-16 14.7M; He et al. (2016), table 6: ResNets 0.27M, 0.46M, 0.85M.
    """
    kernels = [leaf for leaf in jax.tree.leaves(shapes(name, example)) if leaf.ndim > 1]
    assert sum(kernel.size for kernel in kernels) == weights


@pytest.mark.parametrize(
    ("name", "example", "parameters"),
    [
        ("resnet18", CIFAR, 11_173_962),
        ("resnet18_imagenet", IMAGENET, 11_689_512),
        ("resnet50", IMAGENET, 25_557_032),
        ("wrn_16_8", CIFAR, 10_961_370),
        ("wrn_28_10", CIFAR, 36_479_194),
        ("vit_tiny", IMAGENET, 5_717_416),
        ("vit_small", IMAGENET, 22_050_664),
        ("vit_base", IMAGENET, 86_567_656),
        ("mixer_small", IMAGENET, 18_528_264),
    ],
)
def test_parameters_of_the_papers(name, example, parameters):
    """All parameters.

    He et al. (2016) and torchvision's `resnet18` and `resnet50`; Zagoruyko and Komodakis (2016),
    table 4: 11.0M and 36.5M; Touvron et al. (2021), table 1: ViTs of 5M (timm counts 5.7M), 22M
    and 86M; Tolstikhin et al. (2021), table 1: 18M, where timm counts 18.53M.
    """
    assert trees.size(shapes(name, example)) == parameters


@pytest.mark.parametrize(
    ("stages", "convolutions"),
    [("conv2", 38_592), ("conv4", 259_776), ("conv6", 1_144_512)],
)
def test_convolutions_of_conv_2_4_6(stages, convolutions):
    """Frankle and Carbin (2019), figure 2: 38K, 260K, 1.1M."""
    kernels = [leaf for leaf in jax.tree.leaves(shapes(stages, CIFAR)) if leaf.ndim > 2]
    assert sum(kernel.size for kernel in kernels) == convolutions


@pytest.mark.parametrize("name", ["vgg", "wide_resnet", "wide_resnet_group_norm"])
def test_signals_go_through_networks_for_images(name):
    model = from_linen(NETWORKS[name](classes=4))
    params, state = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 40, 1)))
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
    assert all(kernel.ndim <= 3 for kernel in kernels)
    out, _ = jax.eval_shape(
        lambda p, s, x: model.apply(p, s, x, train=False), params, state, jnp.zeros((5, 40, 1))
    )
    assert out.shape == (5, 4)


def test_options_override_what_a_name_sets():
    params = shapes("resnet20", CIFAR, blocks=(1,), classes=7)
    assert params["Dense_0"]["kernel"].shape == (16, 7)
    assert sorted(params) == ["BatchNorm_0", "Conv_0", "Dense_0", "ResidualBlock_0"]


def test_group_norm_is_its_formula(filled):
    """Zero mean and unit variance over each example's groups of 16 channels."""
    model = from_linen(NETWORKS["wide_resnet_group_norm"](blocks=(), width=32, classes=2))
    x = jnp.float32(np.random.default_rng(0).normal(size=(3, 4, 1)))
    params, state = filled(model, x)
    w, bias = params["Conv_0"]["kernel"], params["GroupNorm_0"]["bias"]
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    h = sum(padded[:, k : k + 4] @ w[k] for k in range(3))
    groups = h.reshape(3, 4, 2, 16)
    mean, var = groups.mean((1, 3), keepdims=True), groups.var((1, 3), keepdims=True)
    normal = ((groups - mean) / np.sqrt(var + 1e-6)).reshape(h.shape)
    h = jax.nn.relu(normal * params["GroupNorm_0"]["scale"] + bias).mean(1)
    expected = h @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    out, same = model.apply(params, state, x, train=True)
    np.testing.assert_allclose(out, expected, atol=1e-4)
    assert same == {}


def test_group_norm_wants_whole_groups():
    model = from_linen(NETWORKS["vgg"](stages=((24,),), norm=group_norm))
    with pytest.raises(ValueError, match=r"`x` must have a multiple of 16 channels, got 24"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
